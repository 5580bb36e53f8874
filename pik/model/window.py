"""Windows: half-open `[start, end)` intervals in UTC."""

from __future__ import annotations

from dataclasses import dataclass

from pik.errors import UsageError
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, day_of, format_instant


@dataclass(frozen=True, slots=True)
class Window:
    """`[start, end)` in nanoseconds since the epoch; the default is all of time."""

    start: int = MIN_INSTANT
    end: int = MAX_INSTANT + 1

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise UsageError(
                f"the window [{format_instant(self.start)}, {format_instant(self.end)}) is empty",
                hint="--from is included, --to is not; --to must be later",
            )

    def __contains__(self, instant: int) -> bool:
        return self.start <= instant < self.end

    def widened(self, size: int) -> Window:
        """Return the smallest window of whole buckets of `size` nanoseconds that contains this one. The first and the
        last bucket end where time does: what lies beyond is not an instant."""
        return Window(
            max(self.start - self.start % size, MIN_INSTANT), min(self.end + -self.end % size, MAX_INSTANT + 1)
        )

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

    def __str__(self) -> str:
        return f"[{self.from_text or 'the beginning'}, {self.to_text or 'the end'})"


ALL_TIME = Window()
