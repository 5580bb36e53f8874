"""The plan of a bulk ingest: what each file is and which batch it becomes, written down before anything else is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from time import time_ns

import msgspec

import pik
from pik.errors import AlreadyExists, Busy, Damaged, PikError, number_of
from pik.inputs.blocks import BLOCK
from pik.inputs.source import Source
from pik.model.batch import BatchState
from pik.model.ids import ID_LENGTH, digits, new_ids
from pik.ports.fleet import Fleet
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.plans import FileLine, Plan, PlanLine, last_number, read_plan, write_plan
from pik.runtime import Progress, showing
from pik.usecases.ingest.batch_ingest import IngestOptions, origin_of
from pik.usecases.ingest.bulk_tasks import Candidate, Known, survey
from pik.usecases.ingest.many_inputs import SMALL

PART = 64 << 20
"""Bytes of a part of a file, about: one segment for each of its days, so that segments are neither small nor many."""

PART_IN_STACK = BLOCK
"""The same in a stack, whose index has an item for each segment, of limited size: as `ingest` makes them."""

TOGETHER = 64
"""Files that one machine reads one after the other, at most."""


@dataclass(slots=True)
class BulkPlan:
    """What becomes of files, by their places. `files` are in the plan; `errors` says why others cannot be read; what is
    in neither is an archive, or small."""

    store: Store
    head: PlanLine
    files: Mapping[int, FileLine]
    errors: Mapping[int, PikError]
    is_written: bool

    def write(self) -> None:
        """Write the plan down, unless it is. Raises Busy where another process has written another one."""
        if self.is_written:
            return
        try:
            write_plan(self.store.raw, self.head, self.files.values())
        except AlreadyExists:
            raise Busy(
                "another pik process has begun to ingest these files", hint="wait until it has ended, then run this"
            ) from None
        self.is_written = True


def plan(
    store: Store, fleet: Fleet, files: Sequence[Source], options: Sequence[IngestOptions], progress: Progress
) -> BulkPlan:
    """Return the plan for these files, each read with these options: the one that was begun, or a new one. Files are
    read for what the last one does not say of them."""
    plan_id = _plan_id(files, options)
    last = last_number(store.raw, plan_id)
    earlier: Plan | None = None
    with suppress(Damaged):  # which `verify` reports
        earlier = read_plan(store.raw, RawKind.PLAN.key(plan_id, last)) if last else None
    known = {} if earlier is None else {line.place: Known(line.place, line.origin, line.splits) for line in earlier[1]}
    candidates = [
        Candidate(place, source, chosen, part_of(store))
        for place, (source, chosen) in enumerate(zip(files, options, strict=True))
        if place not in known and not _is_small(source)
    ]
    size = sum(one.source.size or 0 for one in candidates)
    with showing(progress, f"looking at {number_of(len(candidates), 'file')}", size, "bytes"):
        for one in fleet.map(survey, _together(candidates)):
            known[one.place] = one
            progress.advance(files[one.place].size or 0)
    errors = {place: one.error for place, one in known.items() if one.error is not None}
    if earlier is not None and not _is_used_up(store, earlier[1]):
        return BulkPlan(store, earlier[0], {line.place: line for line in earlier[1]}, errors, is_written=True)
    head = PlanLine(format=store.format_version, plan_id=plan_id, number=last + 1, planned_at=time_ns())
    return BulkPlan(store, head, _lines(head, known), errors, is_written=False)


def _lines(head: PlanLine, known: Mapping[int, Known]) -> dict[int, FileLine]:
    """Return the lines of a new plan. Ids and times of ingest increase from file to file."""
    of_files = [(place, origin, one.splits) for place, one in sorted(known.items()) if (origin := one.origin)]
    return {
        place: FileLine(place=place, origin=origin, batch_id=batch_id, ingest_time=head.planned_at + at, splits=splits)
        for at, ((place, origin, splits), batch_id) in enumerate(zip(of_files, new_ids(), strict=False))
    }


def _is_used_up(store: Store, lines: Sequence[FileLine]) -> bool:
    """Return whether all of a plan was done: its last file was ingested as it says."""
    last = next(store.index.batches(lines[-1].batch_id), None)
    return last is not None and last.state == BatchState.COMPLETE


def _plan_id(files: Sequence[Source], options: Sequence[IngestOptions]) -> str:
    """Return the digest of what is planned: files, how they are read, and what decides the bytes of segments."""
    digest = sha256(f"pik {pik.__version__}, zstandard {version('zstandard')}".encode())
    for source, chosen in zip(files, options, strict=True):
        how = origin_of(source, chosen, "").identity.decode(), chosen.reading.stop, chosen.reading.mixed
        digest.update(msgspec.json.encode((source.name, source.size, source.version, how)))
    return digits(int.from_bytes(digest.digest()[:16], "big"), ID_LENGTH)


def _together(candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, ...]]:
    """Yield files that one machine reads."""
    some: list[Candidate] = []
    size = 0
    for one in candidates:
        of_file = one.source.size or 0
        if some and (len(some) == TOGETHER or size + of_file > PART):
            yield tuple(some)
            some, size = [], 0
        some.append(one)
        size += of_file
    if some:
        yield tuple(some)


def _is_small(source: Source) -> bool:
    """Return whether a file costs less to read than to hand to another machine. An object in S3 never does: most of it
    is waiting, which machines do beside each other."""
    return source.path is not None and (source.size or 0) <= SMALL


def part_of(store: Store) -> int:
    """Return the bytes of a part of a file, about."""
    return PART_IN_STACK if store.deployed else PART


def options_for(source: Source, options: IngestOptions) -> IngestOptions:
    """Return how a file is read, as far as its name says."""
    by_file = options.reading.by_file
    return options if by_file is None else replace(options, reading=by_file(source.file))
