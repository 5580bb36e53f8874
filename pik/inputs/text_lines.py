"""Lines of text as records: `line`, the text as it stands, and the named groups of a regular expression.

The expressions are RE2's (https://github.com/google/re2/wiki/Syntax), which take time in proportion to the line,
whatever the expression: none can backtrack for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from pik.errors import UsageError
from pik.inputs.arrow_json import json_texts
from pik.inputs.blocks import Block, Problem, line_blocks
from pik.model.layout import Layout
from pik.model.log_lines import PATTERNS

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 1 << 18
"""Bytes of lines that are matched at a time, about."""

_NAME = re.compile(r"\(\?P?<(\w+)>")
_encode = msgspec.json.Encoder().encode


def blocks(
    stream: BinaryIO, _name: str, layout: Layout, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield the lines from `first_seq` on, which starts `offset` bytes into the text.

    A line that does not match as a whole, that is not UTF-8, or has more than `max_line` bytes, is a problem.
    """
    pattern = compiled(layout)
    for block in line_blocks(stream, max_line=max_line, first_seq=first_seq, offset=offset):
        problems: dict[int, Problem] = {}
        data = bytearray()
        seq = block.first_seq
        for lines in _groups(block.data):
            for line, record in zip(lines, _records(lines, pattern, max_line), strict=True):
                if record is None and line.strip():
                    problems[seq] = _problem(line, max_line)
                data += (line if record is None else record) + b"\n"
                seq += 1
        yield replace(block, data=bytes(data), problems=problems)


def _groups(data: bytes) -> Iterator[list[bytes]]:
    """Yield the lines without their ends, some at a time."""
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin + GROUP) + 1 or len(data)
        yield [line.removesuffix(b"\r") for line in data[begin:end].removesuffix(b"\n").split(b"\n")]
        begin = end


def compiled(layout: Layout) -> str:
    """Return the expression that the whole of a line must match. Raises UsageError where it cannot be used."""
    import pyarrow as pa
    import pyarrow.compute as pc

    given = layout.pattern or ""
    pattern = PATTERNS.get(given, given)
    names = _NAME.findall(pattern)
    what = f"--pattern {given if len(given) <= 60 else given[:59] + '…'}"
    if not names:
        hint = f"(?P<NAME>…) names a part of the line; or one of {', '.join(PATTERNS)}"
        raise UsageError(f"{what}: it has no named group", hint=hint)
    if wrong := [name for name in names if name == "line" or names.count(name) > 1]:
        why = "is that of the whole line" if wrong[0] == "line" else "comes twice"
        raise UsageError(f"{what}: the name {wrong[0]} {why}", hint="each group has its own name")
    whole = rf"\A(?:{pattern})\z"
    try:
        pc.extract_regex(pa.array([""]), whole)
    except pa.ArrowException as error:
        hint = "RE2 has no look-around and no back-references; (?:…) groups without a name"
        raise UsageError(f"{what}: {error}", hint=hint) from None
    return whole


def _records(lines: list[bytes], pattern: str, max_line: int) -> Iterator[bytes | None]:
    """Yield the record of each line, None of one that has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _texts(lines, max_line)
    found = pc.extract_regex(texts, pattern)
    parts: list[object] = ['{"line":', json_texts(texts)]
    for field, cells in zip(found.type, found.flatten(), strict=True):
        parts += [f",{_encode(field.name).decode()}:", json_texts(cells)]
    joined = pc.binary_join_element_wise(*parts, "}", "")
    yield from pc.if_else(found.is_valid(), joined, None).cast(pa.binary()).to_pylist()


def _texts(lines: list[bytes], max_line: int) -> pa.StringArray:
    """Return the lines as texts, null where they are none, or too long."""
    import pyarrow as pa

    if max(map(len, lines)) <= max_line:
        try:
            return pa.array([line.decode() for line in lines], pa.string())
        except UnicodeDecodeError:
            pass
    return pa.array([line.decode() if _is_text(line, max_line) else None for line in lines], pa.string())


def _is_text(line: bytes, max_line: int) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return len(line) <= max_line


def _problem(line: bytes, max_line: int) -> Problem:
    if len(line) > max_line:
        return Problem(f"the line is longer than {max_line} bytes", line)
    is_text = _is_text(line, max_line)
    return Problem("the line does not match the pattern" if is_text else "the line is not valid UTF-8", line)
