"""A whole store against a simple model: ingest, correct, revoke, replay, promote, rollback, republish, verify, rebuild.

Promises 3 (raw is the source of truth), 4 (every delivery once), 6 (recomputing is idempotent) and 7 (aggregates are
append-only, promotion compares before it sets), 11 (a correction changes what counts, and nothing else).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from pik.engine import DuckEngine
from pik.errors import NothingSelected
from pik.inputs import blocks as blocks_module
from pik.inputs.source import file_source
from pik.model.assumption_text import read_scenario
from pik.model.batch import Verdict
from pik.model.delivery import Filter
from pik.model.instant import DAY, full_instant, parse_instant
from pik.model.metric import Definition
from pik.model.republish import RepublishRequest, RepublishState
from pik.model.run import RunRequest, RunState
from pik.model.window import ALL_TIME
from pik.ports.target import Message
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.targets.file import FileTarget
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.correct.plan import plan_correction, record_correction
from pik.usecases.correct.revoke import plan_revocation, record_revocation
from pik.usecases.ingest.batch_ingest import IngestOptions, Outcome, ingest
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote, rollback
from pik.usecases.republish import send as republishing

TOTAL = Definition(name="total", value="sum((payload->>'$.v')::DECIMAL(18,2))")
METRICS = ("event_count", "total")
FIRST_DAY = 20_000

Bucket = tuple[str, int, str]
"""metric, day, entity"""

Sent = tuple[str, int, int, int]
"""entity, day, day as received, value"""


@dataclass(frozen=True)
class Record:
    """An event as a producer sends it; `again` makes another spelling of the same content."""

    entity: str
    day: int
    value: int
    key: str | None
    spelling: int

    @property
    def identity(self) -> tuple[object, ...]:
        return (self.entity, "key", self.key) if self.key else (self.entity, self.day, self.value)

    @property
    def content(self) -> tuple[object, ...]:
        return self.entity, self.day, self.value

    def line(self) -> str:
        event: dict[str, object] = {
            "source": "test",
            "event_type": "sale",
            "entity_id": self.entity,
            "event_time": full_instant((FIRST_DAY + self.day) * DAY + self.value),
            "payload": {"v": self.value},
        }
        if self.key:
            event["idempotency_key"] = self.key
        return json.dumps(event, separators=(", ", ": ") if self.spelling else (",", ":"))


RECORDS = st.lists(
    st.builds(
        Record,
        entity=st.sampled_from(["a", "b", "ü"]),
        day=st.integers(0, 2),
        value=st.integers(0, 3),
        key=st.sampled_from([None, None, "k1", "k2"]),
        spelling=st.integers(0, 1),
    ),
    min_size=1,
    max_size=8,
)


@dataclass(eq=False)
class Corrected:
    """A recorded correction: the events that are out, or the days on which events happened."""

    correction_id: str
    out: set[tuple[object, ...]] = field(default_factory=set)
    days: dict[tuple[object, ...], int] = field(default_factory=dict)


@dataclass
class Model:
    """What a store should hold."""

    accepted: dict[tuple[object, ...], Record] = field(default_factory=dict)
    duplicates: Counter[tuple[Record, str]] = field(default_factory=Counter)
    contents: set[str] = field(default_factory=set)
    current: dict[Bucket, str] = field(default_factory=dict)
    versions: dict[str, dict[Bucket, tuple[Decimal | None, str | None]]] = field(default_factory=dict)
    corrections: list[Corrected] = field(default_factory=list)

    def ingest(self, records: list[Record]) -> None:
        for record in records:
            first = self.accepted.setdefault(record.identity, record)
            if first is not record:
                kind = Verdict.EXACT if first.content == record.content else Verdict.CONFLICT
                self.duplicates[record, kind] += 1

    def days(self) -> dict[tuple[object, ...], int]:
        """Return the day on which each event happened, of those that are out as well."""
        days = {identity: record.day for identity, record in self.accepted.items()}
        for correction in self.corrections:
            days |= correction.days
        return days

    def counting(self) -> dict[tuple[object, ...], int]:
        """Return the events that count, each with its day."""
        out = set[tuple[object, ...]]().union(*(correction.out for correction in self.corrections))
        return {identity: day for identity, day in self.days().items() if identity not in out}

    def sent(self, entities: tuple[str, ...]) -> list[Sent]:
        """Return what a consumer should have of the events of these entities (none: all) that count."""
        events = ((self.accepted[identity], day) for identity, day in self.counting().items())
        return sorted(
            (one.entity, day, one.day, one.value) for one, day in events if not entities or one.entity in entities
        )

    def truth(self) -> dict[Bucket, Decimal]:
        values: dict[Bucket, Decimal] = {}
        for identity, day in self.counting().items():
            record = self.accepted[identity]
            for metric, more in (("event_count", 1), ("total", record.value)):
                bucket = metric, day, record.entity
                values[bucket] = values.get(bucket, Decimal(0)) + more
        return values

    def value(self, bucket: Bucket) -> Decimal | None:
        run = self.current.get(bucket)
        return self.versions[run][bucket][0] if run else None


class Crash(Exception):
    """At will."""


class DyingTarget(FileTarget):
    """A file as a target that takes two messages at a time, until the process dies in a call."""

    at_most = 2

    def __init__(self, path: Path, calls: int) -> None:
        super().__init__(path, taken=None)
        self.calls = calls

    def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
        self.calls -= 1
        if self.calls:
            return super().send(messages, answers)
        super().send(messages[:1], {})
        raise Crash


def consumed(path: Path) -> list[Sent]:
    """Return what a consumer has that drops events that it has already."""
    had: dict[str, Sent] = {}
    for one in map(json.loads, path.read_text().splitlines()):
        times = one["time"], one.get("pikreceivedeventtime", one["time"])
        day, received = (parse_instant(time) // DAY - FIRST_DAY for time in times)
        had.setdefault(one["id"], (one["subject"], day, received, one["data"]["v"]))
    return sorted(had.values())


@contextmanager
def crashing_at(batches: Any, block: int) -> Iterator[None]:
    """The index crashes when it should record the block of this number."""
    record, calls = batches.record, iter(range(1000))

    def crashing(self: Any, chunk: Any, **options: Any) -> Any:
        if next(calls) == block:
            raise Crash
        return record(self, chunk, **options)

    with patch.object(batches, "record", crashing):
        yield


class StoreMachine(RuleBasedStateMachine):
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="pik-machine-"))
        self.store = open_store(str(self.directory / "store"), create=True)
        self.engine = DuckEngine(threads=1)
        add_version(self.store.metrics, TOTAL, 0)
        self.model = Model()
        self.files = 0
        self.cut: tuple[str, Path, list[Sent]] | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @rule(records=RECORDS, again=st.booleans())
    def ingest(self, records: list[Record], again: bool) -> None:
        text = "".join(record.line() + "\n" for record in records)
        self.files += 1
        path = self.directory / f"{self.files}.jsonl"
        path.write_text(text)
        options = IngestOptions(Reading(1 << 20), again=again, workers=0)
        done = ingest(self.store, file_source(str(path)), options, SILENT)
        if not again and text in self.model.contents:
            assert done.outcome == Outcome.ALREADY
            return
        if not again:
            self.model.contents.add(text)
        # Each record is a delivery of its own, equal ones too.
        self.model.ingest([Record(r.entity, r.day, r.value, r.key, r.spelling) for r in records])
        counts = done.batch.counts
        assert counts.read == len(records) == counts.accepted + counts.duplicates + counts.rejected

    @rule(
        records=RECORDS.filter(lambda records: len(records) > 4),
        others=RECORDS,
        block=st.integers(0, 2),
        rebuilt=st.sampled_from(["no", "kept", "gone"]),
    )
    def cut_ingest(self, records: list[Record], others: list[Record], block: int, rebuilt: str) -> None:
        """An ingest is cut when a block is in raw and not in the index; another file comes; the index is rebuilt, from
        the old one or without; and the first file is ingested again."""
        text = "".join(record.line() + "\n" for record in records)
        if text in self.model.contents:
            return
        self.model.contents.add(text)
        self.files += 1
        path = self.directory / f"{self.files}.jsonl"
        path.write_text(text)
        options = IngestOptions(Reading(1 << 20), workers=0)
        with patch.object(blocks_module, "BLOCK", 150), patch.object(blocks_module, "FIRST_READ", 50):
            with pytest.raises(Crash), crashing_at(type(self.store.batches), block):
                ingest(self.store, file_source(str(path)), options, SILENT)
            cut = next(self.store.index.batches())
            done = cut.next_seq - 1
            self.model.ingest(records[:done])
            self.ingest(others, again=True)
            if rebuilt == "gone":
                (self.directory / "store" / "index.db").unlink()
            if rebuilt != "no":
                assert rebuild_index(self.store, SILENT).unfinished == 1
            resumed = ingest(self.store, file_source(str(path)), options, SILENT)
        assert (resumed.batch.batch_id, resumed.outcome) == (cut.batch_id, Outcome.RESUMED)
        self.model.ingest(records[done:])

    @rule(entity=st.sampled_from(["a", "b", "ü"]), moves=st.booleans())
    def correct(self, entity: str, moves: bool) -> None:
        """Move the events of an entity to the next day, or take them out: those that are out as well, which may count
        again."""
        hit = {identity for identity in self.model.accepted if identity[0] == entity}
        if not hit:
            return
        text = f"shift=1d,entity={entity}" if moves else f"without=selected,entity={entity}"
        plan = plan_correction(self.store, self.engine, read_scenario(None, [text], lambda path: ()).assumptions)
        self.files += 1
        [made] = record_correction(plan, [text], f"INC-{self.files}", "test")
        corrected = Corrected(made.correction_id)
        if moves:
            days = self.model.days()
            corrected.days = {identity: days[identity] + 1 for identity in hit}
        else:
            corrected.out = hit
        self.model.corrections.append(corrected)
        self.diff()

    @rule(number=st.integers(0, 9))
    def revoke(self, number: int) -> None:
        """Take any of the corrections back."""
        if not self.model.corrections:
            return
        revoked = self.model.corrections.pop(number % len(self.model.corrections))
        record_revocation(plan_revocation(self.store, self.engine, revoked.correction_id), "right", "test")
        self.diff()

    @rule(target=runs, entities=st.sampled_from([(), ("a",), ("b", "ü")]))
    def replay(self, entities: tuple[str, ...]) -> str | None:
        if not self.model.accepted:
            return None
        request = RunRequest(start=ALL_TIME.start, end=ALL_TIME.end, entities=entities)
        run = start(self.store, plan_replay(self.store, self.engine, request, self.files))
        ended = run_locally(self.store, self.engine, run.run_id, Pace(workers=0), SILENT)
        assert ended.state == RunState.COMPLETED
        truth: dict[Bucket, Decimal | None] = {**self.model.truth()}
        for bucket in self.model.current:  # where a correction left no events, a value becomes null, and a null stays
            if self.model.value(bucket) is not None:
                truth.setdefault(bucket, None)
        self.model.versions[run.run_id] = {
            bucket: (value, self.model.current.get(bucket))
            for bucket, value in truth.items()
            if not entities or bucket[2] in entities
        }
        return run.run_id

    @rule(run=runs)
    def promote(self, run: str | None) -> None:
        if run is None:
            return
        moved = promote(self.store, run, 0, "test").counts.moved
        expected = 0
        for bucket, (_, base) in self.model.versions[run].items():
            if self.model.current.get(bucket) == base:
                self.model.current[bucket] = run
                expected += 1
        assert moved == expected

    @rule(run=runs)
    def rollback(self, run: str | None) -> None:
        if run is None:
            return
        rollback(self.store, run, 0, "test")
        for bucket, (_, base) in self.model.versions[run].items():
            if self.model.current.get(bucket) == run:
                if base is None:
                    del self.model.current[bucket]
                else:
                    self.model.current[bucket] = base

    @rule(entities=st.sampled_from([(), ("a",), ("b", "ü")]), calls=st.integers(1, 6))
    def republish(self, entities: tuple[str, ...], calls: int) -> None:
        """Send what counts to a file; the process may die, and then the next one sends what counted when it began."""
        if self.cut is not None:
            republish_id, path, expected = self.cut
            target, self.cut = FileTarget(path, self.store.republishes.get(republish_id).taken), None
            target.check()
            pace = republishing.Pace()
            done = republishing.resume(self.store, self.engine, republish_id, target, pace, SILENT)
            target.close()
            assert (done.state, done.taken) == (RepublishState.COMPLETED, len(expected))
            assert consumed(path) == expected
            return
        self.files += 1
        path, expected = self.directory / f"{self.files}.sent", self.model.sent(entities)
        dying = DyingTarget(path, calls)
        request = RepublishRequest(
            start=ALL_TIME.start, end=ALL_TIME.end, target=dying.shown, entities=entities, reason=str(self.files)
        )
        planned = republishing.plan_republish(self.store, self.engine, request, SILENT, now=1, actor="test")
        if not expected:
            with pytest.raises(NothingSelected), planned:
                pass
            return
        with planned as plan:
            try:
                republishing.begin(self.store, plan, dying, republishing.Pace(), SILENT)
                assert consumed(path) == expected
            except Crash:
                self.cut = plan.republish.republish_id, path, expected
            dying.close()

    @rule(gone=st.booleans())
    def rebuild(self, gone: bool) -> None:
        if gone:
            (self.directory / "store" / "index.db").unlink()
        rebuilt = rebuild_index(self.store, SILENT)
        assert (rebuilt.revised, rebuilt.unfinished, rebuilt.damaged) == (0, 0, ())

    @rule()
    def verify(self) -> None:
        found = verify(self.store, self.engine, ALL_TIME, SILENT)
        assert list(found) == []
        assert found.summary.aggregates == len(self.model.current)

    @rule()
    def diff(self) -> None:
        if not self.model.truth() and not self.model.current:
            return
        found = {
            (row.metric, row.bucket // DAY - FIRST_DAY, row.entity_id): (row.current, row.recomputed)
            for row in diff_aggregates(self.store, self.engine, ALL_TIME).rows
        }
        truth = self.model.truth()
        expected = {
            bucket: (self.model.value(bucket), truth.get(bucket))
            for bucket in {**truth, **self.model.current}
            if self.model.value(bucket) != truth.get(bucket)
        }
        assert found == expected

    @invariant()
    def every_delivery_is_there_once(self) -> None:
        accepted, duplicates = Counter[tuple[object, ...]](), Counter[tuple[object, ...]]()
        for content, kind in self._deliveries():
            if kind == Verdict.ACCEPTED:
                accepted[content] += 1
            else:
                duplicates[content, kind] += 1
        assert accepted == Counter(record.content for record in self.model.accepted.values())
        expected: Counter[tuple[object, ...]] = Counter()
        for (record, kind), count in self.model.duplicates.items():
            expected[record.content, kind] += count
        assert duplicates == expected

    @invariant()
    def what_is_current_is_what_was_promoted(self) -> None:
        current = {
            (metric, found.computed.bucket // DAY - FIRST_DAY, found.computed.entity_id): found.run_id
            for metric in METRICS
            for found in self.store.aggregates.current(metric, ALL_TIME)
        }
        assert current == self.model.current

    def _deliveries(self) -> Iterator[tuple[tuple[object, ...], str]]:
        for found in deliveries(self.store, Filter(ALL_TIME), as_received=True):
            one = found.delivery
            value = json.loads(bytes(one.payload))["v"]
            yield (one.entity_id, one.event_instant // DAY - FIRST_DAY, value), found.kind


def machine(examples: int, steps: int) -> Any:
    """The machine as a test case."""
    case = type("Case", (StoreMachine.TestCase,), {})
    case.settings = settings(  # type: ignore[attr-defined]
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return case


def test_a_null_that_is_current_is_not_written_again() -> None:
    """A replay writes nothing where there is neither a value nor an event: random steps seldom come to that."""
    store = StoreMachine()
    store.ingest(records=[Record(entity, 0, 1, None, 0) for entity in ("b", "ü")], again=False)
    store.promote(run=store.replay(entities=()))
    for entity in ("ü", "b"):
        store.correct(entity=entity, moves=False)
        store.promote(run=store.replay(entities=("b", "ü")))
    store.what_is_current_is_what_was_promoted()
    store.verify()
    store.teardown()


TestStoreMachine = machine(8, 20)
TestStoreMachineForLong = pytest.mark.slow(machine(80, 30))
