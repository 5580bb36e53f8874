"""Colours, which mean a difference, a conflict or a failure, and nothing else: the words say it as well."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from pik.cli.values import Count, Lag, Shown


class Role(StrEnum):
    """What a text is; the value is how a terminal is told to show it."""

    HEADING = "1"
    DIFFERENCE = "33"
    CONFLICT = "35"
    FAILURE = "31"


class When(StrEnum):
    """When colours are used: `auto` is on a terminal whose user did not object."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


_when = When.AUTO


def use_colours(when: When) -> None:
    """Use colours so from here on."""
    global _when
    _when = when


def colours(stream: object = None) -> bool:
    """Return whether colours are used on the stream, which is standard output unless it is given: with `auto` on a
    terminal, without NO_COLOR (https://no-color.org) and TERM=dumb."""
    if _when != When.AUTO:
        return _when == When.ALWAYS
    is_terminal = getattr(sys.stdout if stream is None else stream, "isatty", lambda: False)()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, role: Role | None, stream: object = None) -> str:
    """Return the text as its role is shown on the stream."""
    return f"\x1b[{role.value}m{text}\x1b[0m" if role is not None and text and colours(stream) else text


ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("delta", "difference", "different", "differing", "changed", "unexpected"), Role.DIFFERENCE),
    **dict.fromkeys(("conflict", "conflicts", "conflicting"), Role.CONFLICT),
    **dict.fromkeys(
        (
            *("failed", "failed_aggregates", "failed_tasks", "failure", "error", "rejected", "refused", "above_error"),
            *("missing", "modified", "unreadable", "damage", "problem", "lost", "lost_deliveries"),
            *("unhealthy", "not_restored"),
        ),
        Role.FAILURE,
    ),
}
"""What a field or a column of that name holds, wherever it stands, if it holds anything."""

STATES: Mapping[str, Role] = {
    "conflict": Role.CONFLICT,
    **dict.fromkeys(("FAILED", "PARTIAL", "INTERRUPTED", "STOPPED", "error"), Role.FAILURE),
}
"""What a value of an enumeration says, in the columns of that."""

_ENUMERATED = frozenset({"kind", "state"})


def role_of(name: str, value: object) -> Role | None:
    """Return what the value of a field or column of that name means, if that has a colour."""
    plain = value.value if isinstance(value, Shown) else value
    if name in _ENUMERATED:
        return STATES.get(plain) if isinstance(plain, str) else None
    return ROLES.get(name) if _is_something(plain) else None


def _is_something(value: object) -> bool:
    """Return whether the value is neither absent nor a zero."""
    if isinstance(value, Count):
        return value.number != 0
    if isinstance(value, Lag):
        return value.nanos != 0
    if isinstance(value, (int, Decimal)):
        return value != 0
    return value not in (None, "", [], ())
