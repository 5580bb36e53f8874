"""What `pik export` shows, and standard output as it takes rows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO, cast

from pik.cli.render import Column, Count, Document, Instant, Table
from pik.cli.render.text import visible_lines
from pik.errors import StoreError, UsageError

if TYPE_CHECKING:
    from pik.ports.exporter import Layout
    from pik.usecases.export.export import Exported


def document(done: Exported, layout: Layout, *, dry_run: bool) -> Document:
    """Where it is, what was asked for, and its files."""
    written = done.manifest is not None
    return Document(
        head={
            "dry_run": True if dry_run else None,
            "out": done.target,
            "format": layout.format,
            "window": done.window,
            "entities": layout.selection.entities or None,
            "known_until": None if done.known_until is None else Instant(done.known_until),
            "rows": Count(done.rows),
            "bytes": Count(done.size) if written else None,
            "manifest": done.manifest,
        },
        tables=[
            Table("files", _FILES, done.files, empty="no files: " + ("a dry run" if dry_run else "nothing matches"))
        ],
    )


_FILES = [Column("path"), Column("rows", Count), Column("bytes", Count), Column("sha256", detail=True)]


def standard_output(*, packed: bool) -> BinaryIO:
    """Standard output for the rows of an export. Raises UsageError for a terminal that would get compressed bytes,
    StoreError if it is closed."""
    if sys.stdout is None:
        raise StoreError("standard output is closed, so nothing can be exported to it")
    if not sys.stdout.isatty():
        return sys.stdout.buffer
    if packed:
        raise UsageError("compressed data is not written to a terminal", hint="pik export --out - … > FILE")
    return cast(BinaryIO, _Terminal())


class _Terminal:
    """Shows lines without obeying what is in them."""

    name = "<stdout>"

    def write(self, data: bytes) -> int:
        """Show the lines."""
        sys.stdout.write(visible_lines(data.decode(errors="backslashreplace")))
        return len(data)

    def flush(self) -> None:
        """Show what is waiting."""
        sys.stdout.flush()
