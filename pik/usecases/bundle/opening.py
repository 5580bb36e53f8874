"""Open a bundle: its members in a private directory, and the store that they make.

A bundle has no database: the index and the state are made of its raw and its rows, which is what they can be proven by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from pik.errors import Damaged, InputError, StoreError
from pik.model.aggregate import Aggregate
from pik.model.metric import Metric
from pik.ports.store import Store
from pik.runtime import Progress, showing
from pik.usecases.bundle.archive import Archive
from pik.usecases.bundle.contents import (
    FORMAT,
    MANIFEST,
    METRICS,
    SUMS,
    VERSIONS,
    BundleRequest,
    Manifest,
    is_member,
    scopes,
)
from pik.usecases.pull.index import recorded_contents, restore_index

MakeCopy = Callable[[str, Path], Store]
"""Makes an empty copy of the store of that name in a directory."""

_LARGEST_TEXT = 1 << 28
"""Bytes that a member which is read whole may have."""

_Line = TypeVar("_Line", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle whose members are in `root`, with the store that they make, which nothing may write to."""

    manifest: Manifest
    root: Path
    store: Store


def source_name(incident: str) -> str:
    """Return what the store of a bundle is called a copy of: the path of the source must not appear in it."""
    return f"incident {incident}"


def open_bundle(path: Path, root: Path, make_copy: MakeCopy, progress: Progress) -> OpenedBundle:
    """Open the bundle in a directory that does not exist yet.

    Raises InputError for a file that is not a bundle, Damaged for one that is not as it was written, StoreError where
    there is no room.
    """
    archive = Archive(path)
    manifest = read_manifest(archive)
    request = manifest.request
    store = make_copy(source_name(request.incident), root)
    if manifest.store_format != store.format_version:
        raise InputError(
            f"{str(path)!r} has store format {manifest.store_format}; this pik reads {store.format_version} only",
            hint="read it with the version of pik that its MANIFEST.json names",
        )
    with showing(progress, "opening", archive.size, "bytes"):
        _extract(archive, request.incident, root, progress)
    assemble(store, root, request, progress)
    return OpenedBundle(manifest, root, store)


def read_manifest(archive: Archive) -> Manifest:
    """Return the manifest, which is the first member. Raises InputError, Damaged."""
    for name, content in archive.members():
        if name.partition("/")[2] == MANIFEST:
            data = bytearray()
            for piece in content:
                data += piece
                if len(data) > _LARGEST_TEXT:
                    raise _too_large(name)
            try:
                manifest = msgspec.json.decode(data, type=Manifest)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise InputError(f"{str(archive.path)!r} has no manifest that pik can read: {error}") from None
            if manifest.bundle_format != FORMAT:
                raise InputError(
                    f"{str(archive.path)!r} has bundle format {manifest.bundle_format}; this pik reads {FORMAT} only",
                    hint="use the pik that wrote it",
                )
            if name == f"{manifest.incident}/{MANIFEST}":
                return manifest
        break
    raise InputError(f"{str(archive.path)!r} does not begin with the {MANIFEST} of a bundle")


def _extract(archive: Archive, prefix: str, root: Path, progress: Progress) -> None:
    """Write every member below `root`, and compare it with SHA256SUMS, which comes before what it lists, but for two
    members."""
    found: dict[str, str] = {}
    expected: dict[str, str] = {}
    for full, content in archive.members():
        first, _, name = full.partition("/")
        if first != prefix or not is_member(name):
            raise InputError(
                f"the bundle {str(archive.path)!r} has a member {full!r}, which pik does not write",
                hint="nothing of it was opened outside of a private directory, which is removed",
            )
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        digest = sha256()
        with open(place, "xb") as file:
            for data in content:
                digest.update(data)
                file.write(data)
        found[name] = digest.hexdigest()
        progress.advance(place.stat().st_size)
    for name in (SUMS, METRICS, VERSIONS):
        if name not in found:
            raise InputError(f"the bundle {str(archive.path)!r} has no {name}", hint="use another copy of it")
    expected = _sums(root)
    del found[SUMS]
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise Damaged(f"the member {name!r} of the bundle is not the one in its {SUMS}", hint="use another copy")


def _too_large(name: str) -> InputError:
    return InputError(f"the member {name!r} of the bundle is larger than {_LARGEST_TEXT:,} bytes, which is refused")


def _sums(root: Path) -> dict[str, str]:
    if (root / SUMS).stat().st_size > _LARGEST_TEXT:
        raise _too_large(SUMS)
    lines = (root / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def assemble(store: Store, root: Path, request: BundleRequest, progress: Progress) -> int:
    """Make the index and the state of a store from its raw and from the rows beside it; return how many values are
    current. Raises Damaged."""
    into = store.copy
    assert into is not None
    try:
        into.take_metrics(_rows(root / METRICS, Metric))
        taken = into.take_aggregates(
            scopes(store.metrics, request.window), request.entities, _rows(root / VERSIONS, Aggregate)
        )
    except OSError as error:
        raise StoreError(f"cannot read {error.filename}: {error.strerror}") from None
    restore_index(store, recorded_contents(store.raw), progress)
    return taken.current


def _rows(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    decode = msgspec.json.Decoder(kind).decode
    with open(path, "rb") as file:
        for line in file:
            try:
                yield decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Damaged(f"{path.name} of the bundle is damaged: {error}") from None


def write_rows(path: Path, rows: Iterable[msgspec.Struct]) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")


def files_below(root: Path) -> Iterator[str]:
    """Yield the names of the members of a bundle that are in a directory, in which there is more."""
    for directory, directories, names in os.walk(root):
        directories.sort()
        place = os.path.relpath(directory, root)
        for name in sorted(names):
            member = name if place == "." else f"{place}/{name}"
            if is_member(member):
                yield member
