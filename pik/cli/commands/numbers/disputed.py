"""What `pik explain` says of conflicts and suspects that would change the value."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from pik.cli.document import Field, Object
from pik.cli.values import Count, Shown
from pik.errors import command, number_of
from pik.model.instant import format_instant

if TYPE_CHECKING:
    from pik.usecases.metrics.disputed import Dispute
    from pik.usecases.metrics.explanation import Explanation


def commands_of(found: Explanation, disputes: Sequence[Dispute]) -> list[str]:
    """Return the commands that list the events; what conflicts differ in takes all of raw."""
    from pik.usecases.metrics.disputed import CONFLICTS
    from pik.usecases.metrics.states import options_of

    bucket = "--from", format_instant(found.bucket), "--to", format_instant(found.metric.buckets.end_of(found.bucket))
    return [
        command(
            *("duplicates", "--class", one.kind.removesuffix("s")),
            *(["--show-payload-diff"] if one.kind == CONFLICTS and not found.lost else []),
            *(*options_of(found.entity_id), *bucket),
        )
        for one in disputes
        if one.failure is None
    ]


def shown(disputes: Sequence[Dispute]) -> Shown | None:
    """Return what is disputed as the value of its field; None: nothing."""
    return Shown(_DISPUTES.values(disputes), "\n".join(map(_line, disputes))) if disputes else None


def _line(one: Dispute) -> str:
    if one.failure is not None:
        return f"{one.kind} were not looked at: {one.failure}"
    value = "no value" if one.value is None else f"{one.value:f}"
    return f"{number_of(one.events or 0, one.kind[:-1])}: {value} ({one.delta:+f}) with {one.assumption}"


_DISPUTES = Object(
    Field("kind", str, "`conflicts` or `suspects`"),
    Field("events", Count | None, "that count otherwise; null: not looked at"),
    Field("value", Decimal | None, "what the recomputed value would be"),
    Field("delta", Decimal | None, "value - recomputed, a missing value counted as 0; null: not looked at"),
    Field("assumption", str, "under which it would be that, for `--assume`"),
    Field("failure", str | None, "why it could not be looked at"),
    many=True,
    null=True,
)

DISPUTED = Field(
    "disputed",
    _DISPUTES,
    "conflicts and suspects that would change the recomputed value; null: none would, or the right side is recorded, or"
    " there are assumptions",
)
