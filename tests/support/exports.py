"""Reading exports, and exporters whose process is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import duckdb

from pik.exporters import exporter
from pik.ports.exporter import Block, Exporter, Format, Layout, Rows, Sink

_READERS: dict[Format, str] = {
    "parquet": "read_parquet('{}/**/*.parquet', hive_partitioning = true, union_by_name = true)",
    "csv": "read_csv('{}/**/*.csv', hive_partitioning = true, all_varchar = true, union_by_name = true)",
    "jsonl": "read_json_objects('{}/**/*.jsonl', hive_partitioning = true)",
}


def rows_of(target: Path, format_: Format) -> list[str]:
    """The rows that DuckDB reads in the files of a directory, sorted, their partitions among them."""
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT COLUMNS(*)::VARCHAR FROM {_READERS[format_].format(target)}")
        names = [column[0] for column in found.description or ()]
        return sorted(repr(sorted(zip(names, row, strict=True))) for row in found.fetchall())


class _Killed:
    """An exporter whose process is killed when it would complete a file, the first time that it does so in a window;
    `marks` is where that is noted."""

    def __init__(self, marks: Path, layout: Layout) -> None:
        self.inner = exporter(layout)
        self.layout, self.suffix = layout, self.inner.suffix
        self.mark = marks / str(layout.selection.window.start)

    def cut(self, block: Block) -> Iterator[tuple[tuple[str, ...], Rows]]:
        return self.inner.cut(block)

    def sink(self, file: BinaryIO) -> Sink:
        return _KilledSink(self.inner.sink(file), self.mark)


class _KilledSink:
    def __init__(self, inner: Sink, mark: Path) -> None:
        self.inner, self.mark = inner, mark

    def write(self, rows: Any) -> None:
        self.inner.write(rows)

    def close(self) -> None:
        self.inner.close()
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def killed_once(marks: Path, layout: Layout) -> Exporter:
    """Make an exporter whose process is killed once in each window."""
    return _Killed(marks, layout)
