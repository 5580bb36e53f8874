"""Metrics: named, versioned definitions, the aggregates that they make, and the runs that compute them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Context, Decimal
from enum import StrEnum
from hashlib import sha256
from itertools import groupby, islice
from operator import itemgetter

import msgspec

from pik.model.calendar import Buckets, buckets_of
from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.event import ENVELOPE
from pik.model.instant import Window
from pik.model.share import WHOLE, Share


class Per(StrEnum):
    """What a metric has one value per bucket of."""

    ENTITY = "entity"
    ALL = "all"
    """All entities together."""


ALL_ENTITIES = ""
"""The entity of the values over all entities; an id is never empty."""


def entities_of(entity_id: str) -> tuple[str, ...]:
    """Return the entities whose deliveries a value is computed from; none named are all."""
    return () if entity_id == ALL_ENTITIES else (entity_id,)


def entity_text(entity_id: str) -> str:
    """Return what a message calls the entity of a value: its id in quotes, or `all entities`."""
    return "all entities" if entity_id == ALL_ENTITIES else repr(entity_id)


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a metric computes, as written in its TOML file. docs/metrics.md is the reference.

    `value` is one SQL aggregate expression, `where` a SQL boolean over the event's columns, `bucket` a duration that
    divides a day or is whole days, aligned to 1970-01-01T00:00:00Z, or a unit of the calendar of `timezone`. There is a
    value for each entity and bucket or, `per` all of them, one for each bucket.
    """

    name: str
    value: str
    bucket: str = "1d"
    timezone: str | None = None
    where: str | None = None
    description: str = ""
    per: Per = Per.ENTITY

    @property
    def buckets(self) -> Buckets:
        """Its buckets."""
        return buckets_of(self.bucket, self.timezone)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A definition with the version (1, 2, …) under which the store keeps it.

    `scale` is how many digits after the point the type of its values has; each value is printed with at least so many.
    `actor` applied it, for this `reason`. A `retired` version has the definition of the one before it: from then on
    nothing computes or compares the metric, until a later version reinstates it.
    """

    definition: Definition
    version: int
    applied_at: int
    scale: int = 0
    actor: str = ""
    reason: str = ""
    retired: bool = False

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.definition.name

    @property
    def buckets(self) -> Buckets:
        """Its buckets."""
        return self.definition.buckets

    @property
    def is_over_all(self) -> bool:
        """Whether its values are over all entities."""
        return self.definition.per == Per.ALL


class Combination(StrEnum):
    """How the values of a metric for parts (entities, buckets) make that for the whole."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"


EVENT_COUNT = Metric(
    definition=Definition(name="event_count", value="count(*)", description="events per entity and UTC day"),
    version=1,
    applied_at=0,
)
"""The built-in metric: every store has it."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why a metric has no value for one entity and bucket, although other values could be computed.

    `reason` is a phrase or a sentence for people, of one line; it may quote the engine or the event, so it is
    text from strangers. `events` is how many events of the bucket are to blame on their own, such as for a text where
    the metric needs a number; `event_ids` are the first of those, by id, at most BLAMED. Both are empty where no single
    event is to blame, such as for a denominator of zero. With `damage` raw of whole buckets cannot be read, up to the
    moment `until`, so that no value of them is known.
    """

    reason: str
    events: int = 0
    event_ids: tuple[str, ...] = ()
    damage: bool = False
    until: int = 0


BLAMED = 5
"""How many event ids a Failure lists at most."""


class Computed(msgspec.Struct, frozen=True, gc=False):  # a struct is made in a fifth of a dataclass's time
    """A metric's value for one entity (or ALL_ENTITIES) and bucket, computed from events.

    `bucket` is the bucket's start (nanoseconds), `inputs` the number of deliveries that were counted. `input_ids` and
    `input_contents`, 32 hex digits each, are the XOR of their event ids and of their content hashes; the second one is
    the XOR of `delivery_hash` instead where the metric reads what a content hash does not cover, or counts duplicates,
    and has that of each delivery that a correction moved to another time.
    `value` is None where there are no inputs, or where the expression over them is NULL, such as the sum of a field
    that none of them has. It is also None where it could not be computed from these events; only then there is a
    `failure`. An event whose condition (`where`) fails is not among the inputs, so a failure may have none.

    A value from outside was not computed: its `inputs` are not known (None). If it was imported, both hashes together
    are the SHA-256 of its file.
    """

    metric: str
    bucket: int
    entity_id: str
    value: Decimal | None
    inputs: int | None
    input_ids: str
    input_contents: str
    failure: Failure | None = None

    @property
    def counted(self) -> tuple[int | None, str, str]:
        """What tells one set of counted deliveries from another."""
        return self.inputs, self.input_ids, self.input_contents


NO_INPUTS = "0" * 32
"""The input_ids and input_contents of no deliveries."""

DELIVERY_FACTS = frozenset(field.name for field in ENVELOPE if not field.hashed)
"""Columns of a definition that belong to one delivery of an event, and that its content hash does not cover."""


def delivery_hash(content_hash: str, *facts: str | int) -> int:
    """Return the hash of a delivery's content and of facts beside it, the first 128 bits of SHA-256 over
    `CONTENT_HASH/TIME` for one that a correction moved, `CONTENT_HASH/BATCH_ID/SEQ` where it matters which delivery of
    its event it is, `CONTENT_HASH/BATCH_ID/SEQ/TIME` for both. TIME has nine digits after the second, and Z."""
    return int.from_bytes(sha256("/".join(map(str, (content_hash, *facts))).encode()).digest()[:16], "big")


class Aggregate(msgspec.Struct, frozen=True, gc=False):
    """One version of an aggregate: a computed value, and why it is what it is.

    `known_until` (nanoseconds) is the ingest time up to which the run knew events; `metric_version` the definition
    used, or, of an imported value, the latest one then; `reason` and `actor` are the run's. `sound` is False where the
    row is not as it was written; that is looked at where entities are named, or the reader asks for it. `base` is the
    run whose version was current when it was written (None: there was none); only a listing of all versions knows it.
    `retired_at` is set where it is shown: since when its metric is retired (0: it is not).
    """

    computed: Computed
    run_id: str
    metric_version: int
    known_until: int
    reason: str
    current: bool
    sound: bool = True
    actor: str = ""
    base: str | None = None
    retired_at: int = 0

    @property
    def is_imported(self) -> bool:
        """Whether it was imported from a file: what it counts is not known, and `known_until` is 0."""
        return self.computed.inputs is None

    @property
    def file_digest(self) -> str | None:
        """The SHA-256 of the file that it was imported from, in hex; None: it was computed."""
        return self.computed.input_ids + self.computed.input_contents if self.is_imported else None


class BucketDigest(msgspec.Struct, frozen=True, gc=False):
    """A bucket's aggregates in short, so that many equal ones need not be compared one by one.

    `aggregates` is their number, `digest` the SHA-256 in hex of their lines, ordered by entity (UTF-8), each with its
    line feed; a line is that of `digest_line`. Names hold no control characters, so no two sets of lines are the same
    text.
    Aggregates without a value are left out, but not those that failed: the line of such a one has no value, and so is
    that of no current one.

    For current versions it also has how many have no value, and the lowest and the highest metric version of all.
    """

    metric: str
    bucket: int
    aggregates: int
    digest: str
    without_value: int = 0
    lowest_version: int = 0
    highest_version: int = 0

    @property
    def values(self) -> tuple[int, str]:
        """What is the same wherever the values and what they were computed from are."""
        return self.aggregates, self.digest


def digest_line(entity_id: str, value: str, inputs: int | None, input_ids: str, input_contents: str) -> str:
    """Return the line of an aggregate, with its line feed. Inputs that are not known are `-`. Both hashes are in upper
    case; that of the contents is left out where it is the other one, as it is for nearly all. Databases write these
    lines themselves, in SQL."""
    hashes = (input_ids,) if input_contents == input_ids else (input_ids, input_contents)
    return "\x1f".join((entity_id, value, "-" if inputs is None else str(inputs), *hashes)) + "\n"


_LINES = 1024
"""Lines that are hashed at a time: a bucket may have more aggregates than memory should hold."""


DigestLines = tuple[int, str | None, int, int, int]
"""A bucket's start, one line or more of its digest with their line feeds (None: there is none), how many aggregates
beside them have no value, and the lowest and the highest metric version of all of these."""


def bucket_digests(metric: str, lines: Iterable[DigestLines]) -> Iterator[BucketDigest]:
    """Yield the digests of a metric's buckets, from the lines of their aggregates, by bucket and entity."""
    for bucket, group in groupby(lines, key=itemgetter(0)):
        digest, count, nulls = sha256(), 0, 0
        versions: list[int] = []
        while part := list(islice(group, _LINES)):
            _, texts, without, lowest, highest = zip(*part, strict=True)
            text = "".join(filter(None, texts))
            digest.update(text.encode())
            count += text.count("\n")
            nulls += sum(without)
            versions += min(lowest), max(highest)
        yield BucketDigest(metric, bucket, count, digest.hexdigest(), nulls, min(versions), max(versions))


JOINED_LINES = 1 << 16
"""Lines of digests whose text a database holds at a time, at most."""


def joinable(counts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """Cut buckets in order, given with how many aggregates they have at most, into spans (first, last) of JOINED_LINES
    aggregates or less, whose lines a database may join by bucket. The third value is False for a bucket that alone has
    more. A joined text costs much less than its lines one by one."""
    first = last = held = 0
    for bucket, count in counts:
        if held and held + count > JOINED_LINES:
            yield first, last, held <= JOINED_LINES
            held = 0
        first, last, held = bucket if not held else first, bucket, held + count
    if held:
        yield first, last, held <= JOINED_LINES


_LONG = Context(prec=200)


def with_scale(value: Decimal, scale: int) -> Decimal:
    """Return the value with at least `scale` digits after the point: 61.9 becomes 61.90. That is how values are
    printed."""
    digits = value.as_tuple().exponent
    short = isinstance(digits, int) and -digits < scale
    return value.quantize(Decimal(1).scaleb(-scale), context=_LONG) if short else value


def decimal_text(value: Decimal) -> str:
    """Return the shortest plain text of an exact value: no exponent, no trailing zeros. That is how values are
    stored."""
    if not value:  # -0 and 0E+3 are 0
        return "0"
    text = str(value)  # the faster of the two
    if "E" in text:
        text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class RunState(StrEnum):
    """The state of a run."""

    PLANNING = "PLANNING"
    """It was accepted, and has no tasks yet: a stack plans a large one after it has answered."""
    PLANNED = "PLANNED"
    RUNNING = "RUNNING"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    """Everything was computed."""
    PARTIAL = "PARTIAL"
    """Some aggregates or tasks failed."""
    FAILED = "FAILED"
    """All tasks failed, or it could not be planned."""


ACTIVE = frozenset({RunState.PLANNING, RunState.PLANNED, RunState.RUNNING})
"""States of a run that has not ended."""

ENDED = frozenset({RunState.COMPLETED, RunState.PARTIAL, RunState.FAILED})
"""States in which a run ends by itself."""


class TaskState(StrEnum):
    """The state of a task."""

    OPEN = "OPEN"
    DONE = "DONE"
    FAILED = "FAILED"


TASK_TIMEOUT = 300
"""Seconds that a task may take: a worker hides its message from others for so long, and the template gives the
processor as much. One that takes longer may be done twice, without harm."""


class PromotionKind(StrEnum):
    """Which way a promotion moves."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Some entities (where `entities` is empty, all of the range that have events) and some whole buckets of metrics
    with the same buckets; a task of metrics over all entities names none, and is not cut into ranges.

    Tasks of one group, numbered one after the other, have a share of the segments each, of those recorded until
    `known_until` (nanoseconds); see usecases/replay/shares.py.

    `metrics` are NAME@VERSION: a run keeps to the definitions it was planned with. `start` and `end` are nanoseconds,
    aligned to buckets.
    """

    run_id: str
    number: int
    metrics: tuple[str, ...]
    start: int
    end: int
    entities: tuple[str, ...] = ()
    entity_range: EntityRange = EVERY_ENTITY
    share: Share = WHOLE
    known_until: int = 0

    @property
    def window(self) -> Window:
        """[start, end)."""
        return Window(self.start, self.end)


class RunKind(StrEnum):
    """What a run does."""

    REPLAY = "replay"
    IMPORT = "import"


class ImportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose numbers a run imports: its name as it was typed, its SHA-256 in hex, and the columns that were
    taken. `metric` is the one that names the metric of each row, if there is such."""

    name: str
    digest: str
    bucket: str
    entity: str | None
    value: str
    metric: str | None = None


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked for: a replay or, with a `file`, an import. Two equal requests are the same work. Instants
    in nanoseconds. `source`, `event_type` and `correction`, the id of one, choose buckets."""

    start: int
    end: int
    entities: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    source: str | None = None
    event_type: str | None = None
    assumed: tuple[str, ...] = ()
    correction: str | None = None
    reason: str = ""
    file: ImportedFile | None = None

    @property
    def counts_duplicates(self) -> bool:
        """Whether every delivery counts, the only assumption that a replay knows; its values must not become
        current."""
        return bool(self.assumed)

    @property
    def chooses_buckets(self) -> bool:
        """Whether it is not about all buckets of its window and entities."""
        return not (self.source is self.event_type is self.correction is None)

    @property
    def window(self) -> Window:
        """The requested window."""
        return Window(self.start, self.end)


class FailedAggregate(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate that could not be computed from its events, and why: a metric's Failure, and its place. `inputs` are
    the events that its value would be made of."""

    metric: str
    metric_version: int
    bucket: int
    entity_id: str
    inputs: int
    reason: str
    events: int = 0
    event_ids: tuple[str, ...] = ()


KEPT_FAILURES = 100
"""Failed aggregates that a task keeps, and that a run shows, at most; all are counted."""


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """The aggregates of a task that failed: how many, and the first of them."""

    count: int = 0
    kept: tuple[FailedAggregate, ...] = ()


NO_FAILURES = Failures()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One replay, or one import. `tasks`, `done`, `failed` count tasks; `new`, `changed`, `unchanged` values against
    what was current, `removed` current values that have no events any more.

    `events_matched` counts the events that the request chose, `buckets` those with events, each metric's own, when
    the run was planned; None: too many for the planner to count, some of their raw was damaged, or it is PLANNING.

    `promoted` counts aggregates that it made current, less those that were `rolled_back`.

    `actor` asked for it. `computed_by` are the programs that computed its versions, with their versions.
    `effective_start` and `effective_end` bound the whole buckets that the requested window touches.

    `failed_aggregates` counts those that failed in tasks that were done all the same, `failures` has the first of them,
    in the order of the tasks; a listing of runs has none.

    `planning_failure` is why a run that was PLANNING has FAILED without tasks.

    All of its tasks compute with the corrections recorded until `corrections_until`, the last one that the planner
    knew (nanoseconds; 0: there was none).
    """

    run_id: str
    request: RunRequest
    actor: str = ""
    state: RunState
    created_at: int
    finished_at: int | None
    effective_start: int
    effective_end: int
    events_matched: int | None
    buckets: int | None
    tasks: int
    corrections_until: int = 0
    done: int = 0
    failed: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    promoted: int = 0
    rolled_back: int = 0
    computed_by: tuple[str, ...] = ()
    failed_aggregates: int = 0
    failures: tuple[FailedAggregate, ...] = ()
    planning_failure: str = ""

    @property
    def kind(self) -> RunKind:
        """What it does."""
        return RunKind.REPLAY if self.request.file is None else RunKind.IMPORT

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.state in ACTIVE

    @property
    def effective(self) -> Window:
        """The whole buckets that its window touches."""
        return Window(self.effective_start, self.effective_end)

    @property
    def values(self) -> int:
        """How many aggregates it computed, or found to be without events."""
        return self.new + self.changed + self.unchanged + self.removed

    @property
    def without_value(self) -> int | None:
        """Buckets whose value is NULL, or none of whose events the metric lets in: with new, changed, unchanged and
        failed_aggregates they are all buckets. None until all tasks of the run are done, or if buckets were not
        counted; 0 where events that came after the plan made more values than it counted."""
        if self.state not in (RunState.COMPLETED, RunState.PARTIAL) or self.failed or self.buckets is None:
            return None
        return max(0, self.buckets - self.new - self.changed - self.unchanged - self.failed_aggregates)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A task that failed too often, why, and what can help (`hint`; empty: doing it again); with `purged_at` and
    `purge_reason` if it was given up."""

    letter_id: str
    task: Task
    reason: str
    hint: str = ""
    attempts: int
    failed_at: int
    purged_at: int | None = None
    purge_reason: str = ""
