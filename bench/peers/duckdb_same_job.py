"""DuckDB: the job of an ingest by hand. Identity by a hash, every delivery kept, the first of each id accepted, the
lines copied by day and sorted by entity.

usage: duckdb_same_job.py EVENTS.jsonl DIRECTORY

Two deliveries are one event here only if their payloads are the same text: what has other white space or another order
of keys counts twice. Nothing of it is durable before all of it is, and memory grows with the input.
"""

import shutil
import sys
from pathlib import Path

import duckdb

source, target = sys.argv[1], Path(sys.argv[2])
shutil.rmtree(target, ignore_errors=True)
target.mkdir(parents=True)
db = duckdb.connect(str(target / "index.duckdb"))
db.execute("set threads = 2")
db.execute("create table delivery(seq bigint, id varchar, day date, entity varchar)")
db.execute("create table event(id varchar primary key, seq bigint)")
db.execute(
    "create temp table line as select row_number() over () as seq, text, moment::date as day, entity,"
    " sha256(concat_ws(chr(31), source, kind, entity,"
    " coalesce(key, epoch_ns(moment)::varchar || chr(31) || payload))) as id"
    " from (select json::varchar as text, json->>'$.source' as source, json->>'$.event_type' as kind,"
    " json->>'$.entity_id' as entity, json->>'$.idempotency_key' as key, (json->'$.payload')::varchar as payload,"
    " (json->>'$.event_time')::timestamptz as moment from read_ndjson_objects(?))",
    [source],
)
db.execute("insert into delivery select seq, id, day, entity from line")
db.execute("insert or ignore into event select id, seq from line order by seq")
db.execute(
    f"copy (select text, seq, id, day from line order by day, entity) to '{target / 'raw'}'"
    " (format parquet, compression zstd, partition_by (day))"
)
print(db.sql("select count(*) from event").fetchall()[0][0], db.sql("select count(*) from delivery").fetchall()[0][0])
db.close()
