"""Suspects, the impact of duplicates, and a log against the store: the same answers from every store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pik.engine import DuckEngine
from pik.inputs.source import file_source
from pik.model.delivery import Filter
from pik.model.instant import SECOND
from pik.model.metric import Definition
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.usecases.inspect.duplicate_effects import duplicate_impact, suspect_impact
from pik.usecases.inspect.duplicates import DuplicateFilter
from pik.usecases.inspect.reconcile import Scope, reconcile
from pik.usecases.inspect.suspects import SuspectRule, list_suspects
from pik.usecases.metrics.definitions import add_version
from tests.support.stores import ingest

TOTAL = Definition(name="total", value="sum((payload->>'v')::BIGINT)", bucket="12h")


def made(second: int, v: int, **more: Any) -> dict[str, Any]:
    time = f"2026-01-01T00:00:{second:02}Z"
    fields = {"source": "web", "event_type": "paid", "entity_id": "a", "event_time": time}
    return {**fields, "payload": {"v": v}, **more}


def test_what_came_twice_changed_or_is_missing_is_found_in_every_store(store: Store, tmp_path: Path) -> None:
    engine, rule = DuckEngine(), SuspectRule(5 * SECOND)
    add_version(store.metrics, TOTAL, 1)
    ingest(store, tmp_path, [made(0, 1), made(3, 1), made(20, 2), made(40, 4, idempotency_key="k")])
    ingest(store, tmp_path, [made(20, 2), made(40, 8, idempotency_key="k"), made(40, 4, idempotency_key="a-new-one")])
    alike = list(list_suspects(store, engine, Filter(), rule))
    assert [(one.distance, one.seq, one.earlier_seq) for one in alike] == [(3 * SECOND, 2, 1), (0, 3, 4)]
    effects = [
        suspect_impact(store, engine, Filter(), rule),
        *(duplicate_impact(store, engine, DuplicateFilter(Filter(), kind)) for kind in (None, "exact", "conflict")),
    ]
    totals = [[one.total, one.assumed] for found in effects for one in found.impact.metrics if one.metric == "total@1"]
    assert totals == [[12, 7], [12, 22], [12, 14], [12, 16]]
    log = tmp_path / "log.jsonl"
    events = [made(0, 1), made(1, 16), made(41, 4, idempotency_key="k")]
    log.write_text("".join(json.dumps(one) + "\n" for one in events))
    found = reconcile(store, engine, [file_source(str(log))], Reading(1 << 20), Scope())
    assert (found.both, found.missing, found.unexpected, found.different) == (1, 1, 3, 1)
    assert found.impact is not None
    assert [one.delta for one in found.impact.metrics if one.metric == "total@1"] == [16]
