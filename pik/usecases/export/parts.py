"""Writing the rows of an export to files: one for each partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from pik.errors import StoreError
from pik.ports.exporter import Exporter, Rows, Sink
from pik.runtime.storage import sync

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer

OPEN_FILES = 64
"""Files of partitions that are open at once; a partition that comes again after its file was closed gets another."""


class PartFile(msgspec.Struct, frozen=True):
    """A complete file, on disk: the values of its partition, the number of the file among those of this partition, its
    name, its rows, its size in bytes, its SHA-256 in hex."""

    key: tuple[str, ...]
    number: int
    name: str
    rows: int
    bytes: int
    sha256: str


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Raise StoreError for an error of the system, named for the target of the export."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {target}: {error.strerror or error}",
            hint="make room, or name another place with --out; nothing was left there",
        ) from error


class PartWriter:
    """Writes rows to files in a directory; a context manager that gives up at its end what is not finished. Its methods
    raise OSError."""

    def __init__(self, directory: Path, exporter: Exporter) -> None:
        self._directory, self._exporter = directory, exporter
        self._open: dict[tuple[str, ...], tuple[_NewFile, Sink]] = {}
        self._begun: Counter[tuple[str, ...]] = Counter()
        self._done: list[PartFile] = []

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for file, _sink in self._open.values():
            file.abandon()

    def write(self, key: tuple[str, ...], rows: Rows) -> None:
        """Append rows to the file of a partition."""
        opened = self._open.pop(key, None)
        file, sink = self._begin(key) if opened is None else opened
        self._open[key] = file, sink  # at the end: the first one is the least recently used
        sink.write(rows)
        file.rows += len(rows)

    def finish(self, *, even_empty: bool) -> list[PartFile]:
        """Complete the files and return them; `even_empty`: one without rows if there is none."""
        if even_empty and not self._begun:
            self._open[()] = self._begin(())
        while self._open:
            self._close(next(iter(self._open)))
        return self._done

    def _begin(self, key: tuple[str, ...]) -> tuple[_NewFile, Sink]:
        if len(self._open) >= OPEN_FILES:
            self._close(next(iter(self._open)))
        name = f"{self._begun.total()}{self._exporter.suffix}"
        file = _NewFile(self._directory / name, self._begun[key])
        self._begun[key] += 1
        try:
            return file, self._exporter.sink(cast(BinaryIO, file))
        except BaseException:
            file.abandon()
            raise

    def _close(self, key: tuple[str, ...]) -> None:
        file, sink = self._open[key]
        sink.close()
        digest = file.finish()
        del self._open[key]
        self._done.append(PartFile(key, file.number, file.path.name, file.rows, file.size, digest))


class _NewFile(RawIOBase):
    """A new file that computes the digest of what is written to it."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.size = self.rows = 0
        self._file = open(path, "xb", buffering=1 << 20)  # noqa: SIM115 - closed by `finish` or `abandon`
        self._digest = sha256()
        self._abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if not self._abandoned:
            self._file.write(data)
            self._digest.update(data)
            self.size += size
        return size

    def tell(self) -> int:
        return self.size

    def finish(self) -> str:
        """Make the file durable, and return its digest."""
        self._file.flush()
        sync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Give the file up: what is still written to it has no effect."""
        self._abandoned = True
        with suppress(OSError):
            self._file.close()
