"""Raw in a directory. Objects appear whole, under names that nothing can take twice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pik.errors import AlreadyExists, Damaged, StoreError
from pik.ports.raw import RawObject
from pik.stores.common import missing, scratch


@dataclass(frozen=True, slots=True)
class LocalRaw:
    """Objects below `root`, a key being a relative path. `root`/tmp is for files that are not whole yet."""

    root: Path

    def create(self, key: str, data: bytes) -> None:
        target = self.root / key
        try:
            self._make_directory(target.parent)
            temporary = self._write_durably(data)
            try:
                os.link(temporary, target)  # unlike rename, link never replaces
            except FileExistsError:
                raise AlreadyExists(f"raw object {key} exists already; raw is never overwritten") from None
            finally:
                os.unlink(temporary)
            _sync_directory(target.parent)
        except OSError as error:
            raise StoreError(
                f"cannot write raw object {key}: {error.strerror}",
                hint=f"make room or get write access to {self.root}, then run the same command again",
            ) from error

    def _write_durably(self, data: bytes) -> str:
        handle, path = tempfile.mkstemp(dir=self.root / "tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(path, 0o444)
        except BaseException:
            os.unlink(path)
            raise
        return path

    def _make_directory(self, directory: Path) -> None:
        if not directory.is_dir():
            self._make_directory(directory.parent)
            directory.mkdir(exist_ok=True)
            _sync_directory(directory.parent)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            with open(self.root / key, "rb") as file:
                file.seek(offset)
                data = file.read() if length is None else file.read(length)
                short = len(data) < length if length is not None else os.fstat(file.fileno()).st_size < offset
        except FileNotFoundError:
            raise missing(key) from None
        except OSError as error:
            raise StoreError(f"cannot read raw object {key}: {error.strerror}") from error
        if short:
            raise Damaged(f"raw object {key} ends before byte {offset + (length or 0)}", hint="pik verify --full")
        return data

    def size(self, key: str) -> int | None:
        try:
            return os.stat(self.root / key).st_size
        except FileNotFoundError:
            return None

    def objects(self, prefix: str) -> Iterator[RawObject]:
        directory = self.root / prefix.rpartition("/")[0]
        for entry in sorted(os.scandir(directory), key=_listing_order) if directory.is_dir() else ():
            key = os.path.relpath(entry.path, self.root)
            if entry.is_dir():
                if (key + "/").startswith(prefix) or prefix.startswith(key + "/"):
                    yield from self.objects(key + "/")
            elif key.startswith(prefix):
                yield RawObject(key, entry.stat().st_size)

    @contextmanager
    def files(self, keys: Sequence[str]) -> Iterator[list[Path]]:
        with _named_in_utf8(self.root) as root:
            paths = [root / key for key in keys]
            for key, path in zip(keys, paths, strict=True):
                if not path.exists():
                    raise missing(key)
            yield paths

    def scratch(self) -> AbstractContextManager[Path]:
        return scratch()


@contextmanager
def _named_in_utf8(root: Path) -> Iterator[Path]:
    """The directory under a name that is UTF-8, which DuckDB wants: its own, or that of a link to it."""
    try:
        str(root.absolute()).encode()
    except UnicodeEncodeError:
        with scratch() as directory:
            link = directory / "store"
            link.symlink_to(root.absolute(), target_is_directory=True)
            yield link
    else:
        yield root


def _listing_order(entry: os.DirEntry[str]) -> str:
    return entry.name + ("/" if entry.is_dir() else "")


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
