"""The fleet that is a Spark cluster: Spark 3.5 or 4, with a driver here or through Spark Connect.

Spark runs pik's own code for each item and moves what that gives back; it never sees raw, an event or a number. Items
are run in waves, each one job with a task for each item, so that results come in order, errors soon, and the driver
holds the results of few. Two waves run at a time: no executor waits for the slowest task of one.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pik.errors import NoAccess, StoreError, Unreadable
from pik.fleets.session import Session, errors_of_spark, first_line
from pik.fleets.tasks import ERROR, RESULTS, Job, Row, results_of, versions
from pik.ports.engine import Engine
from pik.ports.fleet import Body, Item, Keyed, Merge, Result
from pik.ports.store import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FETCHED_BYTES = 32 << 20
"""Results that the driver fetches at a time, about."""

WAVE_BYTES = 16 << 20
"""Items that are sent to the executors at a time, about."""

_WAVES, _WAVE = 2, 3
"""Waves that run at a time, and the items of one for each task that can run."""

_THEIR_ACCESS = "executors use the network, credentials and AWS_ variables of their machines (docs/scale.md#access)"

_ROWS = "number long, item long, part long, kind int, data binary"


@dataclass(frozen=True, slots=True)
class SparkFleet:
    """The Fleet port over a session."""

    session: Session
    location: str
    store: Store
    engine: Engine
    expected: str = field(default_factory=versions)

    @property
    def slots(self) -> int:
        """How many tasks run at a time; never 1, which stands for this process."""
        return max(2, self.session.slots)

    def map(self, body: Body[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of each item, in the order of the items."""
        job = pickle.dumps(tuple(Job(self.store, self.engine, body)), pickle.HIGHEST_PROTOCOL)
        with self._jobs() as jobs:
            for wave in _waves(items, _WAVE * self.slots):
                with self._translated():
                    jobs.start(self._mapped(job, wave))
                if len(jobs.running) == _WAVES:
                    yield from self._results(jobs)
            while jobs.running:
                yield from self._results(jobs)

    def map_reduce(
        self, body: Body[Item, Keyed], items: Iterable[Item], merge: Merge[Result], keys: int
    ) -> Iterator[Result]:
        """Yield what each key's values come to, in the order of the keys."""
        job = pickle.dumps(tuple(Job(self.store, self.engine, body, merge)), pickle.HIGHEST_PROTOCOL)
        sent = [pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in items]
        with self._jobs() as jobs:
            with self._translated():
                by_key = self._mapped(job, sent).repartition(max(1, keys), "number")
                ordered = by_key.sortWithinPartitions("number", "item", "part")
                jobs.start(ordered.mapInArrow(_reducer(self.expected, job), _ROWS))
            yield from self._results(jobs)

    @contextmanager
    def _jobs(self) -> Iterator[_Jobs]:
        """Provide what runs jobs beside each other. What ends the work early, such as Ctrl-C, cancels them; nothing of
        theirs is kept in either case."""
        jobs = _Jobs()
        try:
            with ThreadPoolExecutor(_WAVES) as jobs.pool:
                try:
                    yield jobs
                except BaseException:
                    with suppress(*errors_of_spark()):  # what has ended the work is raised
                        self.session.cancel()
                    raise
        finally:
            while jobs.running:
                jobs.forget()

    def _mapped(self, job: bytes, items: Sequence[bytes]) -> DataFrame:
        numbers = self.session.spark.range(0, len(items), 1, max(1, len(items)))
        return numbers.mapInArrow(_mapper(self.expected, job, items), _ROWS)

    def _results(self, jobs: _Jobs) -> Iterator[Any]:
        """Yield the results of the first job, in their order. Raises what a task raised, as it was."""
        with self._translated():
            rows = jobs.first()
        if failed := [one for one in rows.sizes if one.kind != RESULTS]:
            with self._translated():
                [row] = rows.fetch(failed[:1])
            raise self._error(row)
        for some in _together(rows.sizes):
            with self._translated():
                fetched = rows.fetch(some)
            for row in fetched:
                yield from results_of(row.data)
        jobs.forget()

    def _error(self, row: Row) -> Exception:
        if row.kind == ERROR:
            error = pickle.loads(row.data)
            assert isinstance(error, Exception)
            return self._placed(error)
        return StoreError(
            f"the executors of {self.location} have other versions than this process: {row.data.decode()}, here it is"
            f" {self.expected}",
            hint="give both the same environment: pik cluster pack -o pik.tar.gz",
        )

    def _placed(self, error: Exception) -> Exception:
        """Return the error of a task, which says where it happened if elsewhere it might not."""
        if isinstance(error, NoAccess | Unreadable):
            error.message = f"on an executor of {self.location}: {error.message}"
            error.args, error.hint = (error.message,), _THEIR_ACCESS
        return error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise StoreError for what Spark raises."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the connection to the Spark driver of {self.location} is lost: {error.strerror or error}",
                hint="has its Java process ended, perhaps for want of memory? Run the same command again",
            ) from error
        except errors_of_spark() as error:
            raise StoreError(
                f"the job failed on {self.location}: {first_line(error)}", hint="the cluster's logs say more"
            ) from error


@dataclass(slots=True)
class _Jobs:
    """Jobs that run, or have run, and whose rows stay on the executors' disks until they are forgotten."""

    running: deque[tuple[DataFrame, Future[list[_Size]]]] = field(default_factory=deque)
    pool: ThreadPoolExecutor = field(init=False)

    def start(self, frame: DataFrame) -> None:
        """Run one more."""
        from pyspark import StorageLevel

        kept = frame.persist(StorageLevel.DISK_ONLY)
        self.running.append((kept, self.pool.submit(_sizes, kept)))

    def first(self) -> _Rows:
        """Wait for the first one, and return its rows."""
        kept, found = self.running[0]
        return _Rows(kept, found.result())

    def forget(self) -> None:
        """Remove the rows of the first one."""
        kept, _ = self.running.popleft()
        with suppress(*errors_of_spark()):  # a cluster that is lost has none
            kept.unpersist()


def _sizes(kept: DataFrame) -> list[_Size]:
    """Run a job; return its rows' sizes, in their order."""
    from pyspark.sql.functions import length

    found = kept.select("number", "part", "kind", length("data").alias("size")).collect()
    return sorted(_Size(*row) for row in found)


class _Size(NamedTuple):
    number: int
    part: int
    kind: int
    size: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a job that has run, and how long each is, in their order."""

    kept: DataFrame
    sizes: Sequence[_Size]

    def fetch(self, some: Sequence[_Size]) -> list[Row]:
        """Return some rows that follow each other."""
        from pyspark.sql.functions import col

        first, last = some[0], some[-1]
        number, part = col("number"), col("part")
        begin = (number > first.number) | ((number == first.number) & (part >= first.part))
        end = (number < last.number) | ((number == last.number) & (part <= last.part))
        found = self.kept.where(begin & end).collect()
        return sorted(Row._make((*row[:4], bytes(row[4]))) for row in found)


def _together(sizes: Iterable[_Size]) -> Iterator[list[_Size]]:
    """Yield rows that are fetched together."""
    some: list[_Size] = []
    held = 0
    for one in sizes:
        some.append(one)
        held += one.size
        if held >= FETCHED_BYTES:
            yield some
            some, held = [], 0
    if some:
        yield some


def _waves(items: Iterable[object], size: int) -> Iterator[list[bytes]]:
    """Yield the items, pickled, so many at a time, or as many as fit into WAVE_BYTES."""
    wave: list[bytes] = []
    held = 0
    for item in items:
        wave.append(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))
        held += len(wave[-1])
        if len(wave) == size or held >= WAVE_BYTES:
            yield wave
            wave, held = [], 0
    if wave:
        yield wave


def _mapper(expected: str, job: bytes, items: Sequence[bytes]) -> Callable[[Any], Any]:
    """Return what runs items. It travels by value, so that an executor without pik can say so."""

    def run(batches: Any) -> Any:
        numbers = (number for batch in batches for number in batch.column(0).to_pylist())
        try:
            from pik.fleets.arrow import batch_of
            from pik.fleets.tasks import run_item
        except ImportError as error:
            raise RuntimeError(f"this executor's Python has no pik, or another one: {error}") from None
        for number in numbers:
            yield from map(batch_of, run_item(expected, job, number, items[number]))

    return run


def _reducer(expected: str, job: bytes) -> Callable[[Any], Any]:
    """Return what merges the values of keys."""

    def run(batches: Any) -> Any:
        from pik.fleets.arrow import batch_of, rows_of
        from pik.fleets.tasks import run_keys

        yield from map(batch_of, run_keys(expected, job, rows_of(batches)))

    return run
