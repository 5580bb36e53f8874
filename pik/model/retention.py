"""When objects expire in a store that keeps raw for a number of days."""

from __future__ import annotations

from pik.model.instant import DAY


def expired(created: int, days: int | None, now: int) -> bool:
    """Return whether an object that was created then may be gone by now, in a store that keeps raw for so many days
    (None: for good). Instants in nanoseconds.

    As S3 counts: the days, rounded up to the next midnight UTC. The deletion comes some time after that.
    """
    if days is None:
        return False
    due = created + days * DAY
    return now >= due + -due % DAY
