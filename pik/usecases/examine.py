"""The beginning of an input, looked at before anything of it is recorded."""

from __future__ import annotations

from pik.errors import InputError
from pik.usecases.compression import beginning
from pik.usecases.shapes import binary_shape, is_binary, text_shape
from pik.usecases.source import Source

HEAD = 1 << 16
"""Bytes that are looked at, at most, of the input as stored and uncompressed."""


def examine(source: Source, *, mapped: bool) -> None:
    """Raises InputError where an input is certainly neither JSON lines nor a JSON array; `mapped`: any object will do.

    A pipe with a name is left alone: what was read of it would be gone.
    """
    stored = source.head(HEAD)
    head = beginning(stored, HEAD)
    whole = head == stored and len(stored) < HEAD and not source.is_stream
    if shape := binary_shape(head):
        raise shape.error(source.name)
    if is_binary(head):
        raise InputError(f"{source.name} is a binary file, not JSON lines")
    if shape := text_shape(head.replace(b"\0", b"\n"), whole=whole, mapped=mapped):
        raise shape.error(source.name)
