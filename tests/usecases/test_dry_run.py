"""A dry run: it says what an ingest would do, and does nothing."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.inputs import blocks as blocks_module
from pik.inputs.source import Input
from pik.model.batch import Counts, Reject, Verdict
from pik.model.instant import day_of, format_instant, parse_instant
from pik.model.times import Times
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT, storage
from pik.stores import open_store
from pik.usecases.ingest import dry_run
from pik.usecases.ingest.batch_ingest import IngestOptions, Outcome
from pik.usecases.ingest.dry_run import DryRun, DryRunReport
from pik.usecases.inspect.batches import nearest_ranks
from tests.support.snapshot import snapshot
from tests.usecases.test_ingest import LINES, READING, ingest, line, written

pytestmark = pytest.mark.usefixtures("blocks_of_a_few_lines")


def checked(
    store: Store | None,
    *sources: Input,
    sample: int | None = None,
    on_reject: Callable[[Reject], None] = lambda _: None,
    reading: Reading = READING,
    **options: Any,
) -> DryRunReport:
    run = DryRun(store, IngestOptions(reading, workers=0, **options), sample)
    for source in sources:
        run.check(source, SILENT, on_reject)
    return run.report()


def counts(report: DryRunReport) -> Counts:
    duplicates = report.repeated + (report.in_store or Counter())
    return Counts(report.read, report.new, duplicates[Verdict.EXACT], duplicates[Verdict.CONFLICT], report.rejected)


@settings(max_examples=12)
@given(st.lists(st.lists(LINES, max_size=12), min_size=1, max_size=4), st.integers(1, 900), st.integers(1, 5))
def test_it_counts_what_an_ingest_then_counts(files: list[list[str]], block: int, in_memory: int) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "BLOCK", block)
        patch.setattr(storage, "_TOGETHER", in_memory)
        store = open_store(f"{directory}/store", create=True)
        first, *others = [
            written(Path(directory), [*lines, line(f"unique {number}")], f"{number}")
            for number, lines in enumerate(files)
        ]
        ingest(store, first)
        before = snapshot(store)
        report = checked(store, *others)
        assert snapshot(store) == before
        done = [ingest(store, one).batch.counts for one in others]
        assert counts(report) == sum(done, Counts())
        assert [one.new for one in report.inputs] == [one.accepted for one in done]
        again = checked(store, first, *others)
        assert {one.outcome for one in again.inputs} == {Outcome.ALREADY}
        assert again.new == 0


def test_it_stores_nothing_and_tells_each_reject_with_an_example_of_each_kind(store: Store, tmp_path: Path) -> None:
    texts = [*map(line, range(20)), "{", "", line(entity=""), line(1), "x" * 300]
    source = written(tmp_path, texts)
    told: list[Reject] = []
    report = checked(store, source, on_reject=told.append)
    assert list(store.index.batches()) == []
    assert list(store.raw.objects("raw/")) == []
    batch = ingest(store, source).batch
    assert counts(report) == batch.counts
    assert report.reasons == batch.reasons
    assert [(one.seq, one.line) for one in told] == [(21, "{"), (23, texts[22]), (25, texts[24])]
    assert report.examples.keys() == report.reasons.keys()
    examples = {one.seq: one for one in report.examples.values()}
    assert examples[23].field == "entity_id"
    assert examples[21].line == "{"
    assert len(examples[25].line) == 201


def test_its_figures_are_those_of_all_records(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "IN_MEMORY", 3)
    now = time.time_ns()
    later, sooner = (format_instant(now + sign * 10**12) for sign in (1, -1))
    events: list[dict[str, Any]] = [
        {"event_time": at, "entity_id": f"e{number % 7}", "event_type": f"t{number % 9}", "received_time": sooner}
        for number, at in enumerate([later, sooner, "2026-01-01T00:00:00Z", "2026-01-03T12:00:00.5Z"] * 9)
    ]
    texts = [line(number, key=f"k{number}" if number % 3 else None, **one) for number, one in enumerate(events)]
    halves = [written(tmp_path, half, name) for half, name in ((texts[:17], "a"), (texts[17:], "b"))]
    report = checked(store, *halves)
    times = [parse_instant(one["event_time"]) for one in events]
    assert (report.first_event, report.last_event) == (min(times), max(times))
    assert report.days == Counter(map(day_of, times))
    ordered = sorted(map(day_of, times))
    assert nearest_ranks(report.days, 5, 50, 95) == [ordered[1], ordered[17], ordered[34]]
    assert report.future == 9
    assert report.entities == 7
    assert report.types == Counter(one["event_type"] for one in events)
    assert report.keyed == 24
    assert report.lags == Counter(parse_instant(sooner) - at for at in times)
    assert [(one.source[-1], one.read) for one in report.inputs] == [("a", 17), ("b", 19)]


def test_a_preview_says_where_each_field_comes_from_and_what_stood_there(store: Store, tmp_path: Path) -> None:
    foreign = [json.dumps({"who": n, "at": "31/01/2026 23:59", "received_time": None, "n": 1.50}) for n in range(9)]
    mapping = {"source": "'s'", "event_type": "'t'", "entity_id": "who", "event_time": "at", "payload": "@"}
    reading = Reading(1 << 20, mapping=mapping, times=Times("%d/%m/%Y %H:%M", "Europe/Berlin"))
    report = checked(store, written(tmp_path, ["{", *foreign]), reading=reading)
    assert [one.seq for _, one in report.sample] == [2, 3, 4]
    [fields] = [{one.field: one for one in preview.fields} for _, preview in report.sample[:1]]
    assert {name: one.expression for name, one in fields.items()} == mapping
    at, who = fields["event_time"], fields["entity_id"]
    assert (at.found, at.value) == (b'"31/01/2026 23:59"', b'"2026-01-31T22:59:00.000000000Z"')
    assert (who.found, who.value) == (b"0", b'"0"')
    assert len(checked(store, written(tmp_path, foreign), reading=reading, sample=7).sample) == 7
    plain = written(tmp_path, map(line, range(3)))
    assert checked(store, plain).sample == ()
    [(_, preview)] = checked(store, plain, sample=1).sample
    assert {one.field: one.expression for one in preview.fields} == dict.fromkeys([*mapping])
