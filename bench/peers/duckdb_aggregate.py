"""DuckDB: count and exact sum of payload.value per entity and UTC day, straight from the JSONL.

usage: duckdb_aggregate.py EVENTS.jsonl
"""

import sys

import duckdb

db = duckdb.connect()
db.execute("set threads = 2")
rows = db.execute(
    "select entity_id, date_trunc('day', event_time at time zone 'UTC') as day, count(*), sum(payload.value)"
    " from read_json(?, format = 'newline_delimited', columns = {entity_id: 'varchar', event_time: 'timestamptz',"
    " payload: 'struct(value decimal(18, 6))'}) group by 1, 2",
    [sys.argv[1]],
).fetchall()
print(len(rows))
