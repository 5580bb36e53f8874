"""What a value means, and with that how programs and people read it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from pik.model.duration import format_about, format_duration
from pik.model.instant import display_instant, format_instant
from pik.model.visible import visible, visible_value
from pik.model.window import Window


class Instant(msgspec.Struct, frozen=True):
    """Nanoseconds since the epoch: RFC 3339, in UTC for programs, in the zone of --display-timezone for people."""

    nanos: int


class Bucket(Instant, frozen=True):
    """The instant at which a bucket begins: for people on a terminal a day or an hour, and where its metric has a
    timezone the `local` text."""

    local: str | None = None


class Moment(Instant, frozen=True):
    """The time at which something was done: for people on a terminal to the second."""


class EventId(msgspec.Struct, frozen=True):
    """An event_id, for people on a terminal its first digits, which `pik show` takes."""

    text: str


class Entity(msgspec.Struct, frozen=True):
    """The entity of a value: null for programs, `(all)` for people where it is over all entities."""

    text: str


class Lag(msgspec.Struct, frozen=True):
    """A span in nanoseconds: milliseconds under a name that ends in `_ms` for programs, `3m 20s` for people. With
    `cut`, only its first three digits are known, and people see no more: `~200s`."""

    nanos: int
    cut: bool = False


class Count(msgspec.Struct, frozen=True):
    """A number of things: thousands are set apart for people."""

    number: int


class Shown(msgspec.Struct, frozen=True):
    """One value for programs, and for people another text, which may have several lines."""

    value: object
    text: str


class Lines(Shown, frozen=True):
    """Lines to paste: for people, too, each stays in one piece, however long."""


class Json(msgspec.Struct, frozen=True):
    """JSON text, handed on as it is."""

    text: bytes | msgspec.Raw


MEANINGS = (Instant, Moment, Bucket, EventId, Entity, Lag, Count, Json)
"""Classes that give a bare value its meaning."""


def key_of(name: str, kind: object) -> str:
    """Return the name under which programs find a value of that kind."""
    return f"{name}_ms" if kind is Lag or isinstance(kind, Lag) else name


def _milliseconds(nanos: int) -> str:
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    whole, rest = divmod(nanos, 1_000_000)
    return f"{sign}{whole}.{rest:06d}".rstrip("0").rstrip(".")


def data(value: object) -> Any:
    """Return the value as JSON has it: exact numbers as they are written, never through a double."""
    match value:
        case None | bool() | str():
            return value
        case Shown():
            return data(value.value)
        case int():
            return value if -(1 << 63) <= value < 1 << 63 else msgspec.Raw(str(value).encode())
        case Decimal():
            return msgspec.Raw(format(value, "f").encode())
        case Instant():
            return format_instant(value.nanos)
        case Lag():
            return msgspec.Raw(_milliseconds(value.nanos).encode())
        case Count():
            return value.number
        case EventId():
            return value.text
        case Entity():
            return value.text or None
        case Json():
            return msgspec.Raw(bytes(value.text))
        case Window():
            return {"from": value.from_text, "to": value.to_text}
        case Mapping():
            return {key_of(str(name), one): data(one) for name, one in value.items()}
        case list() | tuple():
            return [data(one) for one in value]
        case float() | msgspec.Raw():
            return value
    return str(value)


def words(value: object) -> str:
    """Return the value for people, on one line unless it is Shown, with nothing in it that a terminal would obey."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Bucket() if value.local is not None:
            return value.local
        case Count():
            return f"{value.number:,}"
        case Instant():
            return display_instant(value.nanos)
        case Shown():
            return "\n".join(map(visible, value.text.split("\n")))
        case Entity():
            return visible_value(value.text) or "(all)"
        case Lag():
            return format_about(value.nanos) if value.cut else format_duration(value.nanos)
        case Window():
            return str(value)
        case Mapping():
            return ", ".join(f"{visible_value(str(name))} {words(one)}" for name, one in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(words, value)) or "-"
    plain = data(value)
    text = bytes(plain).decode(errors="backslashreplace") if isinstance(plain, msgspec.Raw) else str(plain)
    return visible_value(text)


def is_number(value: object) -> bool:
    """Return whether people read the value from its last digit."""
    return isinstance(value, (int, float, Decimal, Lag, Count)) and not isinstance(value, bool)
