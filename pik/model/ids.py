"""Ids of batches, runs and records: ULIDs, which begin with the time at which they were made and so sort by it."""

from __future__ import annotations

import re

from pik.model.instant import SECOND

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TIME_DIGITS = 10
"""Digits of a ULID that are its time, in milliseconds."""

_LENGTH = 26
MILLISECOND = SECOND // 1000


def new_id() -> str:
    """Return a new id."""
    from ulid import ULID  # takes 50 ms that no command that only reads should pay

    return str(ULID())


def creation_time(ulid: str) -> int:
    """Return the time in a ULID, in nanoseconds, exact to the millisecond. Raises ValueError."""
    if len(ulid) != _LENGTH:
        raise ValueError(f"{ulid!r} is not a ULID")
    number = 0
    for digit in ulid[:TIME_DIGITS]:
        number = 32 * number + DIGITS.index(digit)
    return number * MILLISECOND


def time_digits(instant: int) -> str:
    """Return the first digits of the ULIDs that are made at this time."""
    return digits(instant // MILLISECOND, TIME_DIGITS)


def digits(number: int, size: int) -> str:
    """Return a number as so many digits."""
    return "".join(DIGITS[number // 32**place % 32] for place in reversed(range(size)))


_RECENT = re.compile(r"latest|-[1-9]\d{0,3}", re.ASCII | re.IGNORECASE)


def is_recent(text: str) -> bool:
    """Return whether a text is a word for something recent (`latest`, `-2`) and not an id: no ULID has an L or a
    minus."""
    return _RECENT.fullmatch(text) is not None
