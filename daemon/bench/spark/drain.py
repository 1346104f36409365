"""Drains a topic into Bronze and three Silver Delta tables with Spark Structured Streaming, and prints the figures.

usage: drain.py BROKERS TOPIC OUT EVENTS_PER_BATCH (0: all in one) [cache]

It does less than silverd: it parses no user agents, looks up no categories, has no quarantine, and checks no values.
"""

import json
import os
import sys
import time

began = time.time()
from pyspark.sql import functions as F  # noqa: E402  (loading it is part of the measurement)

from session import spark_session  # noqa: E402

brokers, topic, out, batch = sys.argv[1:5]
cache = "cache" in sys.argv[5:]
spark = spark_session(
    "drain", "*", os.environ.get("SPARK_MEMORY", "6g"), spark_sql_shuffle_partitions=str(os.cpu_count())
)
session_up = time.time()

EVENT = """event_type string, event_id string, user_id string, ts string, url string, referrer string, ua string,
  session_hint string, sku string, qty int, price double, order_id string, total double,
  line_items array<struct<sku: string, qty: int, price: double>>"""
CHANNEL = """case when referrer = 'google' then 'search' when referrer in ('facebook', 'twitter') then 'social'
  when referrer = 'newsletter' then 'email' when referrer = 'affiliate' then 'affiliate'
  when referrer is null or referrer = 'direct' then 'direct' else 'other' end"""
COMMON = ["partition", "offset", "event_id", "user_id", "ts"]
SILVER = {
    "page_view": [F.lower("url").alias("url"), "referrer", F.expr(CHANNEL).alias("channel"), "ua", "session_hint"],
    "add_to_cart": [F.upper("sku").alias("sku"), "qty", "price", F.expr("qty * price").alias("line_total")],
    "order_placed": ["order_id", "total", F.size("line_items").alias("item_count"), "line_items"],
}
first_commit = None


def append(rows, table):
    rows.write.format("delta").mode("append").partitionBy("event_date").save(f"{out}/{table}")


def write(raw, _):
    global first_commit
    raw = raw.persist() if cache else raw
    append(raw.withColumn("ingested_at", F.current_timestamp()).withColumn("event_date", F.to_date("timestamp")), "bronze")
    first_commit = first_commit or time.time()
    events = raw.select("partition", "offset", F.from_json(F.col("value").cast("string"), EVENT).alias("event"))
    events = events.select("partition", "offset", "event.*").withColumn("ts", F.to_timestamp("ts"))
    events = events.withColumn("event_date", F.to_date("ts"))
    events = events.persist() if cache else events
    for table, columns in SILVER.items():
        append(events.where(F.col("event_type") == table).select(*COMMON, *columns, "event_date"), table)
    if cache:
        events.unpersist()
        raw.unpersist()


source = spark.readStream.format("kafka").option("kafka.bootstrap.servers", brokers).option("subscribe", topic)
source = source.option("startingOffsets", "earliest").option("includeHeaders", "true")
if batch != "0":
    source = source.option("maxOffsetsPerTrigger", batch)
query = source.load().writeStream.foreachBatch(write).option("checkpointLocation", f"{out}/_checkpoint")
query.trigger(availableNow=True).start().awaitTermination()
seconds = time.time() - session_up

rows = {table: spark.read.format("delta").load(f"{out}/{table}").count() for table in ["bronze", *SILVER]}
status = open(f"/proc/{spark.sparkContext._gateway.proc.pid}/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) // 1024  # of the JVM, without this process
print(json.dumps({
    "events": rows["bronze"], "rows": rows, "events_per_second": round(rows["bronze"] / seconds),
    "seconds": round(seconds, 1), "session_seconds": round(session_up - began, 1),
    "first_commit_seconds": round(first_commit - began, 1), "peak_rss_mib": peak,
}))
