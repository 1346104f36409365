"""The Spark session of the comparison and of scripts/other-engines. $SPARK_JARS is the folder of the jars (fetch.sh)."""

import glob
import os

from pyspark.sql import SparkSession


def spark_session(name, cores, memory, **settings):
    """`cores` as in `local[cores]`; further settings as `spark_sql_session_timeZone`."""
    builder = (
        SparkSession.builder.master(f"local[{cores}]")
        .appName(name)
        .config("spark.jars", ",".join(glob.glob(os.environ["SPARK_JARS"] + "/*.jar")))
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.databricks.delta.snapshotPartitions", "2")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.memory", memory)
        .config("spark.ui.enabled", "false")
    )
    for key, value in settings.items():
        builder = builder.config(key.replace("_", "."), value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark
