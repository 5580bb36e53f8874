"""What was withdrawn by a correction may be ingested again, and counts; what shares its events counts in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pik.engine import DuckEngine
from pik.exporters import exporter
from pik.inputs.source import Source, file_source
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.exporter import Layout
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.reading import Reading
from pik.rawlog.selection import Selection
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.correct.revoke import plan_revocation, record_revocation
from pik.usecases.export.export import export
from pik.usecases.ingest.batch_ingest import IngestOptions, IngestReport, Outcome
from pik.usecases.ingest.many_inputs import ingest_all
from pik.usecases.inspect.batch_standing import batch_standing
from pik.usecases.inspect.events import list_events
from tests.support.snapshot import assert_sound
from tests.support.stores import window
from tests.usecases.test_correct import correct

OPTIONS = IngestOptions(Reading(1 << 20), workers=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def file_of(path: Path, *events: tuple[int, str | None, int]) -> Source:
    """A file of events: the day, the idempotency key, and the number in the payload."""
    with path.open("w", encoding="utf-8") as file:
        for day, key, number in events:
            of = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": f"2026-01-{day:02}T00:00:00Z"}
            line: dict[str, Any] = of | {"payload": {"n": number}} | ({"idempotency_key": key} if key else {})
            file.write(json.dumps(line) + "\n")
    return file_source(str(path))


def ingested(store: Store, *sources: Source) -> list[IngestReport]:
    return list(ingest_all(store, sources, OPTIONS, SILENT))


def test_the_input_of_a_withdrawn_batch_is_ingested_again_and_counts(tmp_path: Path, store: Store) -> None:
    test = file_of(tmp_path / "test", (1, None, 1), (2, "k", 2), (3, "later", 3))
    other = file_of(tmp_path / "other", (5, "k", 20), (6, None, 6))
    [first], [second] = ingested(store, test), ingested(store, other)
    assert second.corrected.counting == 0
    [withdrawn] = correct(store, f"without-batch={first.batch.batch_id}")
    assert [one.outcome for one in ingested(store, other)] == [Outcome.ALREADY]
    [again] = ingested(store, test)
    # k of the other file is the first that is left, so only two of the three count.
    assert (again.outcome, again.batch.counts.exact, again.corrected.counting) == (Outcome.NEW, 3, 2)
    assert again.batch.batch_id != first.batch.batch_id
    assert [one.outcome for one in ingested(store, test)] == [Outcome.ALREADY]
    assert len(list(list_events(store, Filter()))) == 4
    assert_sound(store)
    record_revocation(plan_revocation(store, DuckEngine(), withdrawn.correction_id), "it was right", "ben")
    assert [one.outcome for one in ingested(store, test)] == [Outcome.ALREADY]
    assert len(list(list_events(store, Filter()))) == 4


def test_small_files_together_say_it_each_for_itself(tmp_path: Path, store: Store) -> None:
    [first] = ingested(store, file_of(tmp_path / "test", (1, "a", 1), (2, "b", 2)))
    correct(store, f"without-batch={first.batch.batch_id}")
    files = [file_of(tmp_path / name, event, (9, name, 9)) for name, event in (("x", (3, "a", 5)), ("y", (4, "b", 6)))]
    done = ingested(store, *files, file_of(tmp_path / "z", (4, "b", 6)))
    assert [(one.batch.counts.conflict, one.corrected.counting) for one in done] == [(1, 1), (1, 1), (1, 0)]


def test_a_conflict_of_an_event_that_is_out_does_so_on_any_day(tmp_path: Path, store: Store) -> None:
    [first] = ingested(store, file_of(tmp_path / "first", (1, "k", 1), (2, None, 1)))
    out = next(one.event_id for one in list_events(store, Filter(window("01", "02"))))
    correction = correct(store, f"without={out}")[0].correction_id
    [late] = ingested(store, file_of(tmp_path / "late", (5, "k", 2), (5, "l", 1), (5, "l", 2), (6, None, 1)))
    assert (late.batch.counts.conflict, late.corrected.out, late.corrected.counting) == (2, 1, 0)
    standing = batch_standing(store, late.batch)
    assert standing is not None
    assert standing.of_events_out == 1
    for within in (ALL_TIME, window("05", "06")):
        assert [one.delivery.seq for one in deliveries(store, Filter(within), only="conflict")] == [3]
        every = [one for one in deliveries(store, Filter(within)) if one.delivery.batch_id != first.batch.batch_id]
        by = {one.delivery.seq: one.corrections for one in every if one.corrections}
        assert by == {1: (correction,)}
        with (
            gather_deliveries(Selection(store, within)) as files,
            DuckEngine().tables(files, ["batch_id", "seq", "correction"], within, ()) as tables,
        ):
            statement = f"SELECT seq, correction FROM deliveries WHERE batch_id = '{late.batch.batch_id}'"
            assert {tuple(row) for row in tables.rows(statement) if row[1]} == {(1, correction)}
        path = tmp_path / f"{within.start}.jsonl"
        export(store, exporter(Layout(Filter(within), "jsonl", include_duplicates=True)), path, SILENT)
        lines = map(json.loads, zstandard.decompress(path.read_bytes(), 1 << 20).splitlines())
        exported = {one["seq"]: one.get("correction") for one in lines if one["delivery"] == "conflict"}
        assert exported == {1: correction, 3: None}
