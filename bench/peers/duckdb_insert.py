"""DuckDB: INSERT OR IGNORE of events with a given id into a table with a primary key.

usage: duckdb_insert.py EVENTS_WITH_ID.jsonl OUT.duckdb
"""

import sys
from pathlib import Path

import duckdb

source, target = sys.argv[1:3]
for path in (target, target + ".wal"):
    Path(path).unlink(missing_ok=True)
db = duckdb.connect(target)
db.execute("set threads = 2")
db.execute(
    "create table events(id varchar primary key, source varchar, event_type varchar, entity_id varchar,"
    " event_time timestamptz, payload json, idempotency_key varchar)"
)
db.execute(
    "insert or ignore into events select id, source, event_type, entity_id, event_time, payload, idempotency_key"
    " from read_json(?, format = 'newline_delimited', columns = {id: 'varchar', source: 'varchar',"
    " event_type: 'varchar', entity_id: 'varchar', event_time: 'timestamptz', payload: 'json',"
    " idempotency_key: 'varchar'})",
    [source],
)
print(db.sql("select count(*) from events").fetchall()[0][0])
db.close()
