"""Numbers that a producer gives its events one after the other, and those that are missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pik.model.instant import DAY
from pik.model.window import Window
from pik.ports.engine import Tables
from pik.runtime.storage import Sorter

MARGIN = DAY
"""How much longer than the window is read, so that a number just outside of it is not missing."""


@dataclass(frozen=True, slots=True)
class MissingNumbers:
    """Successive numbers that no event of the group has, the first and the last included."""

    group: str | None
    first: int
    last: int

    @property
    def count(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class NumberSequence:
    """The numbers of a group: the least and the greatest in the window (None: no event has one), how many are missing
    between them, and how many events in the window have none."""

    group: str | None
    least: int | None
    greatest: int | None
    missing: int
    without_number: int


def missing_numbers(tables: Tables, window: Window) -> tuple[Iterable[MissingNumbers], tuple[NumberSequence, ...]]:
    """Return the missing ranges, by group and number, and the sequences.

    The table `measured` has the groups (grp), times (instant) and numbers as text (number) of events.
    """
    inside = f"instant BETWEEN {window.start} AND {window.end - 1}"
    tables.keep(
        "numbers",
        "SELECT grp, CASE WHEN regexp_full_match(number, '-?[0-9]{1,37}(\\.0+)?')"
        f" THEN TRY_CAST(number AS HUGEINT) END AS n, {inside} AS inside FROM measured",
    )
    tables.keep(
        "bounds",
        "SELECT grp, min(n) AS least, max(n) AS greatest, count(*) FILTER (n IS NULL) AS lacking FROM numbers"
        " WHERE inside GROUP BY 1",
    )
    tables.keep(
        "gaps",
        "SELECT grp, n + 1 AS first, next - 1 AS last FROM (SELECT grp, n, lead(n) OVER (PARTITION BY grp ORDER BY n)"
        " AS next FROM (SELECT DISTINCT numbers.grp, n FROM numbers JOIN bounds"
        " ON bounds.grp IS NOT DISTINCT FROM numbers.grp WHERE n BETWEEN least AND greatest)) WHERE next > n + 1",
    )
    ranges: Sorter[MissingNumbers] = Sorter(lambda one: (one.group is None, one.group or "", one.first))
    for row in tables.rows("SELECT grp, first, last FROM gaps"):
        ranges.add(MissingNumbers(*row))
    rows = tables.rows(
        "SELECT bounds.grp, any_value(least), any_value(greatest), coalesce(sum(last - first + 1), 0)::HUGEINT,"
        " any_value(lacking) FROM bounds LEFT JOIN gaps ON gaps.grp IS NOT DISTINCT FROM bounds.grp"
        " GROUP BY 1 ORDER BY 1"
    )
    return ranges, tuple(NumberSequence(*row) for row in rows)
