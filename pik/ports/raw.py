"""Raw: immutable objects under create-only keys. One implementation is a directory, the next a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RawObject:
    """A key and the size in bytes of its object."""

    key: str
    size: int


Object = tuple[str, bytes]
"""A key, and the bytes that are to be stored under it."""


class Raw(Protocol):
    """Picklable, so that worker processes can be handed one. Objects cannot be overwritten or deleted."""

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key`; durable when this returns. Raises AlreadyExists, leaving what is there;
        StoreError when the storage refuses (full, no access). No reader ever sees part of an object."""

    def create_all(self, objects: Sequence[Object]) -> None:
        """Store several objects; all are durable when this returns. It costs less than storing one after the other.
        Raises as `create` does; then some of them are stored, each of these whole, and others are not."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of the object from `offset`, `length` of them (None: to the end). Raises Damaged if it is
        missing or shorter than that."""

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes; None if it is missing."""

    def objects(self, prefix: str) -> Iterator[RawObject]:
        """Yield every object whose key starts with `prefix`, ordered by key."""

    def files(self, keys: Sequence[str]) -> AbstractContextManager[list[Path]]:
        """Whole objects as local files, for as long as the context lasts. Raises Damaged if one is missing."""

    def scratch(self) -> AbstractContextManager[Path]:
        """A private directory for temporary files, removed when the context ends."""
