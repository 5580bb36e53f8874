"""Make a bundle: pull the window, compute what the bundle says of it, and write all of it as one file.

What is computed, is computed from what the bundle holds, as whoever opens it does; so it can be computed again there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import structs

from pik import __version__
from pik.errors import NotFound
from pik.model.ids import digits, time_digits
from pik.model.instant import Window, format_instant
from pik.model.metric import EVENT_COUNT, Aggregate
from pik.ports.backup import RunRow
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.objects import packed
from pik.rawlog.sealed_records import PulledBatch, PullLine, SegmentLine, pulls, read_pull
from pik.runtime import Progress, showing
from pik.runtime.storage import scratch
from pik.usecases.bundle.archive import Written, write_archive
from pik.usecases.bundle.contents import (
    FORMAT,
    MANIFEST,
    METRICS,
    PROMOTIONS,
    README,
    RUNS,
    SUMS,
    VERSIONS,
    BundleRequest,
    Document,
    Manifest,
    ProblemLine,
    scopes,
)
from pik.usecases.bundle.opening import MakeCopy, assemble, files_below, source_name, write_rows
from pik.usecases.metrics.computation import sound
from pik.usecases.pull import PullReport, PullRequest, effective_window, pull

WriteDocuments = Callable[[Store, BundleRequest, Path], list[Document]]
"""Writes what is computed from a store into a directory."""


@dataclass(frozen=True, slots=True)
class BundleReport:
    """A bundle that was written: `size` bytes with the SHA-256 `digest`, and what is in it."""

    effective: Window
    known_until: int | None
    size: int
    digest: str
    members: int
    segments: int
    deliveries: int
    batches: int
    corrections: int
    metrics: int
    aggregates: int
    documents: tuple[Document, ...]
    problems: tuple[ProblemLine, ...]


def make_bundle(
    source: Store,
    request: BundleRequest,
    out: Path,
    make_copy: MakeCopy,
    write_documents: WriteDocuments,
    engine: str,
    progress: Progress,
) -> BundleReport:
    """Write the bundle of a window; `engine` is the program that evaluates metrics.

    Raises UsageError where there is a file of that name, NotHeld if the source does not hold the window, StoreError.
    """
    of_window = PullRequest(request.window, request.entities)
    effective_window(source, of_window)  # before anything is copied
    with scratch() as work:
        pulled = make_copy(source.url, work / "pulled")
        done = pull(source, pulled, of_window, progress)
        root = work / "bundle"
        store = make_copy(source_name(request.incident), root)
        known_until = _stage(source, pulled, root, request)
        assemble(store, root, request, progress)
        manifest = Manifest(
            bundle_format=FORMAT,
            store_format=store.format_version,
            incident=request.incident,
            start=format_instant(request.window.start),
            end=format_instant(request.window.end),
            entities=request.entities,
            metrics=request.metrics,
            effective_from=format_instant(done.effective.start),
            effective_to=format_instant(done.effective.end),
            known_until=None if known_until is None else format_instant(known_until),
            environment=environment_of(engine),
            problems=tuple(ProblemLine(kind=one.kind, what=one.what, detail=one.detail) for one in done.problems),
            documents=tuple(write_documents(store, request, root)),
        )
        names = _complete(root, manifest)
        with showing(progress, "packing", sum((root / name).stat().st_size for name in names), "bytes"):
            written = write_archive(out, root, names, request.incident, progress)
        corrections = len(store.corrections.recorded())
    return _report(done, manifest, known_until, written, len(names), corrections)


def environment_of(engine: str) -> dict[str, str]:
    """Return what computes the documents: programs by their part, with their versions."""
    return {"pik": __version__, "python": platform.python_version(), "engine": engine}


def _report(
    done: PullReport,
    manifest: Manifest,
    known_until: int | None,
    written: Written,
    members: int,
    corrections: int,
) -> BundleReport:
    return BundleReport(
        effective=done.effective,
        known_until=known_until,
        size=written.size,
        digest=written.digest,
        members=members,
        segments=done.segments + done.elsewhere,
        deliveries=done.deliveries,
        batches=done.batches,
        corrections=corrections,
        metrics=done.metrics,
        aggregates=done.aggregates,
        documents=manifest.documents,
        problems=manifest.problems,
    )


def _stage(source: Store, pulled: Store, root: Path, request: BundleRequest) -> int | None:
    """Bring raw and rows to where they are packed from; return the last recording that is known there."""
    for one in chain.from_iterable(map(pulled.raw.objects, (RawKind.SEGMENT, RawKind.REJECTS, RawKind.CORRECTION))):
        place = root / one.key
        place.parent.mkdir(parents=True, exist_ok=True)
        with pulled.raw.files([one.key]) as [path]:
            os.link(path, place)
    known_until = _write_record(pulled, root, request)
    metrics = [version for one in pulled.metrics.latest() for version in pulled.metrics.versions(one.name)]
    write_rows(root / METRICS, (one for one in metrics if one != EVENT_COUNT))
    runs: dict[str, None] = {}

    def versions() -> Iterator[Aggregate]:
        for name, window in sorted(scopes(pulled.metrics, request.window).items()):
            for row in sound(pulled.aggregates.versions(name, window, request.entities, checked=True)):
                runs[row.run_id] = None
                yield row

    write_rows(root / VERSIONS, versions())
    write_rows(root / RUNS, _runs(source, sorted(runs)))
    promotions = [one for one in source.promotions.newest_first() if one.run_id in runs]
    promotions.sort(key=lambda one: (one.at, one.promotion_id))
    write_rows(root / PROMOTIONS, promotions)
    return known_until


def _runs(source: Store, run_ids: Iterable[str]) -> Iterator[RunRow]:
    """Yield the runs that wrote the versions. A copy has the versions that its source's runs wrote, and not these."""
    for run_id in run_ids:
        try:
            yield RunRow(source.runs.get(run_id))
        except NotFound:
            continue


def _write_record(pulled: Store, root: Path, request: BundleRequest) -> int | None:
    """Write the record of what was pulled, with nothing in it of the clock, nor of where the source is; return the last
    recording that it knows of."""
    (key,) = pulls(pulled.raw)
    head, *lines = read_pull(pulled.raw, key)
    assert isinstance(head, PullLine)
    segments = sorted((one for one in lines if isinstance(one, SegmentLine)), key=lambda one: one.segment.key)
    batches = sorted((one for one in lines if isinstance(one, PulledBatch)), key=lambda one: one.batch_id)
    known = [one.segment.recorded_at for one in segments]
    known += [one.recorded_at for one in pulled.corrections.recorded()]
    known_until = max(known, default=0)
    head = structs.replace(head, pull_id="", source=source_name(request.incident), pulled_at=known_until)
    content = sha256(packed([head, *batches, *segments])).digest()
    head = structs.replace(head, pull_id=time_digits(known_until) + digits(int.from_bytes(content[:10], "big"), 16))
    place = root / RawKind.PULL.key(head.pull_id)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(packed([head, *batches, *segments]))
    return known_until or None


def _complete(root: Path, manifest: Manifest) -> list[str]:
    """Write the members that describe the others; return the names of all, in order."""
    described = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (root / MANIFEST).write_bytes(described + b"\n")
    (root / README).write_text(_README.format(incident=manifest.incident))
    names = sorted(files_below(root))
    _write_sums(root, names)
    return sorted([*names, SUMS])


def _write_sums(root: Path, names: Iterable[str]) -> None:
    with open(root / SUMS, "w", encoding="ascii") as sums:
        for name in names:
            with open(root / name, "rb") as file:
                sums.write(f"{file_digest(file, 'sha256').hexdigest()}  {name}\n")


_README = """Evidence of {incident}, written by pik, the Pipeline Investigation Kit.

Check it without pik, in this directory:

  sha256sum --check SHA256SUMS
  zstdcat raw/event_date=*/*.ndjson.zst | head

With pik, and the file that this directory came from:

  pik verify FILE
  pik --store FILE diff aggregates --from TIME --to TIME

MANIFEST.json   what this is of: window, entities, versions, problems, documents
SHA256SUMS      the digest of every other file
raw/            deliveries as they were recorded, rejected lines, and raw/pulls/
                with the index: batches, segments, which deliveries are duplicates
corrections/    corrections and the deliveries that they list
rows/           definitions, versions of values, runs and promotions, as JSON lines
documents/      what pik computes from all this, by the commands in MANIFEST.json
"""
