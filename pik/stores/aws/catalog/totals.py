"""What a generation holds in numbers: the sums of the batches that were summed up, and the others, batch by batch.

`g/totals` has the sums of the batches up to one id, and an exception for each batch up to there that they do not count:
one that was not finished yet, or that was recorded later, though its id is smaller. Readers add the exceptions and the
batches after that id, so their totals are exact at any moment.

That no batch is overlooked rests on the pointer of the generation: before batches up to an id are summed up, that id is
there, and a writer that begins an older batch writes an exception before it. A writer that learns only afterwards that
its batch was older cannot tell whether it was counted, and removes the sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec import structs

from pik.errors import Busy
from pik.model.batch import Batch, with_names
from pik.ports.index import Summary, Totals
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.batch_list import BatchList, ListedBatch
from pik.stores.aws.catalog.batches import with_state
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.layout import BatchItem
from pik.stores.aws.table import Table, batched

_SLICE, _SETTLED = 5000, 1000
"""Batches, and exceptions, that are added to the sums at a time."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of all batches up to the id `until`, except the exceptions. Each replaces the one with the `number`
    before its own. `settled` are the exceptions that it has counted, whose items may still be there."""

    number: int = 0
    until: str = ""
    settled: tuple[str, ...] = ()
    events: int = 0
    deliveries: int = 0
    segments: int = 0
    batches: int = 0
    raw_bytes: int = 0
    first_event: int | None = None
    last_event: int | None = None
    sources: dict[str, int] = {}


_decode = msgspec.json.Decoder(Sums).decode


class Summed(NamedTuple):
    """What a generation has summed up: the sums, whether their item is there, and the ids of the exceptions, of which
    only those up to `sums.until` say anything yet."""

    sums: Sums
    is_stored: bool
    exceptions: list[str]


def read_sums(table: Table, g: int) -> Summed:
    """Return what is summed up. Raises StoreError."""
    sums, is_stored, listed = Sums(), False, []
    for item in table.query(layout.totals_pk(g)):  # the sums come last, so that they know what is missing before them
        if "sums" in item:
            with codec.decoding(f"item {item['pk']} {item['sk']}"):
                sums, is_stored = _decode(codec.unpacked(item["sums"])), True
        else:
            listed.append(item["sk"])
    return Summed(sums, is_stored, [one for one in listed if one not in sums.settled])


@dataclass(slots=True)
class Addition:
    """Sums to which batches are added."""

    sums: Sums
    sources: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.sources = dict(self.sums.sources)

    def add(self, found: ListedBatch) -> None:
        """Add a batch."""
        (batch, item), sums = found, self.sums
        firsts = [time for time in (sums.first_event, batch.first_event) if time is not None]
        lasts = [time for time in (sums.last_event, batch.last_event) if time is not None]
        self.sources = with_names(self.sources, batch.sources)
        self.sums = structs.replace(
            sums,
            events=sums.events + batch.counts.accepted,
            deliveries=sums.deliveries + batch.counts.accepted + batch.counts.duplicates,
            segments=sums.segments + item["segments"],
            batches=sums.batches + 1,
            raw_bytes=sums.raw_bytes + item["bytes"],
            first_event=min(firsts, default=None),
            last_event=max(lasts, default=None),
        )

    @property
    def totals(self) -> Totals:
        """The sums as totals."""
        return Totals(**{name: getattr(self.sums, name) for name in Totals.__dataclass_fields__})


def summary(table: Table, listed: BatchList) -> Summary:
    """Return what a generation holds."""
    summed = read_sums(table, listed.generation)
    addition, until = Addition(summed.sums), summed.sums.until
    unfinished: list[Batch] = []
    newest: Batch | None = None
    exceptions = listed.named(one for one in summed.exceptions if one <= until)
    for found in (*exceptions, *listed.counted(listed.items_between(until))):
        batch, item = found
        addition.add(found)
        if not item["complete"]:
            unfinished.append(with_state(table, batch))
        if newest is None or batch.batch_id > newest.batch_id:
            newest = batch
    if until and (newest is None or newest.batch_id < until):
        newest = next((batch for batch, _ in listed.named([until])), newest)
    unfinished.sort(key=lambda batch: batch.batch_id, reverse=True)
    newest = newest and with_state(table, newest)
    return Summary(addition.totals, addition.sources, tuple(unfinished), newest)


@dataclass(frozen=True, slots=True)
class Summation:
    """Sums up batches of a generation."""

    table: Table
    generation: Generation
    listed: BatchList

    def countable(self, before: str) -> int:
        """Return how many finished batches with smaller ids are not counted."""
        summed = read_sums(self.table, self.listed.generation)
        until = summed.sums.until
        after = sum(_is_finished(item) for item in self.listed.items_between(until, before))
        older = self.listed.named(one for one in summed.exceptions if one <= until)
        return after + sum(_is_finished(item) for _, item in older)

    def sum_up(self, before: str) -> Iterator[int]:
        """Count the finished batches with smaller ids, many at a time, and yield how many there were."""
        g = self.listed.generation
        sums, is_stored, _ = read_sums(self.table, g)
        if not is_stored:
            self.table.put(self._item(sums), unless_exists=True)
        self.table.write_many(deletes=(layout.exception_key(g, one) for one in sums.settled))
        # All writers know the id after this, and readers have not seen the exceptions that were removed.
        before = self.generation.announce_sums(before)
        for items in batched(self.listed.items_between(sums.until, before), _SLICE):
            counted, sums = sums.batches, self._count(sums, items)
            yield sums.batches - counted
        yield self._settle(sums).batches - sums.batches

    def _count(self, sums: Sums, items: list[BatchItem]) -> Sums:
        """Count those of the next batches that are finished and not exceptions, and make the unfinished ones so."""
        g = self.listed.generation
        # Read after the batches: the writer of an older one has written its exception first.
        exceptions = set(read_sums(self.table, g).exceptions)
        unfinished = (item["sk"] for item in items if not _is_finished(item) and item["sk"] not in exceptions)
        self.table.write_many(layout.exception_item(g, one) for one in unfinished)
        finished = (item for item in items if _is_finished(item) and item["sk"] not in exceptions)
        return self._replace(sums, self.listed.counted(finished), items[-1]["sk"], ())

    def _settle(self, sums: Sums) -> Sums:
        """Count the exceptions that are finished by now."""
        exceptions = read_sums(self.table, self.listed.generation).exceptions
        older = [one for one in exceptions if one <= sums.until]
        found: list[ListedBatch] = []
        for some in batched(older, _SETTLED):
            found += (one for one in self.listed.named(some) if _is_finished(one[1]))
            if len(found) >= _SETTLED:
                break
        settled = tuple(batch.batch_id for batch, _ in found)
        return self._replace(sums, found, sums.until, settled) if found else sums

    def _replace(self, sums: Sums, found: Iterable[ListedBatch], until: str, settled: tuple[str, ...]) -> Sums:
        """Add batches to the sums. Raises Busy."""
        addition = Addition(sums)
        for one in found:
            addition.add(one)
        after = structs.replace(
            addition.sums, sources=addition.sources, number=sums.number + 1, until=until, settled=settled
        )
        if not self.table.put_if(self._item(after), "#number = :number", {"number": sums.number}):
            raise Busy("another pik process has changed the sums of batches", hint="run the same command again")
        return after

    def _item(self, sums: Sums) -> layout.TotalsItem:
        return layout.sums_item(self.listed.generation, sums.number, codec.packed(sums))


def _is_finished(item: BatchItem) -> bool:
    return item["complete"] and "pending" not in item
