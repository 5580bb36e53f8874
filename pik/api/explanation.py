"""Why a value differs from what it should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from pik.api.charts import drawn
from pik.api.html import facts
from pik.api.opened import frames
from pik.api.results import Result, columns_of
from pik.api.rows import Cause, CauseEvent
from pik.api.times import Instant
from pik.ports.report import Waterfall

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.usecases.metrics import explain_events
    from pik.usecases.metrics import explanation as results


@dataclass(frozen=True, slots=True)
class NotRead:
    """Events that may count in a value and cannot be read, so that the right value is not known.

    There are at most so many `events`, and of these so many were `recorded_since`, after the left version was computed;
    None: not known. The right value is not less than `lowest` and not more than `highest`; None: that does not follow.
    """

    events: int | None
    recorded_since: int | None
    lowest: Decimal | None
    highest: Decimal | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A value on both sides, and why they differ.

    `current` is the left side, `recomputed` the right one (None: no value), and `delta` = recomputed - current, a
    missing value counted as 0: the exact sum of the shares of the `causes`, which are in the order in which they are
    applied. `events` are those behind the causes. `proven`: raw still holds exactly what the recorded versions counted;
    None: there is none. `not_read` is None unless raw that may count in the recomputed value cannot be read.
    """

    metric: str
    entity_id: str | None
    bucket: Instant
    current: Decimal | None
    recomputed: Decimal | None
    delta: Decimal
    proven: bool | None
    not_read: NotRead | None
    run_id: str | None
    causes: Result[Cause]
    events: Result[CauseEvent]

    def _repr_html_(self) -> str:
        names = ("metric", "entity_id", "bucket", "current", "recomputed", "delta", "proven", "run_id")
        shown = facts((name, getattr(self, name)) for name in names)
        steps = [(one.cause, one.share, one.proven) for one in self.causes if one.share]
        left, right = self.current or Decimal(0), self.recomputed or Decimal(0)
        return shown + drawn(Waterfall(self.metric, left, steps, right)) + self.causes._repr_html_()


def explanation(store: Store, found: results.Explanation) -> Explanation:
    """Return what was found, as the API has it."""
    from pik.usecases.metrics.definitions import pin
    from pik.usecases.metrics.explain_events import events_behind

    def events(_: int | None) -> Iterator[CauseEvent]:
        return map(_event, events_behind(store, found))

    version = found.left.version
    causes: list[Cause] = [_cause(one) for one in found.shares]
    return Explanation(
        pin(found.metric),
        found.entity_id or None,
        Instant(found.bucket),
        None if found.left.computed is None else found.left.computed.value,
        None if found.recomputed is None else found.recomputed.value,
        found.delta,
        found.proven,
        None if found.is_complete else NotRead(found.unread.events(), found.unread_since, *found.bounds),
        (version and version.run_id) or None,
        Result(lambda _: causes, columns_of(Cause), frames, title="causes"),
        Result(events, columns_of(CauseEvent), frames, title="events"),
    )


def _cause(share: results.Share) -> Cause:
    version = share.side and share.side.version
    return Cause(
        str(share.cause),
        share.share,
        share.events,
        share.proven,
        share.detail,
        (version and version.run_id) or None,
        None if share.correction is None else share.correction.correction_id,
    )


def _event(found: explain_events.CauseEvent) -> CauseEvent:
    change, delivery = found.change, found.delivery
    return CauseEvent(
        str(found.cause),
        change.event_id,
        None if delivery is None else Instant(delivery.event_instant),
        "~" if change.before and change.after else "+" if change.after else "-",
        change.batch_id,
        change.seq,
        None if delivery is None else bytes(delivery.payload).decode(),
    )
