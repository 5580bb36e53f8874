"""What became of a buffered request: the batch that recorded it, and its part of that."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from pik.errors import Ambiguous, NotFound
from pik.model.batch import Batch, Counts, Verdict
from pik.model.ids import ID_LENGTH, TIME_DIGITS, request_digits
from pik.model.window import ALL_TIME
from pik.ports.index import batch_of
from pik.ports.store import Store
from pik.rawlog.objects import frame_lines, parse
from pik.usecases.inspect.batches import list_rejects

_OF_GATEWAY = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""An id that API Gateway gives a request."""


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What became of the records of a request, by the verdicts at arrival. `buffered_id` is its id in the response."""

    buffered_id: str
    counts: Counts


def batch_with(store: Store, name: str) -> tuple[Batch, str]:
    """Return the batch with this id or unambiguous prefix; or the batch that recorded the buffered request with this
    whole id, which may be API Gateway's, and what follows the time in its own. Raises NotFound."""
    digits = ""
    if _OF_GATEWAY.fullmatch(name):
        digits = request_digits(name)
    elif len(name) == ID_LENGTH:
        digits = name[TIME_DIGITS:].upper()
    recorded_in = store.assignments.batch_of(digits) if digits else None
    if recorded_in is not None and (batch := next(store.index.batches(recorded_in), None)) is not None:
        return batch, digits
    try:
        return batch_of(store.index, name), ""
    except Ambiguous:
        raise
    except NotFound as error:
        if digits and store.deployed:
            waiting = "a buffered request has no batch while it waits in the queue; how many do: pik stack status"
            error.hint = f"{error.hint}\n{waiting}"
        raise


def request_outcome(store: Store, batch: Batch, digits: str) -> RequestOutcome:
    """Return what became of the request with these digits, which a batch recorded; all of the batch is read. Raises
    Damaged."""
    kinds: Counter[str] = Counter()
    names: set[str] = set()
    for segment in store.index.segments(ALL_TIME, batch_id=batch.batch_id):
        verdicts = store.index.skipped(segment)
        for frame in segment.frames:
            for line in frame_lines(store.raw, segment, frame):
                delivery = parse(segment.key, line)
                if delivery.file.endswith(digits):
                    kinds[verdicts.get(delivery.seq, Verdict.ACCEPTED)] += 1
                    names.add(delivery.file)
    rejected = [reject.file for reject in list_rejects(store, batch) if reject.file.endswith(digits)]
    accepted, exact, conflict = (kinds[kind] for kind in (Verdict.ACCEPTED, Verdict.EXACT, Verdict.CONFLICT))
    counts = Counts(accepted + exact + conflict + len(rejected), accepted, exact, conflict, len(rejected))
    return RequestOutcome(max({*names, *rejected}, default=digits), counts)
