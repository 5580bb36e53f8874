"""Windows of time, and whether parts of a store hold all of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pik.errors import UsageError
from pik.model.instant import DAY, MAX_INSTANT, MIN_INSTANT, day_of, display_instant, format_instant


@dataclass(frozen=True, slots=True)
class Window:
    """`[start, end)` in nanoseconds since the epoch; the default is all of time."""

    start: int = MIN_INSTANT
    end: int = MAX_INSTANT + 1

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise UsageError(
                f"the window [{display_instant(self.start)}, {display_instant(self.end)}) is empty",
                hint="--from is included, --to is not; --to must be later",
            )

    @classmethod
    def of_day(cls, day: int) -> Window:
        """Return the UTC day of this number (days since 1970-01-01)."""
        return cls(max(day * DAY, MIN_INSTANT), (day + 1) * DAY)

    def __contains__(self, instant: int) -> bool:
        return self.start <= instant < self.end

    @property
    def days(self) -> tuple[int, int]:
        """First and last UTC day number (both included) that the window touches."""
        return day_of(self.start), day_of(self.end - 1)

    @property
    def bounded(self) -> bool:
        """Whether both ends were given."""
        return self.start > MIN_INSTANT and self.end <= MAX_INSTANT

    @property
    def from_text(self) -> str | None:
        """RFC 3339 of the start; None where the window has none."""
        return format_instant(self.start) if self.start > MIN_INSTANT else None

    @property
    def to_text(self) -> str | None:
        """RFC 3339 of the end; None where the window has none."""
        return format_instant(self.end) if self.end <= MAX_INSTANT else None

    @property
    def within(self) -> str:
        """The window as an adverbial: `no such events at any time`, `… in [a, b)`."""
        return f"in {self}" if self.from_text or self.to_text else "at any time"

    def __str__(self) -> str:
        start = display_instant(self.start) if self.start > MIN_INSTANT else None
        end = display_instant(self.end) if self.end <= MAX_INSTANT else None
        return f"[{start or '…'}, {end or '…'})" if start or end else "all time"


ALL_TIME = Window()


@dataclass(frozen=True, slots=True)
class PulledWindow:
    """Whole days, of these entities or, where none are named, of all."""

    window: Window
    entities: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.window} of {', '.join(self.entities) or 'every entity'}"


def covered(parts: Iterable[PulledWindow], window: Window, entities: Sequence[str] = ()) -> bool:
    """Return whether the parts together hold all of the window of each of the entities (none named: of all)."""
    ordered = sorted(parts, key=lambda part: part.window.start)
    for entity in entities or (None,):
        reached = window.start
        for part in ordered:
            if part.window.start <= reached and (not part.entities or entity in part.entities):
                reached = max(reached, part.window.end)
        if reached < window.end:
            return False
    return True
