"""What `pik diff aggregates` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pik.cli.render import Bucket, Column, Count, Document, Table

if TYPE_CHECKING:
    from pik.usecases.diff import Diff, Difference


class Shortened:
    """The first rows, `limit` of them; `number` counts all, once they are read."""

    def __init__(self, rows: Iterable[Difference], limit: int | None) -> None:
        self._rows, self._limit = rows, limit
        self.number = 0

    def __iter__(self) -> Iterator[Difference]:
        for row in self._rows:
            self.number += 1
            if not self.cut:
                yield row

    @property
    def cut(self) -> bool:
        """Whether the limit left rows out."""
        return self._limit is not None and self.number > self._limit


def differences(diff: Diff, rows: Shortened, repair: str | None, *, stats: bool) -> Document:
    """The rows; `repair` is the command that makes what is current right."""

    def tail() -> dict[str, object]:
        counted = {"stats": {name: Count(getattr(diff.stats, name)) for name in _STATS}} if stats else {}
        return {
            "compared": Count(diff.stats.compared),
            "different": Count(rows.number),
            "cut": rows.cut,
            **counted,
            "next": _next(repair, diff) if rows.number else None,
        }

    return Document(
        head={"requested": diff.window, "effective": diff.effective},
        tables=[Table("differences", _COLUMNS, rows, empty="no differences")],
        tail=tail,
    )


def _next(repair: str | None, diff: Diff) -> str | None:
    """Lost raw looks as if there had been no events: then a repair would make it worse."""
    return f"pik verify --full, then {repair}" if repair and diff.stats.removed else repair


_STATS = ("equal", "other_inputs", "tolerated", "changed", "added", "removed")

_COLUMNS = [
    Column("op"),
    Column("metric"),
    Column("bucket", Bucket),
    Column("entity_id", cut=24),
    *(Column(name) for name in ("current", "recomputed", "delta")),
    Column("percent", drop=1),
    Column("inputs_before", Count, drop=3),
    Column("inputs_after", Count, drop=2),
]
