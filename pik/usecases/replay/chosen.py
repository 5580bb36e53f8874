"""Which buckets the filters of a replay choose: those of its source and type, or those that a correction changes.

A delivery that a correction moved or took out has left a bucket, which is wrong until it is computed again. So buckets
are chosen wherever deliveries were received, and wherever any correction moved them, whether they count there or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from pik.model.calendar import Buckets
from pik.model.correction import Correction, CorrectionKind
from pik.model.metric import Per
from pik.model.run import RunRequest
from pik.ports.engine import Engine, TouchedBucket
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected
from pik.rawlog.corrections import find_correction, read_winners
from pik.rawlog.gathering import Pieces, cut_by_size, gather
from pik.rawlog.selection import Overrides, Selection
from pik.runtime.storage import Sorter, scratch


def overrides_of(request: RunRequest, corrections_until: int | None = None) -> Overrides:
    """Return what the request says of the deliveries that count, with the corrections until then."""
    return Overrides(duplicates=request.counts_duplicates, corrected_until=corrections_until)


_PLACE = attrgetter("bucket", "entity_id")


def chosen_buckets(
    selection: Selection,
    engine: Engine,
    request: RunRequest,
    buckets: Buckets,
    at_most: int | None = None,
    per: Per = Per.ENTITY,
) -> Iterator[TouchedBucket]:
    """Yield the (bucket, entity) pairs of the selection that the request's filters choose, each with how many events
    they let through count there now; per all entities, the buckets. Raises as `gather` does."""
    with _deliveries(selection.store, request) as among:
        pieces = None if at_most is not None else cut_by_size(selection)
        found = _touched(selection, engine, request, buckets, among, at_most, per, pieces)
        others = list(_elsewhere(selection)) if request.chooses_buckets else []
        if not others and (pieces is None or len(pieces.counts) == 1):
            yield from found
            return
        pairs = Sorter[TouchedBucket](_PLACE)
        for pair in found:
            pairs.add(pair)
        for overrides in others:
            elsewhere = Selection(
                *(selection.store, selection.window, selection.entities, overrides, selection.entity_range)
            )
            pieces = None if at_most is not None else cut_by_size(elsewhere)
            for pair in _touched(elsewhere, engine, request, buckets, among, at_most, per, pieces):
                pairs.add(TouchedBucket(pair.bucket, pair.entity_id, 0))
        for (bucket, entity_id), same in groupby(pairs, key=_PLACE):
            yield TouchedBucket(bucket, entity_id, sum(pair.events for pair in same))


def _touched(
    selection: Selection,
    engine: Engine,
    request: RunRequest,
    buckets: Buckets,
    among: Path | None,
    at_most: int | None,
    per: Per,
    pieces: Pieces | None,
) -> Iterator[TouchedBucket]:
    """Yield the pairs of each of the pieces (None: of all raw at once), one piece after the other."""
    for segments in [None] if pieces is None else pieces:
        with gather(selection, segments, at_most=at_most) as raw:
            yield from engine.touched(
                raw.inputs,
                buckets,
                selection.window,
                entities=selection.entities,
                source=request.source,
                event_type=request.event_type,
                among=among,
                per=per,
            )


def _elsewhere(selection: Selection) -> Iterator[Overrides]:
    """Yield the overrides under which each delivery is where it was received, and then where each of the corrections
    moved it, revoked ones too; none where nothing was ever corrected."""
    log = [one for one in selection.store.corrections.recorded() if one.kind is not CorrectionKind.VERDICT]
    if log:
        yield Overrides(duplicates=True, corrected_until=0)
    for one in log:
        moved = Corrected(selection.store, [one])
        if one.kind.moves and moved.entered(selection.window):
            yield Overrides(duplicates=True, corrected=moved)


@contextmanager
def _deliveries(store: Store, request: RunRequest) -> Iterator[Path | None]:
    """Provide the deliveries that the request's correction is about as a file of `batch_id,seq` lines, without a seq
    for all of a batch; None: it names none. Raises NotFound and Damaged."""
    with ExitStack() as stack:
        file = None
        if request.correction is not None:
            file = stack.enter_context(scratch()) / "deliveries.csv"
            with open(file, "w", encoding="ascii") as lines:
                lines.writelines(_lines(store, find_correction(store, request.correction)))
        yield file


def _lines(store: Store, correction: Correction) -> Iterable[str]:
    match correction.kind:
        case CorrectionKind.REVOCATION:
            yield from _lines(store, find_correction(store, correction.revokes))
        case CorrectionKind.VERDICT:
            for line in read_winners(store.raw, RawKind.CORRECTION.key(correction.correction_id)):
                yield from (f"{batch_id},{seq}\n" for batch_id, seq in (line.new, *([line.old] if line.old else [])))
        case CorrectionKind.WITHOUT_BATCH:
            yield f"{correction.batch_id},\n"
            for deliveries in store.repeats.repeated_from(correction.batch_id):
                yield from (f"{one.batch_id},{one.seq}\n" for one in deliveries)
        case _:
            for _, one in Corrected(store).listed([correction], None, ()):
                yield f"{one.batch_id},{one.seq}\n"
