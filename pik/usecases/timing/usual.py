"""What is usual for a group: how many events it has in an hour or a day, learned from earlier days and weeks."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from statistics import median

from pik.model.instant import DAY, HOUR

HISTORY = 28 * DAY
LEAST_DAYS = 7
SILENT = 20
LEAST_DISPERSION = Decimal("0.2")
LEAST_SILENCE = SILENT * LEAST_DISPERSION
LEAST_HOURS = 100
DROP = 5
SPIKE = 6
FACTOR = 2
LEAST_SPIKE = 12
MAD = 1.4826  # standard deviations of normal values in a MAD
CHANGE = 1.0484  # and in the median change between two of them
_DAY_HOURS = 24
WEEK_DAYS = 7


@dataclass
class Usual:
    """What is usual for a group: its counts by number of the hour (or day) since 1970, and how many of them make a
    day."""

    counts: dict[int, int]
    per_day: int
    unit: int
    _memory: dict[int, tuple[Decimal, Decimal] | None] = field(default_factory=dict)

    @classmethod
    def of_hours(cls, hours: Iterable[tuple[int, int]]) -> Usual:
        """Return what is usual for each hour, of the hours' starts and counts."""
        counts = {start // HOUR: events for start, events in hours}
        return cls(counts, _DAY_HOURS, HOUR)

    @cached_property
    def days(self) -> Usual:
        """What is usual for each day."""
        counts: dict[int, int] = {}
        for hour, events in self.counts.items():
            counts[hour // _DAY_HOURS] = counts.get(hour // _DAY_HOURS, 0) + events
        return Usual(counts, 1, DAY)

    @property
    def reach(self) -> int:
        """For how many places afterwards a count tells what is usual."""
        return HISTORY // DAY * self.per_day

    @cached_property
    def stretches(self) -> list[range]:
        """The places of which something may be known: from the first whole one on, until none of the earlier days has
        an event. Afterwards all begins anew, so that a single event with a time of years ago says nothing of today."""
        found: list[range] = []
        for place in sorted(self.counts):
            is_next = bool(found) and place < found[-1].stop
            start = found.pop().start if is_next else place + 1
            found.append(range(start, place + self.reach + 1))
        return found

    def learned_from(self, end: int) -> int | None:
        """Return the first instant with enough earlier days, of the stretch with the most events; None: not before the
        end."""
        wait = LEAST_DAYS * self.per_day
        known = [one for one in self.stretches if (one.start + wait) * self.unit < end]
        largest = max(known, key=self._events, default=None)
        return None if largest is None else (largest.start + wait) * self.unit

    def _events(self, stretch: range) -> int:
        return sum(self.counts.get(place, 0) for place in range(stretch.start - 1, stretch.stop))

    def candidates(self, start: int, end: int) -> Iterable[int]:
        """Return the places that may be drops or spikes, in their order. Most groups are too small for drops."""
        if max(self.counts.values()) > DROP**2:
            return (place for one in self.stretches for place in range(max(start, one.start), min(end, one.stop)))
        return sorted(place for place, count in self.counts.items() if count >= LEAST_SPIKE and start <= place < end)

    @cached_property
    def busy(self) -> frozenset[int]:
        """The hours of the day in which any events may be usual: of the fewest days, more than half have some."""
        days = Counter(place % self.per_day for place in self.counts)
        return frozenset(hour for hour, count in days.items() if count > LEAST_DAYS // 2)

    def at(self, place: int) -> tuple[Decimal, Decimal] | None:
        """Return the lower and the higher of the medians of earlier days and weekdays; None where there are too few
        days."""
        if place not in self._memory:
            self._memory[place] = self._at(place)
        return self._memory[place]

    def _at(self, place: int) -> tuple[Decimal, Decimal] | None:
        of_days = self._earlier(place)
        if len(of_days) < LEAST_DAYS:
            return None
        medians = sorted((median(of_days), median(of_days[WEEK_DAYS - 1 :: WEEK_DAYS])))
        return Decimal(medians[0]), Decimal(medians[1])

    def _earlier(self, place: int) -> list[int]:
        """Return the counts of the earlier days, the latest first."""
        after = bisect_right(self.stretches, place, key=lambda stretch: stretch.start)
        if not after or place not in self.stretches[after - 1]:
            return []
        days = min(HISTORY // DAY, (place - self.stretches[after - 1].start) // self.per_day)
        return [self.counts.get(place - self.per_day * day, 0) for day in range(1, days + 1)]

    def _deviation(self, place: int) -> float:
        """Return how much the earlier days differ."""
        of_days = self._earlier(place)
        middle = median(of_days)
        deviation = MAD * median(abs(one - middle) for one in of_days)
        if len(of_days) >= 2 * WEEK_DAYS:  # weekends are usual
            changes = (abs(one - before) for one, before in zip(of_days, of_days[WEEK_DAYS:], strict=False))
            deviation = min(deviation, CHANGE * median(changes))
        return deviation

    def change(self, place: int) -> tuple[str | None, Decimal]:
        """Return whether the count is a drop or a spike, and what is usual."""
        count = self.counts.get(place, 0)
        nothing = None, Decimal(0)
        found = self.at(place)
        if found is None:
            return nothing
        low, high = found
        if count * FACTOR <= low and float(low) - count > DROP * max(self._deviation(place), math.sqrt(low + 1)):
            return "drop", low
        is_more = count >= LEAST_SPIKE and count >= FACTOR * high
        if is_more and count - float(high) > SPIKE * max(self._deviation(place), math.sqrt(high + 1)):
            return "spike", high
        return nothing

    def within(self, start: int, end: int) -> Decimal:
        """Return how many events were usual in a time without any, as far as that is known; to two digits after the
        point."""
        total = Decimal(0)
        first = start // HOUR
        for place in range(first, min(-(-end // HOUR), first + self.reach + 1)):  # nothing is usual later
            found = self.at(place) if place % self.per_day in self.busy else None
            if found is not None:
                overlap = min(end, (place + 1) * HOUR) - max(start, place * HOUR)
                total += found[0] * overlap / HOUR
        return total.quantize(Decimal("0.01"))

    def is_silence(self, expected: Decimal) -> bool:
        """Return whether no event at all is unusual where so many were expected."""
        return expected >= LEAST_SILENCE and float(expected) >= self._fewest

    @property
    def _fewest(self) -> float:
        return SILENT * max(self.dispersion, float(LEAST_DISPERSION))

    @cached_property
    def shortest_silence(self) -> int:
        """No time that is shorter is a silence, even if in all of it as many events were usual as any hour has had.
        `within` rounds by up to 0.005 events."""
        return math.floor((self._fewest - 0.01) * HOUR / max(self.counts.values()))

    @cached_property
    def dispersion(self) -> float:
        """The variance of the hours' counts divided by their mean, by medians; about 1 for independent events."""
        ratios = []
        for place in (each for one in self.stretches for each in range(one.start, one.stop - self.reach - 1)):
            found = self.at(place)
            if found is not None and found[0] >= FACTOR:
                middle = float(found[0] + found[1]) / 2
                ratios.append(abs(self.counts.get(place, 0) - middle) / math.sqrt(middle))
        learned = (MAD * median(ratios)) ** 2 if ratios else 1.0
        return learned if len(ratios) >= LEAST_HOURS else max(learned, 1.0)
