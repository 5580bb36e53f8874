"""What a store holds, without what two ways to the same state may differ in: ids of batches, times of ingest, and how
deliveries are cut into segments."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import zstandard

from pik.model.batch import Batch, BatchState, Reject, Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Problem

_OWN = re.compile(rb'"ingest_time":"[^"]*","batch_id":"[^"]*"')
_decode_reject = msgspec.json.Decoder(Reject).decode


def snapshot(store: Store) -> dict[str, Any]:
    """Every event with every delivery, every batch with its counts and rejects. Checks promise 4 on the way."""
    names = _names(store)
    events: dict[str, list[Any]] = defaultdict(list)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    places: set[tuple[str, int]] = set()
    for found in deliveries(store, Filter(ALL_TIME)):
        one = found.delivery
        assert (one.batch_id, one.seq) not in places
        places.add((one.batch_id, one.seq))
        kinds[one.batch_id][found.kind] += 1
        events[one.event_id].append((names[one.batch_id], one.seq, found.kind, _OWN.sub(b"", found.line)))
    batches = {names[batch.batch_id]: _batch(store, batch, kinds[batch.batch_id]) for batch in store.index.batches()}
    for event_id, of_event in events.items():
        of_event.sort()
        assert [kind for _, _, kind, _ in of_event].count(Verdict.ACCEPTED) == 1
        if len(of_event) == 1 and len(events) > 1000 and not event_id.startswith("0"):
            continue  # of very many, some
        indexed = sorted((names[place.batch_id], place.seq, place.kind) for place in store.index.deliveries(event_id))
        assert indexed == [one[:3] for one in of_event]
    totals = store.index.totals()
    assert (totals.events, totals.deliveries) == (len(events), len(places))
    return {"events": dict(events), "batches": batches}


def _names(store: Store) -> dict[str, str]:
    """A name for each batch that another store gives it too: its content, and which of that content it is."""
    numbers: Counter[str] = Counter()
    names: dict[str, str] = {}
    for batch in sorted(store.index.batches(), key=lambda batch: batch.batch_id):
        what = f"{batch.origin.content} {batch.origin.options} {batch.origin.again}"
        numbers[what] += 1
        names[batch.batch_id] = f"{what} {numbers[what]}"
    return names


def _batch(store: Store, batch: Batch, kinds: Counter[str]) -> Any:
    counts = batch.counts
    assert counts.read == counts.accepted + counts.duplicates + counts.rejected
    assert (counts.accepted, counts.exact, counts.conflict) == (
        kinds[Verdict.ACCEPTED],
        kinds[Verdict.EXACT],
        kinds[Verdict.CONFLICT],
    )
    kept = rejects(store, batch.batch_id)
    assert len(kept) == counts.rejected == sum(batch.reasons.values())
    assert sum(batch.lags.values()) == sum(batch.sources.values()) == counts.read - counts.rejected
    times = (batch.first_event, batch.last_event, dict(batch.times))
    return (batch.state, counts, batch.next_seq, batch.offset, times, dict(batch.reasons), dict(batch.sources), kept)


def rejects(store: Store, batch_id: str) -> list[Reject]:
    """The rejected records of a batch, by seq."""
    found: list[Reject] = []
    for file in store.index.rejects(batch_id):
        lines = zstandard.ZstdDecompressor().decompress(store.raw.read(file.key)).splitlines()
        assert len(lines) == file.records
        found += map(_decode_reject, lines)
    assert found == sorted(found, key=lambda reject: reject.seq)
    return found


class _NoEngine:
    """For stores without aggregates."""

    version = "none 1"

    def compute(self, *_: Any) -> Iterator[Any]:
        return iter(())


def assert_sound(store: Store) -> None:
    """Every batch is complete, and index and raw agree on every byte."""
    assert [batch.batch_id for batch in store.index.batches() if batch.state != BatchState.COMPLETE] == []
    found = damage(store)
    assert found == [], found


def damage(store: Store) -> list[Problem]:
    """Where index and raw do not agree."""
    engine: Any = _NoEngine()
    return list(verify(store, engine, ALL_TIME, SILENT))
