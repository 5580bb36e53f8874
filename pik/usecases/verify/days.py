"""Verifying day by day: each segment that the index lists, and each object that it does not."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter

from pik.errors import Damaged
from pik.model.batch import OF_REQUEST, Arrivals, Frame, Segment
from pik.model.delivery import Delivery
from pik.model.instant import day_text
from pik.model.window import Window
from pik.ports.raw import RawObject
from pik.ports.store import Store
from pik.rawlog.batch_records import SegmentLine, read_record
from pik.rawlog.frames import unpack_frame
from pik.rawlog.keys import RawKey, RawKind
from pik.rawlog.segment_reader import scan_segment
from pik.runtime.parallel import map_in_threads
from pik.usecases.availability import has_expired
from pik.usecases.verify.findings import Problem, ProblemKind, Verification, segment_holding, segment_problem
from pik.usecases.verify.objects import segment_content, unlisted_problems

_SEGMENTS_AT_ONCE, _DELIVERIES_AT_ONCE = 200, 200_000
"""Segments that are compared with the index at once, at most, and about how many deliveries of theirs."""

_READERS = 8
"""Threads that read raw: where it is far away, waiting for it is most of the work."""

_NOT_IN_RAW = ("recorded_at", "inline", "guessed")
"""Fields of a segment that its object does not have."""

_Listed = tuple[Segment, int | None]
"""A segment of the index, and the size of its object where raw was seen to have it."""

_Read = tuple[Arrivals, Mapping[int, int], Mapping[str, int]]
"""What a segment holds, and of a request's the lags and the sources that its batch counts."""


def day_problems(run: Verification) -> Iterator[Problem]:
    """Check the days of the window: of each all objects in raw and all segments of the index.

    What is listed in raw is read first, and then the index: so an object that is recorded meanwhile is known by then.
    """
    objects = (
        (_day(found.key), 0, found) for found in run.store.raw.objects(RawKind.SEGMENT) if _is_checked(run, found.key)
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


def _is_checked(run: Verification, key: str) -> bool:
    return _in_window(run, key) and RawKey.parse(key) is not None


def _unlisted(run: Verification, sizes: dict[str, int]) -> Iterator[Problem]:
    """Check objects of one day that the index did not list. It is asked once more: they may be recorded by now."""
    names = {key: match for key in sizes if (match := RawKey.parse(key))}
    batches = {match.id: run.find_batch(match.id) for match in names.values()}
    keys: dict[str, list[str]] = {batch_id: [] for batch_id in batches}
    listed: dict[str, list[str]] = {batch_id: [] for batch_id in batches}
    late: list[_Listed] = []
    for segment in run.store.index.segments(Window.of_day(next(iter(names.values())).day or 0)) if names else ():
        if segment.key in names:
            del names[segment.key]
            late.append((segment, sizes[segment.key]))
        elif segment.batch_id in listed:
            listed[segment.batch_id].append(segment.key)
    for key, match in names.items():
        keys[match.id].append(key)
    yield from _segment_problems(run, late)
    for batch_id, batch in batches.items():
        yield from unlisted_problems(run, batch, keys[batch_id], listed[batch_id], segment_content)


def _segment_problems(run: Verification, listed: Sequence[_Listed]) -> Iterator[Problem]:
    checks = map_in_threads(partial(_checked, run.store, full=run.full), listed, _READERS, 2 * _READERS)
    sound: list[_Read] = []
    for (segment, _), (problem, read) in zip(listed, checks, strict=True):
        run.counts["segments"] += 1
        run.progress.advance(1)
        is_gone = problem is not None and problem.kind == ProblemKind.MISSING
        if problem is not None and run.full:
            run.ledger.add(segment, segment_holding(run.store.index, segment, {}, {}, sound=False))
        if is_gone and has_expired(run.store, segment.ingest_time):
            run.count_expired(segment)
            continue
        run.counts["deliveries"] += segment.deliveries
        if problem is not None:
            run.counts["missing" if is_gone else "modified"] += problem.kind != ProblemKind.INDEX
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
    differing = audit.differing([arrivals for arrivals, _, _ in sound])
    if differing:
        differing = audit.differing([arrivals for arrivals, _, _ in sound if arrivals.segment.key in differing])
    for arrivals, lags, sources in sound:
        segment = arrivals.segment
        is_sound = segment.key not in differing
        run.ledger.add(segment, segment_holding(run.store.index, segment, lags, sources, sound=is_sound))
        if is_sound:
            run.counts["valid"] += 1
            run.ledger.expect_rows(segment)
        else:
            yield segment_problem(ProblemKind.INDEX, segment, differing[segment.key])


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
    """Whether rows are of a segment in the window that neither raw nor the index has. Others that no sound segment
    explains were recorded later, or have been reported."""
    if not _in_window(run, key) or run.store.raw.size(key) is not None:
        return False
    match = RawKey.parse(key)
    of_day = run.store.index.segments(Window.of_day(match.day or 0), batch_id=match.id) if match else ()
    return all(segment.key != key for segment in of_day)


def _checked(store: Store, listed: _Listed, *, full: bool) -> tuple[Problem | None, _Read | None]:
    """Return what is wrong with a segment's object, or if nothing is and it was read, what it holds."""
    segment, size = listed
    if size is None:  # not there when raw was listed
        size = store.raw.size(segment.key)
    if size is None:
        return segment_problem(ProblemKind.MISSING, segment, "the object is not there", segment.frames), None
    if not full:
        return None if size == segment.size else _modified(store, segment, size), None
    deliveries: list[Delivery] = []
    key = RawKey.parse(segment.key)
    is_request = key is not None and key.number == OF_REQUEST
    try:
        arrivals = scan_segment(store.raw, segment.key, deliveries.append if is_request else None)
    except Damaged:
        return _modified(store, segment, size), None
    found = arrivals.segment
    if (found.size, found.digest) != (segment.size, segment.digest):
        if _is_recorded(store, found):
            detail = "the index has another size or SHA-256 than the batch's record"
            return segment_problem(ProblemKind.INDEX, segment, detail), None
        return _modified(store, segment, found.size), None
    if segment.inline and sha256(segment.inline).hexdigest() != found.digest:
        return segment_problem(ProblemKind.INDEX, segment, "the index has a copy of it with other bytes"), None
    other = [name for name in found.__struct_fields__ if name not in _NOT_IN_RAW]
    other = [name for name in other if getattr(found, name) != getattr(segment, name)]
    if other:
        detail = f"the index has another {' and '.join(other)} than raw"
        return segment_problem(ProblemKind.INDEX, segment, detail), None
    lags, sources = Counter(one.lag for one in deliveries), Counter(one.source for one in deliveries)
    return None, (Arrivals(segment, arrivals.plain, arrivals.keyed, arrivals.entities), lags, sources)


def _is_recorded(store: Store, found: Segment) -> bool:
    """Whether the record of its batch describes this very object, so that the index is to blame."""
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
    """Return the problem of an object that is not the recorded one, with the frames that cannot be read as they were
    written; all of them, if none shows it (a digest sees more)."""
    detail = f"{size} bytes, not {segment.size}" if size != segment.size else "its SHA-256 is not the recorded one"
    damaged: list[Frame] = []
    with suppress(Damaged):
        data = store.raw.read(segment.key)
        for frame in segment.frames:
            try:
                unpack_frame(segment, frame, data[frame.offset : frame.offset + frame.length])
            except Damaged:
                damaged.append(frame)
    return segment_problem(ProblemKind.MODIFIED, segment, detail, tuple(damaged) or segment.frames)
