"""Ids of batches, runs and records: ULIDs, which begin with the time at which they were made and so sort by it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256

from pik.model.instant import SECOND

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TIME_DIGITS = 10
"""Digits of a ULID that are its time, in milliseconds."""

ID_LENGTH = 26
"""Digits of a ULID."""

MILLISECOND = SECOND // 1000


def new_id() -> str:
    """Return a new id."""
    from ulid import ULID  # takes 50 ms that no command that only reads should pay

    return str(ULID())


def new_ids() -> Iterator[str]:
    """Yield new ids that sort in this order. Each is drawn: ids that follow each other in a millisecond differ by one,
    so one that was counted up would be that of something else."""
    last = ""
    while True:
        if (one := new_id()) > last:
            yield one
            last = one


def buffered_id(received_at: int, request_id: str) -> str:
    """Return the id of a buffered request: a ULID of the time (nanoseconds) at which the API received it, and of the
    first 80 bits of its request id's SHA-256. So a message that is delivered twice is the same request."""
    return time_digits(received_at) + request_digits(request_id)


def request_digits(request_id: str) -> str:
    """Return the digits after the time in the id of a buffered request."""
    return digits(int.from_bytes(sha256(request_id.encode()).digest()[:10], "big"), ID_LENGTH - TIME_DIGITS)


def creation_time(ulid: str) -> int:
    """Return the time in a ULID, in nanoseconds, exact to the millisecond. Raises ValueError."""
    if len(ulid) != ID_LENGTH:
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
