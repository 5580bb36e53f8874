"""The objects of corrections, and recording them; docs/format.md specifies them.

A correction is a sealed record, written after its lists, which `correction_lists.py` writes. It holds once the index
follows it. One that no index follows, left by a process that was killed, is adopted by the next one that records, or by
a rebuild, if all that were to be recorded together with it are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from time import time_ns

import msgspec
from msgspec import structs

from pik.errors import Damaged, StoreError, ambiguous_id, busy_as
from pik.model.batch import Frame, Verdict
from pik.model.correction import Correction, CorrectionKind, CorrectionList, ListedDelivery, log_order
from pik.model.ids import new_id
from pik.ports.index import CORRECTIONS
from pik.ports.raw import ObjectReader, Raw, RawKind, keys_of
from pik.ports.store import Store
from pik.rawlog.objects import damaged, frame_text, packed, record_lines, unsealed
from pik.runtime.storage import Spool

Place = tuple[str, int]
"""A delivery: batch_id and seq."""


class WinnerLine(msgspec.Struct, frozen=True, kw_only=True, tag="winner", omit_defaults=True):
    """An event of which another delivery counts now: `new`, in the segment `key`, which `was` a duplicate. `old`, in
    the segment `old_key`, counted before; None: it is lost and unknown."""

    event_id: str
    key: str
    new: Place
    was: Verdict
    old: Place | None = None
    old_key: str | None = None


_decode = msgspec.json.Decoder(Correction | WinnerLine).decode
_decode_header = msgspec.json.Decoder(Correction).decode
_decode_listed = msgspec.json.Decoder(ListedDelivery).decode


def _newest(store: Store) -> Iterator[str]:
    return (one.correction_id for one in reversed(store.corrections.recorded()))


def find_correction(store: Store, prefix: str) -> Correction:
    """Return the correction of this id or of an unambiguous prefix. Raises NotFound."""
    found = [one for one in store.corrections.recorded() if one.correction_id.startswith(prefix.upper())]
    if not prefix or len(found) != 1:
        ids = [one.correction_id for one in found]
        raise ambiguous_id("correction", prefix, ids, hint="pik corrections list", others=lambda: _newest(store))
    return found[0]


def correction_keys(raw: Raw) -> list[str]:
    """Return the keys of the corrections in raw, in the order of their ids."""
    return [str(key) for key in keys_of(raw, RawKind.CORRECTION)]


def read_correction(raw: ObjectReader, key: str) -> Correction:
    """Return the correction under this key, its lists with frames. Raises Damaged."""
    for line in record_lines(raw, key, _decode):
        if isinstance(line, Correction) and key == RawKind.CORRECTION.key(line.correction_id):
            return line
        break
    raise _of_another(key)


def read_winners(raw: ObjectReader, key: str) -> Iterator[WinnerLine]:
    """Yield the events whose winner a rebuild changed. Raises Damaged, before the first one, if any bit is not as it
    was written."""
    for line in record_lines(raw, key, _decode):
        if isinstance(line, WinnerLine):
            yield line
        elif key != RawKind.CORRECTION.key(line.correction_id):
            raise _of_another(key)


def _of_another(key: str) -> Damaged:
    return Damaged(f"record {key} is that of another correction", hint="pik verify --full")


def without_frames(correction: Correction) -> Correction:
    """Return the correction as the index has it."""
    return structs.replace(correction, lists=tuple(structs.replace(one, frames=()) for one in correction.lists))


def pack_header(correction: Correction) -> bytes:
    """Return a correction as an index keeps it: without frames, and sealed."""
    return packed([without_frames(correction)])


def unpack_header(correction_id: str, data: bytes) -> Correction:
    """Return the correction of this id that was packed. Raises StoreError."""
    found = list(unsealed(correction_id, memoryview(data), _decode_header))
    if [one.correction_id for one in found] != [correction_id]:
        raise Damaged(f"record {correction_id} is that of another correction")
    return found[0]


def with_frames(raw: ObjectReader, correction: Correction) -> Correction:
    """Return a correction of the index with the frames of its lists, which its object has. Raises Damaged, also where
    the object is not the correction that the index follows."""
    key = RawKind.CORRECTION.key(correction.correction_id)
    found = read_correction(raw, key)
    if without_frames(found) != without_frames(correction):
        raise Damaged(f"record {key} is not the correction that the index follows", hint="pik verify --full")
    return found


def list_texts(raw: ObjectReader, listed: CorrectionList, entities: Sequence[str] = ()) -> Iterator[bytes]:
    """Yield the lines of a list as they are, frame by frame: those of all of it, or of the frames that may hold these
    entities, each read by itself. Raises Damaged."""
    if not entities:
        data = raw.read(listed.key)
        if sha256(data).hexdigest() != listed.digest:
            raise damaged(listed.key, "its SHA-256 differs")
        for frame in listed.frames:
            yield frame_text(listed, frame, memoryview(data)[frame.offset : frame.offset + frame.length])
        return
    for frame in listed_frames(listed, entities):
        yield frame_text(listed, frame, raw.read(listed.key, frame.offset, frame.length))


def listed_frames(listed: CorrectionList, entities: Sequence[str]) -> list[Frame]:
    """Return the frames of a list that may hold deliveries of these entities (none given: of any)."""
    if not entities:
        return list(listed.frames)
    return [frame for frame in listed.frames if any(frame.first <= entity <= frame.last for entity in entities)]


def read_list(raw: ObjectReader, listed: CorrectionList, entities: Sequence[str] = ()) -> Iterator[ListedDelivery]:
    """Yield the deliveries of a list with frames, in order: all of them, or those of these entities. Raises Damaged."""
    wanted = frozenset(entities)
    for text in list_texts(raw, listed, entities):
        for line in text.splitlines():
            try:
                delivery = _decode_listed(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise damaged(listed.key, str(error)) from None
            if not wanted or delivery.entity_id in wanted:
                yield delivery


def write_winners(
    store: Store, winners: Spool[WinnerLine] | Sequence[WinnerLine], recorded_at: int, actor: str = ""
) -> Correction:
    """Create the record of a rebuild of the index, with the events of which other deliveries count now, and return
    it."""
    made = Correction(
        format=store.format_version,
        correction_id=new_id(),
        kind=CorrectionKind.VERDICT,
        recorded_at=recorded_at,
        actor=actor,
        reason="the index was rebuilt",
        events=len(winners),
    )
    store.raw.create(RawKind.CORRECTION.key(made.correction_id), packed(chain([made], winners)))
    return made


@dataclass(slots=True)
class CorrectionLog:
    """The corrections of a store, for the process that holds the right to record more of them."""

    store: Store
    recorded: list[Correction]

    def record(self, drafts: Sequence[Correction]) -> list[Correction]:
        """Record corrections, all or none of them, in this order and effective at once, whose lists are durable, and
        return them as they are recorded: with `format`, `recorded_at`, `group` and, where there is none yet,
        `correction_id`. Raises StoreError."""
        latest = max((one.recorded_at for one in self.recorded), default=0)
        ids, made = [draft.correction_id or new_id() for draft in drafts], []
        for draft, correction_id in zip(drafts, ids, strict=True):
            latest = max(time_ns(), latest + 1, draft.selected_until + 1)
            made.append(
                structs.replace(
                    draft,
                    format=self.store.format_version,
                    correction_id=correction_id,
                    recorded_at=latest,
                    group=tuple(ids) if len(ids) > 1 else (),
                )
            )
        self.store.raw.create_all([(RawKind.CORRECTION.key(one.correction_id), packed([one])) for one in made])
        self.store.corrections.follow(made)
        self.recorded += map(without_frames, made)
        return made


@contextmanager
def recording(store: Store) -> Iterator[CorrectionLog]:
    """Hold the right to record corrections until the context ends. What a killed process had begun to record is
    recorded first. Raises Busy, StoreError."""
    with busy_as(store.batches.writing(CORRECTIONS), "another pik process is recording a correction"):
        adopt(store)
        yield CorrectionLog(store, list(store.corrections.recorded()))


def record(store: Store, drafts: Sequence[Correction]) -> list[Correction]:
    """Record corrections as `CorrectionLog.record` does. Raises Busy, StoreError."""
    with recording(store) as log:
        return log.record(drafts)


def adopt(store: Store) -> list[Correction]:
    """Follow the corrections in raw that the index does not follow yet, and return them. One that cannot be read, or
    whose group is not complete, is left out: it has never held. `pik verify` reports the former, counts the latter."""
    recorded = store.corrections.recorded()
    known, found = {one.correction_id for one in recorded}, []
    for key in keys_of(store.raw, RawKind.CORRECTION):
        if key.id not in known:
            with suppress(Damaged):
                found.append(read_correction(store.raw, str(key)))
    there = known.union(one.correction_id for one in found)
    found = [one for one in found if there.issuperset(one.group)]
    if found:
        store.corrections.follow(found)
    return found


def known_corrections(store: Store) -> tuple[list[Correction], list[str]]:
    """Return the corrections, in the order of the log, and why some could not be read: those in raw with their whole
    group, and those that the index follows and raw has lost, which hold all the same. One that is damaged is there."""
    found: dict[str, Correction] = {}
    problems: list[str] = []
    with suppress(StoreError):
        found = {one.correction_id: one for one in store.corrections.recorded()}
    there = set(found)
    for key in keys_of(store.raw, RawKind.CORRECTION):
        there.add(key.id)
        try:
            one = read_correction(store.raw, str(key))
        except Damaged as error:
            problems.append(error.message)
        else:
            found[one.correction_id] = one
    return sorted((one for one in found.values() if there.issuperset(one.group)), key=log_order), problems
