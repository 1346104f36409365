"""Spark with Delta in one process for all operations, since the start of a JVM takes long.

Reads one JSON array of SQL statements per line, and answers with one JSON line: {"rows": of the last statement} or
{"error": text}. A statement may also be {"set": [key, value]}.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "daemon/bench/spark"))
from session import spark_session  # noqa: E402

# The JVM prints to standard output, too, such as what a VACUUM deleted.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
spark = spark_session(
    "other-engines", 1, "1g",
    spark_sql_shuffle_partitions="1", spark_databricks_delta_snapshotPartitions="1",
    # INT96 is Spark's default.
    spark_sql_parquet_outputTimestampType=sys.argv[1] if len(sys.argv) > 1 else "INT96",
    spark_driver_extraJavaOptions="-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
)


def answer(statements):
    rows = []
    for statement in statements:
        if isinstance(statement, dict):
            spark.conf.set(*statement["set"])
        else:
            rows = [row.asDict(recursive=True) for row in spark.sql(statement).collect()]
    return {"rows": rows}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as error:  # noqa: BLE001  (whatever Spark raises is an answer)
        text = str(error).split("\n\nJVM stacktrace")[0].split("\tat ")[0].strip()
        result = {"error": text}
    print(json.dumps(result, default=str), file=answers, flush=True)
