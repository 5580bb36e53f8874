"""The port Engine: computes metrics, and answers SQL, over raw."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from pik.model.aggregate import BucketDigest, Computed, DigestLines
from pik.model.batch import Segment
from pik.model.calendar import Buckets
from pik.model.criteria import Criteria
from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.event import ENVELOPE, FieldType
from pik.model.metric import Combination, Definition, Per
from pik.model.window import Window


class Offset(NamedTuple):
    """How many seconds a delivery moves whose event_time lies in [start, end), texts such as `2026-01-31T00:00:00`
    (None: no bound). `seconds` None: it cannot be known, for the `reason`."""

    start: str | None
    end: str | None
    seconds: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a scenario changes of the counting deliveries that meet the criteria: they move by the first of the offsets
    that holds for them, or without offsets they do not count."""

    criteria: Criteria
    offsets: tuple[Offset, ...] = ()


@dataclass(frozen=True, slots=True)
class CorrectionFiles:
    """What a correction lists, as files of so many `lines` (ListedDelivery, NDJSON in zstd frames): deliveries that
    happened at another `time`, if it `moves`, else events that do not count."""

    moves: bool
    correction_id: str
    files: Sequence[Path]
    lines: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """The raw that a computation reads: whole segments, or files of some of their frames.

    `files` are NDJSON in zstd frames; `deliveries` is how many lines they hold together, so that a lost frame shows;
    `skip` is a CSV file of `batch_id,seq` without a header (None: nothing to skip), the deliveries that don't count.
    With `duplicates` they may hold several deliveries of one event, and all of them count. `corrections` are in the
    order of the log: of several that move a delivery, the last holds. All `rules` look at the deliveries as they are
    then; of several that move one, again the last holds. Deliveries of entities outside the range do not count.
    """

    files: Sequence[Path]
    deliveries: int
    skip: Path | None = None
    duplicates: bool = False
    rules: tuple[Rule, ...] = ()
    corrections: Sequence[CorrectionFiles] = ()
    entity_range: EntityRange = EVERY_ENTITY

    @property
    def readable(self) -> Iterator[Path]:
        """Yield all of the files."""
        yield from self.files
        if self.skip is not None:
            yield self.skip
        for one in self.corrections:
            yield from one.files


@dataclass(frozen=True, slots=True)
class DeliveryFiles:
    """Deliveries as files that SQL reads, with what the index knows of them.

    `files` and `deliveries` as those of Inputs. `verdicts` is a CSV file of `batch_id,seq,verdict`, the deliveries that
    were not accepted; `blocks` one of `batch_id,ingest_time,recorded_at` (nanoseconds). Neither has a header. The first
    of the files are the whole objects of the `segments`.

    `corrections` as those of Inputs; `listed` are those of which only is asked what they list. The batches `withdrawn`
    come with the id of their correction. `choices` is a CSV file of `number,batch_id,seq,counts,correction_id` (None:
    there are none): of several about one delivery, the one with the highest number says whether it counts.
    """

    files: Sequence[Path]
    deliveries: int
    verdicts: Path
    blocks: Path
    segments: Sequence[Segment] = ()
    corrections: Sequence[CorrectionFiles] = ()
    choices: Path | None = None
    withdrawn: Sequence[tuple[str, str]] = ()
    listed: Sequence[CorrectionFiles] = ()

    @property
    def readable(self) -> Iterator[Path]:
        """Yield all of the files."""
        yield from (*self.files, self.verdicts, self.blocks)
        if self.choices is not None:
            yield self.choices
        for one in (*self.corrections, *self.listed):
            yield from one.files


@dataclass(frozen=True, slots=True)
class TouchedBucket:
    """Bucket starts (nanoseconds) that matching events of an entity (or of ALL_ENTITIES) fall into, and how many."""

    bucket: int
    entity_id: str
    events: int


class CountedDelivery(NamedTuple):
    """A delivery that a metric counts. `event_time` in microseconds: two that differ by less are one moment here."""

    event_id: str
    batch_id: str
    seq: int
    event_time: int


Bucket = tuple[str, int]
"""A metric's name and the start of one of its buckets (nanoseconds)."""

NOTHING: Mapping[Bucket, Sequence[str]] = MappingProxyType({})


class Computation(Protocol):
    """Metrics computed over raw, to be read in as much detail as is needed. The methods may be called any number of
    times, one after the other, and raise EngineError as `Engine.computation` does."""

    def digests(self) -> Iterator[BucketDigest]:
        """Yield what the values of each bucket come to, ordered by metric name and bucket; buckets without any value
        are left out."""

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        """Yield the lines that the digests of the buckets that start in the window are of, by bucket."""

    def value_digests(self) -> Iterator[BucketDigest]:
        """Yield the same from the values alone, whatever they were computed from: as `Figures.digests` does."""

    def rows(
        self, *, skipping: Collection[Bucket] = (), among: Mapping[Bucket, Sequence[str]] = NOTHING
    ) -> Iterator[Computed]:
        """Yield every (metric, bucket, entity) with at least one matching event, without those of the buckets to skip,
        and of the buckets in `among` only these entities, ordered by metric name, bucket, entity (UTF-8).

        What fails on the data (a text that is not a number, a sum of too many digits, a denominator of zero) stops
        nothing else: the row of that (metric, bucket, entity) comes in its place, with a `failure` instead of a value,
        and all others as if it had not failed. What the caller makes of it is the caller's choice; it must not be taken
        for a bucket without a value.
        """

    def values(self, metric: str) -> Iterator[Decimal]:
        """Yield every value of the metric, in no particular order."""


class NumbersExtent(NamedTuple):
    """What a file of numbers holds: how many, the first and the last bucket (nanoseconds), and how many entities (0:
    all are over all)."""

    values: int
    first: int
    last: int
    entities: int


class Figures(Protocol):
    """Numbers of a file, sorted by metric, bucket and entity."""

    def extent(self) -> NumbersExtent | None:
        """Return what there is; None where there is nothing."""

    def repeated(self) -> tuple[Computed, int, int] | None:
        """Return the first number of which there are several, and the first two lines that have it."""

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        """Yield the digest of each bucket that starts in the window, of its values alone."""

    def rows(self, metric: str, window: Window) -> Iterator[Computed]:
        """Yield the numbers of the buckets that start in the window, ordered by bucket and entity (UTF-8). What they
        were computed from is not known: `inputs` is 0."""


class Tables(Protocol):
    """Deliveries as SQL tables: `deliveries`, every recorded one, and `events`, those that count. Where `received_ns`
    is asked for, `moved_away` has those that count and were in the window until a correction moved them out of it.
    `listed` has what the `listed` corrections of the files list: correction_id, event_id, batch_id, seq.

    Their columns are DELIVERY_COLUMNS, as far as they were asked for. Statements are DuckDB's SQL, read those tables
    and nothing else, and raise Invalid where they cannot be evaluated.
    """

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Read them before the next statement."""

    def columns(self, sql: str) -> list[tuple[str, str]]:
        """Return name and SQL type of each column of a query, without running it."""

    def keep(self, name: str, sql: str, parameters: Sequence[object] = ()) -> None:
        """Keep the rows of a query as a table of this name for the following ones."""

    def define(self, name: str, sql: str) -> None:
        """Give the rows of a query a name for the following ones, each of which computes them again."""

    def add(self, name: str, columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table with these columns, given with their SQL types, and these rows; TIMESTAMPs are microseconds."""

    def write(self, sql: str, path: Path) -> None:
        """Write the rows of a query to the `output`, as Parquet. HUGEINTs become DECIMAL(38, 0)."""


class CountedDeliveries(NamedTuple):
    """Values of one bucket, and the tables `counted_0`, `counted_1`, … of the deliveries that each counts: event_id,
    batch_id, seq, and event_time in microseconds (two times that differ by less are one moment there)."""

    values: Sequence[Computed | None]
    tables: Tables


class Engine(Protocol):
    """Evaluates metrics over raw lines. Stateless between calls; one per process."""

    @property
    def version(self) -> str:
        """The program that evaluates them, and its version."""

    def shared(self, parts: int) -> Engine:
        """Return the same engine for one of so many processes that work at a time: with its part of what one may
        use."""

    def check(self, definition: Definition) -> int:
        """Return the scale of the definition's values: how many digits after the point their type has.

        Raises Invalid, with the reason and where there is one the exact alternative, unless the definition parses,
        names only columns that exist, is one aggregate, and has a result that neither order nor floating point can
        change.
        """

    def combination(self, definition: Definition) -> Combination:
        """Return how the definition's values for parts make that for the whole: exactly, whatever the events. Raises
        Invalid, with the reason, for one whose values do not."""

    def counts(self, definition: Definition) -> bool:
        """Return whether the definition counts something, so that one more event leaves its value as it is or adds 1.
        Raises Invalid for one that `check` refuses."""

    def reads_delivery(self, definition: Definition) -> bool:
        """Return whether the definition reads what exact copies of an event need not have in common. Raises Invalid for
        one that `check` refuses."""

    def computation(
        self, inputs: Inputs, metrics: Sequence[Definition], window: Window, entities: Sequence[str] = ()
    ) -> AbstractContextManager[Computation]:
        """Compute the metrics, and provide what they come to for as long as the context lasts.

        `metrics` share their buckets and what they are per; `window` is made of whole buckets; `entities`, if any,
        limits to those, and metrics over all entities have none.

        Raises Damaged (naming the file) for raw that cannot be read or has not `deliveries` lines, EngineError where
        nothing can be computed, such as for lack of memory.
        """

    def partial(
        self,
        inputs: Inputs,
        metrics: Sequence[Definition],
        window: Window,
        target: Path,
        entities: Sequence[str] = (),
    ) -> None:
        """Write into the file `target` what a part of the deliveries comes to, for `merge` to make the values of the
        whole of: any deliveries, as long as each is in one part. The file grows with the number of buckets and
        entities, and with that of the values that a DISTINCT is over.

        Takes the same as `computation`, at least one metric, and raises as it does; what fails on the data is a part of
        what is written."""

    def merge(self, files: Sequence[Path], metrics: Sequence[Definition]) -> AbstractContextManager[Computation]:
        """Provide what `computation` of the deliveries of all these parts would, in every detail, where `partial` wrote
        them for the same metrics. Files may be those of some entities only: of these, all parts are needed. Raises
        EngineError for files of other metrics."""

    def touched(
        self,
        inputs: Inputs,
        buckets: Buckets,
        window: Window,
        *,
        entities: Sequence[str] = (),
        source: str | None = None,
        event_type: str | None = None,
        among: Path | None = None,
        per: Per = Per.ENTITY,
    ) -> Iterator[TouchedBucket]:
        """Yield the (bucket, entity) pairs with an event in `window` that matches, ordered by bucket and entity; per
        all entities, the buckets. `among` is a CSV file of `batch_id,seq` without a header, without a seq for all of a
        batch: other deliveries do not match."""

    def counted(
        self, inputs: Inputs, definition: Definition, window: Window, entities: Sequence[str] = ()
    ) -> Iterator[CountedDelivery]:
        """Yield the deliveries that the metric counts, in no particular order. Raises as `compute` does, and
        EngineError where its condition cannot be evaluated for one of them."""

    def compared(
        self, states: Sequence[tuple[Inputs, Definition]], bucket: int, entities: Sequence[str] = ()
    ) -> AbstractContextManager[CountedDeliveries]:
        """Compute the value of the bucket with this start from each of these inputs, by the definition beside it, which
        has its own buckets, and provide them with the deliveries that they count. Raises as `computation` does; a
        value that fails counts none."""

    def figures(self, path: Path) -> AbstractContextManager[Figures]:
        """Provide the numbers of a file of lines `METRIC, BUCKET (nanoseconds), ENTITY, VALUE, LINE` with a tab between
        two of them, whose values are the shortest plain text of each number."""

    def tables(
        self,
        files: DeliveryFiles,
        columns: Collection[str],
        window: Window,
        entities: Sequence[str] = (),
        *,
        output: Path | None = None,
    ) -> AbstractContextManager[Tables]:
        """Provide the deliveries in the window (of these entities, if any are named) as tables with these columns.
        `output` is the file that may be written.

        The files are read once, when the context begins. Raises Damaged and EngineError as `compute` does.
        """

    def written(self, files: Sequence[Path]) -> AbstractContextManager[Tables]:
        """Provide the rows of files that `Tables.write` wrote, all of one query, as the table `written`."""

    def columns_read(self, statement: str, tables: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
        """Return the columns that a statement may read, by table, of those of the `tables` (columns with their SQL
        types) that it names. Raises Invalid unless it is one SELECT that can be evaluated over them."""


DELIVERY_COLUMNS = {
    **{each.name: each.type for each in ENVELOPE},
    "verdict": FieldType.TEXT,
    "recorded_at": FieldType.INSTANT,
    "event_ns": FieldType.INTEGER,
    "lag_ns": FieldType.INTEGER,
    "received_event_time": FieldType.INSTANT,
    "received_ns": FieldType.INTEGER,
    "correction": FieldType.TEXT,
}
"""The columns of `deliveries` and `events`. Beside the envelope's: the verdict (accepted, exact, conflict), when the
index recorded it, the event_time in whole nanoseconds since 1970, and the lag in nanoseconds. Instants are TIMESTAMPs
in UTC, cut to microseconds. Corrections hold in all of them: `received_event_time` and `received_ns` are the event_time
as it came, `correction` has the ids (with a comma between two) of the corrections that moved the delivery, chose
whether it counts, or took it out; NULL: none did."""
