"""What is known of the segments that deliveries are in: their items, and when they were recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pik.errors import NotFound
from pik.model.batch import OF_REQUEST, Location
from pik.ports.raw import RawKey
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.layout import BatchItem, SegmentItem
from pik.stores.aws.catalog.listing import Listing
from pik.stores.aws.catalog.requests import is_single
from pik.stores.aws.table import READS, Key, batched

_REMEMBERED = 10_000
"""Segments whose `recorded_at` is remembered."""


class ListedItems(NamedTuple):
    """Items by segment key: those that list segments; the batches of requests with one event; and those of other
    requests whose segments can only be in packs."""

    segments: dict[str, SegmentItem]
    single: dict[str, BatchItem]
    packed: dict[str, BatchItem]

    def settled(self, keys: Collection[str]) -> ListedItems | None:
        """Return those of these segments, if all of them are among those whose items never change."""
        single = {key: item for key, item in self.single.items() if key in keys}
        packed = {key: item for key, item in self.packed.items() if key in keys}
        return ListedItems({}, single, packed) if len(single) + len(packed) == len(keys) else None


NOTHING_LISTED = ListedItems({}, {}, {})


def listed_items(listing: Listing, segments: Iterable[str]) -> ListedItems:
    """Return the items of segments, given their keys, as far as there are any; packs are not read."""
    g, each = listing.generation, {key: RawKey.of(key) for key in segments}
    numbered = {key: layout.segment_key(g, key) for key in each}
    batches = {key: layout.batch_key(g, one.id) for key, one in each.items() if one.number == OF_REQUEST}
    keys: dict[Key[Any], None] = dict.fromkeys([*numbered.values(), *batches.values()])
    found: dict[tuple[str, str], Any] = listing.table.get_many(keys)
    segments = {key: found[at] for key, at in numbered.items() if at in found}
    of_requests = {key: found[at] for key, at in batches.items() if at in found and key not in segments}
    single = {key: item for key, item in of_requests.items() if is_single(item)}
    others = {key: item for key, item in of_requests.items() if key not in single and "pending" not in item}
    return ListedItems(segments, single, others if others and listing.pointer.is_compacted() else {})


def packed_items(listing: Listing, found: ListedItems) -> dict[str, SegmentItem]:
    """Return those that packs have of the items that `listed_items` could not find."""
    keys = {layout.segment_key(listing.generation, key): key for key in found.packed}
    return {keys[Key(at)]: item for at, item in listing.under(keys).items()}


@dataclass(slots=True)
class RecordingTimes:
    """Adds to locations the `recorded_at` of their segments, which for a request is that of its batch. A number of
    segments is remembered."""

    listing: Listing
    last: ListedItems = NOTHING_LISTED
    """What was read last."""
    _known: dict[str, int] = field(default_factory=dict)

    def added(self, groups: Iterable[Sequence[Location]]) -> Iterator[list[Location]]:
        """Yield the groups in their order; the segments of a hundred are read together. Raises NotFound."""
        for some in batched(groups, READS):
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._read(one for group in some for one in group if not one.recorded_at)
            for group in some:
                yield [one if one.recorded_at else replace(one, recorded_at=self._of(one)) for one in group]

    def _read(self, locations: Iterable[Location]) -> None:
        unknown = (one.segment_key for one in locations if one.segment_key not in self._known)
        self.last = listed_items(self.listing, unknown)
        for items in self.last:
            self._known.update((key, item["recorded_at"]) for key, item in items.items())

    def _of(self, location: Location) -> int:
        if location.segment_key not in self._known:
            raise NotFound(f"segment {location.segment_key} is not in the index", hint="pik verify --rebuild-index")
        return self._known[location.segment_key]
