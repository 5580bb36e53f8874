"""Which deliveries a value was computed from: their ids and their contents."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import pytest

from pik.model.aggregate import NO_INPUTS, delivery_hash
from pik.model.event import read_event
from tests.support.raw_files import BATCH, compute, event, metric, raw


def test_ids_are_those_of_the_events(tmp_path: Path) -> None:
    text = b'{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}'
    found = compute(raw(tmp_path / "r.zst", [text]), metric())
    assert found[0].input_ids == found[0].input_contents == read_event(text).event_id.hex()


def keyed(payload: Any, **fields: Any) -> dict[str, Any]:
    return event(payload, idempotency_key="k", **fields)


def test_promise_7_which_delivery_of_a_keyed_event_counts_shows_in_the_contents(tmp_path: Path) -> None:
    first, second = (compute(raw(tmp_path / f"{v}.zst", [keyed({"v": v})]), metric())[0] for v in (1, 2))
    assert first.input_ids == second.input_ids
    assert first.input_contents == read_event(json.dumps(keyed({"v": 1})).encode()).content_hash.hex()
    assert first.input_contents != second.input_contents


@pytest.mark.parametrize("column", ["epoch_us(ingest_time)", "epoch_us(received_time)", "seq", "batch_id", "extra"])
@pytest.mark.parametrize("as_", ["count({})", "count_if({} IS NOT NULL)"])
def test_promise_7_a_metric_that_reads_a_deliverys_own_facts_records_which_deliveries_it_counted(
    tmp_path: Path, column: str, as_: str
) -> None:
    one, other = "01J00000000000000000000001", "01J00000000000000000000002"
    files = [raw(tmp_path / f"{batch}.zst", [event({"v": 1}), event({"v": 2})], batch) for batch in (one, other)]
    plain = [compute(file, metric())[0] for file in files]
    assert plain[0] == plain[1]
    own = [compute(file, metric(as_.format(column)))[0] for file in files]
    assert own[0].input_ids == own[1].input_ids == plain[0].input_ids
    contents = [read_event(json.dumps(event({"v": v})).encode()).content_hash.hex() for v in (1, 2)]
    hashes = [
        reduce(xor, (delivery_hash(text, batch, seq) for seq, text in enumerate(contents, 1))) for batch in (one, other)
    ]
    assert [row.input_contents for row in own] == [f"{each:032x}" for each in hashes]
    where = [compute(file, metric(where=f"{column} IS NULL OR {column} IS NOT NULL"))[0] for file in files]
    assert [row.input_contents for row in where] == [row.input_contents for row in own], "a filter reads them too"


def test_promise_7_counted_duplicates_do_not_cancel_out(tmp_path: Path) -> None:
    inputs = raw(tmp_path / "r.zst", [event({"v": 1})] * 4)
    (found,) = compute(replace(inputs, duplicates=True), metric())
    text = read_event(json.dumps(event({"v": 1})).encode()).content_hash.hex()
    assert (found.inputs, found.input_ids) == (4, NO_INPUTS)
    assert found.input_contents == f"{reduce(xor, (delivery_hash(text, BATCH, seq) for seq in (1, 2, 3, 4))):032x}"
