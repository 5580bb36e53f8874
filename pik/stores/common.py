"""What all stores have in common: the format of their layout, errors, temporary directories."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pik.errors import ConflictFound, Damaged, StoreError

FORMAT = 3
"""The version of the layout of a store and of everything in it; docs/format.md lists what changed with each."""


def expect_format(store: str, found: int) -> None:
    """Raise StoreError if the store has another format than this program."""
    if found > FORMAT:
        raise StoreError(
            f"the store at {store} has format {found}; this pik reads up to format {FORMAT}",
            hint="pip install --upgrade pik",
        )
    if found < FORMAT:
        raise StoreError(
            f"the store at {store} has format {found}, which only an older pik reads; this one reads {FORMAT}",
            hint="ingest its inputs into a new store, or use the pik that wrote it",
        )


def missing(key: str) -> Damaged:
    """Return the error for an object that the index names and that is missing."""
    return Damaged(f"raw object {key} is missing", hint="pik verify --full")


def conflicting(first_seq: int, last_seq: int, conflicts: int) -> ConflictFound:
    """Return the error for records among which there are conflicts, where they are refused."""
    return ConflictFound(
        f"records {first_seq} to {last_seq} hold idempotency keys that came before with other content"
        f" (conflicts: {conflicts})",
        hint="none of them was recorded; --on-conflict record keeps them as duplicates",
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a private directory for temporary files, removed when the context ends."""
    try:
        with tempfile.TemporaryDirectory(prefix="pik-") as directory:
            yield Path(directory)
    except OSError as error:
        if error.filename and not str(error.filename).startswith(tempfile.gettempdir()):
            raise
        raise StoreError(f"cannot use the directory for temporary files: {error.strerror}") from error
