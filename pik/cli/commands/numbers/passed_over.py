"""What `pik explain` says of a run that has a better value, and was rolled back or promoted in part."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pik.cli.document import Field, Object
from pik.cli.values import Instant, Shown
from pik.model.instant import display_instant
from pik.model.run import PromotionKind

if TYPE_CHECKING:
    from pik.usecases.metrics.passed_over import PassedOver

_RUN = Object(
    Field("run_id", str),
    Field("value", Decimal | None, "its value"),
    Field("what", str, "`rolled back` or `promoted in part`"),
    Field("at", Instant, "when", get="last.at"),
    Field("actor", str | None, "by whom; null: not known", get="last.actor"),
    Field("reason", str | None, get="last.reason"),
    null=True,
)

PASSED_OVER = Field(
    "passed_over",
    _RUN,
    "a run whose value is nearer to the recomputed one, and which was rolled back, or promoted in part because another"
    " promotion had changed the value, since the current one was promoted; null: there is none",
)


def shown(found: PassedOver | None) -> Shown | None:
    """Return the run as the value of its field; None: there is none."""
    if found is None:
        return None
    last = found.last
    has = "the recomputed value" if found.is_right else "a nearer value"
    if not found.is_right and found.value is not None:
        has += f", {found.value:f},"
    done = "was rolled back"
    if last.kind == PromotionKind.PROMOTE:
        done = "was promoted without it (another promotion came between)"
    by = f" by {last.actor}" if last.actor else ""
    reason = f' (reason "{last.reason}")' if last.reason else ""
    text = f"run {found.run_id} has {has} and {done} at {display_instant(last.at)}{by}{reason}"
    return Shown(_RUN.values(found), text)
