"""The beginning of an input, looked at before anything of it is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pik.errors import InputError
from pik.inputs.compression import beginning
from pik.inputs.mapping import RecordMapping
from pik.inputs.shapes import READS, binary_shape, is_binary, text_shape
from pik.inputs.source import Source

HEAD = 1 << 16
"""Bytes that are looked at, at most, of the input as stored and uncompressed."""

_RECORDS = 100


def examine(source: Source, mapping: RecordMapping | None, *, mixed: bool = False) -> None:
    """Raises InputError where an input is certainly neither JSON lines nor a JSON array, and UsageError where the
    mapping fits none of its first records, unless the input is `mixed`: these may be of another kind."""
    stored = source.head(HEAD)
    head = beginning(stored, HEAD)
    whole = head == stored and len(stored) < HEAD and not source.is_stream
    if shape := binary_shape(head):
        raise shape.error(source.name)
    if is_binary(head):
        raise InputError(f"{source.name} is a binary file, not JSON lines", hint=READS)
    text = head.replace(b"\0", b"\n")
    if shape := text_shape(text, whole=whole, mapped=mapping is not None):
        raise shape.error(source.name)
    if mapping is not None and not mixed:
        records = _records(text.decode(errors="replace").lstrip("\ufeff \t\r\n"))
        mapping.expect_fields(list(islice(records, _RECORDS)), source.name)


def _records(text: str) -> Iterator[dict[str, Any]]:
    """The objects that a text begins with, one on a line or in an array, up to one that is not whole."""
    read = json.JSONDecoder().raw_decode
    position, in_array = 0, text.startswith("[")
    while True:
        position = _after_space(text, position + in_array)  # the bracket, then each comma
        try:
            found, position = read(text, position)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict):
            yield found
        position = _after_space(text, position)


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position
