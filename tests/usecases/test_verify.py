"""Verify: what it finds, and what it says that it did not look at."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from pik.inputs.source import file_source
from pik.model.batch import Segment
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.local.state.tables import VERSION_DIGEST, WRITER_DIGEST
from pik.stores.state_rows import xor_of
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Problem, ProblemKind, VerifyReport, depth_of
from pik.usecases.ingest.batch_ingest import IngestOptions
from pik.usecases.ingest.batch_ingest import ingest as ingest_file
from tests.support.stores import PlainEngine, ingest, replayed, truth, window


def checked(store: Store, *, full: bool = True) -> tuple[list[Problem], VerifyReport]:
    answer = verify(store, PlainEngine(), ALL_TIME, SILENT, depth_of(quick=not full, full=full))
    return list(answer), answer.summary


def changed(store: Store, statement: str, *values: object, database: str = "index.db") -> Store:
    """The store, after somebody has written into one of its databases."""
    with sqlite3.connect(Path(store.url) / database) as connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()
    return open_store(store.url)


def forget(store: Store, segment: Segment) -> Store:
    """The store, whose index does not hold the segment any more."""
    return changed(store, "DELETE FROM segment WHERE key = ?", segment.key)


@pytest.fixture
def segment(filled: Store, engine: PlainEngine) -> Segment:
    """One of those that current aggregates were computed from."""
    replayed(filled, engine)
    return next(filled.index.segments(ALL_TIME))


@pytest.mark.usefixtures("segment")
def test_a_sound_store_has_no_problem(filled: Store) -> None:
    problems, answer = checked(filled)
    assert (problems, answer.aggregates, answer.not_indexed) == ([], len(truth()), 0)


@pytest.mark.parametrize("key", ["raw/batches/odd.ndjson.zst", "corrections/odd.ndjson.zst"])
def test_an_object_of_a_strange_name_is_a_problem(filled: Store, key: str) -> None:
    filled.raw.create(key, b"odd")
    (problem,), _ = checked(filled)
    assert (problem.kind, problem.what) == (ProblemKind.UNKNOWN, key)


@pytest.mark.parametrize("full", [True, False])
def test_a_segment_that_only_the_record_knows_is_a_problem(filled: Store, segment: Segment, full: bool) -> None:
    (problem,), answer = checked(forget(filled, segment), full=full)
    assert (problem.kind, problem.what, problem.day) == (ProblemKind.INDEX, segment.key, "2026-01-01")
    assert "the index lists neither it" in problem.detail
    assert (answer.not_indexed, answer.superseded, answer.damage) == (1, 0, 1)


def test_a_segment_that_only_the_record_knows_and_raw_has_lost(filled: Store, segment: Segment) -> None:
    (Path(filled.url) / segment.key).unlink()
    (problem, *in_question), answer = checked(forget(filled, segment))
    assert {one.kind for one in in_question} == {ProblemKind.UNPROVEN}
    assert {one.lost_events for one in in_question} == {()}  # the index does not know them either
    assert (problem.kind, problem.what) == (ProblemKind.MISSING, segment.key)
    assert (answer.missing, answer.not_indexed, answer.superseded) == (1, 0, 0)


def test_a_window_leaves_other_days_alone(filled: Store, segment: Segment) -> None:
    answer = verify(forget(filled, segment), PlainEngine(), window("05", "06"), SILENT)
    assert list(answer) == []


def test_a_copy_that_no_record_names_is_superseded(filled: Store, segment: Segment) -> None:
    copy = segment.key.replace("-1.ndjson", "-99.ndjson")
    filled.raw.create(copy, filled.raw.read(segment.key))
    for full in (True, False):
        problems, answer = checked(filled, full=full)
        assert (problems, answer.superseded, answer.not_indexed) == ([], 1, 0)


def test_aggregates_that_could_not_be_checked_are_not_counted_as_none(filled: Store, segment: Segment) -> None:
    problems, answer = checked(forget(filled, segment))
    assert (answer.aggregates, answer.proven) == (None, None)
    assert {problem.kind for problem in problems} <= {ProblemKind.INDEX, ProblemKind.MISSING}
    assert checked(filled, full=False)[1].aggregates is None


ONE_EVENT = "WHERE event_id = (SELECT min(event_id) FROM event)"
ONE_DUPLICATE = "WHERE (segment, seq) = (SELECT segment, seq FROM duplicate LIMIT 1)"


@pytest.mark.parametrize(
    "statement",
    [
        f"DELETE FROM event {ONE_EVENT}",
        f"UPDATE event SET seq = seq + 1 {ONE_EVENT}",
        f"UPDATE event SET frame = frame + 1 {ONE_EVENT}",
        f"UPDATE event SET event_id = randomblob(16) {ONE_EVENT}",
        "INSERT INTO event SELECT day, randomblob(16), segment, frame, 99 FROM event LIMIT 1",
        f"DELETE FROM duplicate {ONE_DUPLICATE}",
        f"UPDATE duplicate SET seq = 99 {ONE_DUPLICATE}",
        "UPDATE segment SET deliveries = deliveries + 1 WHERE number = 1",
    ],
)
def test_each_row_of_the_index_is_held_against_raw_and_back(filled: Store, tmp_path: Path, statement: str) -> None:
    ingest(filled, tmp_path, again=True)
    assert checked(filled)[0] == []
    problems, _ = checked(changed(filled, statement))
    assert {problem.kind for problem in problems} == {ProblemKind.INDEX}


@pytest.mark.usefixtures("segment")
@pytest.mark.parametrize(
    "change", ["inputs = inputs + 1", "input_ids = randomblob(16)", "input_contents = randomblob(16)"]
)
def test_each_aggregate_is_held_against_its_inputs(filled: Store, change: str) -> None:
    one = "bucket = (SELECT min(bucket) FROM version WHERE entity = 'b') AND metric = 'event_count' AND entity = 'b'"
    statement = f"UPDATE version SET {change} WHERE {one}"
    (problem,), answer = checked(changed(filled, statement, database="state.db"))
    assert (problem.kind, problem.day, problem.entities) == (ProblemKind.STATE, "2026-01-02", ("b",))
    assert problem.what.startswith("version of event_count by run ")
    assert answer.aggregates is None
    (problem,), answer = checked(sealed_again(filled))
    assert (problem.kind, problem.day, problem.entities) == (ProblemKind.AGGREGATE, "2026-01-02", ("b",))
    assert answer.aggregates == len(truth())


def sealed_again(store: Store) -> Store:
    """The store, with the digests of what its versions say: as if they had been computed so."""
    with store.aggregates.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute(f"UPDATE version AS v SET digest = {VERSION_DIGEST}")
        for (writer,) in connection.execute("SELECT number FROM writer").fetchall():
            digests = connection.execute("SELECT digest FROM version WHERE writer = ?", (writer,))
            total = xor_of(digest for (digest,) in digests)
            connection.execute("UPDATE writer SET versions_xor = ? WHERE number = ?", (total, writer))
        connection.execute(f"UPDATE writer SET digest = {WRITER_DIGEST}")
    return open_store(store.url)


def test_a_missing_segment_names_the_entities_in_it_and_no_others(store: Store, tmp_path: Path) -> None:
    """Of forty meters, five were in it."""
    meters = [f"meter-{number:02}" for number in range(1, 40)]
    few = meters[::9]
    for name, entities in (("all", meters), ("few", few)):
        path = tmp_path / f"{name}.jsonl"
        events = [
            {
                "source": "s",
                "event_type": "t",
                "entity_id": one,
                "event_time": "2026-01-01T00:00:00Z",
                "payload": [name],
            }
            for one in entities
        ]
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        ingest_file(store, file_source(str(path)), IngestOptions(Reading(1 << 20), workers=0), SILENT)
    newest = max(store.index.segments(ALL_TIME), key=lambda segment: segment.batch_id)
    (Path(store.url) / newest.key).unlink()
    (problem,), _ = checked(store)
    assert problem.entities == tuple(few)
    oldest = min(store.index.segments(ALL_TIME), key=lambda segment: segment.batch_id)
    (Path(store.url) / oldest.key).unlink()
    first, _ = checked(store)[0]
    assert first.entities == ("meter-01 … meter-39 (39 deliveries)",)
