"""What `pik explain` says of raw that it cannot read: how many events, and what follows for the right value."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pik.cli.document import Field, Object
from pik.cli.values import Count
from pik.errors import number_of

if TYPE_CHECKING:
    from pik.usecases.metrics.explanation import Explanation


def proven_text(found: Explanation) -> str | None:
    """Return the words for a recorded value that is proven, and lacks what cannot be read."""
    return "yes, of what was known then" if found.proven and not found.is_complete else None


def partial_text(found: Explanation, number: Decimal | None) -> str | None:
    """Return the words for a number of the right side that is none, or of what can be read alone."""
    if number is None:
        return "no value"
    return None if found.is_complete else f"{number:f}, of what can be read"


def _not_read(found: Explanation) -> str | None:
    return None if found.is_complete else f"{_events(found)}: {_right_value(found)}"


def _events(found: Explanation) -> str:
    count, since = found.unread.events(), found.unread_since
    if count is None:
        return "an unknown number of events"
    events = f"up to {number_of(count, 'event')}"
    if since is None:
        return events
    if 0 < since < count:
        return f"{events}, {since:,} of them recorded since"
    return f"{events} recorded {'since' if since else 'before'}"


def _right_value(found: Explanation) -> str:
    lowest, highest = found.bounds
    if lowest is not None and highest is not None:
        return f"the right value is {lowest:f} to {highest:f}"
    if lowest is not None:
        return f"the right value is {lowest:f} or more"
    if highest is not None:
        return f"the right value is {highest:f} or less"
    return "the right value is not known"


NOT_READ = Field(
    "not_read",
    Object(
        Field("events", Count | None, "at most so many; null: not known", get=lambda found: found.unread.events()),
        Field(
            "recorded_since",
            Count | None,
            "of these after the left version was computed, at most; null: not known, or there is no such version",
            get="unread_since",
        ),
        Field("lowest", Decimal | None, "of the right value; null: that does not follow", get="bounds.lowest"),
        Field("highest", Decimal | None, "of the right value, likewise", get="bounds.highest"),
        null=True,
    ),
    "events that may count in the recomputed value and cannot be read, so that the right value is not known; null: it"
    " was computed from all that counts, or is a recorded one",
    get=lambda found: None if found.is_complete else found,
    text=_not_read,
)
