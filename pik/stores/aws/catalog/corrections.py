"""The corrections that a generation of the index table follows.

`corrections` in the pointer to the generation is the latest revision of them, so a store without any pays no call for
that. Each item has the revision that it came with and the one before that, so that the pointer says which revisions
count: what was written by a process that was killed, or that slept until another one took its lease, does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from time import time_ns

from pik.errors import Damaged, StoreError
from pik.model.correction import Correction
from pik.rawlog.corrections import pack_header, unpack_header
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.layout import CorrectionItem
from pik.stores.aws.table import Table

_PART = 300_000
"""Bytes of a header in one item, which may have 400 KiB."""


@dataclass(frozen=True, slots=True)
class AwsCorrections:
    """Reads and writes the items."""

    table: Table
    generation: Generation

    def recorded(self) -> Sequence[Correction]:
        g, revision = self.generation.corrections()
        return _recorded(self.table, g, revision) if revision else ()

    def follow(self, corrections: Sequence[Correction]) -> None:
        self.generation.for_writing()
        g, before = self.generation.corrections()
        known = {one.correction_id for one in _recorded(self.table, g, before)}
        missing = [one for one in corrections if one.correction_id not in known]
        if not missing:
            return
        revision = max(time_ns(), before + 1)
        self.table.write_many(item for one in missing for item in _items(g, one, revision, before))
        self.generation.set_corrections(revision)


@dataclass(frozen=True, slots=True)
class NewCorrections:
    """The corrections of a generation that is not the current one yet."""

    table: Table
    generation: Generation
    made: int

    def recorded(self) -> Sequence[Correction]:
        return _recorded(self.table, self.made, layout.FIRST_REVISION)

    def follow(self, corrections: Sequence[Correction]) -> None:
        if corrections:
            first = layout.FIRST_REVISION
            self.table.write_many(item for one in corrections for item in _items(self.made, one, first, 0))
            self.generation.announce_corrections()


def _items(g: int, correction: Correction, revision: int, before: int) -> Iterator[CorrectionItem]:
    """Yield the items of a correction: parts of its header."""
    header = pack_header(correction)
    for number, start in enumerate(range(0, len(header), _PART)):
        yield codec.correction_item(g, correction, (number, revision, before), header[start : start + _PART])


def _recorded(table: Table, g: int, revision: int) -> Sequence[Correction]:
    """Return the corrections of a generation up to a revision, in the order of the log."""
    items = list(table.query(layout.corrections_pk(g)))
    for item in items:
        if not codec.correction_is_sound(item):
            raise _damaged(f"item {item['pk']} {item['sk']} is not as it was written")
    before = {item["revision"]: item["before"] for item in items}
    counting = {layout.FIRST_REVISION}
    while revision in before:
        counting.add(revision)
        revision = before[revision]
    items = [item for item in items if item["revision"] in counting]
    found: dict[str, Correction] = {}
    for name, parts in groupby(items, key=lambda item: item["sk"].rpartition("/")[0]):
        correction_id = name.split("/")[1]
        try:
            found[correction_id] = unpack_header(correction_id, b"".join(part["header"] for part in parts))
        except Damaged as error:
            raise _damaged(str(error)) from None
    return list(found.values())


def _damaged(what: str) -> StoreError:
    return StoreError(f"the index is damaged: {what}", hint="pik verify --rebuild-index")
