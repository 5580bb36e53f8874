"""Verify: raw against its digests, the index against raw and back, aggregates against their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain

from pik.errors import Damaged, EngineError
from pik.model.batch import Frame, RejectFile, Segment
from pik.model.instant import DAY, MIN_INSTANT, day_text, format_instant
from pik.model.metric import NO_INPUTS, Aggregate, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.batch_record import PREFIX as RECORDS
from pik.usecases.batch_record import SegmentLine, read_record, record_key
from pik.usecases.held import has_expired
from pik.usecases.progress import Progress
from pik.usecases.pull_record import pulls, read_pull
from pik.usecases.raw_inputs import gather
from pik.usecases.reading import unpack_frame
from pik.usecases.recompute import compare
from pik.usecases.scan import scan_segment

MISSING, MODIFIED, INDEX, AGGREGATE = "missing", "modified", "index differs", "aggregate differs"

RANGES = 20
"""Ranges of affected entities that a problem names; with more of them it names one from the first to the last."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written. `day` and `entities` say what is affected: entities from the first to
    the last of each damaged frame, as the index has them."""

    kind: str
    what: str
    detail: str
    day: str | None = None
    entities: tuple[str, ...] = ()


@dataclass(slots=True)
class Verified:
    """What was found; final once the problems are read. `superseded` objects are copies left by a crash: harmless.

    `expired` segments are gone because the store keeps raw for some days only: no damage. Aggregates of their days are
    not checked. `aggregates` is None where none was: of a quick check, or where raw or index lack events, which would
    make every aggregate of those look wrong.
    """

    window: Window
    full: bool
    problems: Iterator[Problem]
    segments: int = 0
    valid: int = 0
    missing: int = 0
    expired: int = 0
    modified: int = 0
    not_indexed: int = 0
    superseded: int = 0
    deliveries: int = 0
    aggregates: int | None = None
    damage: int = 0
    kinds: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    expired_days: set[int] = field(default_factory=set)


def verify(store: Store, engine: Engine, window: Window, progress: Progress, *, full: bool = True) -> Verified:
    """Check everything of the window's days; `full` reads every byte, otherwise presence and sizes only."""
    answer = Verified(window, full, iter(()))
    answer.problems = _counted(_problems(store, engine, window, progress, full, answer), answer)
    return answer


def _counted(problems: Iterator[Problem], answer: Verified) -> Iterator[Problem]:
    for problem in problems:
        answer.damage += 1
        answer.kinds.add(problem.kind)
        yield problem


def _problems(
    store: Store, engine: Engine, window: Window, progress: Progress, full: bool, answer: Verified
) -> Iterator[Problem]:
    rows = store.audit.rows() if full else {}
    progress.start("verifying", sum(1 for _ in store.index.segments(window)), "segments")
    try:
        for segment in store.index.segments(window):
            answer.known.add(segment.key)
            answer.segments += 1
            if _expired(store, segment, answer):
                continue
            found = list(_of_segment(store, segment, rows, full, answer))
            answer.valid += not found
            answer.deliveries += segment.deliveries
            yield from found
            progress.advance(1)
        yield from _batches(store, answer)
        yield from _not_indexed(store, answer) if store.copy is None else _not_pulled(store, answer)
        if full and not answer.missing + answer.modified + answer.not_indexed:
            answer.aggregates = 0
            yield from _aggregates(store, engine, window, answer)
    finally:
        progress.stop()


def _expired(store: Store, segment: Segment, answer: Verified) -> bool:
    """Whether the segment is gone as it should be."""
    gone = has_expired(store, segment.ingest_time) and store.raw.size(segment.key) is None
    if gone:
        answer.expired += 1
        answer.expired_days.add(segment.day)
    return gone


def _of_segment(
    store: Store, segment: Segment, rows: dict[str, int], full: bool, answer: Verified
) -> Iterator[Problem]:
    size = store.raw.size(segment.key)
    if size is None:
        answer.missing += 1
        yield segment_problem(MISSING, segment, "the object is not there", segment.frames)
        return
    if size != segment.size or (full and sha256(store.raw.read(segment.key)).hexdigest() != segment.digest):
        answer.modified += 1
        detail = f"{size} bytes, not {segment.size}" if size != segment.size else "its SHA-256 is not the recorded one"
        yield segment_problem(MODIFIED, segment, detail, _damaged_frames(store, segment))
        return
    if not full:
        return
    differing = store.audit.differing(scan_segment(store.raw, segment.key))
    if differing:
        several = (
            f"{len(differing)} deliveries, the first of them record {differing[0]}, are not in the index as in raw"
        )
        yield segment_problem(INDEX, segment, several, ())
    elif rows.get(segment.key) != segment.deliveries:
        detail = f"the index has {rows.get(segment.key, 0)} rows for {segment.deliveries} deliveries"
        yield segment_problem(INDEX, segment, detail, ())


def segment_problem(kind: str, segment: Segment, detail: str, frames: tuple[Frame, ...]) -> Problem:
    """A problem of a segment, that affects these frames."""
    ranges = tuple(frame.first if frame.first == frame.last else f"{frame.first} … {frame.last}" for frame in frames)
    if len(ranges) > RANGES:
        ranges = (f"{frames[0].first} … {frames[-1].last}",)
    return Problem(kind, segment.key, detail, day_text(segment.day), ranges)


def _damaged_frames(store: Store, segment: Segment) -> tuple[Frame, ...]:
    """The frames that cannot be read as they were written; all of them, if none shows it (a digest sees more)."""
    data = store.raw.read(segment.key)
    damaged = []
    for frame in segment.frames:
        try:
            unpack_frame(segment, frame, data[frame.offset : frame.offset + frame.length])
        except Damaged:
            damaged.append(frame)
    return tuple(damaged) or segment.frames


def _batches(store: Store, answer: Verified) -> Iterator[Problem]:
    """Records of finished batches, and files of rejects."""
    for batch in store.index.batches():
        key = record_key(batch.batch_id)
        if batch.has_record and store.raw.size(key) is None:
            if not has_expired(store, batch.finished_at or batch.started_at):
                yield Problem(MISSING, key, "the record of this finished batch is not there")
        elif batch.has_record and answer.full:
            yield from _not_held(store, key, read_record(store.raw, key), answer)
        for rejects in store.index.rejects(batch.batch_id):
            if store.raw.size(rejects.key) is None:
                if not has_expired(store, batch.started_at):
                    yield Problem(MISSING, rejects.key, "the file of rejects is not there")
            elif detail := _reject_damage(store, rejects, answer.full):
                yield Problem(MODIFIED, rejects.key, detail)


def _not_held(store: Store, record: str, lines: Iterable[object], answer: Verified) -> Iterator[Problem]:
    """Segments of the window that a record names and the index does not hold."""
    first, last = answer.window.days
    try:
        for line in lines:
            if not isinstance(line, SegmentLine) or line.segment.key in answer.known:
                continue
            segment = line.segment
            if first <= segment.day <= last:
                answer.known.add(segment.key)
                if _expired(store, segment, answer):
                    continue
                yield _lost(store, record, segment, answer)
    except Damaged as error:
        yield Problem(MODIFIED, record, error.message)


def _lost(store: Store, record: str, segment: Segment, answer: Verified) -> Problem:
    if store.raw.size(segment.key) is None:
        answer.missing += 1
        detail = f"{record} names it; neither the index nor raw has it"
        return segment_problem(MISSING, segment, detail, segment.frames)
    answer.not_indexed += 1
    return segment_problem(INDEX, segment, f"{record} names it, the index does not", segment.frames)


def _reject_damage(store: Store, rejects: RejectFile, full: bool) -> str:
    size = store.raw.size(rejects.key)
    if size != rejects.size:
        return f"{size} bytes, not {rejects.size}"
    if full and sha256(store.raw.read(rejects.key)).hexdigest() != rejects.digest:
        return "its SHA-256 is not the recorded one"
    return ""


def _not_indexed(store: Store, answer: Verified) -> Iterator[Problem]:
    """Raw that the index does not name: copies of what is indexed, left by a crash, or deliveries that it has lost."""
    first, last = (f"raw/event_date={day_text(day)}/" for day in answer.window.days)
    recorded = {batch.batch_id: batch.has_record for batch in store.index.batches()}
    # A full check has read the records; a quick one reads those of batches that left something behind.
    unread = set() if answer.full else {batch_id for batch_id, has_record in recorded.items() if has_record}
    for found in store.raw.objects("raw/event_date="):
        day = found.key[: len(first)]
        if found.key in answer.known or not first <= day <= last:
            continue
        batch_id = found.key.rpartition("/")[2].partition("-")[0]
        if batch_id not in recorded:
            answer.not_indexed += 1
            yield Problem(INDEX, found.key, "the index does not know this segment's batch", day[-11:-1])
            continue
        if batch_id in unread:
            unread.remove(batch_id)
            if store.raw.size(record_key(batch_id)) is not None:
                record = record_key(batch_id)
                yield from _not_held(store, record, read_record(store.raw, record), answer)
        answer.superseded += found.key not in answer.known
    for found in store.raw.objects(RECORDS):
        has_record = recorded.get(found.key.removeprefix(RECORDS).partition(".")[0])
        if has_record is None:
            yield Problem(INDEX, found.key, "the index does not know this batch")
        elif not has_record and answer.full:  # its writer died before it said so, or the record is damaged
            yield from _not_held(store, found.key, read_record(store.raw, found.key), answer)


def _not_pulled(store: Store, answer: Verified) -> Iterator[Problem]:
    """What a copy's records name and its index does not; other objects were left by pulls that were interrupted."""
    for record in pulls(store.raw):
        yield from _not_held(store, record, read_pull(store.raw, record), answer)
    first, last = (f"raw/event_date={day_text(day)}/" for day in answer.window.days)
    for found in store.raw.objects("raw/event_date="):
        answer.superseded += found.key not in answer.known and first <= found.key[: len(first)] <= last


def _aggregates(store: Store, engine: Engine, window: Window, answer: Verified) -> Iterator[Problem]:
    """Every current aggregate's inputs, against the events that its run knew.

    First against all events there are now. Where that differs, later events may be the reason; so those aggregates are
    compared once more with what was known at their time, to the definition of their time.
    """
    for metric in store.metrics.latest():
        for whole in _computable(window.widened(metric.bucket_size), metric.bucket_size, answer.expired_days):
            if next(store.aggregates.current(metric.name, whole), None) is None:
                continue
            try:
                yield from _of_metric(store, engine, metric, whole, answer)
            except EngineError as error:
                yield Problem(AGGREGATE, metric.name, f"its inputs cannot be computed: {error.message}")


def _computable(window: Window, size: int, expired_days: Iterable[int]) -> Iterator[Window]:
    """The window, made of whole buckets of `size`, without those that touch days with expired raw."""
    start = window.start
    for day in sorted(expired_days):
        gone = Window(max(day * DAY, MIN_INSTANT), (day + 1) * DAY).widened(size)
        if start < gone.start:
            yield Window(start, gone.start)
        start = max(start, gone.end)
    if start < window.end:
        yield Window(start, window.end)


def _of_metric(store: Store, engine: Engine, metric: Metric, window: Window, answer: Verified) -> Iterator[Problem]:
    older: dict[tuple[int, int], Window] = {}
    for aggregate, same in _compared(store, engine, metric, window):
        answer.aggregates = (answer.aggregates or 0) + 1
        if not same or aggregate.metric_version != metric.version:
            _extend(older, aggregate, metric.bucket_size)
    for (version, known_until), part in older.items():
        then = next(one for one in store.metrics.versions(metric.name) if one.version == version)
        for aggregate, same in chain.from_iterable(
            _compared(store, engine, then, whole, known_until)
            for whole in _computable(part.widened(then.bucket_size), then.bucket_size, answer.expired_days)
        ):
            if (aggregate.metric_version, aggregate.known_until) == (version, known_until) and not same:
                yield _aggregate_problem(aggregate)


def _extend(older: dict[tuple[int, int], Window], aggregate: Aggregate, size: int) -> None:
    key = aggregate.metric_version, aggregate.known_until
    start = aggregate.computed.bucket
    known = older.get(key, Window(start, start + size))
    older[key] = Window(min(known.start, start), max(known.end, start + size))


def _compared(
    store: Store, engine: Engine, metric: Metric, window: Window, until: int | None = None
) -> Iterator[tuple[Aggregate, bool]]:
    """Each current aggregate, and whether its inputs are those that the events up to `until` make."""
    with gather(store, window, until=until) as gathered:
        computed = iter(()) if gathered.empty else engine.compute(gathered.inputs, [metric.definition], window)
        for current, now in compare(store.aggregates.current(metric.name, window), computed):
            if current is not None:
                yield current, current.computed.counted == (now.counted if now else (0, NO_INPUTS, NO_INPUTS))


def _aggregate_problem(aggregate: Aggregate) -> Problem:
    row = aggregate.computed
    return Problem(
        AGGREGATE,
        f"{row.metric} of run {aggregate.run_id}",
        f"its {row.inputs} inputs are not the events of {format_instant(row.bucket)} that were known to it",
        day_text(row.bucket // DAY),
        (row.entity_id,),
    )
