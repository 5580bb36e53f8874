"""Opening records: what an unfinished batch is read from, so that it can be resumed after its index was lost.

`raw/openings/<batch_id>.ndjson.zst`, one line, sealed as a batch record is; docs/format.md specifies it. A batch of
more than one block creates one before its first segment; how far it has come its block records tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from pik.errors import AlreadyExists, Damaged, InputError
from pik.model.batch import Batch, Origin
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.rawlog.sealed_record import packed, record_lines

PREFIX = "raw/openings/"

Item = TypeVar("Item")


class OpeningLine(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """A batch that was begun."""

    format: int
    batch_id: str
    origin: Origin
    started_at: int


def write_opening(store: Store, batch: Batch) -> None:
    """Create the opening record of the batch, unless it is there."""
    line = OpeningLine(
        format=store.format_version, batch_id=batch.batch_id, origin=batch.origin, started_at=batch.started_at
    )
    try:
        store.raw.create(opening_key(line.batch_id), packed([line]))
    except AlreadyExists:  # left by an earlier attempt
        return


def opening_key(batch_id: str) -> str:
    """The key of a batch's opening record."""
    return f"{PREFIX}{batch_id}.ndjson.zst"


def opening_keys(raw: Raw) -> Iterator[tuple[str, str]]:
    """Each opening record: its key and its batch."""
    for found in raw.objects(PREFIX):
        yield found.key, found.key.removeprefix(PREFIX).partition(".")[0]


def read_opening(raw: Raw, key: str) -> OpeningLine:
    """Read an opening record. Raises Damaged."""
    for line in record_lines(raw, key, _decode):
        if opening_key(line.batch_id) == key:
            return line
    raise Damaged(f"record {key} is that of another batch", hint="pik verify --full")


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
