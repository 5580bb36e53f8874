"""Events with several deliveries where a writer died, and what finding them costs in calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.model.batch import Verdict
from pik.model.window import ALL_TIME
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.catalog.repeats import _Generation
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.api_request import record_request
from tests.contracts.test_repeats import told
from tests.support.aws.calls import counting_reads, hooked
from tests.support.aws.emulator import make_stack, publish
from tests.support.contracts.chunks import BATCH, OTHER, Sent, chunk, origin
from tests.support.stores import event, ingest


class Death(Exception):
    """Of the writer."""


@pytest.fixture
def url(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    return publish(aws, make_stack(aws))


@pytest.mark.parametrize("number", [2, 4, 6, 7, 8, 9, 10])
def test_of_a_chunk_whose_writer_died_only_recorded_deliveries_are_found(url: str, number: int) -> None:
    """The writer dies before its n-th call; whoever takes the batch over finishes the chunk."""
    writer, other = open_store(url), open_store(url)
    writer.batches.open(origin(), BATCH, 1)
    writer.batches.record(chunk([Sent("k", 0, "x"), Sent("a"), Sent("a")]))
    writer.batches.open(origin("d"), OTHER, 1)
    calls = 0

    def die(**_: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise Death

    before = [(BATCH, 1, Verdict.ACCEPTED)]
    after = [*before, (OTHER, 1, Verdict.CONFLICT)]
    of_other = [(OTHER, 2, Verdict.ACCEPTED), (OTHER, 3, Verdict.EXACT)]
    twice = [(BATCH, 2, Verdict.ACCEPTED), (BATCH, 3, Verdict.EXACT)]
    with hooked(writer, "before-send", die), pytest.raises(Death):
        writer.batches.record(chunk([Sent("k", 3, "y"), Sent("b"), Sent("b")], batch_id=OTHER))
    half = [told(one) for one in other.repeats.conflicting()]
    assert half in ([], [after])
    assert sorted(map(told, other.repeats.repeated_from(BATCH))) == sorted([*half, twice])
    assert [told(one) for one in other.repeats.repeated_from(OTHER)] in (
        [],
        [of_other],
    )
    times = {segment.key: segment.recorded_at for segment in other.index.segments(ALL_TIME)}
    for event_id in (Sent("k", 0, "x").event_id.hex(), Sent("b").event_id.hex()):
        for place in other.index.deliveries(event_id):
            assert place.recorded_at == times[place.segment_key]
            assert place.kind != Verdict.UNRECORDED
    other.batches.open(origin("d"), OTHER, 1)
    other.batches.record(chunk([Sent("k", 3, "y"), Sent("b"), Sent("b")], batch_id=OTHER))
    assert [told(one) for one in other.repeats.conflicting()] == [after]
    assert sorted(map(told, other.repeats.repeated_from(BATCH))) == sorted([after, twice])
    assert [told(one) for one in other.repeats.repeated_from(OTHER)] == [of_other]


IDS = [f"a{letter}" for letter in "abcdefghijklm"]
"""Of events whose duplicates are in one partition."""


@dataclass
class PagedTable:
    """A partition of duplicates."""

    keys: list[str]
    calls: int = 0

    def query(self, _pk: str, *, between: tuple[str, str], first: int) -> Iterator[dict[str, str]]:
        found = [{"sk": key} for key in sorted(self.keys) if between[0] <= key <= between[1]]
        self.calls += 1
        yield from found[:first]
        assert len(found) < first


@given(
    st.dictionaries(st.sampled_from(IDS[:-1]), st.integers(1, 9)),
    st.sets(st.sampled_from(IDS), min_size=1),
)
def test_counting_duplicates_passes_over_those_of_other_events(stored: dict[str, int], asked: set[str]) -> None:
    table = PagedTable([f"{event_id}/{number}" for event_id, many in stored.items() for number in range(many)])
    generation: Any = _Generation(table, None, 1)  # type: ignore[arg-type]
    events = sorted(asked)
    with patch("pik.stores.aws.catalog.repeats._PAGE", 3):
        assert generation.counts([(None, event_id) for event_id in events]) == [stored.get(one, 0) for one in events]
    of_asked = sum(ceil(stored.get(one, 0) / 3) for one in events)
    assert table.calls <= len(events) + of_asked


def test_finding_what_came_again_costs_what_the_batchs_days_cost(url: str, tmp_path: Path) -> None:
    """Other days and batches, and requests on other days, cost nothing."""
    store = open_store(url)
    first = [event(number, f"e{number % 7}", "01T01:00") for number in range(300)]
    ingest(store, tmp_path, first)
    [batch] = store.index.batches()
    ingest(store, tmp_path, first[:250], again=True)
    costs = []
    for day in ("05", "06"):
        fresh = open_store(url)
        with counting_reads(fresh) as calls:
            found = list(fresh.repeats.repeated_from(batch.batch_id))
        assert [len(one) for one in found] == [2] * 250
        costs.append(calls)
        elsewhere = [event(number, "z", f"{day}T01:00") for number in range(300)]
        ingest(store, tmp_path, elsewhere * 2)
        record_request(store, json.dumps(event(1, "z", f"{day}T02:00")).encode())
    assert costs[0].total == costs[1].total <= 32, [one.made for one in costs]
