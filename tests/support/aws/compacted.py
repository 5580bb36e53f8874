"""Compacting a deployed store at once, whatever was recorded when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import time_ns
from typing import Any

import pytest

from pik.model.batch import Batch, Chunk, Verdict
from pik.model.instant import DAY
from pik.ports.compaction import Packed
from pik.ports.store import Store
from pik.stores.aws.catalog import generation, packing
from pik.stores.aws.catalog.packs import Member


@dataclass(frozen=True)
class CompactingRequests:
    """Requests of a store that is compacted after each of them."""

    store: Store

    def expect_ready(self) -> None:
        self.store.requests.expect_ready()

    def record_request(self, batch: Batch, chunk: Chunk, copies: Mapping[str, bytes]) -> dict[int, Verdict]:
        verdicts = self.store.requests.record_request(batch, chunk, copies)
        compact(self.store)
        index: Any = self.store.index
        packing.Packing(index.table, index.raw, index.generation).tidy(time_ns() + 2 * DAY)
        return verdicts


def compacting(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, compacted after each request, also after those without objects in raw that tests make up."""
    read = packing._Day._part

    def part(day: Any, item: Any) -> tuple[Member, str]:
        found, reason = read(day, item)
        return (Member(item, bytes(item["size"])), "") if reason else (found, "")

    monkeypatch.setattr(packing._Day, "_part", part)
    return replace(store, requests=CompactingRequests(store))


def compact(store: Store) -> list[Packed]:
    """Pack all that is settled; without the lease, which only saves useless work."""
    compaction = store.compaction
    assert compaction is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "NOTICED", 0.01)
        return [done for day in compaction.days() for done in compaction.pack(day, time_ns())]
