"""Make a bundle: pull the window, compute what the bundle says of it, and write all of it as one file.

What is computed, is computed from what the bundle holds, as whoever opens it does; so it can be computed again there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import structs

from pik import __version__
from pik.errors import NotFound, NothingSelected
from pik.model.aggregate import Aggregate
from pik.model.ids import digits, time_digits
from pik.model.instant import format_instant
from pik.model.metric import EVENT_COUNT
from pik.model.window import Window
from pik.ports.backup import RunRow
from pik.ports.engine import Engine
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.objects import packed
from pik.rawlog.sealed_records import PulledBatch, PullLine, SegmentLine, pulls, read_pull
from pik.runtime import Progress, showing
from pik.runtime.storage import scratch
from pik.usecases.bundle.archive import write_archive
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
from pik.usecases.bundle.redacted import (
    RedactedValues,
    redact_raw,
    redacted_promotion,
    redacted_request,
    redacted_run,
    refuse_unredactable,
)
from pik.usecases.bundle.redaction import Redaction
from pik.usecases.metrics.computation import sound
from pik.usecases.pull.index import recorded_contents, restore_index
from pik.usecases.pull.pull import PullRequest, effective_window, pull

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
    redacted: tuple[str, ...]
    not_recomputable: tuple[str, ...]


def make_bundle(
    source: Store,
    request: BundleRequest,
    out: Path,
    redaction: Redaction | None,
    make_copy: MakeCopy,
    write_documents: WriteDocuments,
    engine: Engine,
    progress: Progress,
) -> BundleReport:
    """Write the bundle of a window.

    Raises UsageError where there is a file of that name, NotHeld if the source does not hold the window,
    NothingSelected if nothing arrived in it, StoreError; with a redaction, also for a window with what cannot be
    redacted.
    """
    of_window = PullRequest(request.window, request.entities)
    effective_window(source, of_window)  # before anything is copied
    with scratch() as work:
        pulled = make_copy(source.url, work / "pulled")
        done = pull(source, pulled, of_window, progress)
        if not done.deliveries and not done.problems:
            raise NothingSelected(f"no delivery {request.window.within}, so there is no evidence to bundle")
        root = work / "bundle"
        store = make_copy(source_name(request.incident), root)
        staging = _Staging(source, pulled, root, request, redaction, engine, progress)
        if redaction is not None:
            refuse_unredactable(pulled, done)
            request = redacted_request(request, redaction)
        known_until = staging.write_raw()
        withheld = staging.write_rows(make_copy, work / "redacted")
        aggregates = assemble(store, root, request, progress)
        documents = tuple(write_documents(store, request, root))
        problems = [ProblemLine(kind=one.kind, what=one.what, detail=one.detail) for one in done.problems]
        problems += (_failed(one) for one in documents if one.exit_code in _FAILED)
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
            environment=environment_of(engine.version),
            problems=(*problems, *staging.lacking),
            redacted=redaction.paths if redaction else (),
            not_recomputable=tuple(withheld),
            documents=documents,
        )
        names = _complete(root, manifest)
        with showing(progress, "packing", sum((root / name).stat().st_size for name in names), "bytes"):
            written = write_archive(out, root, names, request.incident, progress)
        return BundleReport(
            effective=done.effective,
            known_until=known_until,
            size=written.size,
            digest=written.digest,
            members=len(names),
            segments=done.segments + done.elsewhere,
            deliveries=done.deliveries,
            batches=done.batches,
            corrections=len(store.corrections.recorded()),
            metrics=len(store.metrics.latest()),
            aggregates=aggregates,
            documents=manifest.documents,
            problems=manifest.problems,
            redacted=manifest.redacted,
            not_recomputable=manifest.not_recomputable,
        )


_FAILED = (2, 4)
"""Exit codes of commands that wrote no result."""


def _failed(document: Document) -> ProblemLine:
    detail = f"its command ended with exit code {document.exit_code}"
    return ProblemLine(kind="document", what=document.name, detail=detail)


def environment_of(engine: str) -> dict[str, str]:
    """Return what computes the documents: programs by their part, with their versions."""
    return {"pik": __version__, "python": platform.python_version(), "engine": engine}


@dataclass(frozen=True, slots=True)
class _Staging:
    """Brings raw and rows to where they are packed from, below `root`; with a redaction, what is left of them."""

    source: Store
    pulled: Store
    root: Path
    request: BundleRequest
    redaction: Redaction | None
    engine: Engine
    progress: Progress
    lacking: list[ProblemLine] = field(default_factory=list)
    """Runs whose values are in the bundle, and that the source, a copy, does not have."""

    def write_raw(self) -> int | None:
        """Write raw, corrections and the record of what was pulled; return the last recording that is known there."""
        (key,) = pulls(self.pulled.raw)
        head, *lines = read_pull(self.pulled.raw, key)
        assert isinstance(head, PullLine)
        segments = sorted((one for one in lines if isinstance(one, SegmentLine)), key=lambda one: one.segment.key)
        batches = sorted((one for one in lines if isinstance(one, PulledBatch)), key=lambda one: one.batch_id)
        known = [one.segment.recorded_at for one in segments]
        known += [one.recorded_at for one in self.pulled.corrections.recorded()]
        known_until = max(known, default=0)
        if self.redaction is None:
            self._link_raw()
        else:
            with showing(self.progress, "redacting", None, "segments"):
                segments, batches = redact_raw(self.pulled, self.root, segments, batches, self.redaction)
        # Nothing in the record is of the clock, nor of where the source is.
        request = self._redacted_request()
        head = structs.replace(
            head,
            pull_id="",
            source=source_name(request.incident),
            pulled_at=known_until,
            entities=request.entities,
        )
        content = sha256(packed([head, *batches, *segments])).digest()
        pull_id = time_digits(known_until) + digits(int.from_bytes(content[:10], "big"), 16)
        place = self.root / RawKind.PULL.key(pull_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(packed([structs.replace(head, pull_id=pull_id), *batches, *segments]))
        return known_until or None

    def _redacted_request(self) -> BundleRequest:
        return self.request if self.redaction is None else redacted_request(self.request, self.redaction)

    def _link_raw(self) -> None:
        kinds = RawKind.SEGMENT, RawKind.REJECTS, RawKind.CORRECTION
        for one in chain.from_iterable(map(self.pulled.raw.objects, kinds)):
            place = self.root / one.key
            place.parent.mkdir(parents=True, exist_ok=True)
            with self.pulled.raw.files([one.key]) as [path]:
                os.link(path, place)

    def write_rows(self, make_copy: MakeCopy, place: Path) -> list[str]:
        """Write definitions, versions, runs and promotions; return the metrics that are withheld. `place` is for a
        store of what was redacted."""
        values, withheld = None, list[str]()
        if self.redaction is not None:
            values = RedactedValues(
                self.pulled, self._redacted_store(make_copy, place), self.engine, self.request, self.redaction
            )
            _, withheld = values.recomputable()
        names = [one.name for one in self.pulled.metrics.latest() if one.name not in withheld]
        metrics = [version for name in names for version in self.pulled.metrics.versions(name)]
        write_rows(self.root / METRICS, (one for one in metrics if one != EVENT_COUNT))
        runs: dict[str, None] = {}

        def versions() -> Iterator[Aggregate]:
            for name in sorted(names):
                for row in self._versions(name) if values is None else values.versions(name):
                    runs[row.run_id] = None
                    yield row

        write_rows(self.root / VERSIONS, versions())
        write_rows(self.root / RUNS, self._runs(sorted(runs)))
        promotions = [one for one in self.source.promotions.newest_first() if one.run_id in runs]
        if self.redaction is not None:
            promotions = [redacted_promotion(one, self.redaction) for one in promotions]
        promotions.sort(key=lambda one: (one.at, one.promotion_id))
        write_rows(self.root / PROMOTIONS, promotions)
        return withheld

    def _redacted_store(self, make_copy: MakeCopy, place: Path) -> Store:
        """Return a store with the redacted raw, and no values."""
        store = make_copy(source_name(self.request.incident), place)
        for name in files_below(self.root):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(self.root / name, place / name)
        restore_index(store, recorded_contents(store.raw), self.progress)
        return store

    def _versions(self, name: str) -> Iterator[Aggregate]:
        window = scopes(self.pulled.metrics, self.request.window)[name]
        return sound(self.pulled.aggregates.versions(name, window, self.request.entities, checked=True))

    def _runs(self, run_ids: Iterable[str]) -> Iterator[RunRow]:
        """Yield the runs that wrote the versions. A copy has the versions that its source's runs wrote, and not
        these."""
        for run_id in run_ids:
            try:
                run = self.source.runs.get(run_id)
            except NotFound:
                detail = "the source holds its values, and not the run"
                self.lacking.append(ProblemLine(kind="run", what=run_id, detail=detail))
                continue
            yield RunRow(run if self.redaction is None else redacted_run(run, self.redaction))


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
