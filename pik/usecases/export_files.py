"""The files of an export: written in a hidden directory, and published at once when they are complete and on disk."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote

import msgspec

from pik.errors import StoreError, UsageError
from pik.ports.exporter import Exporter, Rows, Sink
from pik.runtime.new_file import expect_directory, take_name
from pik.runtime.storage import sync, sync_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OPEN_FILES = 64
"""Files of partitions that are open at once; a partition that comes again after its file was closed gets another."""

MANIFEST = "_manifest.json"
"""In a directory; readers of data sets skip names with an underscore in front."""


class ExportedFile(msgspec.Struct, frozen=True):
    """A file: its path below the directory (or its name), rows, size in bytes, SHA-256 in hex."""

    path: str
    rows: int
    bytes: int
    sha256: str


class _NewFile(RawIOBase):
    """A new file that computes the digest of what is written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
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


class FileOutput:
    """Writes the files of an export; a context manager that removes at its end what was not published.

    They are written in a hidden directory beside the target, on the same file system, so that a rename publishes them.
    """

    def __init__(self, target: Path, exporter: Exporter, *, directory: bool, dry_run: bool) -> None:
        self._target, self._exporter = target.absolute(), exporter
        self._directory, self._dry_run = directory, dry_run
        self._open: dict[tuple[str, ...], tuple[_NewFile, Sink]] = {}
        self._parts: Counter[tuple[str, ...]] = Counter()
        self._directories: dict[tuple[str, ...], str] = {}
        self._used: set[str] = set()
        self._done: list[ExportedFile] = []
        self._hidden = self._inner = self._target  # set when entered
        self._leaving = ExitStack()

    def __enter__(self) -> FileOutput:
        if not self._dry_run:
            with self._translated():
                remove_abandoned(self._target)
        _expect_new(self._target, directory=self._directory)
        if not self._dry_run:
            with self._translated():
                self._hidden = self._leaving.enter_context(hidden_directory(self._target))
                self._inner = self._hidden / self._target.name
                if self._directory:
                    self._inner.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for file, _sink in self._open.values():
            file.abandon()
        self._leaving.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write {self._target}: {error.strerror or error}",
                hint="make room, or name another place with --out; nothing was left there",
            ) from error

    def write(self, key: tuple[str, ...], rows: Rows) -> None:
        """Append rows to the file of a partition. Raises StoreError, and UsageError if its name is too long."""
        if self._directory:
            self._partition(key)
        if self._dry_run:
            return
        with self._translated():
            opened = self._open.pop(key, None)
            file, sink = self._begin(key) if opened is None else opened
            self._open[key] = file, sink  # at the end: the first one is the least recently used
            sink.write(rows)
            file.rows += len(rows)

    def _begin(self, key: tuple[str, ...]) -> tuple[_NewFile, Sink]:
        if len(self._open) >= OPEN_FILES:
            self._close(next(iter(self._open)))
        path = self._inner
        if self._directory:
            path /= self._partition(key)
            path.mkdir(parents=True, exist_ok=True)
            path /= f"part-{self._parts[key]}{self._exporter.suffix}"
            self._parts[key] += 1
        file = _NewFile(path)
        try:
            return file, self._exporter.sink(cast(BinaryIO, file))
        except BaseException:
            file.abandon()
            raise

    def _partition(self, key: tuple[str, ...]) -> str:
        """Return the partition's directory below the target. Raises UsageError if its name is too long."""
        if key not in self._directories:
            names = list(zip(self._exporter.layout.partition_by, key, strict=True))
            directory = "/".join(partition_name(name, value) for name, value in names)
            if directory.lower() in self._used:  # by a partition that is the same to a case-insensitive file system
                directory = "/".join(partition_name(name, value, encode_letters=True) for name, value in names)
            self._used.add(directory.lower())
            self._directories[key] = directory
        return self._directories[key]

    def _close(self, key: tuple[str, ...]) -> None:
        file, sink = self._open[key]
        sink.close()
        digest = file.finish()
        del self._open[key]
        name = str(file.path.relative_to(self._inner)) if self._directory else self._target.name
        self._done.append(ExportedFile(name, file.rows, file.size, digest))

    def finish(self) -> tuple[ExportedFile, ...]:
        """Complete the files, and return them ordered by path. Without partitions there is always one."""
        with self._translated():
            if not self._dry_run and not self._exporter.layout.partition_by and not self._parts and not self._open:
                self._open[()] = self._begin(())
            while self._open:
                self._close(next(iter(self._open)))
        return tuple(sorted(self._done, key=lambda file: file.path))

    def publish(self, manifest: bytes) -> Path | None:
        """Give the finished files their names, with the manifest; return its path."""
        if self._dry_run:
            return None
        name = MANIFEST if self._directory else manifest_of(self._target).name
        written = (self._inner if self._directory else self._hidden) / name
        with self._translated():
            with open(written, "xb") as file:
                file.write(manifest)
                file.flush()
                sync(file.fileno())
            if self._directory:
                for path, _, _ in os.walk(self._inner):
                    sync_directory(Path(path))
                self._publish([(self._inner, self._target)])
                return self._target / name
            beside = manifest_of(self._target)
            self._publish([(written, beside), (self._inner, self._target)])
            return beside

    def _publish(self, names: list[tuple[Path, Path]]) -> None:
        published: list[Path] = []
        try:
            for hidden, visible in names:
                publish(hidden, visible)
                published.append(visible)
            sync_directory(self._target.parent)
        except BaseException:
            for path in published:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            raise


_LONGEST_NAME = 255
"""Most bytes of a name in a file system."""


def partition_name(name: str, value: str, *, encode_letters: bool = False) -> str:
    """Return the directory NAME=VALUE of a partition, percent-encoded as in Hive; with `encode_letters` letters, too.

    Raises UsageError for a value whose name is too long.
    """
    text = "".join(f"%{byte:02X}" for byte in value.encode()) if encode_letters else quote(value, safe="")
    if len(name) + 1 + len(text) > _LONGEST_NAME:
        raise UsageError(
            f"--partition-by {name}: the value {value!r} makes a directory name of {len(name) + 1 + len(text)} bytes,"
            f" and file systems take {_LONGEST_NAME}",
            hint=f"leave {name} out of --partition-by, or export that one by itself: --{_OPTIONS[name]} '{value}'",
        )
    return f"{name}={text}"


_OPTIONS = {"source": "source", "event_type": "type"}


def manifest_of(file: Path) -> Path:
    """Return the path of the manifest beside a single file."""
    return file.with_name(f"{file.name}.manifest.json")


def _expect_new(target: Path, *, directory: bool) -> None:
    """Raise UsageError unless something new can be created there."""
    if directory and target.is_dir():
        if any(target.iterdir()):
            raise UsageError(f"{target} is not empty", hint="--out a new or empty directory; pik overwrites nothing")
    else:
        for path in (target,) if directory else (target, manifest_of(target)):
            if os.path.lexists(path):
                raise exists_already(path)
    expect_directory(target)


@contextmanager
def hidden_directory(target: Path) -> Iterator[Path]:
    """Create a directory beside `target`, and remove it when the context ends. Raises OSError.

    Its lock is held until then, so that the next export to the same target knows whether its process is alive.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        handle = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without such locks, where nothing is ever removed
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():  # it may have been taken for an abandoned one before it was locked
            break
        os.close(handle)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def remove_abandoned(target: Path) -> None:
    """Remove the hidden directories that killed processes have left beside `target`, and the manifest of a file that
    one of them had published before the file itself."""
    ours = re.compile(re.escape(_prefix(target)) + "[a-z0-9_]{8}")
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        if ours.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with suppress(OSError), _abandoned(path):
                if not os.path.lexists(target):
                    _unpublish(path, target)
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _abandoned(path: Path) -> Iterator[None]:
    """Hold the lock of a directory. Raises OSError if another process holds it, or the file system has no locks."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _unpublish(path: Path, target: Path) -> None:
    for hidden in path.iterdir():
        visible = target.with_name(hidden.name)
        if hidden.is_file() and visible.exists() and visible.samefile(hidden):
            visible.unlink()


def publish(hidden: Path, visible: Path) -> None:
    """Rename what is hidden. Raises UsageError if another file has got that name meanwhile, OSError."""
    try:
        if hidden.is_dir():
            hidden.rename(visible)  # which replaces an empty directory and nothing else
        else:
            take_name(hidden, visible)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise exists_already(visible) from None
        raise


def exists_already(path: Path) -> UsageError:
    """Return the error for a name that is in use."""
    return UsageError(f"{path} exists already", hint="--out another name; pik overwrites nothing")


def _prefix(target: Path) -> str:
    return f".{target.name}.pik-"


class StreamOutput:
    """Writes rows to an open stream as they come, instead of files; nothing can be taken back. The stream's errors pass
    through."""

    def __init__(self, stream: BinaryIO, exporter: Exporter) -> None:
        self._stream, self._sink = stream, exporter.sink(stream)

    def write(self, _key: tuple[str, ...], rows: Rows) -> None:
        """Append rows; there are no partitions."""
        self._sink.write(rows)

    def finish(self) -> tuple[ExportedFile, ...]:
        """Write what the format needs at its end."""
        self._sink.close()
        self._stream.flush()
        return ()

    def publish(self, _manifest: bytes) -> None:
        """Do nothing: a stream has no manifest."""
