"""Pull: copy a window of a store into another one, so that an investigation can go on without the first.

A pull copies whole segments, whose digests hold, with the verdicts of their deliveries; other segments that hold
deliveries of the window's events, or deliveries that a correction moved into the window; the batches of all these, with
their rejects; the corrections; every version of the metrics; and the aggregates of the window. A crash leaves objects
that no record names, which is harmless: the record, which names what the copy holds, is written last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from time import time_ns

from msgspec import structs

from pik.errors import UsageError
from pik.model.aggregate import Aggregate
from pik.model.batch import KEYED, Location, Segment
from pik.model.ids import new_id
from pik.model.metric import Metric
from pik.model.window import PulledWindow, Window, covered
from pik.ports.raw import Raw
from pik.ports.state import Metrics
from pik.ports.store import Store
from pik.rawlog.objects import unpacked
from pik.rawlog.sealed_records import PulledBatch, PullLine, SegmentLine, parts, segment_line, write_pull
from pik.rawlog.segment_reader import scan_segment, seqs
from pik.rawlog.selection import AS_RECEIVED, Selection
from pik.runtime import Progress, showing
from pik.runtime.parallel import map_in_threads
from pik.runtime.storage import Spool
from pik.usecases.availability import expect_held
from pik.usecases.care.verify_findings import Problem
from pik.usecases.inspect.events import PAGE, pages
from pik.usecases.metrics.computation import sound
from pik.usecases.pull.corrections import PulledCorrections
from pik.usecases.pull.index import Contents, recorded_contents, restore_index
from pik.usecases.pull.objects import copy_object

THREADS = 4
"""Objects that are copied at once."""

_HAS_KEY = b'"idempotency_key":'


@dataclass(frozen=True, slots=True)
class PullRequest:
    """The window and entities to pull; no entities are all of them."""

    window: Window
    entities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull would copy: `segments` of the window with `size` bytes, of which `missing` with `missing_size` bytes
    are not in the copy yet. Segments of other days, and rejects, are only found when these are read."""

    effective: Window
    segments: int
    size: int
    missing: int
    missing_size: int


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull copied. `effective` is what was pulled for the requested window: whole days and buckets.

    `segments` hold the window's deliveries, `elsewhere` others of the window's events; `copied` objects with
    `copied_size` bytes were not in the copy before. `changed`: the copy holds more than before, or something else.
    `replaced` aggregates had been promoted in the copy; now they are as in the source. `problems` are objects that were
    not copied.
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


def effective_window(source: Store, request: PullRequest) -> Window:
    """Return what a pull would cover: whole days that hold every bucket that the window touches, in any version of the
    metrics.

    Raises NotHeld if the source does not hold all of that itself.
    """
    if "" in request.entities:
        raise UsageError("an entity is empty", hint="leave the option out to take all of them")
    latest = {metric.name: metric.buckets for metric in source.metrics.latest()}
    versions = _versions(source.metrics)
    windows = [one.buckets.widened(latest[one.name].widened(request.window)) for one in versions]
    effective = Window(min(one.start for one in windows), max(one.end for one in windows))
    expect_held(source, effective, request.entities)
    return effective


def plan_pull(source: Store, copy: Store | None, request: PullRequest) -> PullPlan:
    """Return what the pull would copy; write nothing. Raises as `effective_window` does."""
    effective = effective_window(source, request)
    segments = size = missing = missing_size = 0
    for segment in _segments(source, effective, request.entities):
        segments, size = segments + 1, size + segment.size
        if copy is None or copy.raw.size(segment.key) is None:
            missing, missing_size = missing + 1, missing_size + segment.size
    return PullPlan(effective, segments, size, missing, missing_size)


def pull(source: Store, copy: Store, request: PullRequest, progress: Progress) -> PullReport:
    """Copy the window into the copy; the same call again copies nothing, or resumes one that was interrupted.

    Raises as `effective_window` does, Busy while another pull writes to the copy, StoreError. What was copied stays.
    """
    into = copy.copy
    assert into is not None
    with into.pulling():
        metrics = _versions(source.metrics)
        effective = effective_window(source, request)
        new_metrics = into.take_metrics(metrics)
        scopes = {metric.name: metric.buckets.widened(request.window) for metric in source.metrics.latest()}
        # Read before raw is: raw may know more than these numbers, as it may in the source, but never less.
        aggregates = Spool(
            Aggregate,
            chain.from_iterable(
                sound(source.aggregates.versions(name, window, request.entities, checked=True))
                for name, window in scopes.items()
            ),
        )
        transfer = _Transfer(source, copy, PulledWindow(effective, request.entities), progress)
        transfer.run()
        recorded = transfer.is_recorded()
        transfer.update_index(rebuild=not recorded)
        taken = into.take_aggregates(scopes, request.entities, aggregates)
        if not recorded:
            transfer.write_record()
    return PullReport(
        effective,
        not recorded or bool(new_metrics + transfer.copied + taken.new + taken.moved),
        len(transfer.within),
        len(transfer.lines) - len(transfer.within),
        sum(line.segment.deliveries for line in transfer.lines.values()),
        transfer.copied,
        transfer.copied_size,
        len(transfer.batches),
        len(scopes),
        taken.current,
        taken.replaced,
        tuple(transfer.problems),
    )


def _versions(metrics: Metrics) -> list[Metric]:
    return [version for metric in metrics.latest() for version in metrics.versions(metric.name)]


def _segments(source: Store, window: Window, entities: Sequence[str]) -> Iterator[Segment]:
    """Yield the segments of the window, which is of whole days, that may hold the entities."""
    return (needed.segment for needed in Selection(source, window, entities, AS_RECEIVED).needed(whole_days=True))


class _Transfer:
    """Copies objects, and collects the lines of the record. `within` are the keys of the window's segments."""

    def __init__(self, source: Store, copy: Store, part: PulledWindow, progress: Progress) -> None:
        self._source, self._copy, self._part, self._progress = source, copy, part, progress
        self._before = recorded_contents(copy.raw)
        self.lines: dict[str, SegmentLine] = {}
        self.batches: dict[str, PulledBatch] = {}
        self.within: set[str] = set()
        self.problems: list[Problem] = []
        self.copied = self.copied_size = 0

    def run(self) -> None:
        """Copy all objects. Raises StoreError."""
        segments = list(_segments(self._source, self._part.window, self._part.entities))
        self.within = {segment.key for segment in segments}
        held = [*parts(self._copy), self._part]
        corrections = PulledCorrections(self._source, held, partial(_segments, self._source))
        segments += [segment for segment in corrections.moved_in() if segment.key not in self.within]
        with showing(self._progress, "pulling", sum(segment.size for segment in segments), "bytes"):
            elsewhere: dict[str, Location] = {}
            for line in self._copy_segments(segments):
                for place in _other_deliveries(self._source, self._copy.raw, line, self._part.entities):
                    if place.segment_key not in self.within:
                        elsewhere[place.segment_key] = place
            for _ in self._copy_segments(self._segments_at(elsewhere.values())):
                pass
            self._copy_rejects()
            self._copy_corrections(corrections)

    def _copy_segments(self, segments: Sequence[Segment]) -> Iterator[SegmentLine]:
        """Copy the segments; yield those that the copy has now."""

        def copy(segment: Segment) -> tuple[int, Problem | None]:
            return copy_object(self._source, self._copy.raw, segment, segment.ingest_time)

        for segment, (size, problem) in zip(segments, map_in_threads(copy, segments, THREADS), strict=True):
            self._progress.advance(segment.size)
            line = segment_line(structs.replace(segment, inline=b"", packed=None), self._source.index.skipped(segment))
            self.lines[segment.key] = line
            self._count(size, problem)
            if problem is None:
                yield line

    def _segments_at(self, places: Iterable[Location]) -> list[Segment]:
        found: list[Segment] = []
        day_and_batch = attrgetter("day", "batch_id")
        for (day, batch_id), group in groupby(sorted(places, key=day_and_batch), key=day_and_batch):
            keys = {place.segment_key for place in group}
            of_batch = self._source.index.segments(Window.of_day(day), batch_id=batch_id)
            found += [segment for segment in of_batch if segment.key in keys]
        return found

    def _copy_rejects(self) -> None:
        """Copy the rejects of the segments' batches."""
        remaining = {line.segment.batch_id for line in self.lines.values()}
        for batch in self._source.index.batches():
            if not remaining:
                return
            if batch.batch_id not in remaining:
                continue
            remaining.remove(batch.batch_id)
            rejects = self._source.index.rejects(batch.batch_id) if batch.counts.rejected else []
            for file in rejects:
                self._count(*copy_object(self._source, self._copy.raw, file, batch.started_at))
            self.batches[batch.batch_id] = PulledBatch(
                batch_id=batch.batch_id,
                origin=batch.origin,
                state=batch.state,
                attempt=batch.attempt,
                started_at=batch.started_at,
                actor=batch.actor,
                finished_at=batch.finished_at,
                counts=batch.counts,
                rejects=tuple(rejects),
            )

    def _copy_corrections(self, corrections: PulledCorrections) -> None:
        """Copy lists, then the corrections that name them."""
        for listed in corrections.lists():
            self._count(*copy_object(self._source, self._copy.raw, listed, time_ns()))
        for key in corrections.headers:
            if self._copy.raw.size(key) is None:
                data = self._source.raw.read(key)
                self._copy.raw.create(key, data)
                self._count(len(data), None)
        self.problems += corrections.problems

    def _count(self, size: int, problem: Problem | None) -> None:
        self.copied += size > 0
        self.copied_size += size
        if problem is not None:
            self.problems.append(problem)

    def is_recorded(self) -> bool:
        """Return whether the records of earlier pulls name all of this."""
        before = self._before
        return (
            covered(parts(self._copy), self._part.window, self._part.entities)
            and all(before.segments.get(key) == line for key, line in self.lines.items())
            and all(before.batches.get(batch_id) == batch for batch_id, batch in self.batches.items())
        )

    def update_index(self, *, rebuild: bool) -> None:
        """Rebuild the index of the copy if that is asked for, or if it lacks what was copied, now or by a pull that was
        interrupted."""
        if rebuild or self.copied or self._index_lacks_segments():
            segments, batches = self._before.segments | self.lines, self._before.batches | self.batches
            restore_index(self._copy, Contents(segments, batches), self._progress)

    def _index_lacks_segments(self) -> bool:
        rows = dict(self._copy.audit.rows())
        return any(
            rows.get(key) != line.segment.deliveries and self._copy.raw.size(key) is not None
            for key, line in self._before.segments.items()
        )

    def write_record(self) -> None:
        """Create the record of the pull, after which the copy claims to hold what was pulled."""
        pull_id = new_id()
        first = PullLine(
            format=self._copy.format_version,
            pull_id=pull_id,
            source=self._source.url,
            pulled_at=time_ns(),
            start=self._part.window.start,
            end=self._part.window.end,
            entities=self._part.entities,
        )
        write_pull(self._copy.raw, [first, *self.batches.values(), *self.lines.values()], pull_id)


def _other_deliveries(source: Store, raw: Raw, line: SegmentLine, entities: Sequence[str]) -> Iterator[Location]:
    """Yield every delivery of the segment's events (of these entities; none: of all) that may be on another day: of
    events with an idempotency key. The segment is read from `raw`."""
    key = line.segment.key
    if not any(_HAS_KEY in text for text in unpacked(key, raw.read(key))):
        return
    arrivals = scan_segment(raw, key)
    entity_of = dict(zip(sorted(seqs(arrivals)), arrivals.entities.split("\n"), strict=True)) if entities else {}
    verdicts = line.verdicts
    repeated: set[str] = set()
    accepted: list[str] = []
    for seq, event_id, _, _ in KEYED.iter_unpack(arrivals.keyed):
        if entities and entity_of[seq] not in entities:
            continue
        if seq in verdicts:
            repeated.add(event_id.hex())
        else:
            accepted.append(event_id.hex())
    for page in pages(iter(accepted), PAGE):
        counts = source.repeats.counts([(None, event_id) for event_id in page])
        repeated.update(event_id for event_id, count in zip(page, counts, strict=True) if count)
    for each in sorted(repeated):
        yield from source.index.deliveries(each)
