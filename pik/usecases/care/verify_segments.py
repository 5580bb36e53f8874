"""Verifying segments that the index lists: their objects, and the index against what these hold."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256

from pik.errors import Damaged, Unreadable
from pik.model.batch import OF_REQUEST, Arrivals, Frame, Segment
from pik.model.delivery import Delivery
from pik.model.window import Window
from pik.ports.raw import ObjectReader, RawKey, RawKind
from pik.ports.store import Store
from pik.rawlog.objects import HeldObject, copied, unpack_frame
from pik.rawlog.sealed_records import SegmentLine, read_record
from pik.rawlog.segment_reader import ids_of, places_of, scan_segment
from pik.runtime.parallel import map_in_threads
from pik.usecases.availability import has_expired
from pik.usecases.care.verify_continue import Listed, SoundSegments
from pik.usecases.care.verify_findings import Depth, Problem, ProblemKind, differing, segment_problem
from pik.usecases.care.verify_ledger import Holding, segment_holding
from pik.usecases.care.verify_run import PartCheck, Verification

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


def segment_problems(part: PartCheck, listed: Sequence[Listed]) -> Iterator[Problem]:
    """Check segments of one day, unless an earlier verification has found them to be sound, exactly as they are now."""
    earlier = part.earlier
    if earlier is None or not listed:
        yield from _check(part, listed)
        return
    name, began = earlier.name(listed), time.time_ns()
    if found := earlier.find(name):
        _take_over(part, listed, found)
        earlier.note(listed[0][0].day, found)
        return
    vouched = part.counts["vouched"]
    sound = yield from _check(part, listed)
    if len(sound) == len(listed):
        holdings = [sound[segment.key] for segment, _ in listed]
        earlier.keep(name, part.counts["vouched"] - vouched, holdings, began)


def _take_over(part: PartCheck, listed: Sequence[Listed], found: SoundSegments) -> None:
    """Count segments as the check that found them to be sound did."""
    for number, (segment, _) in enumerate(listed):
        part.counts["deliveries"] += segment.deliveries
        part.entries.add(segment, found.holding(part.store.index, number, segment))
        part.entries.expect_rows(segment)
    part.counts["segments"] += len(listed)
    part.counts["valid"] += len(listed)
    part.counts["vouched"] += found.vouched
    part.counts["read"] += len(listed) - found.vouched


def _check(part: PartCheck, listed: Sequence[Listed]) -> Generator[Problem, None, dict[str, Holding]]:
    """Check segments of one day, and return what the sound ones hold, by key."""
    checks = map_in_threads(partial(_checked, part.store, part.depth), listed, _READERS, 2 * _READERS)
    sound: list[_Content] = []
    unread: list[Segment] = []
    for (segment, _), checked in zip(listed, checks, strict=True):
        problem = checked.problem
        part.counts["segments"] += 1
        is_gone = problem is not None and problem.kind == ProblemKind.MISSING
        if problem is not None and not part.quick:
            part.entries.add(segment, replace(segment_holding(part.store.index, segment), sound=False))
        if is_gone and has_expired(part.store, segment.ingest_time):
            part.count_expired(segment)
            continue
        part.counts["deliveries"] += segment.deliveries
        if not part.quick:
            part.counts["vouched" if checked.vouched else "read"] += not is_gone
        if problem is not None:
            if segment.unknown_frames:
                part.unknown_losses.add(segment.day)
            if problem.kind == ProblemKind.INDEX:
                if segment.unknown_frames:
                    part.note_lost(segment, segment.unknown_frames)
            else:
                part.counts[problem.kind] += 1
                problem = _with_lost(part, segment, problem)
            yield problem
        elif checked.content is not None:
            sound.append(checked.content)
        elif checked.vouched:
            unread.append(segment)
        else:
            part.counts["valid"] += 1
    for segment, arrivals in zip(unread, part.audit.arrivals(unread), strict=True):
        content = _Content(replace(arrivals, segment=segment), read=False)
        if not _has_all(content.arrivals):
            part.entries.add(segment, replace(segment_holding(part.store.index, segment), sound=False))
            detail = f"the index does not have the ids of all of its {segment.deliveries} deliveries"
            yield segment_problem(ProblemKind.INDEX, segment, detail)
        else:
            sound.append(content)
    return (yield from _index_problems(part, sound)) if sound else {}


def _has_all(arrivals: Arrivals) -> bool:
    """Return whether these are as many deliveries as the segment has in each of its frames."""
    lines = Counter(number for _, _, number in places_of(arrivals))
    return lines == {number: frame.lines for number, frame in enumerate(arrivals.segment.frames) if frame.lines}


def _index_problems(part: PartCheck, sound: list[_Content]) -> Generator[Problem, None, dict[str, Holding]]:
    """Compare the deliveries of whole segments with the index; twice, as they may be being recorded. Return what those
    hold, by key, that do not differ."""
    audit = part.audit
    holdings: dict[str, Holding] = {}
    others = audit.differing([content.arrivals for content in sound])
    if others:
        others = audit.differing([one.arrivals for one in sound if one.arrivals.segment.key in others])
    for content in sound:
        segment = content.arrivals.segment
        is_sound = segment.key not in others
        holding = replace(
            segment_holding(part.store.index, segment),
            lags=content.lags,
            sources=content.sources,
            actor=content.actor,
            sound=is_sound,
            read=content.read,
        )
        part.entries.add(segment, holding)
        if is_sound:
            part.counts["valid"] += 1
            part.entries.expect_rows(segment)
            holdings[segment.key] = holding
        else:
            yield segment_problem(ProblemKind.INDEX, segment, others[segment.key])
    return holdings


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


def _with_lost(part: PartCheck, segment: Segment, problem: Problem) -> Problem:
    """Note which frames of a segment are lost, and return the problem with the ids of their deliveries, which the index
    still knows."""
    is_gone = problem.kind == ProblemKind.MISSING
    lost = part.note_lost(segment, segment.frames if is_gone else _damaged_frames(part.store, segment))
    if part.quick or problem.kind == ProblemKind.UNREADABLE:  # which may not be lost
        return problem
    ids = {event_id.hex() for _, event_id in ids_of(part.audit.deliveries(segment, lost.frames))}
    return replace(problem, lost_events=tuple(sorted(ids)))


def note_lost_in(run: Verification, window: Window) -> None:
    """Note what is lost of days beside those that were verified, into which buckets reach."""
    for segment in run.store.index.segments(window):
        if segment.key not in run.lost and not run.includes(segment.day):
            problem = _checked(run.store, Depth.FULL, (segment, None)).problem
            if problem is not None and problem.kind != ProblemKind.INDEX:
                _with_lost(run, segment, problem)
