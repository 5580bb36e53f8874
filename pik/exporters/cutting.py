"""Cuts columns out of many lines at once, without a Python object a line: by positions, one for each line."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# pa.array and pa.scalar import pandas where that is installed, which takes longer than a hundred thousand events.


def integers(values: Iterable[int]) -> Any:
    """An Arrow array. Raises OverflowError for more than 64 bits."""
    numbers = array("q", values)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def strings(texts: Sequence[bytes]) -> Any:
    """An Arrow array. Raises ArrowInvalid for what is not UTF-8."""
    offsets = _positions(accumulate(map(len, texts), initial=0)).buffers()[1]
    made = pa.Array.from_buffers(pa.string(), len(texts), [None, offsets, pa.py_buffer(b"".join(texts))])
    made.validate(full=True)
    return made


def _positions(values: Iterable[int]) -> Any:
    numbers = array("i", values)
    return pa.Array.from_buffers(pa.int32(), len(numbers), [None, pa.py_buffer(numbers)])


@lru_cache(maxsize=64)
def _scalar(value: int) -> Any:
    return _positions([value])[0]


def after(at: Any, size: int) -> Any:
    """The positions `size` bytes further on."""
    return pc.add(at, _scalar(size))


class Unusual(Exception):
    """The lines are not built alike."""


class Lines:
    """Lines of a text, each with its line break.

    `starts` and `ends` are the positions of each one's first byte and of its line break. Every method raises Unusual or
    ArrowInvalid rather than look beyond the text.
    """

    def __init__(self, text: bytes, ends: array[int]) -> None:
        self.ends = integers(ends).cast(pa.int32())
        self.starts = pa.concat_arrays([_positions([0]), after(self.ends.slice(0, len(ends) - 1), 1)])
        self._size = _positions([len(text)])
        self._buffer = pa.py_buffer(text)

    def _split(self, at: Any) -> Any:
        """The bytes from each position up to the next one; the last goes to the end."""
        offsets = pa.concat_arrays([at, self._size]).buffers()[1]
        made = pa.Array.from_buffers(pa.binary(), len(at), [None, offsets, self._buffer])
        made.validate(full=True)  # positions in order, and all of them inside
        return made

    def fixed(self, at: Any, size: int) -> Any:
        """The `size` bytes at each position, as texts."""
        return pc.binary_slice(self._split(at), 0, size).cast(pa.string())

    def between(self, begin: Any, end: Any) -> Any:
        """The bytes from each begin to its end, as texts."""
        count = len(begin)
        twice, odd, evens = _interleaving(1 << max(14, count.bit_length()))
        order = pc.add(twice.slice(0, 2 * count), pc.multiply(odd.slice(0, 2 * count), _scalar(count)))
        bounds = pa.concat_arrays([begin, end]).take(order)
        return self._split(bounds).take(evens.slice(0, count)).cast(pa.string())

    def find(self, at: Any, text: bytes) -> Any:
        """The positions of the first such text from each position on."""
        found = pc.find_substring(self._split(at), pattern=text)
        if pc.min_max(found)["min"].as_py() < 0:
            raise Unusual
        return pc.add(at, found)

    def has(self, at: Any, text: bytes) -> Any:
        """Whether there is this text at each position."""
        return pc.equal(pc.binary_slice(self._split(at), 0, len(text)), strings([text]).cast(pa.binary())[0])

    def behind(self, at: Any, text: bytes) -> Any:
        """The positions behind this text, which must be at all of them."""
        if not pc.all(self.has(at, text)).as_py():
            raise Unusual
        return after(at, len(text))


@lru_cache(maxsize=2)
def _interleaving(size: int) -> tuple[Any, Any, Any]:
    """0 0 1 1 2 2 …, 0 1 0 1 0 1 …, 0 2 4 6 …"""
    numbers = range(2 * size)
    return (
        _positions([number >> 1 for number in numbers]),
        _positions([number & 1 for number in numbers]),
        _positions(numbers[::2]),
    )
