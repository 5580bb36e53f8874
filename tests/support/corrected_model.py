"""What counts once corrections are recorded, in plain Python: the model of scenarios with a log of corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import structs

from pik.model.correction import Correction, CorrectionKind, ListedDelivery
from pik.model.ids import new_id
from pik.model.instant import SECOND, full_instant
from pik.ports.store import Store
from pik.rawlog.corrections import record
from tests.support.corrections import written_lists
from tests.support.scenario_model import DAY_ONE, Arrival, Assumed, Model, moved_by

KINDS = {
    "without": CorrectionKind.WITHOUT,
    "without-selected": CorrectionKind.WITHOUT,
    "without-batch": CorrectionKind.WITHOUT_BATCH,
    "delivery": CorrectionKind.DELIVERY,
    "conflicts": CorrectionKind.CONFLICTS,
    "shift": CorrectionKind.SHIFT,
    "zone": CorrectionKind.ZONE,
}
"""The assumptions that can be recorded."""


@dataclass(eq=False)
class RecordedCorrection:
    """An entry of the log: the deliveries that were hit, each with the time to which it moves, or whether it counts."""

    kind: str
    recorded_at: int = 0
    correction_id: str = ""
    batch: int = -1
    revokes: RecordedCorrection | None = None
    times: dict[int, int] = field(default_factory=dict)
    chosen: dict[tuple[object, ...], Arrival] = field(default_factory=dict)
    out: set[tuple[object, ...]] = field(default_factory=set)


def holding(log: Sequence[RecordedCorrection], until: int | None) -> list[RecordedCorrection]:
    """Return those that hold at that moment."""
    known = [one for one in log if until is None or one.recorded_at <= until]

    def holds(one: RecordedCorrection) -> bool:
        return not any(later.revokes is one and holds(later) for later in known)

    return [one for one in known if one.revokes is None and holds(one)]


def resolve(model: Model, one: Assumed) -> RecordedCorrection:
    """Return what recording the assumption now says."""
    made = RecordedCorrection(one.kind)
    state = model.state(None, [])
    if one.kind == "without-batch":
        made.batch = one.number
    elif one.kind == "without":
        made.out = {model.arrivals[one.number].sent.identity}
    elif one.kind == "without-selected":
        made.out = {
            identity
            for identity, found in state.counting.items()
            if any(one.chosen.hits(each, state.times[each.number]) for each in found)
        }
    elif one.kind == "delivery":
        place = model.arrivals[one.number]
        made.chosen = {place.sent.identity: place}
    elif one.kind == "conflicts":
        for identity, found in state.events.items():
            contents = {each.sent.content for each in model.of_event(identity)}
            hit = any(one.chosen.hits(each, state.times[each.number]) for each in state.counting[identity])
            if len(contents) > 1 and hit:
                made.chosen[identity] = found[0 if one.word == "first" else -1]
    else:
        for each in model.arrivals:
            at = state.times[each.number]
            if one.chosen.hits(each, at):
                made.times[each.number] = moved_by(one, at)
    return made


def listed(model: Model, made: RecordedCorrection, ids: Sequence[str]) -> list[ListedDelivery]:
    """Return the lines of its lists."""
    lines = []
    for one in model.arrivals:
        time, counts = made.times.get(one.number), None
        chosen = made.chosen.get(one.sent.identity)
        if chosen is not None:
            counts = one is chosen
        if time is not None or chosen is not None or one.sent.identity in made.out:
            lines.append(
                ListedDelivery(
                    event_id=one.sent.event_id,
                    entity_id=one.sent.entity,
                    batch_id=ids[one.batch],
                    seq=one.seq,
                    event_time=full_instant(DAY_ONE + one.sent.at * SECOND),
                    time=None if time is None else full_instant(DAY_ONE + time * SECOND),
                    counts=counts,
                )
            )
    return lines


def record_correction(store: Store, model: Model, made: RecordedCorrection, ids: Sequence[str]) -> RecordedCorrection:
    """Record it in the store and in the model."""
    correction_id, lines = new_id(), listed(model, made, ids)
    revoked = made.revokes
    draft = Correction(
        format=0,
        correction_id=correction_id,
        kind=CorrectionKind.REVOCATION if revoked else KINDS[made.kind],
        recorded_at=0,
        reason="INC-1",
        batch_id="" if made.batch < 0 else ids[made.batch],
        revokes="" if revoked is None else revoked.correction_id,
        events=len({line.event_id for line in lines}),
    )
    draft = structs.replace(draft, lists=written_lists(store.raw, correction_id, lines))
    [written] = record(store, [draft])
    made.recorded_at, made.correction_id = written.recorded_at, written.correction_id
    model.log.append(made)
    return made
