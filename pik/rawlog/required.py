"""Raw for those who would give up what they cannot read: there an object that cannot be read ends the command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pik.errors import StoreError, Unreadable
from pik.ports.raw import Object, Raw, RawObject


@contextmanager
def _required() -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        raise StoreError(error.message, hint=error.hint) from None


@dataclass(frozen=True, slots=True)
class RequiredRaw:
    """Raw of which everything that is there must be readable: Unreadable, which is a Damaged, is raised as a StoreError
    that is none. What is missing or damaged stays Damaged."""

    raw: Raw

    def create(self, key: str, data: bytes) -> None:
        self.raw.create(key, data)

    def create_all(self, objects: Sequence[Object]) -> None:
        self.raw.create_all(objects)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        with _required():
            return self.raw.read(key, offset, length)

    def size(self, key: str) -> int | None:
        with _required():
            return self.raw.size(key)

    def stored_digest(self, key: str) -> str | None:
        with _required():
            return self.raw.stored_digest(key)

    def objects(self, prefix: str) -> Iterator[RawObject]:
        with _required():
            yield from self.raw.objects(prefix)

    def files(self, keys: Sequence[str]) -> AbstractContextManager[list[Path]]:
        return self.raw.files(keys)
