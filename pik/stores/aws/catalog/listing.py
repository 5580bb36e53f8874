"""The lists of segments: items of the index table, and of requests also packs.

Compaction deletes an item only when a pack has it and every reader knows of packs. So each question is asked of the
table first, and then of the packs; what both have is the same, and dropped by its key.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

from pik.ports.raw import ObjectReader
from pik.runtime.storage import Spool
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.layout import Listed
from pik.stores.aws.catalog.packs import Pack, PackItem, packs_pk, packs_prefix
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.state.layout import US
from pik.stores.aws.table import ItemT, Key, Table


@dataclass(frozen=True, slots=True)
class Listing:
    """Reads the lists of segments of one generation."""

    table: Table
    raw: AwsRaw
    generation: int
    pointer: Generation

    def of_day(self, day: str, kind: Listed, entities: Sequence[str] = ()) -> Iterator[Any]:
        """Yield the items of a day and kind; of requests with one event only those about some entities, if any are
        given. Raises StoreError."""
        entities, known = sorted(set(entities)), Spool(str)
        for item in self.in_table(day, kind, entities):
            if kind != Listed.FILE:
                known.add(item["sk"])
            yield item
        if kind != Listed.FILE and self.pointer.is_compacted():
            yield from _unknown(self._in_packs(day, kind, entities), known)

    def under(self, keys: Iterable[Key[ItemT]]) -> dict[tuple[str, str], ItemT]:
        """Return the items under these keys, as far as there are any. Raises StoreError."""
        wanted = dict.fromkeys(keys)
        found: dict[tuple[str, str], Any] = self.table.get_many(wanted)
        missing: dict[tuple[str, Listed], list[str]] = defaultdict(list)
        for pk, sk in wanted:
            if (pk, sk) not in found and (place := layout.day_and_kind(pk)):
                missing[place].append(sk)
        if missing and self.pointer.is_compacted():
            for place, sks in missing.items():
                sks.sort()
                for pack in self.packs(packs_prefix(*place)):
                    found |= {(item["pk"], item["sk"]): item for item in pack.find(self.raw, sks)}
        return {key: found[key] for key in wanted if key in found}

    def packs(self, prefix: str = "") -> Iterator[Pack]:
        """Yield the packs whose sk begins so (see `packs_prefix`), by day, kind and name. Raises StoreError."""
        for item in self.pack_items(prefix):
            yield Pack.of(self.generation, item)

    def pack_items(self, prefix: str = "") -> Iterator[PackItem]:
        """Yield the items of packs, as they are. Raises StoreError."""
        return self.table.query(packs_pk(self.generation), prefix=prefix)

    def in_table(self, day: str, kind: Listed, entities: Sequence[str] = ()) -> Iterator[Any]:
        """Yield the items of a day and kind that are in the table, as `of_day` does; requests, in the order of their
        sk."""
        g = self.generation
        if kind != Listed.REQUEST or not entities:
            return self.table.query_merged(layout.partitions(g, day, kind))
        number = layout.day_number(day)
        return self.table.query_each(
            (layout.entity_requests_pk(g, number, entity), f"{entity}{US}") for entity in entities
        )

    def _in_packs(self, day: str, kind: Listed, entities: Sequence[str]) -> Iterator[Any]:
        """Yield the items that packs have, in the order of their sk; one that several have comes several times."""
        runs = runs_of(self.packs(packs_prefix(day, kind)))
        prefixes = [f"{entity}{US}" for entity in entities] if kind == Listed.REQUEST else []
        for prefix in prefixes or [""]:
            yield from merged(self.raw, runs, prefix)


def runs_of(packs: Iterable[Pack]) -> list[list[Pack]]:
    """Return packs by run, those of a run in the order of their items."""
    runs: dict[str, list[Pack]] = defaultdict(list)
    for pack in sorted(packs, key=lambda pack: pack.item["first"]):
        runs[pack.run].append(pack)
    return [*runs.values()]


def merged(raw: ObjectReader, runs: Iterable[Sequence[Pack]], prefix: str = "") -> Iterator[Any]:
    """Yield the items of runs whose sk begins so, in order; one that several have comes several times."""
    each = (chain.from_iterable(map(partial(Pack.items, raw=raw, prefix=prefix), run)) for run in runs)
    return heapq.merge(*each, key=itemgetter("sk"))


def _unknown(items: Iterable[Any], known: Iterable[str]) -> Iterator[Any]:
    """Yield the items whose sk is not known, and each once. Both are in the order of the sk."""
    rest, before = iter(known), None
    sk = next(rest, None)
    for item in items:
        while sk is not None and sk < item["sk"]:
            sk = next(rest, None)
        if item["sk"] not in (sk, before):
            yield item
        before = item["sk"]
