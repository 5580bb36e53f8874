"""Pull: a window of a store, copied into a store of its own, so that an investigation can go on without the first one.

What comes along is whole segments, whose digests hold, with the verdicts of their deliveries; other segments that hold
deliveries of the window's events; the batches of all these, with their rejects; every version of the metrics; and the
aggregates of the window. A crash leaves objects that no record names, which is harmless: the record, which says what
the copy holds, is written last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from time import time_ns

import msgspec
from msgspec import structs
from ulid import ULID

from pik.errors import AlreadyExists, Damaged, UsageError
from pik.model.batch import KEYED, Arrivals, Location, Segment
from pik.model.metric import Aggregate, Metric
from pik.model.window import Part, Window, covered
from pik.ports.raw import Raw
from pik.ports.state import Metrics
from pik.ports.store import Store
from pik.rawlog.batch_records import SegmentLine, segment_line
from pik.rawlog.frames import frames_of, unpacked
from pik.rawlog.segment_reader import scan_segment, seqs
from pik.rawlog.store_records import PulledBatch, PullLine, parts, write_pull
from pik.runtime.interaction import Progress
from pik.runtime.parallel import map_in_threads
from pik.usecases.availability import expect_held, has_expired
from pik.usecases.inspect.event_detail import day_window
from pik.usecases.metrics.computation import sound
from pik.usecases.pull.copy_index import Named, named, restore_index
from pik.usecases.verify.findings import Problem, ProblemKind, segment_problem

THREADS = 4
"""Objects that are on their way at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be pulled; no entities are all of them."""

    window: Window
    entities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """What a pull would copy: `segments` of the window with `size` bytes, of them `missing` with `missing_size` bytes
    are not in the copy yet. Segments of other days, and rejects, are found when these are read."""

    effective: Window
    segments: int
    size: int
    missing: int
    missing_size: int


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought. `effective` is what was pulled of the requested window: whole days and buckets.

    `segments` hold the window's deliveries, `elsewhere` others of the window's events; `copied` objects with
    `copied_size` bytes were not there yet. `changed`: the copy holds more than before, or something else. `replaced`
    aggregates had been promoted in the copy; they are now as in the source. `problems` are objects that could not be
    copied.
    """

    effective: Window
    changed: bool
    segments: int
    elsewhere: int
    deliveries: int
    copied: int
    copied_size: int
    batches: int
    metrics: int
    aggregates: int
    replaced: int
    problems: tuple[Problem, ...]


def pullable(source: Store, request: Request) -> Window:
    """What a pull of this would cover. Raises NotHeld where the source does not hold that itself."""
    if "" in request.entities:
        raise UsageError("an entity is empty", hint="leave the option out to take all of them")
    effective = _effective(source.metrics, request.window)
    expect_held(source, effective, request.entities)
    return effective


def plan_pull(source: Store, copy: Store | None, request: Request) -> Planned:
    """What the pull would copy; writes nothing. Raises as `pullable`."""
    effective = pullable(source, request)
    segments = size = missing = missing_size = 0
    for segment in _wanted(source, effective, request.entities):
        segments, size = segments + 1, size + segment.size
        if copy is None or copy.raw.size(segment.key) is None:
            missing, missing_size = missing + 1, missing_size + segment.size
    return Planned(effective, segments, size, missing, missing_size)


def pull(source: Store, copy: Store, request: Request, progress: Progress) -> Pulled:
    """Copy the window into the copy; the same call again copies nothing, or goes on with one that was interrupted.

    Raises as `pullable`, Busy while another pull is at work on the copy, StoreError. What was copied stays, and the
    same call goes on.
    """
    into = copy.copy
    assert into is not None
    with into.pulling(), copy.raw.scratch() as scratch:
        metrics = _versions(source.metrics)
        effective = pullable(source, request)
        more = into.take_metrics(metrics)
        scopes = {metric.name: request.window.widened(metric.bucket_size) for metric in source.metrics.latest()}
        # Read before raw is: raw may know more than these numbers, as it may in the source, but never less.
        aggregates = _noted(source, scopes, request.entities, scratch / "aggregates.jsonl")
        pulling = _Pulling(source, copy, Part(effective, request.entities), progress)
        pulling.run()
        changed = _settle(copy, pulling, progress)
        taken = into.take_aggregates(scopes, request.entities, _read(aggregates))
        if changed:
            _record(source, copy, pulling)
    return Pulled(
        effective,
        changed or bool(more + pulling.copied + taken.new + taken.moved),
        len(pulling.within),
        len(pulling.lines) - len(pulling.within),
        sum(line.segment.deliveries for line in pulling.lines.values()),
        pulling.copied,
        pulling.copied_size,
        len(pulling.batches),
        len(scopes),
        taken.current,
        taken.replaced,
        tuple(pulling.problems),
    )


def _versions(metrics: Metrics) -> list[Metric]:
    return [version for metric in metrics.latest() for version in metrics.versions(metric.name)]


def _effective(metrics: Metrics, window: Window) -> Window:
    """Whole days that hold every bucket that the window touches, by whichever version its aggregate was made."""
    sizes = {metric.name: metric.bucket_size for metric in metrics.latest()}
    windows = [window.widened(sizes[one.name]).widened(one.bucket_size) for one in _versions(metrics)]
    return Window(min(one.start for one in windows), max(one.end for one in windows))


def _wanted(source: Store, window: Window, entities: Sequence[str]) -> Iterator[Segment]:
    """The segments of the window that may hold the entities."""
    for segment in source.index.segments(window, entities=entities):
        if frames_of(segment, entities):
            yield segment


def _noted(source: Store, scopes: Mapping[str, Window], entities: Sequence[str], path: Path) -> Path:
    """Every version of the aggregates, in a file: there may be more of them than memory has room for."""
    with open(path, "wb") as file:
        for name, window in scopes.items():
            for aggregate in sound(source.aggregates.current(name, window, entities, history=True, checked=True)):
                file.write(msgspec.json.encode(aggregate) + b"\n")
    return path


def _read(path: Path) -> Iterator[Aggregate]:
    with open(path, "rb") as file:
        yield from map(msgspec.json.Decoder(Aggregate).decode, file)


class _Pulling:
    """Copies objects, and notes what the record is to say. `within` are the keys of the window's own segments."""

    def __init__(self, source: Store, copy: Store, part: Part, progress: Progress) -> None:
        self.source, self.copy, self.part, self.progress = source, copy, part, progress
        self.lines: dict[str, SegmentLine] = {}
        self.batches: dict[str, PulledBatch] = {}
        self.within: set[str] = set()
        self.problems: list[Problem] = []
        self.copied = self.copied_size = 0

    def run(self) -> None:
        """Copy everything. Raises StoreError."""
        segments = list(_wanted(self.source, self.part.window, self.part.entities))
        self.within = {segment.key for segment in segments}
        self.progress.start("pulling", sum(segment.size for segment in segments), "bytes")
        try:
            places: dict[str, Location] = {}
            for segment, there in self._take(segments):
                if there:
                    found = deliveries_elsewhere(
                        self.source, self.copy.raw, self.lines[segment.key], self.part.entities
                    )
                    places.update({place.segment_key: place for place in found if place.segment_key not in self.within})
            for _ in self._take(self._elsewhere(places)):
                pass
            self._take_batches()
        finally:
            self.progress.stop()

    def _take(self, segments: Sequence[Segment]) -> Iterator[tuple[Segment, bool]]:
        """Copy the segments; each, and whether the copy has it."""
        taken = map_in_threads(partial(take_object, self.source.raw, self.copy.raw), map(_object, segments), THREADS)
        for segment, result in zip(segments, taken, strict=True):
            self.progress.advance(segment.size)
            line = segment_line(structs.replace(segment, inline=b""), self.source.index.skipped(segment))
            self.lines[segment.key] = line
            self._note(result, segment)
            yield segment, result.problem is None

    def _note(self, result: Taken, segment: Segment | None = None, created: int = 0) -> None:
        self.copied += result.copied > 0
        self.copied_size += result.copied
        if result.problem is None:
            return
        kind, key, detail = result.problem
        if result.absent and has_expired(self.source, segment.ingest_time if segment else created):
            kind, detail = ProblemKind.EXPIRED, "the source keeps raw for some days only, and this is older"
        if segment is None:
            self.problems.append(Problem(kind, key, detail))
        else:
            self.problems.append(segment_problem(kind, segment, detail, segment.frames))

    def _elsewhere(self, places: Mapping[str, Location]) -> list[Segment]:
        """The segments of these places, which are not the window's."""
        found: list[Segment] = []
        ordered = sorted(places.values(), key=_day_and_batch)
        for (day, batch_id), group in groupby(ordered, key=_day_and_batch):
            keys = {place.segment_key for place in group}
            of_batch = self.source.index.segments(day_window(day), batch_id=batch_id)
            found += [segment for segment in of_batch if segment.key in keys]
        return found

    def _take_batches(self) -> None:
        """The batches of all segments, with their rejects."""
        remaining = {line.segment.batch_id for line in self.lines.values()}
        for batch in self.source.index.batches():
            if not remaining:
                return
            if batch.batch_id not in remaining:
                continue
            remaining.remove(batch.batch_id)
            rejects = self.source.index.rejects(batch.batch_id) if batch.counts.rejected else []
            for file in rejects:
                taken = take_object(self.source.raw, self.copy.raw, Object(file.key, file.size, file.digest))
                self._note(taken, created=batch.started_at)
            self.batches[batch.batch_id] = PulledBatch(
                batch_id=batch.batch_id,
                origin=batch.origin,
                state=batch.state,
                attempt=batch.attempt,
                started_at=batch.started_at,
                finished_at=batch.finished_at,
                counts=batch.counts.astuple(),
                rejects=tuple(rejects),
            )


def _object(segment: Segment) -> Object:
    return Object(segment.key, segment.size, segment.digest, segment.inline)


def _day_and_batch(place: Location) -> tuple[int, str]:
    return place.day, place.batch_id


def _settle(copy: Store, pulling: _Pulling, progress: Progress) -> bool:
    """Bring the index up to what was copied; whether a record has to say so."""
    before = named(copy.raw)
    changed = not covered(parts(copy), pulling.part.window, pulling.part.entities)
    changed |= any(before.segments.get(key) != line for key, line in pulling.lines.items())
    changed |= any(before.batches.get(batch_id) != batch for batch_id, batch in pulling.batches.items())
    if changed or pulling.copied or _lacks(copy, before):
        after = Named(before.segments | pulling.lines, before.batches | pulling.batches)
        restore_index(copy, after, progress)
    return changed


def _lacks(copy: Store, before: Named) -> bool:
    """Whether a pull that was interrupted had copied what the index does not hold yet."""
    rows = dict(copy.audit.rows())
    return any(
        rows.get(key) != line.segment.deliveries and copy.raw.size(key) is not None
        for key, line in before.segments.items()
    )


def _record(source: Store, copy: Store, pulling: _Pulling) -> None:
    part, pull_id = pulling.part, str(ULID())
    first = PullLine(
        format=copy.format_version,
        pull_id=pull_id,
        source=source.url,
        pulled_at=time_ns(),
        start=part.window.start,
        end=part.window.end,
        entities=part.entities,
    )
    write_pull(copy.raw, [first, *pulling.batches.values(), *pulling.lines.values()], pull_id)


@dataclass(frozen=True, slots=True)
class Object:
    """What an object should be: `size` in bytes, `digest` its SHA-256 in hex; `inline` its bytes, where the index has
    them."""

    key: str
    size: int
    digest: str
    inline: bytes = b""

    def is_(self, data: bytes) -> bool:
        """Whether these are its bytes."""
        return len(data) == self.size and sha256(data).hexdigest() == self.digest


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an object: `copied` bytes (0: it was there), or a problem: kind, key, detail. `absent`: the source
    does not have it."""

    copied: int = 0
    problem: tuple[ProblemKind, str, str] | None = None
    absent: bool = False


def take_object(source: Raw, copy: Raw, wanted: Object) -> Taken:
    """Copy an object unless the copy has it, and check every byte, of one that is there already too. Raises
    StoreError."""
    if copy.size(wanted.key) is None:
        try:
            data = wanted.inline if wanted.is_(wanted.inline) else source.read(wanted.key)
        except Damaged as error:
            absent = source.size(wanted.key) is None
            kind = ProblemKind.MISSING if absent else ProblemKind.MODIFIED
            return Taken(problem=(kind, wanted.key, f"the source does not have it: {error.message}"), absent=absent)
        if not wanted.is_(data):
            detail = f"{len(data)} bytes, not {wanted.size}" if len(data) != wanted.size else "its SHA-256 is another"
            return Taken(problem=(ProblemKind.MODIFIED, wanted.key, f"damaged in the source, and not copied: {detail}"))
        try:
            copy.create(wanted.key, data)
            return Taken(len(data))
        except AlreadyExists:
            pass  # another pull was faster; it is looked at as any that is there
    if not wanted.is_(copy.read(wanted.key)):
        detail = "the copy has it already, but not as the source recorded it"
        return Taken(problem=(ProblemKind.MODIFIED, wanted.key, detail))
    return Taken()


_HAS_KEY = b'"idempotency_key":'
_PAGE = 500  # events whose numbers of deliveries are asked for at once


def deliveries_elsewhere(source: Store, raw: Raw, line: SegmentLine, entities: Sequence[str]) -> Iterator[Location]:
    """Every delivery of the segment's events (of these entities; none: of all) that may be in other days: of those with
    an idempotency key. `raw` is where the segment is read from."""
    if not any(_HAS_KEY in text for text in unpacked(line.segment.key, raw.read(line.segment.key))):
        return
    arrivals = scan_segment(raw, line.segment.key)
    verdicts = line.verdicts
    again: set[str] = set()
    first: list[tuple[int, str]] = []
    for seq, event_id in _keyed(arrivals, entities):
        if seq in verdicts:
            again.add(event_id)
        else:
            first.append((line.segment.day, event_id))
    for start in range(0, len(first), _PAGE):
        page = first[start : start + _PAGE]
        repeats = source.index.repeats(page)
        again.update(event_id for (_, event_id), repeated in zip(page, repeats, strict=True) if repeated)
    for event_id in sorted(again):
        yield from source.index.deliveries(event_id)


def _keyed(arrivals: Arrivals, entities: Sequence[str]) -> Iterator[tuple[int, str]]:
    """seq and event_id of each delivery with an idempotency key."""
    entity_of = dict(zip(sorted(seqs(arrivals)), arrivals.entities.split("\n"), strict=True)) if entities else {}
    for seq, event_id, _, _ in KEYED.iter_unpack(arrivals.keyed):
        if not entities or entity_of[seq] in entities:
            yield seq, event_id.hex()
