"""The deliveries behind each cause of an explanation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pik.model.delivery import Delivery, event_id_text
from pik.model.metric import entities_of
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.corrected import ever_moved
from pik.rawlog.objects import frame_lines, parse
from pik.rawlog.selection import Overrides, Selection
from pik.usecases.metrics.chain import Cause
from pik.usecases.metrics.explanation import Explanation
from pik.usecases.metrics.states import Change


@dataclass(frozen=True, slots=True)
class CauseEvent:
    """A delivery behind a cause, as it is in raw; `delivery` is None for one that is only assumed."""

    cause: Cause
    detail: str
    change: Change
    delivery: Delivery | None

    @property
    def counted_at(self) -> int | None:
        """When it counts (nanoseconds), where corrections or assumptions say another time than that in raw."""
        if self.delivery is None:
            return None
        instant = self.delivery.event_instant
        moved = self.change.counted_at - instant // 1000
        return instant + moved * 1000 if moved else None


AT_ONCE = 20_000
"""Events behind a cause that are held in memory."""


def events_behind(store: Store, explanation: Explanation) -> Iterator[CauseEvent]:
    """Yield the deliveries behind each cause, in the order of the causes and then of event_id. Raises Damaged."""
    for share in explanation.shares:
        changes = iter(share.changes)
        while some := list(islice(changes, AT_ONCE)):
            found = _deliveries(store, explanation, some)
            for one in some:
                yield CauseEvent(share.cause, share.detail, one, found.get((one.batch_id, one.seq)))


def _deliveries(store: Store, explanation: Explanation, changes: Sequence[Change]) -> dict[tuple[str, int], Delivery]:
    """Return these deliveries, by batch and seq."""
    wanted = {(one.batch_id, one.seq) for one in changes}
    event_ids = {one.event_id.encode() for one in changes}
    found: dict[tuple[str, int], Delivery] = {}
    times = [one.event_time * 1000 for one in changes]
    window, moves = Window(min(times), max(times) + 1000), explanation.moves
    # Those that are only counted at another time than their own are where that moved them from.
    corrected = ever_moved(store)
    overrides = Overrides(unreadable=explanation.unreadable, later=moves[0], earlier=moves[1], corrected=corrected)
    for segment, frames in Selection(store, window, entities_of(explanation.entity_id), overrides).needed():
        for frame in frames:
            for line in frame_lines(store.raw, segment, frame):
                if event_id_text(line) in event_ids:
                    delivery = parse(segment.key, line)
                    place = delivery.batch_id, delivery.seq
                    if place in wanted:
                        found[place] = delivery
    return found
