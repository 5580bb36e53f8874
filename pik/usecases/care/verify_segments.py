"""Verifying segments, day by day: each one that the index lists, and what raw has besides."""

from __future__ import annotations

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter

from pik.errors import Damaged, Unreadable
from pik.model.batch import OF_REQUEST, Arrivals, Frame, Segment
from pik.model.delivery import Delivery
from pik.model.instant import Window, day_text
from pik.ports.raw import ObjectReader, RawKey, RawKind, RawObject
from pik.ports.store import Store
from pik.rawlog.objects import HeldObject, copied, unpack_frame
from pik.rawlog.sealed_records import (
    SegmentLine,
    read_record,
)
from pik.rawlog.segment_reader import ids_of, places_of, scan_segment
from pik.runtime.parallel import map_in_threads
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_earlier import Entry, Listed
from pik.usecases.care.verify_findings import (
    Depth,
    Problem,
    ProblemKind,
    Verification,
    differing,
    segment_problem,
)
from pik.usecases.care.verify_ledger import Holding, segment_holding
from pik.usecases.care.verify_objects import unlisted_problems

_SEGMENTS_AT_ONCE, _DELIVERIES_AT_ONCE = 200, 200_000
"""Segments that are compared with the index at once, at most, and about how many deliveries of theirs."""

_READERS = 16
"""Threads that read raw: where it is far away, waiting for it is most of the work."""

_NOT_IN_RAW = ("recorded_at", "inline", "packed", "guessed")
"""Fields of a segment that its object does not have."""


@dataclass(frozen=True, slots=True)
class _Content:
    """What a segment that is as it was written holds, and of a request's the lags and the sources that its batch
    counts, and its actor: if it was read, or the index has a whole copy of it."""

    arrivals: Arrivals
    read: bool = True
    lags: Mapping[int, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    actor: str = ""


@dataclass(frozen=True, slots=True)
class _Checked:
    """What is wrong with a segment's object, or what it holds, unless nothing but its size was looked at. `vouched`:
    its bytes are as recorded by the digest that the storage keeps; without `content` only the index says what they
    are."""

    problem: Problem | None = None
    content: _Content | None = None
    vouched: bool = False


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
        listed: list[Listed] = []
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
    if not run.quick:
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
    late: list[Listed] = []
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
        yield from unlisted_problems(run, batch, keys[batch_id], listed[batch_id])


def _segment_problems(run: Verification, listed: Sequence[Listed]) -> Iterator[Problem]:
    """Check segments of one day, unless an earlier verification has found them to be sound, exactly as they are now."""
    earlier = run.earlier
    if earlier is None or not listed:
        yield from _check(run, listed)
        return
    name, began = earlier.name(listed), time.time_ns()
    if found := earlier.find(name):
        _take_over(run, listed, found)
        earlier.note(listed[0][0].day, found)
        return
    vouched = run.counts["vouched"]
    sound = yield from _check(run, listed)
    if len(sound) == len(listed):
        holdings = [sound[segment.key] for segment, _ in listed]
        earlier.keep(name, run.counts["vouched"] - vouched, holdings, began)


def _take_over(run: Verification, listed: Sequence[Listed], found: Entry) -> None:
    """Count segments as the check that found them to be sound did."""
    for number, (segment, _) in enumerate(listed):
        run.counts["deliveries"] += segment.deliveries
        run.ledger.add(segment, found.holding(run.store.index, number, segment))
        run.ledger.expect_rows(segment)
        run.progress.advance(1)
    run.counts["segments"] += len(listed)
    run.counts["valid"] += len(listed)
    run.counts["vouched"] += found.vouched
    run.counts["read"] += len(listed) - found.vouched


def _check(run: Verification, listed: Sequence[Listed]) -> Generator[Problem, None, dict[str, Holding]]:
    """Check segments of one day, and return what the sound ones hold, by key."""
    checks = map_in_threads(partial(_checked, run.store, run.depth), listed, _READERS, 2 * _READERS)
    sound: list[_Content] = []
    unread: list[Segment] = []
    for (segment, _), checked in zip(listed, checks, strict=True):
        problem = checked.problem
        run.counts["segments"] += 1
        run.progress.advance(1)
        is_gone = problem is not None and problem.kind == ProblemKind.MISSING
        if problem is not None and not run.quick:
            run.ledger.add(segment, replace(segment_holding(run.store.index, segment), sound=False))
        if is_gone and has_expired(run.store, segment.ingest_time):
            run.count_expired(segment)
            continue
        run.counts["deliveries"] += segment.deliveries
        if not run.quick:
            run.counts["vouched" if checked.vouched else "read"] += not is_gone
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
        elif checked.content is not None:
            sound.append(checked.content)
        elif checked.vouched:
            unread.append(segment)
        else:
            run.counts["valid"] += 1
    for segment, arrivals in zip(unread, run.audit.arrivals(unread), strict=True):
        content = _Content(replace(arrivals, segment=segment), read=False)
        if not _has_all(content.arrivals):
            run.ledger.add(segment, replace(segment_holding(run.store.index, segment), sound=False))
            detail = f"the index does not have the ids of all of its {segment.deliveries} deliveries"
            yield segment_problem(ProblemKind.INDEX, segment, detail)
        else:
            sound.append(content)
    return (yield from _index_problems(run, sound)) if sound else {}


def _has_all(arrivals: Arrivals) -> bool:
    """Return whether these are as many deliveries as the segment has in each of its frames."""
    lines = Counter(number for _, _, number in places_of(arrivals))
    return lines == {number: frame.lines for number, frame in enumerate(arrivals.segment.frames) if frame.lines}


def _index_problems(run: Verification, sound: list[_Content]) -> Generator[Problem, None, dict[str, Holding]]:
    """Compare the deliveries of whole segments with the index; twice, as they may be being recorded. Return what those
    hold, by key, that do not differ."""
    audit = run.audit
    holdings: dict[str, Holding] = {}
    others = audit.differing([content.arrivals for content in sound])
    if others:
        others = audit.differing([one.arrivals for one in sound if one.arrivals.segment.key in others])
    for content in sound:
        segment = content.arrivals.segment
        is_sound = segment.key not in others
        holding = replace(
            segment_holding(run.store.index, segment),
            lags=content.lags,
            sources=content.sources,
            actor=content.actor,
            sound=is_sound,
            read=content.read,
        )
        run.ledger.add(segment, holding)
        if is_sound:
            run.counts["valid"] += 1
            run.ledger.expect_rows(segment)
            holdings[segment.key] = holding
        else:
            yield segment_problem(ProblemKind.INDEX, segment, others[segment.key])
    return holdings


def _row_problems(run: Verification) -> Iterator[Problem]:
    """Find rows of the index for which there is no delivery; counted twice, as they may be being recorded."""
    other = [
        (key, deliveries, rows)
        for key, deliveries, rows in run.ledger.other_rows(run.audit.rows())
        if deliveries or _is_of_nothing(run, key)
    ]
    again = set(run.ledger.other_rows(run.audit.rows())) if other else ()
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


def _checked(store: Store, depth: Depth, listed: Listed) -> _Checked:
    segment, size = listed
    try:
        size = store.raw.size(segment.key) if size is None else size  # None: not there when raw was listed
    except Unreadable as error:
        return _Checked(segment_problem(ProblemKind.UNREADABLE, segment, error.reason, segment.frames))
    if size is None:
        return _Checked(segment_problem(ProblemKind.MISSING, segment, "the object is not there", segment.frames))
    if depth is Depth.QUICK and (size != segment.size or not segment.unknown_frames):
        return _Checked(None if size == segment.size else _modified(store, segment, size))
    if depth is Depth.STORED and _is_vouched(store, segment):
        if not segment.has_copy:
            return _Checked(vouched=True)
        if copy := copied(store.raw, segment):
            return _read(store, segment, size, HeldObject(copy))
    return _read(store, segment, size, store.raw)


def _has_wrong_copy(store: Store, segment: Segment) -> bool:
    """Return whether there is a copy of the segment's object with other bytes."""
    copy = segment.inline
    if segment.packed is not None:
        try:
            copy = store.raw.read(segment.packed.key, segment.packed.offset, segment.size)
        except Damaged:  # which is a problem of all copies in that object
            return False
    return bool(copy) and sha256(copy).hexdigest() != segment.digest


def _is_vouched(store: Store, segment: Segment) -> bool:
    """Return whether the storage keeps a digest of the object, and it is the recorded one. What it has to do with the
    index is known without reading it: of a single delivery the index has nothing but what it lists, or a copy."""
    if segment.unknown_frames or (segment.deliveries == 1 and not segment.has_copy):
        return False
    with suppress(Damaged):
        return store.raw.stored_digest(segment.key) == segment.digest
    return False


def _read(store: Store, segment: Segment, size: int, source: ObjectReader) -> _Checked:
    """Check a segment by its bytes, or a copy of these for which the storage vouches."""
    deliveries: list[Delivery] = []
    key = RawKey.parse(segment.key)
    is_request = key is not None and key.number == OF_REQUEST
    try:
        arrivals = scan_segment(source, segment.key, deliveries.append if is_request else lambda _: None)
    except Unreadable as error:
        return _Checked(segment_problem(ProblemKind.UNREADABLE, segment, error.reason, segment.frames))
    except Damaged:
        return _Checked(_modified(store, segment, size))
    found = arrivals.segment
    if (found.size, found.digest) != (segment.size, segment.digest):
        if _is_recorded(store, found):
            detail = "the index has another size or SHA-256 than the batch's record"
            return _Checked(segment_problem(ProblemKind.INDEX, segment, detail))
        return _Checked(_modified(store, segment, found.size))
    if segment.unknown_frames:
        detail = "the index was rebuilt while it was lost, so it is not read"
        return _Checked(segment_problem(ProblemKind.INDEX, segment, detail, segment.unknown_frames))
    if source is store.raw and _has_wrong_copy(store, segment):
        return _Checked(segment_problem(ProblemKind.INDEX, segment, "the index has a copy of it with other bytes"))
    if other := differing(found, segment, (name for name in found.__struct_fields__ if name not in _NOT_IN_RAW)):
        return _Checked(segment_problem(ProblemKind.INDEX, segment, f"the index has another {other} than raw"))
    content = _Content(
        replace(arrivals, segment=segment),
        lags=Counter(one.lag for one in deliveries),
        sources=Counter(one.source for one in deliveries),
        actor=max((one.actor for one in deliveries), default=""),
    )
    return _Checked(content=content, vouched=source is not store.raw)


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
    if run.quick or problem.kind == ProblemKind.UNREADABLE:  # which may not be lost
        return problem
    ids = {event_id.hex() for _, event_id in ids_of(run.audit.deliveries(segment, lost.frames))}
    return replace(problem, lost_events=tuple(sorted(ids)))


def note_lost_in(run: Verification, window: Window) -> None:
    """Note what is lost of days beside those that were verified, into which buckets reach."""
    for segment in run.store.index.segments(window):
        if segment.key not in run.lost and not run.includes(segment.day):
            problem = _checked(run.store, Depth.FULL, (segment, None)).problem
            if problem is not None and problem.kind != ProblemKind.INDEX:
                _with_lost(run, segment, problem)
