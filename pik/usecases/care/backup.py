"""Backup and restore of the state: what raw does not hold, in one file, the same for every store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import time_ns

import msgspec

from pik import __version__
from pik.errors import InputError, StoreError, UsageError, command
from pik.ports.backup import OmittedVersion, Row
from pik.ports.store import Store, expect_unsealed
from pik.rawlog.objects import digest_of, read_sealed, write_sealed
from pik.runtime import Progress, showing
from pik.usecases.own_files import OwnFile, unlike

FORMAT = 2
KINDS = ("metric", "run", "task", "version", "promotion", "current", "letter", "republish", "refusal")
_WHAT = OwnFile.BACKUP


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="backup"):
    """The first line of a backup."""

    format: int
    source: str
    made_at: int
    made_by: str


class End(msgspec.Struct, frozen=True, tag="end"):
    """The last line: how many rows of each kind there are."""

    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds: `rows` by kind. `source` is the store that it was made of, `digest` that of its content.

    `omitted` are versions that are damaged and not current, and so not in it; `lacking` the definitions and promotions
    of which a restored store had a file, and the backup has no row. `refused` says of a dry
    run that the store has state.
    """

    path: str
    source: str
    made_at: int
    made_by: str
    size: int
    digest: str
    rows: dict[str, int]
    omitted: tuple[OmittedVersion, ...] = ()
    lacking: tuple[str, ...] = ()
    refused: bool = False


_encode = msgspec.json.Encoder().encode
_read_line = msgspec.json.Decoder(Header | End | Row).decode


def backup(store: Store, path: Path, progress: Progress) -> BackupReport:
    """Write all of the state to a new file. Raises UsageError for a copy and for a file that exists, StoreError; Busy
    where promotions are under way in a deployed store; Damaged for state that is not as it was written."""
    expect_unsealed(store)
    if store.copy is not None:
        raise UsageError(
            f"{store.url} is a copy of {store.copy.source}, and its state is part of its source's",
            hint=command("backup", "--store", store.copy.source, str(path)),
        )
    header = Header(format=FORMAT, source=store.url, made_at=time_ns(), made_by=f"pik {__version__}")
    counts: Counter[str] = Counter()
    omitted: list[OmittedVersion] = []

    def lines(rows: Iterator[Row | OmittedVersion]) -> Iterator[bytes]:
        yield _encode(header) + b"\n"
        for row in rows:
            if isinstance(row, OmittedVersion):
                omitted.append(row)
                continue
            counts[_kind(row)] += 1
            progress.advance(1)
            yield _encode(row) + b"\n"
        yield _encode(End(dict(counts))) + b"\n"

    with showing(progress, "backing up", None, "rows"), store.backup.rows() as rows:
        digest = write_sealed(path, lines(rows))
    return replace(_report(path, header, digest, counts), omitted=tuple(omitted))


def restore(store: Store, path: Path, progress: Progress, *, dry_run: bool = False) -> BackupReport:
    """Restore a backup into a store without state. The same call resumes one that was interrupted.

    Raises InputError for a file that is not a backup, or not whole; StoreError where there is state, unless in a dry
    run, or the state is then not as it was written.
    """
    expect_unsealed(store)
    if store.copy is not None:
        raise UsageError(
            f"{store.url} is a copy, whose state comes from its source", hint="to take it again: pik pull --into DIR"
        )
    header, end = _read_header_and_end(path)
    digest = digest_of(path)
    has_state = store.backup.has_state(digest)
    if has_state and not dry_run:
        raise StoreError(
            f"the store {store.url} already has state, which a restore would mix with the backup's",
            hint="restore into a new store (`pik init`), or move the damaged state out of the way: docs/backup.md",
        )
    lacking: tuple[str, ...] = ()
    if not dry_run:
        with showing(progress, "restoring", sum(end.rows.values()), "rows"):
            lacking = store.backup.restore(_rows(path, progress), digest)
            problem = next(store.state_audit.problems(), None)
        if problem is not None:
            raise StoreError(
                f"everything was restored, but {problem.what} is not as it was written: {problem.detail}",
                hint="what is damaged, and what repairs it: pik verify",
            )
    return replace(_report(path, header, digest, end.rows), lacking=lacking, refused=has_state)


def _read_header_and_end(path: Path) -> tuple[Header, End]:
    """Read all of a backup, and return its first and last line. Raises InputError."""
    lines, end = _lines(path), None
    header = next(lines, None)
    if not isinstance(header, Header):
        raise InputError(f"{str(path)!r} is not {_WHAT}", hint="to make one: pik backup FILE")
    if header.format != FORMAT:
        raise InputError(
            f"{str(path)!r} has backup format {header.format}; this pik reads {FORMAT} only",
            hint="restore it with the pik that made it",
        )
    counts: Counter[str] = Counter()
    for line in lines:
        if isinstance(line, End):
            end = line
        elif end is None and not isinstance(line, Header):
            counts[_kind(line)] += 1
    if end is None or end.rows != counts:
        raise InputError(f"{str(path)!r} is not a whole backup", hint="use another copy of it")
    return header, end


def _rows(path: Path, progress: Progress) -> Iterator[Row]:
    for line in _lines(path):
        if not isinstance(line, Header | End):
            progress.advance(1)
            yield line


def _lines(path: Path) -> Iterator[Header | End | Row]:
    for line in read_sealed(path, _WHAT, lambda: unlike(path, OwnFile.BACKUP)):
        try:
            yield _read_line(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"{str(path)!r} is not {_WHAT}: {error}", hint="to make one: pik backup FILE") from None


def _kind(row: Row) -> str:
    return str(row.__struct_config__.tag)


def _report(path: Path, header: Header, digest: str, counts: dict[str, int]) -> BackupReport:
    return BackupReport(
        path=str(path),
        source=header.source,
        made_at=header.made_at,
        made_by=header.made_by,
        size=path.stat().st_size,
        digest=digest,
        rows={name: counts.get(name, 0) for name in KINDS},
    )
