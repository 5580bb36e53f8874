"""Verifying day by day: each segment that the index lists, and each object that it does not."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter

from pik.errors import Damaged
from pik.model.batch import OF_REQUEST, Arrivals, Frame, Segment
from pik.model.event import Delivery
from pik.model.instant import DAY, MIN_INSTANT, day_of, day_text, parse_instant
from pik.model.window import Window
from pik.ports.raw import RawObject
from pik.ports.store import Store
from pik.rawlog.batch_record import SegmentLine, read_record, record_key
from pik.rawlog.frames import unpack_frame
from pik.rawlog.segment_reader import scan_segment
from pik.runtime.interaction import Progress
from pik.runtime.parallel import map_in_threads
from pik.usecases.availability import has_expired
from pik.usecases.verify.findings import (
    INDEX,
    MISSING,
    MODIFIED,
    NOTHING_TOLD,
    Ledger,
    Problem,
    Tally,
    Told,
    segment_problem,
)
from pik.usecases.verify.objects import SEGMENT, Unlisted, find_batch, segment_content

DAYS = "raw/event_date="

_TOGETHER, _DELIVERIES = 200, 200_000
"""Segments that are compared with the index at once, at most, and about how many deliveries of theirs."""

_READERS = 8
"""Threads that read raw: where it is far away, waiting for it is most of the work."""


@dataclass(frozen=True, slots=True)
class Days:
    """Checks the days of the window, of each all objects in raw and all segments of the index."""

    store: Store
    tally: Tally
    ledger: Ledger
    progress: Progress

    def problems(self) -> Iterator[Problem]:
        """Everything that differs. What is listed in raw is read first, and then what the index says: so an object that
        somebody records meanwhile is known by then."""
        objects = ((found.key[len(DAYS) :][:10], 0, found) for found in self._objects())
        segments = ((day_text(one.day), 1, one) for one in self.store.index.segments(self.tally.window))
        both: Iterator[tuple[str, int, RawObject | Segment]] = heapq.merge(objects, segments, key=itemgetter(0, 1))
        for _, entries in groupby(both, key=itemgetter(0)):
            yield from self._of_day(entry for _, _, entry in entries)
        if self.tally.full:
            yield from self._rows()

    def _objects(self) -> Iterator[RawObject]:
        for found in self.store.raw.objects(DAYS):
            if self._in_window(found.key) and SEGMENT.fullmatch(found.key):
                yield found

    def _of_day(self, entries: Iterator[RawObject | Segment]) -> Iterator[Problem]:
        sizes: dict[str, int] = {}
        listed: list[tuple[Segment, int | None]] = []
        for entry in entries:
            if isinstance(entry, RawObject):
                sizes[entry.key] = entry.size
                continue
            listed.append((entry, sizes.pop(entry.key, None)))
            if len(listed) >= _TOGETHER or sum(segment.deliveries for segment, _ in listed) >= _DELIVERIES:
                yield from self._segments(listed)
                listed = []
        yield from self._segments(listed)
        if sizes:
            yield from self._others(sizes)

    def _others(self, sizes: dict[str, int]) -> Iterator[Problem]:
        """Objects that the index did not list. It is asked once more: somebody may have recorded them meanwhile."""
        names = {key: match for key in sizes if (match := SEGMENT.fullmatch(key))}
        batches = {match[2]: find_batch(self.store.index, match[2]) for match in names.values()}
        keys: dict[str, list[str]] = {batch_id: [] for batch_id in batches}
        listed: dict[str, list[str]] = {batch_id: [] for batch_id in batches}
        late: list[tuple[Segment, int | None]] = []
        for segment in self.store.index.segments(_window_of(names)) if names else ():
            if segment.key in names:
                del names[segment.key]
                late.append((segment, sizes[segment.key]))
            elif segment.batch_id in listed:
                listed[segment.batch_id].append(segment.key)
        for key, match in names.items():
            keys[match[2]].append(key)
        yield from self._segments(late)
        unlisted = Unlisted(self.store, self.tally, segment_content)
        for batch_id, batch in batches.items():
            yield from unlisted.problems(batch, keys[batch_id], listed[batch_id])

    def _segments(self, listed: Sequence[tuple[Segment, int | None]]) -> Iterator[Problem]:
        """Check segments of the index; with each the size of its object, if raw was seen to have it."""
        checks = map_in_threads(partial(_checked, self.store, full=self.tally.full), listed, _READERS, 2 * _READERS)
        sound: list[_Read] = []
        for (segment, _), (problem, read) in zip(listed, checks, strict=True):
            self.tally.counts["segments"] += 1
            self.progress.advance(1)
            gone = problem is not None and problem.kind == MISSING
            if gone and has_expired(self.store, segment.ingest_time):
                self._enter(segment, sound=False)
                self.tally.expire(segment)
                continue
            self.tally.counts["deliveries"] += segment.deliveries
            if problem is not None:
                self._enter(segment, sound=False)
                self.tally.counts["missing" if gone else "modified"] += problem.kind != INDEX
                yield problem
            elif read is not None:
                sound.append(read)
            else:
                self.tally.counts["valid"] += 1
        if sound:
            yield from self._compare(sound)

    def _compare(self, sound: list[_Read]) -> Iterator[Problem]:
        """Hold the deliveries of whole segments against the index; twice, where somebody may just be recording them."""
        arrivals = [read.arrivals for read in sound]
        differing = self.store.audit.differing(arrivals)
        if differing:
            differing = self.store.audit.differing([one for one in arrivals if one.segment.key in differing])
        for read in sound:
            segment = read.arrivals.segment
            self._enter(segment, sound=segment.key not in differing, told=read.told)
            if segment.key in differing:
                yield segment_problem(INDEX, segment, differing[segment.key], ())
            else:
                self.tally.counts["valid"] += 1
                self.ledger.expect_rows(segment)

    def _enter(self, segment: Segment, *, sound: bool, told: Told = NOTHING_TOLD) -> None:
        if self.tally.full:
            self.ledger.add(self.store.index, segment, told, sound=sound)

    def _rows(self) -> Iterator[Problem]:
        """Rows of the index for which there is no delivery; counted twice, where somebody may just be recording."""
        other = [one for one in self.ledger.other_rows(self.store.audit.rows()) if self._unexplained(*one)]
        if other:
            again = dict.fromkeys(self.ledger.other_rows(self.store.audit.rows()))
            for key, deliveries, rows in other:
                if (key, deliveries, rows) in again:
                    self.tally.counts["valid"] -= deliveries > 0
                    detail = f"the index has {rows} rows for {deliveries} deliveries"
                    yield Problem(INDEX, key, detail, key[len(DAYS) :][:10])

    def _unexplained(self, key: str, deliveries: int, _: int) -> bool:
        """Whether rows are of a segment that was seen, or of one that is not there at all. Others are of another day,
        were recorded later, or have been reported."""
        return deliveries > 0 or (self._in_window(key) and self.store.raw.size(key) is None and not self._listed(key))

    def _in_window(self, key: str) -> bool:
        first, last = (day_text(day) for day in self.tally.window.days)
        return first <= key[len(DAYS) :][:10] <= last

    def _listed(self, key: str) -> bool:
        match = SEGMENT.fullmatch(key)
        return match is not None and any(
            segment.key == key for segment in self.store.index.segments(_window_of({key: match}), batch_id=match[2])
        )


def _window_of(names: Mapping[str, re.Match[str]]) -> Window:
    """The day that keys of segments are of."""
    day = day_of(parse_instant(next(iter(names.values()))[1], date_only=True))
    return Window(max(day * DAY, MIN_INSTANT), (day + 1) * DAY)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a segment holds, and of a request's what its batch says of it."""

    arrivals: Arrivals
    told: Told


def _checked(store: Store, listed: tuple[Segment, int | None], *, full: bool) -> tuple[Problem | None, _Read | None]:
    """What is wrong with a segment's object, or if nothing is and it was read, what it holds."""
    segment, size = listed
    if size is None:  # not there when raw was listed
        size = store.raw.size(segment.key)
    if size is None:
        return segment_problem(MISSING, segment, "the object is not there", segment.frames), None
    if not full:
        if size == segment.size:
            return None, None
        detail = f"{size} bytes, not {segment.size}"
        return segment_problem(MODIFIED, segment, detail, _damaged_frames(store, segment)), None
    deliveries: list[Delivery] = []
    of_request = segment.key.endswith(f"-{OF_REQUEST}.ndjson.zst")
    try:
        arrivals = scan_segment(store.raw, segment.key, deliveries.append if of_request else None)
    except Damaged:
        return _modified(store, segment, size, None), None
    found = arrivals.segment
    if (found.size, found.digest) != (segment.size, segment.digest):
        return _modified(store, segment, found.size, found), None
    if segment.inline and sha256(segment.inline).hexdigest() != found.digest:
        return segment_problem(INDEX, segment, "the index has a copy of it with other bytes", ()), None
    other = [name for name in found.__struct_fields__ if name not in _NOT_IN_RAW]
    other = [name for name in other if getattr(found, name) != getattr(segment, name)]
    if other:
        return segment_problem(INDEX, segment, f"the index has another {' and '.join(other)} than raw", ()), None
    told = Told(Counter(one.lag for one in deliveries), Counter(one.source for one in deliveries))
    return None, _Read(Arrivals(segment, arrivals.plain, arrivals.keyed, arrivals.entities), told)


_NOT_IN_RAW = ("recorded_at", "inline", "guessed")
"""Fields of a segment that its object does not tell."""


def _modified(store: Store, segment: Segment, size: int, found: Segment | None) -> Problem:
    """That an object is not the one that the index describes; where the record of its batch describes the very object,
    the index is to blame."""
    if found is not None and _recorded_so(store, found):
        return segment_problem(INDEX, segment, "the index has another size or SHA-256 than the batch's record", ())
    detail = f"{size} bytes, not {segment.size}" if size != segment.size else "its SHA-256 is not the recorded one"
    return segment_problem(MODIFIED, segment, detail, _damaged_frames(store, segment))


def _recorded_so(store: Store, found: Segment) -> bool:
    key = record_key(found.batch_id)
    try:
        if store.raw.size(key) is None:
            return False
        lines = [line.segment for line in read_record(store.raw, key) if isinstance(line, SegmentLine)]
    except Damaged:
        return False
    return any((one.key, one.size, one.digest) == (found.key, found.size, found.digest) for one in lines)


def _damaged_frames(store: Store, segment: Segment) -> tuple[Frame, ...]:
    """The frames that cannot be read as they were written; all of them, if none shows it (a digest sees more)."""
    try:
        data = store.raw.read(segment.key)
    except Damaged:
        return segment.frames
    damaged = []
    for frame in segment.frames:
        try:
            unpack_frame(segment, frame, data[frame.offset : frame.offset + frame.length])
        except Damaged:
            damaged.append(frame)
    return tuple(damaged) or segment.frames
