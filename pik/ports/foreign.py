"""Files of others in a storage that is no store: what can be ingested from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file by the URL that people call it; its size in bytes; `version` changes when its content does."""

    name: str
    size: int
    version: str


class Foreign(Protocol):
    """Reads; there is no way to change anything."""

    def find(self, url: str) -> list[ForeignFile]:
        """The files that a URL names, or that match its glob, ordered by name. Raises UsageError for what is no such
        URL, InputError where there is no such file, StoreError without credentials or access."""

    def read(self, file: ForeignFile, offset: int, length: int) -> bytes:
        """Bytes of the file from `offset`, fewer than `length` only at its end. Raises InputError if it is not the
        version that was found any more, StoreError."""
