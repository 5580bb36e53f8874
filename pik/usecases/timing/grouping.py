"""What deliveries are counted by: columns of the tables `deliveries` and `events`, and fields of the payload."""

from __future__ import annotations

import re
from typing import NamedTuple

from pik.errors import UsageError
from pik.model.instant import HOUR

_COLUMNS = {"source": "source", "type": "event_type", "entity": "entity_id", "batch": "batch_id"}
_PATH = re.compile(r'payload(?:\.(?:[A-Za-z_]\w*|"[^"\\*]+"))+', re.ASCII)
_STEP = re.compile(r'\.(?:"([^"]+)"|(\w+))')

HOUR_OF_EVENT = f"(event_ns - ((event_ns % {HOUR}) + {HOUR}) % {HOUR})"
"""The SQL of the start of an event's hour, in nanoseconds."""


class Grouping(NamedTuple):
    """What events are grouped by: its SQL, a text or NULL, and the columns that this reads."""

    by: str
    sql: str
    columns: frozenset[str]


def read_grouping(by: str, names: tuple[str, ...]) -> Grouping:
    """Return the grouping by one of the names (source, type, entity, batch, hour) or by payload.PATH. Raises
    UsageError."""
    if by in names:
        if by == "hour":
            return Grouping(by, f"CAST({HOUR_OF_EVENT} AS VARCHAR)", frozenset({"event_ns"}))
        return Grouping(by, _COLUMNS[by], frozenset({_COLUMNS[by]}))
    if by.startswith("payload."):
        return Grouping(by, payload_text(by, "--by"), frozenset({"payload"}))
    raise UsageError(f"--by {by}: expected {', '.join(names)} or payload.PATH", hint="such as --by payload.app")


def payload_text(path: str, option: str) -> str:
    """Return the SQL of the text of a payload's field, NULL where it has none. Raises UsageError unless the path
    consists of names, such as payload.app or payload.app."major version"."""
    if not _PATH.fullmatch(path):
        raise UsageError(
            f"{option} {path}: not a path of names into the payload",
            hint=f"such as {option} payload.app, or {option} 'payload.app.\"major version\"'",
        )
    steps = "".join(f'."{quoted or plain}"' for quoted, plain in _STEP.findall(path))
    return f"(payload->>'${steps.replace(chr(39), chr(39) * 2)}')"
