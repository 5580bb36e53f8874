"""What a value means, and with that how programs and people read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import msgspec

from pik.cli.text import visible
from pik.model.instant import Window, format_about, format_duration, format_instant


class Instant(msgspec.Struct, frozen=True):
    """Nanoseconds since the epoch: RFC 3339 in UTC for everybody."""

    nanos: int


class Bucket(Instant, frozen=True):
    """The instant at which a bucket begins: for people on a terminal a day or an hour."""


class Moment(Instant, frozen=True):
    """The time at which something was done: for people on a terminal to the second."""


class EventId(msgspec.Struct, frozen=True):
    """An event_id, for people on a terminal its first digits, which `pik show` takes."""

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


MEANINGS = (Instant, Moment, Bucket, EventId, Lag, Count, Json)
"""Classes that give a bare value its meaning."""


def key_of(name: str, kind: object) -> str:
    """The name under which programs find a value of that kind."""
    return f"{name}_ms" if kind is Lag or isinstance(kind, Lag) else name


_MILLISECOND = 1_000_000


def _milliseconds(nanos: int) -> str:
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    whole, rest = divmod(nanos, _MILLISECOND)
    return f"{sign}{whole}.{rest:06d}".rstrip("0").rstrip(".")


def data(value: object) -> Any:
    """The value as JSON has it: exact numbers as they are written, never through a double."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Shown):
        return data(value.value)
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else msgspec.Raw(str(value).encode())
    converted = _meaning(value)
    if converted is not _UNKNOWN:
        return converted
    if isinstance(value, Mapping):
        return {key_of(str(name), one): data(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [data(one) for one in value]
    if isinstance(value, msgspec.Struct):
        return {name: data(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value):
        return {one.name: data(getattr(value, one.name)) for one in dataclasses.fields(value)}
    return str(value)


_UNKNOWN = object()


def _meaning(value: object) -> object:
    if isinstance(value, Decimal):
        return msgspec.Raw(format(value, "f").encode())
    if isinstance(value, Instant):
        return format_instant(value.nanos)
    if isinstance(value, Lag):
        return msgspec.Raw(_milliseconds(value.nanos).encode())
    if isinstance(value, Count):
        return value.number
    if isinstance(value, EventId):
        return value.text
    if isinstance(value, Json):
        return msgspec.Raw(bytes(value.text))
    if isinstance(value, Window):
        return {"from": value.from_text, "to": value.to_text}
    if isinstance(value, (float, msgspec.Raw)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    return _UNKNOWN


def words(value: object) -> str:
    """The value for people, on one line unless it is Shown, with nothing in it that a terminal would obey."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Count):
        return f"{value.number:,}"
    if isinstance(value, Shown):
        return "\n".join(map(visible, value.text.split("\n")))
    if isinstance(value, Lag):
        return format_about(value.nanos) if value.cut else format_duration(value.nanos)
    if isinstance(value, Window):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{visible(str(name))} {words(one)}" for name, one in value.items()) or "-"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(words(one) for one in value) or "-"
    plain = data(value)
    if isinstance(plain, (dict, list)):
        return words(plain)
    return visible(bytes(plain).decode(errors="backslashreplace") if isinstance(plain, msgspec.Raw) else str(plain))


def is_number(value: object) -> bool:
    """Whether people read the value from its last digit."""
    return isinstance(value, (int, float, Decimal, Lag, Count)) and not isinstance(value, bool)
