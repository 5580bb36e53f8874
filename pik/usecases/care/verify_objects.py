"""Verifying the objects in raw that are no segments of the index: files of rejects, sealed records, and what the index
does not list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, groupby
from operator import attrgetter

from pik.errors import Damaged
from pik.model.batch import OF_REQUEST, Batch, BatchState, Frame
from pik.model.instant import day_text
from pik.ports.raw import Raw, RawKey, RawKind, keys_of
from pik.rawlog.objects import read_rejects
from pik.rawlog.plans import read_plan
from pik.rawlog.replacements import COPIES, RECORDS, parse_name, read_replacement
from pik.rawlog.sealed_records import (
    read_block,
    read_opening,
    recorded_blocks,
)
from pik.rawlog.segment_reader import scan_segment, seqs
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_findings import (
    Problem,
    ProblemKind,
    batch_problem,
    differing,
    entity_ranges,
)
from pik.usecases.care.verify_run import PartCheck, Verification
from pik.usecases.inspect.batches import read_closing


def object_problems(run: Verification) -> Iterator[Problem]:
    """Check that every object but a segment is of a known kind and batch. Segments of the window are checked by day."""
    objects = chain(run.store.raw.objects("raw/"), run.store.raw.objects(RawKind.CORRECTION))
    for (kind, batch_id), keys in groupby((found.key for found in objects), key=_kind):
        if kind == RawKind.REJECTS:
            batch = run.find_batch(batch_id)  # before its files are: see unlisted_problems
            listed = {file.key for file in run.store.index.rejects(batch_id)}
            unlisted = [key for key in keys if key not in listed]
            yield from unlisted_problems(run, batch, unlisted, sorted(listed))
        elif kind == RawKind.BATCH and run.find_batch(batch_id) is None:
            for key in keys:
                yield Problem(ProblemKind.INDEX, key, "the index does not know this batch")
        elif kind is None:
            for key in keys:
                yield from _replacement_problems(run, key)


def _replacement_problems(run: Verification, key: str) -> Iterator[Problem]:
    """Check a copy or the record of a replacement; a copy that counts is checked in place of the object."""
    name = parse_name(key)
    if name is None:
        yield Problem(ProblemKind.UNKNOWN, key, "pik does not write objects of this name")
    elif name[0] == RECORDS:
        run.replaced.add(name[2])
        try:
            if not run.quick:
                read_replacement(run.store.raw, key)
        except Damaged as error:
            yield Problem(ProblemKind.of(error), key, error.message)
    elif name[0] == COPIES and run.store.raw.size(f"{RECORDS}{name[1]}/{name[2]}") is None:
        run.counts["superseded"] += 1  # left by a restore that was interrupted


def _kind(text: str) -> tuple[RawKind | None, str]:
    """Return the kind of an object by its key, and the batch of a record or a file of rejects."""
    key = RawKey.parse(text)
    if key is None:
        return None, ""
    return key.kind, key.id if key.kind in (RawKind.REJECTS, RawKind.BATCH) else ""


def _content(raw: Raw, key: str) -> tuple[set[int], tuple[Frame, ...]]:
    """Return the seqs of the records that a segment or a file of rejects is about and, of a segment, its frames. Raises
    Damaged."""
    if key.startswith(RawKind.REJECTS):
        return {reject.seq for reject in read_rejects(raw, key)}, ()
    arrivals = scan_segment(raw, key)
    return seqs(arrivals), arrivals.segment.frames


def unlisted_problems(
    part: PartCheck, batch: Batch | None, keys: Sequence[str], listed: Iterable[str]
) -> Iterator[Problem]:
    """Yield what the index has lost among objects of a batch that it does not list: a crash left others, or they are
    being written. It lists those in `listed`, and was asked for them after `batch` was read: so an object of a complete
    batch that is not among them never will be."""
    if part.store.copy is not None:  # left by a pull that was interrupted
        part.counts["superseded"] += len(keys)
    elif batch is not None and batch.state == BatchState.RUNNING:
        part.counts["in_progress"] += len(keys)
    elif batch is not None and keys:
        yield from _left_over(part, batch, keys, listed)
    elif batch is None:  # a file's batch is in the index before its objects are in raw; a request's object comes first
        for key in keys:
            parsed = RawKey.of(key)
            if parsed.number != OF_REQUEST:
                yield _lost(part, key, "the index does not know this object's batch")
            elif part.audit.knows(parsed.id):
                yield _lost(part, key, "the index knows this request's batch, but not all that counts it")
            else:
                part.counts["unacknowledged"] += 1


def _left_over(part: PartCheck, batch: Batch, keys: Iterable[str], listed: Iterable[str]) -> Iterator[Problem]:
    raw = part.store.raw
    left: dict[str, tuple[set[int], tuple[Frame, ...]]] = {}
    for key in keys:
        try:
            left[key] = _content(raw, key)
        except Damaged as error:
            detail = f"the index does not list it, and it cannot be read: {error.message}"
            yield Problem(ProblemKind.of(error), key, detail)
    elsewhere: set[int] = set()
    for key in listed:
        try:
            elsewhere |= _content(raw, key)[0]
        except Damaged:  # which is reported of that object; what it held cannot be known
            elsewhere.update(*(found for found, _ in left.values()))
    for key, (found, frames) in left.items():
        remaining = found - elsewhere
        lost = {seq for seq in remaining if batch.state == BatchState.COMPLETE or seq < batch.next_seq}
        if lost:
            detail = f"the index lists neither it nor {len(lost)} of its records, the first of them {min(lost)}"
            yield _lost(part, key, detail, frames)
        else:
            part.counts["unacknowledged" if remaining else "superseded"] += 1


def _lost(part: PartCheck, key: str, detail: str, frames: tuple[Frame, ...] = ()) -> Problem:
    parsed = RawKey.of(key)
    part.counts["not_indexed"] += 1
    part.incomplete.add(parsed.id)
    day = None if parsed.day is None else day_text(parsed.day)
    return Problem(ProblemKind.INDEX, key, detail, day, entity_ranges(frames))


def record_problems(run: Verification) -> Iterator[Problem]:
    """Read every opening record, block record and closing, on which a later rebuild relies, and every plan."""
    raw, index_differs = run.store.raw, ProblemKind.INDEX
    for key in map(str, keys_of(raw, RawKind.PLAN)):
        try:
            read_plan(raw, key)
        except Damaged as error:
            yield Problem(ProblemKind.of(error), key, error.message)
    yield from _log_problems(run, RawKind.OPENING, read_opening)
    yield from _log_problems(run, RawKind.BLOCK, read_block)
    for found in raw.objects(RawKind.CLOSING):
        try:
            line = read_closing(raw, found.key)
        except Damaged as error:
            yield Problem(ProblemKind.of(error), found.key, error.message)
            continue
        for batch_id in (line.batch_id, line.replaced_by):
            if run.find_batch(batch_id) is None:
                yield Problem(index_differs, found.key, f"the index does not know batch {batch_id}")


def _log_problems(run: Verification, kind: RawKind, read: Callable[[Raw, str], object]) -> Iterator[Problem]:
    for batch_id, of_batch in groupby(keys_of(run.store.raw, kind), key=attrgetter("id")):
        is_known = run.find_batch(batch_id) is not None
        for key in map(str, of_batch):
            try:
                read(run.store.raw, key)
            except Damaged as error:
                yield Problem(ProblemKind.of(error), key, error.message)
                continue
            if not is_known:
                yield Problem(ProblemKind.INDEX, key, "the index does not know this batch")


def missing_records(run: Verification, batch: Batch) -> Iterator[Problem]:
    """Yield what is missing of the opening record and the block records of an interrupted batch of several blocks. A
    finished batch no longer needs them: its own record has all that they have."""
    raw = run.store.raw
    if batch.state != BatchState.INTERRUPTED or batch.is_request or has_expired(run.store, batch.started_at):
        return
    opening = RawKind.OPENING.key(batch.batch_id)
    is_there = raw.size(opening) is not None
    keys = [str(key) for key in keys_of(raw, RawKind.BLOCK, batch.batch_id)]
    numbers = {key.number for segment in run.segments(batch.batch_id) if (key := RawKey.parse(segment.key))}
    if not is_there and not keys and len(numbers) <= 1:
        return
    if not is_there:
        yield Problem(ProblemKind.MISSING, opening, "the opening record of this interrupted batch is not there")
    with suppress(Damaged):  # which is reported of that record
        line = read_opening(raw, opening) if is_there else None
        if line is not None and (other := differing(batch, line, ("origin", "started_at", "actor"))):
            yield batch_problem(batch.batch_id, f"the index has another {other} than {opening}")
    with suppress(Damaged):
        blocks = recorded_blocks(read_block(raw, key)[0] for key in keys)
        last_seq, number = (blocks[-1].last_seq, blocks[-1].number) if blocks else (0, 0)
        if last_seq + 1 < batch.next_seq:
            detail = f"the block records of this interrupted batch end at record {last_seq}, it goes on at"
            yield Problem(
                ProblemKind.MISSING, RawKind.BLOCK.key(batch.batch_id, number + 1), f"{detail} {batch.next_seq}"
            )
        elif batch.next_seq > 1:
            ends = {(block.last_seq + 1, block.offset, block.prefix_digest) for block in blocks}
            if (batch.next_seq, batch.offset, batch.prefix_digest) not in ends:
                yield batch_problem(batch.batch_id, "it does not go on where one of its block records ends")
