"""The events of the benchmarks as a table: the same rows as JSON lines, CSV or Parquet."""

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

COLUMNS = ("source", "event_type", "entity_id", "event_time", "n", "value", "region", "currency")
_GROUP = 100_000


def write_table(events: Path, target: Path, ending: str) -> None:
    """Write the events of a file as rows in the format of that ending."""
    if ending == "parquet":
        _write_parquet(events, target)
        return
    with target.open("w", newline="") as file:
        if ending == "csv":
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(list(row.values()) for row in _rows(events))
        else:
            file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in _rows(events))


def _write_parquet(events: Path, target: Path) -> None:
    writer: Any = None
    following = _rows(events)
    while rows := list(islice(following, _GROUP)):
        table = pa.Table.from_pylist(rows)
        writer = writer or parquet.ParquetWriter(target, table.schema)
        writer.write_table(table)
    writer.close()


def _rows(events: Path) -> Iterator[dict[str, Any]]:
    with events.open() as lines:
        for number, line in enumerate(lines):
            event = json.loads(line)
            payload = event["payload"]
            yield {
                **{name: event[name] for name in COLUMNS[:4]},
                "n": number,
                "value": float(payload.get("value") or 0),
                "region": payload.get("region") or "",
                "currency": payload.get("currency") or "",
            }
