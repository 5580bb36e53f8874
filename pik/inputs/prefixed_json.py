"""Lines that have an object of JSON at their end, after something else: a key, a time, cells of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pik.inputs.advice import Advice, piped, read_with
from pik.inputs.line_times import TEXT, log_lines
from pik.model.event import REQUIRED
from pik.model.layout import InputFormat, Layout

_NO_VALUE = frozenset(("", "null", "NULL"))
"""What stands for the value of a tombstone."""

_WITHOUT_HEADING = "sed 's/^[^{]*//' {file}"
_CONSUMED = re.compile(r"(CreateTime|LogAppendTime):-?\d+\t")


def are_prefixed(filled: Sequence[str]) -> bool:
    """Return whether lines have an object at their end, the first one too."""
    return (
        bool(filled)
        and "{" in filled[0]
        and all(object_of(line[line.find("{") :]) is not None for line in filled if "{" in line)
    )


def cells_before(filled: Sequence[str]) -> tuple[str, int] | None:
    """Return the delimiter and the number of cells of prefixed lines, such as COPY of PostgreSQL writes them, if there
    are several before the object."""
    before = [line.partition("{")[0] for line in filled if "{" in line]
    for delimiter in "\t;|":
        counts = {one.count(delimiter) for one in before}
        if min(counts) > 1:
            return delimiter, max(counts) + 1 if len(counts) == 1 else 0
    return None


def prefixed(filled: Sequence[str]) -> Layout | tuple[str, Advice]:
    """Return how prefixed lines are read: as a key and a tab that kcat -K prints, or what they look like and what to
    type."""
    parts = [line.partition("\t") for line in filled]
    if all(tab and (value.strip() in _NO_VALUE or object_of(value) is not None) for _, tab, value in parts):
        return Layout(InputFormat.KCAT)
    return "text, such as a key or a time, and then JSON on each line", _with_prefix(filled)


def consumed(filled: Sequence[str]) -> tuple[str, Advice] | None:
    """Recognize what kafka-console-consumer prints: the time, and then what it was told to."""
    if not all(map(_CONSUMED.match, filled)):
        return None
    known, other = {"Partition": r"(?P<partition>\d+)", "Offset": r"(?P<offset>\d+)"}, list[str]()
    parts = []
    for cell in filled[0].partition("{")[0].split("\t")[1:-1]:
        name = cell.partition(":")[0]
        if name in known and cell[len(name) + 1 :].isdigit():
            parts.append(f"{name}:{known[name]}")
        else:
            parts.append("")
            other.append(cell)
    names = ["headers", "key"] if len(other) > 1 or other == ["NO_HEADERS"] else ["key"]
    cells = [part or rf"(?P<{names.pop(0)}>[^\t]*)" for part in parts if part or names]
    pattern = "".join(f"{cell}\\t" for cell in (r"\w+:(?P<ts>-?\d+)", *cells)) + "(?P<value>.*)"
    entity = "key" if "?P<key>" in pattern else "COLUMN"
    command = read_with(
        *("--pattern", pattern, "--map", "source='kafka'", "--map", "event_type='TYPE'"),
        *("--map", f"entity_id={entity}", "--map", "event_time=ts", "--time-format", "epoch_ms"),
        *("--map", "payload=parse_json(value)"),
        instead=_WITHOUT_HEADING,
    )
    return "what kafka-console-consumer prints", Advice((command,))


def object_of(text: str) -> dict[str, object] | None:
    """Return the object that a text is, None if it is something else."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, dict) else None
    return None


def _with_prefix(filled: Sequence[str]) -> Advice:
    """Return the command that reads what is before the JSON too, unless the JSON has all that an event needs."""
    first = object_of(filled[0][filled[0].find("{") :]) or {}
    if first.keys() >= set(REQUIRED):
        return piped(_WITHOUT_HEADING)
    timed = log_lines([line.partition("{")[0] for line in filled if "{" in line])
    pattern = "(?P<before>" if timed is None else timed.pattern.removesuffix(TEXT) + "(?P<text>"
    words = ["--pattern", pattern + r"[^{]*)(?P<value>.*)"]
    of_line = None if timed is None or _has_time(first) else timed
    known = {"payload": "parse_json(value)", **({} if of_line is None else {"event_time": of_line.maps["event_time"]})}
    for field in REQUIRED:
        words += ["--map", f"{field}={f'parse_json(value).{field}' if field in first else known.get(field, 'COLUMN')}"]
    words += [] if of_line is None else of_line.options
    return Advice((read_with(*words, instead=_WITHOUT_HEADING),))


def _has_time(record: Mapping[str, object]) -> bool:
    """Return whether an object has a time, which comes before the one of the line that it is in."""
    return any(
        (isinstance(value, str) and _TIME.match(value) is not None)
        or (isinstance(value, int | float) and value > _EPOCH and _NAME_OF_TIME.search(name) is not None)
        or (isinstance(value, dict) and _has_time(value))
        for name, value in record.items()
    )


_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_NAME_OF_TIME = re.compile(r"time|date|ts$|^t$|^at$|_at$|At$", re.ASCII)
_EPOCH = 10**9
