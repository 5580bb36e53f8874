"""Check a bundle: is every byte as it was written, and does what it holds still give the numbers in it?"""

from __future__ import annotations

import filecmp
from dataclasses import dataclass
from enum import StrEnum
from hashlib import file_digest
from pathlib import Path

from pik.errors import Damaged
from pik.runtime import Progress, showing
from pik.runtime.storage import scratch
from pik.usecases.bundle.archive import Archive
from pik.usecases.bundle.contents import Manifest
from pik.usecases.bundle.opening import MakeCopy, open_bundle, read_manifest
from pik.usecases.bundle.pack import WriteDocuments


class MemberState(StrEnum):
    """What became of a member that is listed as a problem."""

    DAMAGED = "damaged"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class MemberProblem:
    """A member that is not as it was written, or that what the bundle holds does not give again."""

    member: str
    state: MemberState
    detail: str


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """What a check found. `recomputed` documents were computed again and compared; None: damage was in the way.
    `manifest` is None where it cannot be read, `digest` the SHA-256 of the file."""

    manifest: Manifest | None
    size: int
    digest: str
    members: int
    recomputed: int | None
    problems: tuple[MemberProblem, ...]


def check_bundle(
    path: Path, make_copy: MakeCopy, write_documents: WriteDocuments, environment: dict[str, str], progress: Progress
) -> BundleCheck:
    """Check the bundle. Raises InputError for a file that is not one, StoreError."""
    try:
        archive = Archive(path)
    except Damaged as error:
        listed = MemberProblem("the list of members", MemberState.DAMAGED, error.message)
        return BundleCheck(None, path.stat().st_size, _digest(path), 0, None, (listed,))
    digest = _digest(path)
    with showing(progress, "checking", archive.size, "bytes"):
        damaged = [
            MemberProblem(name or "the end", MemberState.DAMAGED, "its bytes are not as they were written")
            for name in archive.damaged(progress)
        ]
    count = len(archive.frames) - 1
    if damaged:
        return BundleCheck(_manifest(archive), archive.size, digest, count, None, tuple(damaged))
    with scratch() as work:
        try:
            opened = open_bundle(path, work / "opened", make_copy, progress)
            documents = write_documents(opened.store, opened.manifest.request, work / "again")
        except Damaged as error:
            problem = MemberProblem("the bundle", MemberState.DAMAGED, error.message)
            return BundleCheck(_manifest(archive), archive.size, digest, count, None, (problem,))
        differing = [
            MemberProblem(f"{opened.manifest.incident}/{one.name}", MemberState.DIFFERS, detail)
            for one in documents
            if (detail := _difference(opened.root, work / "again", one.name, opened.manifest, environment))
        ]
    return BundleCheck(opened.manifest, archive.size, digest, count, len(documents), tuple(differing))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _manifest(archive: Archive) -> Manifest | None:
    try:
        return read_manifest(archive)
    except Damaged:
        return None


def _difference(kept: Path, again: Path, name: str, manifest: Manifest, environment: dict[str, str]) -> str | None:
    """Return how a document differs from the one that was computed again, if it does."""
    if not (kept / name).exists():
        return "the bundle does not hold it"
    if filecmp.cmp(kept / name, again / name, shallow=False):
        return None
    others = [f"{what} {version}" for what, version in manifest.environment.items() if environment.get(what) != version]
    written = f"; it was written by {', '.join(others)}" if others else ""
    return f"what the bundle holds gives another result now{written}"
