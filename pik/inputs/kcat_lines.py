"""What `kcat -K '\\t'` prints: on each line a key, a tab and a value, as records with `key` and `value`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import msgspec

from pik.errors import Invalid
from pik.inputs.blocks import Block, Problem, line_blocks
from pik.model.event import one_line
from pik.model.identity import check_json
from pik.model.layout import Layout

_decode = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode
_FIRST = frozenset(b'{["-0123456789tfn')
"""With what a value of JSON begins."""


def blocks(
    stream: BinaryIO, _name: str, _layout: Layout, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield the lines from `first_seq` on, which starts `offset` bytes into the text.

    The key is a text; the value is the JSON that it is, as it is written, or else a text. A line without a tab, one
    that is not UTF-8, and one whose value begins as a JSON object and is none, is a problem.
    """
    for block in line_blocks(stream, max_line=max_line, first_seq=first_seq, offset=offset):
        problems: dict[int, Problem] = {}
        records: list[bytes] = []
        for seq, line in enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.first_seq):
            try:
                if len(line) > max_line:
                    raise Invalid(f"the line is longer than {max_line} bytes")
                records.append(_record(line.removesuffix(b"\r")) if line.strip() else b"")
            except Invalid as error:
                problems[seq] = Problem(error.message, line)
                records.append(line)
        yield replace(block, data=b"\n".join(records) + b"\n", problems=problems)


def _record(line: bytes) -> bytes:
    key, tab, value = line.partition(b"\t")
    if not tab:
        raise Invalid("the line has no tab between a key and a value")
    try:
        text = value if _is_json(value) else _encode(value.decode())
        return b'{"key":%s,"value":%s}' % (_encode(key.decode()), one_line(text))
    except UnicodeDecodeError:
        raise Invalid("the line is not valid UTF-8") from None


def _is_json(value: bytes) -> bool:
    """Return whether a value is JSON. Raises Invalid where it begins as an object and is none."""
    if not value or value[0] not in _FIRST:
        return False
    try:
        _decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    else:
        return True
    try:
        check_json(value, "the value")
    except Invalid:
        if value.startswith(b"{"):
            raise
        return False
    return True
