"""DuckDB: JSONL to one zstd-compressed Parquet file.

usage: duckdb_parquet.py EVENTS.jsonl OUT.parquet
"""

import sys
from pathlib import Path

import duckdb

source, target = sys.argv[1:3]
db = duckdb.connect()
db.execute("set threads = 2")
db.execute(
    f"copy (select * from read_json('{source}', format = 'newline_delimited', columns = {{source: 'varchar',"
    " event_type: 'varchar', entity_id: 'varchar', event_time: 'timestamptz', payload: 'json',"
    f" idempotency_key: 'varchar'}})) to '{target}' (format parquet, compression zstd)"
)
print(Path(target).stat().st_size)
