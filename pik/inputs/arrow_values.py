"""Arrow's values made of Python's, from bytes.

`pyarrow.scalar` and `pyarrow.array` import pandas, where it is installed, to see whether the value is one of its: that
takes as long as reading 100,000 rows, and 40 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def texts(values: Sequence[str | None]) -> pa.Array:
    """Return an array of texts."""
    import pyarrow as pa

    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = array("i", accumulate(map(len, encoded), initial=0))
    found = 0
    for place, value in enumerate(values):
        found |= (value is not None) << place
    valid = found.to_bytes(len(values) // 8 + 1, "little") if None in values else None
    buffers = [valid and pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def text(value: str | None) -> pa.Scalar:
    """Return a text, or a missing one."""
    return texts([value])[0]


def number(value: int) -> pa.Scalar:
    """Return an integer of 64 bits."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(array("q", [value]))])[0]


def truth(value: bool) -> pa.Scalar:
    """Return a boolean."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.bool_(), 1, [None, pa.py_buffer(bytes([value]))])[0]
