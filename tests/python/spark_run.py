"""Runs queries in Spark's local mode, in an environment of its own: python spark_run.py FOLDER

FOLDER has data.parquet and queries.json; each result is written as Arrow IPC. Run by test_sql.py.
"""

import json
import pathlib
import sys

import pyarrow as pa
from pyspark.sql import SparkSession

folder = pathlib.Path(sys.argv[1])
spark = (SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC")
         .config("spark.sql.shuffle.partitions", "2").getOrCreate())
spark.sparkContext.setLogLevel("ERROR")
spark.read.parquet(str(folder / "data.parquet")).coalesce(1).createOrReplaceTempView("data")
for name, query in json.loads((folder / "queries.json").read_text()).items():
    table = spark.sql(query).toArrow()
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
spark.stop()
