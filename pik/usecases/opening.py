"""Opening records: what an unfinished batch is read from, so that it can be resumed after its index was lost.

`raw/openings/<batch_id>-<attempt>.ndjson.zst`, one line, sealed as a batch record is; docs/format.md specifies it. A
batch of more than one block creates one before its first segment. An attempt that adds what a rebuilt index does not
hold creates another one: its segments replace nothing that earlier attempts wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from pik.errors import AlreadyExists, Damaged, InputError
from pik.model.batch import Batch, Origin
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.usecases.record_file import packed, record_lines

PREFIX = "raw/openings/"

Item = TypeVar("Item")


class OpeningLine(msgspec.Struct, frozen=True, kw_only=True, tag="opening", omit_defaults=True):
    """A batch that was begun. `filled_to` is the last seq up to which this attempt left out what was there already."""

    format: int
    batch_id: str
    origin: Origin
    attempt: int
    started_at: int
    filled_to: int = 0


@dataclass(slots=True)
class Opening:
    """What is known of an unfinished batch from its opening records. `filling` are the attempts whose segments replace
    nothing."""

    origin: Origin
    started_at: int
    filling: set[int] = field(default_factory=set)


def write_opening(store: Store, batch: Batch) -> None:
    """Create the opening record of the batch's attempt, unless it is there."""
    filling = batch.recorded_to if batch.recorded_to >= batch.next_seq else 0
    line = OpeningLine(
        format=store.format_version,
        batch_id=batch.batch_id,
        origin=batch.origin,
        attempt=batch.attempt if filling else 1,
        started_at=batch.started_at,
        filled_to=filling,
    )
    try:
        store.raw.create(opening_key(line.batch_id, line.attempt), packed([line]))
    except AlreadyExists:  # left by an earlier attempt
        return


def opening_key(batch_id: str, attempt: int) -> str:
    """The key of an attempt's opening record."""
    return f"{PREFIX}{batch_id}-{attempt}.ndjson.zst"


def opening_keys(raw: Raw) -> Iterator[tuple[str, str]]:
    """Each opening record: its key and its batch."""
    for found in raw.objects(PREFIX):
        yield found.key, found.key.removeprefix(PREFIX).partition("-")[0]


def add_opening(known: dict[str, Opening], raw: Raw, key: str) -> None:
    """Read an opening record. Raises Damaged."""
    for line in record_lines(raw, key, _decode):
        if opening_key(line.batch_id, line.attempt) != key:
            raise Damaged(f"record {key} is that of another batch", hint="pik verify --full")
        opening = known.setdefault(line.batch_id, Opening(line.origin, line.started_at))
        if line.filled_to:
            opening.filling.add(line.attempt)


def opened(blocks: Iterator[Item], begin: Callable[[], None], *, always: bool) -> Iterator[Item]:
    """The blocks; `begin` is called before the first one is yielded, if there are more than one. With `always` it is
    called for a single one too: of a stream, nobody should have to wait for the second one."""
    first = next(blocks, None)
    if first is None:
        return
    if always:
        begin()
        yield first
        yield from blocks
        return
    try:
        second, failed = next(blocks, None), None
    except InputError as error:
        second, failed = None, error
    if second is not None or failed is not None:
        begin()
    yield first
    if failed is not None:
        raise failed
    if second is not None:
        yield second
        yield from blocks


_decode = msgspec.json.Decoder(OpeningLine).decode
