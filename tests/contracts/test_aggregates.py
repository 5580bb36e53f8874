"""The contract of pik.ports.state.Aggregates. Promise 7: append-only versions; only promote and rollback move what is
current, atomically per aggregate and only where nobody else did meanwhile."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from pik.model.aggregate import NO_INPUTS, Aggregate, BucketDigest, Computed, decimal_text
from pik.model.entity_range import EntityRange
from pik.model.run import PromotionKind, Task
from pik.model.window import ALL_TIME, Window
from pik.ports.state import Change, PointerCounts

from .conftest import State, aws_state, local_state
from .test_runs import a_run

VERSIONS = {"a": 1, "b": 7}


def row(
    metric: str = "a", bucket: int = 0, entity: str = "e", value: str | int | None = "1", inputs: int = 1
) -> Computed:
    return Computed(
        metric,
        bucket,
        entity,
        None if value is None else Decimal(value),
        inputs,
        f"{inputs:032x}" if inputs else NO_INPUTS,
        f"{inputs:02x}".ljust(32, "0") if inputs else NO_INPUTS,
    )


FILE_DIGEST = sha256(b"numbers").hexdigest()


def imported(one: Computed) -> Computed:
    """The value as an import writes it."""
    return replace(one, inputs=None, input_ids=FILE_DIGEST[:32], input_contents=FILE_DIGEST[32:])


def task(run_id="R1", number=0):
    return Task(run_id=run_id, number=number, metrics=("a@1", "b@7"), start=0, end=100)


def write(state, run_id, rows, reason="why", known_until=5):
    state.aggregates.write(task(run_id), iter(rows), versions=VERSIONS, known_until=known_until, reason=reason)


def promoted(state, run_id, rows):
    write(state, run_id, rows)
    state.promotions.promote(run_id, 1, "")


def tally(state, run_id):
    """How the versions of a run compare with what was current when they were written."""
    run = state.runs.get(run_id)
    return run.new, run.changed, run.unchanged, run.removed


def values(state, metric="a", window=ALL_TIME, entities=()):
    return [
        (found.computed.bucket, found.computed.entity_id, found.computed.value)
        for found in state.aggregates.current(metric, window, entities)
    ]


def test_a_written_version_is_not_current_until_it_is_promoted(state):
    write(state, "R1", [row(value="10.50", inputs=3)])
    assert values(state) == []
    written = Aggregate(row(value="10.5", inputs=3), "R1", 1, 5, "why", False)
    assert list(state.aggregates.versions("a", ALL_TIME)) == [written]
    assert list(state.aggregates.changes("R1")) == [Change(written, None)]
    assert state.promotions.promote("R1", 9, "late events") == PointerCounts(1, 0, 0)
    current = Aggregate(row(value="10.5", inputs=3), "R1", 1, 5, "why", True)
    assert list(state.aggregates.current("a", ALL_TIME)) == [current]
    assert list(state.aggregates.changes("R1")) == [Change(current, None)]
    (promotion,) = state.promotions.newest_first()
    told = promotion.run_id, promotion.kind, promotion.at, promotion.reason, promotion.moved, promotion.conflicts
    assert told == ("R1", PromotionKind.PROMOTE, 9, "late events", 1, 0)


@pytest.mark.parametrize(
    "value", ["0", "-0", "0.000", "123456789012345678901234567890.123456789", "-1E+3", "1e-20", "99999999999999999999"]
)
def test_values_are_exact(state, value):
    promoted(state, "R1", [row(value=value)])
    ((_, _, kept),) = values(state)
    assert kept == Decimal(value)
    assert str(kept) != "-0"


def test_an_imported_version_keeps_the_digest_of_its_file_through_every_move(state):
    promoted(state, "R1", [row(value="10")])
    promoted(state, "R2", [imported(row(value="11"))])
    (current,) = state.aggregates.current("a", ALL_TIME, ["e"])
    assert (current.computed, current.sound) == (imported(row(value="11")), True)
    assert (current.is_imported, current.file_digest) == (True, FILE_DIGEST)
    promoted(state, "R3", [row(value="12", inputs=3)])  # a replay, over the imported value
    assert [one.file_digest for one in state.aggregates.versions("a", ALL_TIME)] == [None, FILE_DIGEST, None]
    (change,) = state.aggregates.changes("R3")
    assert change.base is not None
    assert change.base.file_digest == FILE_DIGEST
    state.promotions.rollback("R3", 3, "")
    (again,) = state.aggregates.current("a", ALL_TIME, checked=True)
    assert again == current
    state.promotions.rollback("R2", 4, "")
    assert [one.file_digest for one in state.aggregates.current("a", ALL_TIME)] == [None]
    assert not [found for found in state.audit.problems() if "version" in found.what or "current" in found.what]


@pytest.mark.parametrize("joined", [2, 5, 1000])
def test_digests_are_those_of_the_current_values(state, monkeypatch, joined):
    monkeypatch.setattr("pik.model.aggregate.JOINED_LINES", joined)  # a bucket has four, and two have seven
    entities = ["a", "é", "\uffff", "\U0001f600"]
    rows = [row(bucket=at, entity=one, value=str(at + len(one)), inputs=at + 10) for at in (0, 10) for one in entities]
    rows[2] = replace(rows[2], input_contents=rows[2].input_ids)
    rows[5] = imported(rows[5])
    promoted(state, "R1", [*rows, row(bucket=20, value=None, inputs=0), row("b", 0)])
    promoted(state, "R2", [row(entity="a", value="-1.50", inputs=254), row(entity="é", value=None, inputs=0)])
    write(state, "R3", [row(bucket=10, value="7")])
    expected, lines = [], []
    for bucket, found in groupby(state.aggregates.current("a", ALL_TIME), key=lambda one: one.computed.bucket):
        there = list(found)
        counted = [one.computed for one in there if one.computed.value is not None]
        texts = [
            "\x1f".join((one.entity_id, decimal_text(one.value), str(one.inputs or "-"), *hashes)) + "\n"
            for one, hashes in (
                (one, list(dict.fromkeys([one.input_ids.upper(), one.input_contents.upper()]))) for one in counted
            )
        ]
        lines.append((bucket, "".join(texts)))
        digest, without = sha256("".join(texts).encode()).hexdigest(), len(there) - len(counted)
        versions = {one.metric_version for one in there}
        expected.append(BucketDigest("a", bucket, len(texts), digest, without, min(versions), max(versions)))
    assert [(digest.aggregates, digest.without_value) for digest in expected] == [(3, 1), (4, 0), (0, 1)]
    assert list(state.aggregates.digests("a", ALL_TIME)) == expected
    assert list(state.aggregates.digests("a", Window(5, 20))) == expected[1:2]
    of_bucket = groupby(state.aggregates.lines("a", ALL_TIME), key=lambda line: line[0])
    assert [(bucket, "".join(line[1] or "" for line in found)) for bucket, found in of_bucket] == lines
    assert "".join(line[1] or "" for line in state.aggregates.lines("a", Window(5, 20))) == lines[1][1]


def test_current_is_ordered_by_bucket_and_utf8_and_limited_to_window_and_entities(state):
    entities = ["b", "a", "é", "z", "\U0001f600", "￿", "a ", "A"]
    promoted(state, "R1", [row(bucket=bucket, entity=entity) for entity in entities for bucket in (20, -10, 0, 10)])
    promoted(state, "R2", [row(metric="b", entity="other")])
    ordered = sorted(entities, key=str.encode)
    assert [(bucket, entity) for bucket, entity, _ in values(state)] == [
        (bucket, entity) for bucket in (-10, 0, 10, 20) for entity in ordered
    ]
    assert {bucket for bucket, _, _ in values(state, window=Window(-10, 20))} == {-10, 0, 10}
    some = values(state, window=Window(0, 11), entities=["é", "￿", "nobody", "a", "a"])
    assert [(bucket, entity) for bucket, entity, _ in some] == [
        (bucket, entity) for bucket in (0, 10) for entity in ("a", "é", "￿")
    ]
    assert values(state, window=Window(500, 600), entities=["a"]) == []
    for first, end in [("", "a"), ("a", "é"), ("a ", "\U0001f600"), ("\U0001f600", ""), ("é", "é"), ("", "")]:
        within = EntityRange(first, end)
        ranged = state.aggregates.current("a", Window(0, 11), entity_range=within)
        expected = [
            found for found in state.aggregates.current("a", Window(0, 11)) if found.computed.entity_id in within
        ]
        assert list(ranged) == expected
    history = state.aggregates.versions("a", Window(0, 11), ["é", "a"])
    assert [found.computed.entity_id for found in history] == ["a", "é", "a", "é"]


def test_writing_a_task_again_changes_nothing(state):
    """Promise 6: whatever a repeat has computed, the version that is there stays."""
    state.runs.create(replace(a_run(), run_id="R1"), [])
    write(state, "R1", [row(value="1")])
    write(state, "R1", [row(value="2"), row(entity="f")], known_until=99)
    assert [(found.computed.entity_id, found.computed.value) for found in state.aggregates.versions("a", ALL_TIME)] == [
        ("e", Decimal(1)),
        ("f", Decimal(1)),
    ]
    assert tally(state, "R1") == (2, 0, 0, 0)


def test_a_failing_write_leaves_nothing(state):
    def broken():
        yield row()
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        state.aggregates.write(task(), broken(), versions=VERSIONS, known_until=5, reason="")
    assert list(state.aggregates.versions("a", ALL_TIME)) == []
    write(state, "R1", [row(entity="f")])
    assert len(list(state.aggregates.versions("a", ALL_TIME))) == 1


def test_a_run_counts_its_new_changed_unchanged_and_removed_values(state):
    for run_id in ("R1", "R2"):
        state.runs.create(replace(a_run(), run_id=run_id), [])
    assert tally(state, "R1") == (0, 0, 0, 0)
    promoted(state, "R1", [row(entity=entity) for entity in "abcd"] + [row(entity="null", value=None, inputs=0)])
    assert tally(state, "R1") == (4, 0, 0, 0)
    write(
        state,
        "R2",
        [
            row(entity="a", value="1.0", inputs=2),
            row(entity="b", value="2"),
            row(entity="c", value=None, inputs=0),
            row(entity="new"),
            row(entity="null"),
            row(entity="nothing", value=None, inputs=0),
        ],
    )
    assert tally(state, "R2") == (2, 1, 1, 1)


def test_changes_come_beside_what_was_current_when_they_were_written(state):
    promoted(state, "R1", [row(value="1")])
    write(state, "R2", [row(metric="b"), row(value="2", bucket=5), row(value="2", entity="d"), row(value="2")])
    promoted(state, "R3", [row(value="3")])
    changes = list(state.aggregates.changes("R2"))
    assert [(c.written.computed.metric, c.written.computed.bucket, c.written.computed.entity_id) for c in changes] == [
        ("a", 0, "d"),
        ("a", 0, "e"),
        ("a", 5, "e"),
        ("b", 0, "e"),
    ]
    assert [change.base and change.base.run_id for change in changes] == [None, "R1", None, None]
    assert changes[1].base is not None
    assert not changes[1].base.current


def test_history_shows_every_version_and_which_is_current(state):
    for run_id in ("R2", "R1", "R3"):
        promoted(state, run_id, [row(value=run_id[1])])
    state.promotions.rollback("R3", 2, "")
    history = list(state.aggregates.versions("a", ALL_TIME))
    assert [(found.run_id, found.current) for found in history] == [("R1", True), ("R2", False), ("R3", False)]


def test_a_bucket_that_somebody_else_moved_is_a_conflict_and_is_left(state):
    rows = [row(entity="left", value="1"), row(entity="moved", value="1")]
    write(state, "R1", rows)
    promoted(state, "R2", [row(entity="left", value="2")])
    assert state.promotions.promote("R1", 1, "") == PointerCounts(moved=1, already=0, conflicts=1)
    assert values(state) == [(0, "left", Decimal(2)), (0, "moved", Decimal(1))]
    assert state.promotions.promote("R1", 1, "") == PointerCounts(moved=0, already=1, conflicts=1)
    assert state.promotions.rollback("R1", 1, "") == PointerCounts(moved=1, already=0, conflicts=1)
    assert values(state) == [(0, "left", Decimal(2))]


def test_repeating_promote_or_rollback_changes_nothing(state):
    promoted(state, "R1", [row()])
    assert state.promotions.promote("R1", 2, "") == PointerCounts(0, 1, 0)
    assert state.promotions.rollback("R1", 3, "") == PointerCounts(1, 0, 0)
    assert state.promotions.rollback("R1", 4, "") == PointerCounts(0, 1, 0)
    assert [(told.kind, told.at) for told in state.promotions.newest_first()] == [("rollback", 3), ("promote", 1)]


def test_a_dry_run_counts_and_changes_nothing(state):
    write(state, "R1", [row()])
    assert state.promotions.promote("R1", 1, "", dry_run=True) == PointerCounts(1, 0, 0)
    assert values(state) == []
    state.promotions.promote("R1", 1, "")
    assert state.promotions.rollback("R1", 1, "", dry_run=True) == PointerCounts(1, 0, 0)
    assert len(values(state)) == 1
    assert len(list(state.promotions.newest_first())) == 1


def test_an_unknown_run_promotes_nothing(state):
    assert state.promotions.promote("R9", 1, "") == PointerCounts(0, 0, 0)
    assert list(state.aggregates.changes("R9")) == []


def test_iterating_sees_one_moment_and_stops_nobody(state):
    count = 100 if state.deployed else 3000
    promoted(state, "R1", [row(bucket=number) for number in range(count)])
    rows = state.aggregates.current("a", ALL_TIME)
    first = next(rows)
    promoted(state, "R2", [row(bucket=number, value="2") for number in range(count)])
    seen = [first, *rows]
    assert len(seen) == count
    if state.deployed:  # each row is of the moment at which it was read
        assert {(found.run_id, found.computed.value) for found in seen} <= {("R1", 1), ("R2", 2)}
    else:
        assert {found.run_id for found in seen} == {"R1"}
    assert {found.run_id for found in state.aggregates.current("a", ALL_TIME)} == {"R2"}


def _write_from_a_process(state, run_id, rows):
    write(state, run_id, rows)


def test_processes_write_at_once(state):
    """Promise 4's neighbour: nobody fails with `database is locked`, nothing is lost."""
    context = multiprocessing.get_context("spawn")
    count = 100 if state.deployed else 2000
    rows = [row(bucket=number) for number in range(count)]
    processes = [context.Process(target=_write_from_a_process, args=(state, f"R{number}", rows)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Counter(found.run_id for found in state.aggregates.versions("a", ALL_TIME)) == {
        "R0": count,
        "R1": count,
        "R2": count,
    }


RUNS = st.sampled_from(["R1", "R2", "R3"])
KEYS = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0, 10]), st.sampled_from(["e", "é"]))


class Model(RuleBasedStateMachine):
    """Promise 7 against dictionaries: versions by (key, run), the base of each, the current run of each key."""

    make: Callable[[Path], State] = staticmethod(local_state)

    def __init__(self):
        super().__init__()
        self.directory = TemporaryDirectory()
        self.state = self.make(Path(self.directory.name))
        self.versions = {}
        self.bases = {}
        self.current = {}

    def teardown(self):
        if not self.state.deployed:
            getattr(self.state.aggregates, "database").close()  # noqa: B009 - the local store's, not the port's
        self.directory.cleanup()

    @rule(run=RUNS, rows=st.dictionaries(KEYS, st.none() | st.integers(0, 2), max_size=4))
    def write(self, run, rows):
        made = [
            row(metric, bucket, entity, value, inputs=0 if value is None else 1)
            for (metric, bucket, entity), value in sorted(rows.items())
        ]
        write(self.state, run, made)
        for key, value in rows.items():
            if (key, run) not in self.versions:
                self.versions[key, run] = value
                self.bases[key, run] = self.current.get(key)

    @rule(run=RUNS, dry=st.booleans())
    def promote(self, run, dry):
        self.move(run, dry, self.state.promotions.promote, lambda key: self.bases[key, run], lambda key: run)

    @rule(run=RUNS, dry=st.booleans())
    def rollback(self, run, dry):
        self.move(run, dry, self.state.promotions.rollback, lambda key: run, lambda key: self.bases[key, run])

    def move(self, run, dry, method, old, new):
        counts: Counter[str] = Counter()
        for key, writer in self.versions:
            if writer == run:
                now = self.current.get(key)
                counts["moved" if now == old(key) else "already" if now == new(key) else "conflicts"] += 1
                if now == old(key) and not dry:
                    self.current[key] = new(key)
        expected = PointerCounts(counts["moved"], counts["already"], counts["conflicts"])
        assert method(run, 1, "", dry_run=dry) == expected

    @invariant()
    def current_is_what_the_model_says(self):
        for metric, keys in groupby(sorted((k for k, run in self.current.items() if run)), key=lambda key: key[0]):
            expected = [(key[1], key[2], self.current[key], self.versions[key, self.current[key]]) for key in keys]
            found = self.state.aggregates.current(metric, ALL_TIME)
            assert [(f.computed.bucket, f.computed.entity_id, f.run_id, f.computed.value) for f in found] == expected

    @invariant()
    def every_version_is_kept(self):
        found = [f for metric in "ab" for f in self.state.aggregates.versions(metric, ALL_TIME)]
        assert {
            ((f.computed.metric, f.computed.bucket, f.computed.entity_id), f.run_id): f.computed.value for f in found
        } == self.versions


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestModel = Model.TestCase


def test_the_model_holds_for_a_deployed_store(aws):
    class Deployed(Model):
        make = staticmethod(lambda directory: aws_state(aws))

    run_state_machine_as_test(Deployed, settings=settings(max_examples=8, stateful_step_count=10, deadline=None))


def test_each_version_knows_the_run_whose_version_was_current_when_it_was_written(state):
    write(state, "R1", [row(value="1")])
    promoted(state, "R2", [row(value="2")])
    promoted(state, "R3", [row(value="3")])
    for entities in ((), ("e",)):
        versions = state.aggregates.versions("a", ALL_TIME, entities)
        assert [(one.run_id, one.base) for one in versions] == [("R1", None), ("R2", None), ("R3", "R2")]
