"""Going on with a batch whose progress was lost with its index: what raw holds of it is left out of the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import zstandard

from pik.errors import InputError
from pik.model.batch import Batch, Reject, Segment
from pik.model.window import ALL_TIME
from pik.ports.raw import Raw
from pik.ports.store import Store
from pik.usecases.reading import damaged
from pik.usecases.scan import ids_of, readable, seqs
from pik.usecases.segments import Reading, SegmentBuilder
from pik.usecases.source import Block


@dataclass(frozen=True, slots=True)
class _Object:
    """A segment or file of rejects of the batch, and the records that it is about lie from `first` to `last`."""

    first: int
    last: int
    segment: Segment | None
    rejects: str = ""


def filling(store: Store, batch: Batch, reading: Reading, blocks: Iterator[Block], check: bool) -> Iterator[Block]:
    """The blocks, with an empty line in place of each record that the index holds as the batch's already. With `check`
    (a stream, whose content nothing else tells) these must be the same events. Raises InputError if they are not.

    Memory: a few numbers an object of the batch, and the ids of one block.
    """
    objects = list(_objects(store, batch))
    seen = 0
    for block in blocks:
        known = _known(store.raw, objects, block)
        if check and known:
            _expect_same(batch, reading, block, known)
        yield replace(block, data=_without(block, known)) if known else block
        seen = block.last_seq
    if seen < batch.recorded_to:
        raise _other(batch)


def _objects(store: Store, batch: Batch) -> Iterator[_Object]:
    for segment in store.index.segments(ALL_TIME, batch_id=batch.batch_id):
        if found := seqs(readable(store.raw, segment)):
            yield _Object(min(found), max(found), segment)
    for file in store.index.rejects(batch.batch_id):
        rejects = read_rejects(store.raw, file.key)
        yield _Object(rejects[0].seq, rejects[-1].seq, None, file.key)


def _known(raw: Raw, objects: list[_Object], block: Block) -> dict[int, bytes | None]:
    """The block's records that are there: event_id by seq, None for a rejected one."""
    known: dict[int, bytes | None] = {}
    for one in objects:
        if one.first > block.last_seq or one.last < block.first_seq:
            continue
        if one.segment is None:
            known.update((reject.seq, None) for reject in read_rejects(raw, one.rejects))
        else:
            known.update(ids_of(readable(raw, one.segment)))
    return {seq: event_id for seq, event_id in known.items() if block.first_seq <= seq <= block.last_seq}


def _without(block: Block, known: dict[int, bytes | None]) -> bytes:
    lines = block.data.split(b"\n")
    for seq in known:
        lines[seq - block.first_seq] = b""
    return b"\n".join(lines)


def _expect_same(batch: Batch, reading: Reading, block: Block, known: dict[int, bytes | None]) -> None:
    chunk = SegmentBuilder(None, batch.batch_id, reading).build(block, 1)
    came = {seq: event_id for arrived in chunk.arrivals for seq, event_id in ids_of(arrived)}
    if any(came.get(seq) != event_id for seq, event_id in known.items()):
        raise _other(batch)


def _other(batch: Batch) -> InputError:
    name = batch.origin.content.removeprefix("key:")
    return InputError(
        f"{batch.origin.name} is not what batch {batch.batch_id} ({name}) began with",
        hint="give this stream a --batch-key of its own",
    )


def read_rejects(raw: Raw, key: str) -> list[Reject]:
    """The records of a file of rejects, by seq. Raises Damaged."""
    try:
        rejects = _decode_rejects(zstandard.ZstdDecompressor().decompress(raw.read(key)))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise damaged(key, str(error)) from None
    if not rejects:
        raise damaged(key, "it holds no record")
    return rejects


_decode_rejects = msgspec.json.Decoder(Reject).decode_lines
