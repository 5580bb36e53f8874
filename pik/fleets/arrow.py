"""Rows of tasks as Arrow batches, which Spark gives to Python and takes from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pik.fleets.tasks import Row

_FIELDS = {
    "number": pa.int64(),
    "item": pa.int64(),
    "part": pa.int64(),
    "kind": pa.int32(),
    "data": pa.binary(),
}


def batch_of(row: Row) -> pa.RecordBatch:
    """Return the batch of one row: rows are long."""
    columns = [pa.array([value], kind) for value, kind in zip(row, _FIELDS.values(), strict=True)]
    return pa.RecordBatch.from_arrays(columns, list(_FIELDS))


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    """Yield the rows of batches."""
    for batch in batches:
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield Row(*values)
