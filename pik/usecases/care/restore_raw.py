"""Restore: objects of raw that are lost or damaged, created again from a copy that has the recorded digest.

A lost object is created under its key. A damaged one stays as evidence: its copy is created under another key, with a
record that makes every reader use it. Segments, files of rejects and lists have their SHA-256 in the index and in the
records of their batch or correction. A record has no such digest: it is the one that was written if its own seal holds,
it is about what its key says, and it does not contradict the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from itertools import chain, groupby
from operator import attrgetter

from pik.errors import AlreadyExists, Damaged, StoreError
from pik.model.batch import RejectFile, Segment
from pik.model.correction import Correction
from pik.model.window import ALL_TIME, Window
from pik.ports.raw import ObjectReader, RawKey, RawKind, keys_of
from pik.ports.store import Store
from pik.rawlog.corrections import correction_keys, read_correction, read_winners, without_frames
from pik.rawlog.plans import read_plan
from pik.rawlog.replacements import parse_name, read_replacement, replace_object
from pik.rawlog.sealed_records import (
    BatchLine,
    RejectLine,
    SegmentLine,
    read_block,
    read_opening,
    read_pull,
    read_record,
    restored,
)
from pik.rawlog.segment_reader import UNKNOWN_DIGEST
from pik.runtime import Progress, exhaust, showing
from pik.usecases.care.restore_source import RestoreSource
from pik.usecases.care.verify import raw_problems
from pik.usecases.care.verify_batches import differing_fields
from pik.usecases.care.verify_findings import DAMAGE, Depth, ProblemKind
from pik.usecases.care.verify_run import Verification
from pik.usecases.inspect.batches import read_closing


class Outcome(StrEnum):
    """What became of a lost or damaged object."""

    RESTORED = "restored"
    """It was lost, and is there again."""
    REPLACED = "replaced"
    """It is damaged, and a whole copy is read in its place."""
    ABSENT = "not in the source"
    OTHER = "other content"
    """What the source has in its place is not what was recorded."""
    UNKNOWN = "digest unknown"
    """Neither the index nor a record knows what it was, so no copy of it can be told from another object."""


@dataclass(frozen=True, slots=True)
class RestoredObject:
    """A lost or damaged object, and what became of it. `source` is where its copy was found."""

    key: str
    damage: ProblemKind
    outcome: Outcome
    source: str | None = None
    detail: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether its content can be read again."""
        return self.outcome in (Outcome.RESTORED, Outcome.REPLACED)


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What became of the lost and damaged objects of the window. `remaining` ones were neither restored nor
    replaced. `unread` are segments that are whole now, but were not when the index was rebuilt: they are not read
    before it is rebuilt again, as other deliveries may count in place of theirs."""

    window: Window
    objects: tuple[RestoredObject, ...]
    unread: tuple[str, ...] = ()

    @property
    def remaining(self) -> int:
        """How many are as they were."""
        return sum(not one.is_whole for one in self.objects)

    def count(self, outcome: Outcome) -> int:
        """Return how many had this outcome."""
        return sum(one.outcome == outcome for one in self.objects)


def restore_raw(
    store: Store,
    source: RestoreSource,
    window: Window,
    progress: Progress,
    depth: Depth = Depth.STORED,
    *,
    dry_run: bool = False,
    actor: str = "",
) -> RestoreReport:
    """Restore what is lost or damaged of the window, as far as the source has it; with `dry_run` only say so. What
    another process, or this one before it was killed, has done of it already is kept. Raises InputError, StoreError."""
    restoring = _Restoring(store, source, actor, dry_run)
    with showing(progress, "verifying", None, "segments"):
        while restoring.restore_some(Verification(store, depth, window=window, progress=progress)):
            pass  # what records name may be lost as well
    objects = restoring.objects
    unread = tuple(
        segment.key
        for segment in store.index.segments(window)
        if segment.unknown_frames and _is_there(store, segment.key, objects.get(segment.key))
    )
    return RestoreReport(window, tuple(objects.values()), unread)


_Digests = dict[str, set[tuple[int, str]]]
"""Sizes and SHA-256s that an object may have, by key; mostly one."""


@dataclass(slots=True)
class _Restoring:
    store: Store
    source: RestoreSource
    actor: str
    dry_run: bool
    objects: dict[str, RestoredObject] = field(default_factory=dict)

    def restore_some(self, run: Verification) -> bool:
        """Restore what is found to be lost or damaged, records first; return whether there is now a record that was not
        there before."""
        found = {one.what: one.kind for one in raw_problems(run) if one.kind in DAMAGE and one.what not in self.objects}
        keys = sorted(found, key=lambda key: (_is_content(key), key))
        records = [key for key in keys if not _is_content(key)]
        self.source.expect(dict.fromkeys(records))
        for key in records:
            self._restore(key, found[key], None)
        digests = self._digests(keys[len(records) :])
        self.source.expect({key: {size for size, _ in some} for key, some in digests.items()})
        for key, some in digests.items():
            self._restore(key, found[key], some)
        return not self.dry_run and any(self.objects[key].is_whole for key in records)

    def _restore(self, key: str, damage: ProblemKind, digests: set[tuple[int, str]] | None) -> None:
        """Restore one object; a record has no digests."""
        outcome, name, detail = Outcome.UNKNOWN if digests == set() else Outcome.ABSENT, None, ""
        for candidate in self.source.candidates(key) if outcome == Outcome.ABSENT else ():
            objection = self._objection(key, candidate.data, digests)
            if not objection:
                outcome, name, detail = self._create(key, damage, candidate.data), candidate.name, ""
                break
            if candidate.is_named:
                outcome, name, detail = Outcome.OTHER, candidate.name, objection
        self.objects[key] = RestoredObject(key, damage, outcome, name, detail)

    def _create(self, key: str, damage: ProblemKind, data: bytes) -> Outcome:
        if self.dry_run:
            return Outcome.RESTORED if damage == ProblemKind.MISSING else Outcome.REPLACED
        try:
            self.store.raw.create(key, data)
        except AlreadyExists:
            if _is_whole(self.store, key, data):  # another process was faster
                return Outcome.RESTORED
            replace_object(self.store.raw, key, data, format_version=self.store.format_version, actor=self.actor)
            return Outcome.REPLACED
        return Outcome.RESTORED

    def _objection(self, key: str, data: bytes, digests: set[tuple[int, str]] | None) -> str:
        """Return why these bytes are not the object; the empty text if they are."""
        if digests is not None:
            digest = sha256(data).hexdigest()
            return "" if (len(data), digest) in digests else f"its SHA-256 is {digest}, not the recorded one"
        try:
            return _objection_to_record(self.store, key, _Candidate(data))
        except Damaged as error:
            return error.message

    def _digests(self, keys: Sequence[str]) -> _Digests:
        """Return size and SHA-256 of segments, files of rejects and lists, as the index and the records have them."""
        found: _Digests = {}
        lists = listed_digests(self.store) if any(RawKey.of(key).kind is RawKind.LIST for key in keys) else {}
        found |= {key: lists.get(key, set()) for key in keys if RawKey.of(key).kind is RawKind.LIST}
        parsed = sorted((key for key in map(RawKey.of, keys) if key.kind is not RawKind.LIST), key=_by_batch)
        for batch_id, of_batch in groupby(parsed, key=attrgetter("id")):
            recorded = recorded_digests(self.store, batch_id)
            rejects = self.store.index.rejects(batch_id)
            for key in of_batch:
                listed = rejects if key.day is None else _segments_of(self.store, batch_id, Window.of_day(key.day))
                name = str(key)
                known = {(one.size, one.digest) for one in listed if one.key == name and one.digest != UNKNOWN_DIGEST}
                found[name] = known | recorded.get(name, set())
        return found


def _by_batch(key: RawKey) -> tuple[str, str]:
    return key.id, str(key)


def _is_content(key: str) -> bool:
    """Return whether the object is a segment, a file of rejects or a list; others are records."""
    parsed = RawKey.parse(key)
    return parsed is not None and parsed.kind in (RawKind.SEGMENT, RawKind.REJECTS, RawKind.LIST)


def _is_whole(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.raw.read(key) == data
    except Damaged:
        return False


def _is_there(store: Store, key: str, found: RestoredObject | None) -> bool:
    return store.raw.size(key) is not None if found is None else found.is_whole


def recorded_digests(store: Store, batch_id: str) -> _Digests:
    """Return size and SHA-256 of each object that the records of a batch name; a record that cannot be read names
    none."""
    found: _Digests = {}

    def note(line: object) -> None:
        one = line.segment if isinstance(line, SegmentLine) else line.rejects if isinstance(line, RejectLine) else None
        if one is not None and one.digest != UNKNOWN_DIGEST:
            found.setdefault(one.key, set()).add((one.size, one.digest))

    with suppress(Damaged):
        for line in read_record(store.raw, RawKind.BATCH.key(batch_id)):
            note(line)
    for block in keys_of(store.raw, RawKind.BLOCK, batch_id):
        with suppress(Damaged):
            _, segments, rejects = read_block(store.raw, str(block))
            for each in (*segments, *rejects):
                note(each)
    return found


def listed_digests(store: Store) -> _Digests:
    """Return size and SHA-256 of each list that a correction names, in raw or as the index follows it."""
    corrections: list[Correction] = []
    with suppress(StoreError):
        corrections += store.corrections.recorded()
    for key in correction_keys(store.raw):
        with suppress(Damaged):
            corrections.append(read_correction(store.raw, key))
    found: _Digests = {}
    for listed in chain.from_iterable(one.lists for one in corrections):
        found.setdefault(listed.key, set()).add((listed.size, listed.digest))
    return found


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Bytes that may be a record, read as if they were."""

    data: bytes

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:  # noqa: ARG002 - there is one
        return self.data[offset : None if length is None else offset + length]


def _objection_to_record(store: Store, key: str, candidate: ObjectReader) -> str:
    """Return why a candidate is not the record of this key; the empty text if it is. Raises Damaged."""
    if parse_name(key) is not None:
        read_replacement(candidate, key)
        return ""
    kind = RawKey.of(key).kind
    if kind == RawKind.BATCH:
        return "".join(_batch_objections(store, candidate, key))
    if kind == RawKind.OPENING:
        line = read_opening(candidate, key)
        batch = next(store.index.batches(line.batch_id), None)
        is_same = batch is None or (batch.origin, batch.started_at) == (line.origin, line.started_at)
        return "" if is_same else "the index has another origin or started_at than it"
    if kind == RawKind.BLOCK:
        read_block(candidate, key)
    elif kind == RawKind.CLOSING:
        read_closing(candidate, key)
    elif kind == RawKind.PLAN:
        read_plan(candidate, key)
    elif kind == RawKind.CORRECTION:
        return _objection_to_correction(store, candidate, key)
    else:
        exhaust(read_pull(candidate, key))
    return ""


def _objection_to_correction(store: Store, candidate: ObjectReader, key: str) -> str:
    exhaust(read_winners(candidate, key))
    found = without_frames(read_correction(candidate, key))
    known = next((one for one in store.corrections.recorded() if one.correction_id == found.correction_id), found)
    return "" if known == found else "the index follows another correction of its id"


def _batch_objections(store: Store, candidate: ObjectReader, key: str) -> Iterator[str]:
    """Yield the first thing in which the record of a batch and the index contradict each other; rows that a rebuild
    without it had to guess are no contradiction."""
    known: dict[str, tuple[int, str]] = {}
    for line in read_record(candidate, key):
        if isinstance(line, BatchLine):
            batch = next(store.index.batches(line.batch_id), None)
            if batch is not None and batch.has_record and (other := differing_fields(batch, restored(line))):
                yield f"the index has another {other} than it"
                return
            for segment in _segments_of(store, line.batch_id):
                known[segment.key] = segment.size, segment.digest
            for file in store.index.rejects(line.batch_id):
                known[file.key] = file.size, file.digest
            continue
        named: Segment | RejectFile = line.segment if isinstance(line, SegmentLine) else line.rejects
        size, digest = known.get(named.key, (named.size, named.digest))
        if size != named.size or digest not in (named.digest, UNKNOWN_DIGEST):
            yield f"the index has another size or SHA-256 of {named.key} than it"
            return


def _segments_of(store: Store, batch_id: str, window: Window = ALL_TIME) -> Iterator[Segment]:
    return store.index.segments(window, batch_id=batch_id)
