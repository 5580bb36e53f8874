"""Verifying the objects in raw: day by day each segment that the index lists and each one that it does not, then files
of rejects and sealed records."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import chain, groupby
from operator import attrgetter, itemgetter

from pik.errors import Damaged, Unreadable
from pik.model.batch import OF_REQUEST, Arrivals, Batch, BatchState, Frame, Segment
from pik.model.delivery import Delivery
from pik.model.instant import Window, day_text
from pik.ports.raw import Raw, RawKey, RawKind, RawObject, keys_of
from pik.ports.store import Store
from pik.rawlog.objects import read_rejects, unpack_frame
from pik.rawlog.replacements import COPIES, RECORDS, parse_name, read_replacement
from pik.rawlog.sealed_records import (
    SegmentLine,
    read_block,
    read_opening,
    read_record,
    recorded_blocks,
)
from pik.rawlog.segment_reader import ids_of, scan_segment, seqs
from pik.runtime.parallel import map_in_threads
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_findings import (
    Problem,
    ProblemKind,
    Verification,
    batch_problem,
    differing,
    entity_ranges,
    segment_holding,
    segment_problem,
)
from pik.usecases.inspect.batches import read_closing

_SEGMENTS_AT_ONCE, _DELIVERIES_AT_ONCE = 200, 200_000
"""Segments that are compared with the index at once, at most, and about how many deliveries of theirs."""

_READERS = 8
"""Threads that read raw: where it is far away, waiting for it is most of the work."""

_NOT_IN_RAW = ("recorded_at", "inline", "guessed")
"""Fields of a segment that its object does not have."""

_Listed = tuple[Segment, int | None]
"""A segment of the index, and the size of its object where raw was seen to have it."""

_Read = tuple[Arrivals, Mapping[int, int], Mapping[str, int], str]
"""What a segment holds, and of a request's the lags and the sources that its batch counts, and its actor."""


def day_problems(run: Verification) -> Iterator[Problem]:
    """Check the days of the window: of each all objects in raw and all segments of the index.

    What is listed in raw is read first, and then the index: so an object that is recorded meanwhile is known by then.
    """
    objects = (
        (_day(found.key), 0, found)
        for found in run.store.raw.objects(RawKind.SEGMENT)
        if _in_window(run, found.key) and RawKey.parse(found.key) is not None
    )
    segments = ((day_text(one.day), 1, one) for one in run.store.index.segments(run.window))
    both: Iterator[tuple[str, int, RawObject | Segment]] = heapq.merge(objects, segments, key=itemgetter(0, 1))
    for _, entries in groupby(both, key=itemgetter(0)):
        sizes: dict[str, int] = {}
        listed: list[_Listed] = []
        for _, _, entry in entries:
            if isinstance(entry, RawObject):
                sizes[entry.key] = entry.size
                continue
            listed.append((entry, sizes.pop(entry.key, None)))
            deliveries = sum(segment.deliveries for segment, _ in listed)
            if len(listed) >= _SEGMENTS_AT_ONCE or deliveries >= _DELIVERIES_AT_ONCE:
                yield from _segment_problems(run, listed)
                listed = []
        yield from _segment_problems(run, listed)
        if sizes:
            yield from _unlisted(run, sizes)
    if run.full:
        yield from _row_problems(run)


def _day(key: str) -> str:
    return key.removeprefix(RawKind.SEGMENT)[:10]


def _in_window(run: Verification, key: str) -> bool:
    first, last = map(day_text, run.window.days)
    return first <= _day(key) <= last


def _unlisted(run: Verification, sizes: dict[str, int]) -> Iterator[Problem]:
    """Check objects of one day that the index did not list. It is asked once more: they may be recorded by now."""
    names = {key: RawKey.of(key) for key in sizes}
    batches = {name.id: run.find_batch(name.id) for name in names.values()}
    keys, listed = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    late: list[_Listed] = []
    for segment in run.store.index.segments(Window.of_day(next(iter(names.values())).day or 0)):
        if segment.key in names:
            del names[segment.key]
            late.append((segment, sizes[segment.key]))
        elif segment.batch_id in batches:
            listed[segment.batch_id].append(segment.key)
    for key, name in names.items():
        keys[name.id].append(key)
    yield from _segment_problems(run, late)
    for batch_id, batch in batches.items():
        yield from _unlisted_problems(run, batch, keys[batch_id], listed[batch_id])


def _segment_problems(run: Verification, listed: Sequence[_Listed]) -> Iterator[Problem]:
    checks = map_in_threads(partial(_checked, run.store, full=run.full), listed, _READERS, 2 * _READERS)
    sound: list[_Read] = []
    for (segment, _), (problem, read) in zip(listed, checks, strict=True):
        run.counts["segments"] += 1
        run.progress.advance(1)
        is_gone = problem is not None and problem.kind == ProblemKind.MISSING
        if problem is not None and run.full:
            run.ledger.add(segment, replace(segment_holding(run.store.index, segment), sound=False))
        if is_gone and has_expired(run.store, segment.ingest_time):
            run.count_expired(segment)
            continue
        run.counts["deliveries"] += segment.deliveries
        if problem is not None:
            if segment.unknown_frames:
                run.unknown_losses.add(segment.day)
            if problem.kind == ProblemKind.INDEX:
                if segment.unknown_frames:
                    run.note_lost(segment, segment.unknown_frames)
            else:
                run.counts[problem.kind] += 1
                problem = _with_lost(run, segment, problem)
            yield problem
        elif read is not None:
            sound.append(read)
        else:
            run.counts["valid"] += 1
    if sound:
        yield from _index_problems(run, sound)


def _index_problems(run: Verification, sound: list[_Read]) -> Iterator[Problem]:
    """Compare the deliveries of whole segments with the index; twice, as they may be being recorded."""
    audit = run.store.audit
    others = audit.differing([arrivals for arrivals, *_ in sound])
    if others:
        others = audit.differing([arrivals for arrivals, *_ in sound if arrivals.segment.key in others])
    for arrivals, lags, sources, actor in sound:
        segment = arrivals.segment
        is_sound = segment.key not in others
        holding = segment_holding(run.store.index, segment)
        run.ledger.add(segment, replace(holding, lags=lags, sources=sources, actor=actor, sound=is_sound))
        if is_sound:
            run.counts["valid"] += 1
            run.ledger.expect_rows(segment)
        else:
            yield segment_problem(ProblemKind.INDEX, segment, others[segment.key])


def _row_problems(run: Verification) -> Iterator[Problem]:
    """Find rows of the index for which there is no delivery; counted twice, as they may be being recorded."""
    other = [
        (key, deliveries, rows)
        for key, deliveries, rows in run.ledger.other_rows(run.store.audit.rows())
        if deliveries or _is_of_nothing(run, key)
    ]
    again = set(run.ledger.other_rows(run.store.audit.rows())) if other else ()
    for key, deliveries, rows in other:
        if (key, deliveries, rows) in again:
            run.counts["valid"] -= deliveries > 0
            detail = f"the index has {rows} rows for {deliveries} deliveries"
            yield Problem(ProblemKind.INDEX, key, detail, _day(key))


def _is_of_nothing(run: Verification, key: str) -> bool:
    """Return whether rows are of a segment in the window that neither raw nor the index has. Others that no sound
    segment explains were recorded later, or have been reported."""
    if not _in_window(run, key) or run.store.raw.size(key) is not None:
        return False
    match = RawKey.parse(key)
    of_day = run.store.index.segments(Window.of_day(match.day or 0), batch_id=match.id) if match else ()
    return all(segment.key != key for segment in of_day)


def _checked(store: Store, listed: _Listed, *, full: bool) -> tuple[Problem | None, _Read | None]:
    """Return what is wrong with a segment's object, or if nothing is and it was read, what it holds."""
    segment, size = listed
    try:
        size = store.raw.size(segment.key) if size is None else size  # None: not there when raw was listed
    except Unreadable as error:
        return segment_problem(ProblemKind.UNREADABLE, segment, error.reason, segment.frames), None
    if size is None:
        return segment_problem(ProblemKind.MISSING, segment, "the object is not there", segment.frames), None
    if not full and (size != segment.size or not segment.unknown_frames):
        return None if size == segment.size else _modified(store, segment, size), None
    deliveries: list[Delivery] = []
    key = RawKey.parse(segment.key)
    is_request = key is not None and key.number == OF_REQUEST
    try:
        arrivals = scan_segment(store.raw, segment.key, deliveries.append if is_request else lambda _: None)
    except Unreadable as error:
        return segment_problem(ProblemKind.UNREADABLE, segment, error.reason, segment.frames), None
    except Damaged:
        return _modified(store, segment, size), None
    found = arrivals.segment
    if (found.size, found.digest) != (segment.size, segment.digest):
        if _is_recorded(store, found):
            detail = "the index has another size or SHA-256 than the batch's record"
            return segment_problem(ProblemKind.INDEX, segment, detail), None
        return _modified(store, segment, found.size), None
    if segment.unknown_frames:
        detail = "the index was rebuilt while it was lost, so it is not read"
        return segment_problem(ProblemKind.INDEX, segment, detail, segment.unknown_frames), None
    if segment.inline and sha256(segment.inline).hexdigest() != found.digest:
        return segment_problem(ProblemKind.INDEX, segment, "the index has a copy of it with other bytes"), None
    if other := differing(found, segment, (name for name in found.__struct_fields__ if name not in _NOT_IN_RAW)):
        return segment_problem(ProblemKind.INDEX, segment, f"the index has another {other} than raw"), None
    lags, sources = Counter(one.lag for one in deliveries), Counter(one.source for one in deliveries)
    actor = max((one.actor for one in deliveries), default="")
    return None, (replace(arrivals, segment=segment), lags, sources, actor)


def _is_recorded(store: Store, found: Segment) -> bool:
    """Return whether the record of its batch describes this very object, so that the index is to blame."""
    key = RawKind.BATCH.key(found.batch_id)
    try:
        return store.raw.size(key) is not None and any(
            (line.segment.key, line.segment.size, line.segment.digest) == (found.key, found.size, found.digest)
            for line in read_record(store.raw, key)
            if isinstance(line, SegmentLine)
        )
    except Damaged:
        return False


def _modified(store: Store, segment: Segment, size: int) -> Problem:
    """Return the problem of an object that is not the recorded one, or cannot be read."""
    try:
        store.raw.read(segment.key, 0, 1)
    except Unreadable as error:
        return segment_problem(ProblemKind.UNREADABLE, segment, error.reason, segment.frames)
    except Damaged:
        pass
    detail = f"{size} bytes, not {segment.size}" if size != segment.size else "its SHA-256 is not the recorded one"
    return segment_problem(ProblemKind.MODIFIED, segment, detail, _damaged_frames(store, segment))


def _damaged_frames(store: Store, segment: Segment) -> tuple[Frame, ...]:
    """Return the frames of a damaged segment that cannot be read as they were written; all of them, if none shows it (a
    digest sees more)."""
    damaged: list[Frame] = []
    with suppress(Damaged):
        data = store.raw.read(segment.key)
        for frame in segment.frames:
            try:
                unpack_frame(segment, frame, data[frame.offset : frame.offset + frame.length])
            except Damaged:
                damaged.append(frame)
    return tuple(damaged) or segment.frames


def _with_lost(run: Verification, segment: Segment, problem: Problem) -> Problem:
    """Note which frames of a segment are lost, and return the problem with the ids of their deliveries, which the index
    still knows."""
    is_gone = problem.kind == ProblemKind.MISSING
    lost = run.note_lost(segment, segment.frames if is_gone else _damaged_frames(run.store, segment))
    if not run.full or problem.kind == ProblemKind.UNREADABLE:  # which may not be lost
        return problem
    ids = {event_id.hex() for _, event_id in ids_of(run.store.audit.deliveries(segment, lost.frames))}
    return replace(problem, lost_events=tuple(sorted(ids)))


def note_lost_in(run: Verification, window: Window) -> None:
    """Note what is lost of days beside those that were verified, into which buckets reach."""
    for segment in run.store.index.segments(window):
        if segment.key not in run.lost and not run.includes(segment.day):
            problem, _ = _checked(run.store, (segment, None), full=True)
            if problem is not None and problem.kind != ProblemKind.INDEX:
                _with_lost(run, segment, problem)


def object_problems(run: Verification) -> Iterator[Problem]:
    """Check that every object but a segment is of a known kind and batch. Segments of the window are checked by day."""
    objects = chain(run.store.raw.objects("raw/"), run.store.raw.objects(RawKind.CORRECTION))
    for (kind, batch_id), keys in groupby((found.key for found in objects), key=_kind):
        if kind == RawKind.REJECTS:
            batch = run.find_batch(batch_id)  # before its files are: see _unlisted_problems
            listed = {file.key for file in run.store.index.rejects(batch_id)}
            unlisted = [key for key in keys if key not in listed]
            yield from _unlisted_problems(run, batch, unlisted, sorted(listed))
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
            if run.full:
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


def _unlisted_problems(
    run: Verification, batch: Batch | None, keys: Sequence[str], listed: Iterable[str]
) -> Iterator[Problem]:
    """Yield what the index has lost among objects of a batch that it does not list: a crash left others, or they are
    being written. It lists those in `listed`, and was asked for them after `batch` was read: so an object of a complete
    batch that is not among them never will be."""
    if run.store.copy is not None:  # left by a pull that was interrupted
        run.counts["superseded"] += len(keys)
    elif batch is not None and batch.state == BatchState.RUNNING:
        run.counts["in_progress"] += len(keys)
    elif batch is not None and keys:
        yield from _left_over(run, batch, keys, listed)
    elif batch is None:  # a file's batch is in the index before its objects are in raw; a request's object comes first
        for key in keys:
            parsed = RawKey.of(key)
            if parsed.number != OF_REQUEST:
                yield _lost(run, key, "the index does not know this object's batch")
            elif run.store.audit.knows(parsed.id):
                yield _lost(run, key, "the index knows this request's batch, but not all that counts it")
            else:
                run.counts["unacknowledged"] += 1


def _left_over(run: Verification, batch: Batch, keys: Iterable[str], listed: Iterable[str]) -> Iterator[Problem]:
    raw = run.store.raw
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
            yield _lost(run, key, detail, frames)
        else:
            run.counts["unacknowledged" if remaining else "superseded"] += 1


def _lost(run: Verification, key: str, detail: str, frames: tuple[Frame, ...] = ()) -> Problem:
    parsed = RawKey.of(key)
    run.counts["not_indexed"] += 1
    run.incomplete.add(parsed.id)
    day = None if parsed.day is None else day_text(parsed.day)
    return Problem(ProblemKind.INDEX, key, detail, day, entity_ranges(frames))


def record_problems(run: Verification) -> Iterator[Problem]:
    """Read every opening record, block record and closing, on which a later rebuild relies."""
    raw, index_differs = run.store.raw, ProblemKind.INDEX
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
        if line is not None and (line.origin, line.started_at) != (batch.origin, batch.started_at):
            yield batch_problem(batch.batch_id, f"the index has another origin or started_at than {opening}")
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
