"""The files of an export: written where nobody looks, shown all at once when they are complete and on disk."""

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

from pik.errors import StoreError, UsageError, shell_line
from pik.ports.engine import Exporter, Rows, Sink
from pik.runtime.spool import sync, sync_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OPEN_FILES = 64
"""Files of partitions that are open at once; one that is closed and comes again gets one more part."""

MANIFEST = "_manifest.json"
"""In a directory; readers of data sets skip names with an underscore in front."""


class ExportedFile(msgspec.Struct, frozen=True):
    """A file: its path below the directory (or its name), rows, size in bytes, SHA-256 in hex."""

    path: str
    rows: int
    bytes: int
    sha256: str


class _Digested(RawIOBase):
    """A new file that knows the digest of what is written to it."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=1 << 20)  # noqa: SIM115 - closed by `finish` or `abandon`
        self._digest = sha256()
        self._abandoned = False
        self.size = 0

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
        """Make it durable, and tell its digest."""
        self._file.flush()
        sync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Give the file up: whoever still wants to write to it may, to no effect."""
        self._abandoned = True
        with suppress(OSError):
            self._file.close()


class _Writing:
    """A file being written."""

    def __init__(self, path: Path, exporter: Exporter) -> None:
        self.path = path
        self.file = _Digested(path)
        self.rows = 0
        try:
            self.sink: Sink = exporter.sink(cast(BinaryIO, self.file))
        except BaseException:
            self.file.abandon()
            raise

    def write(self, rows: Rows) -> None:
        self.sink.write(rows)
        self.rows += len(rows)


class Output:
    """A context manager: what was not published when it ends is removed.

    All happens in a hidden directory beside the target, on the same file system, so that a name publishes it.
    """

    def __init__(self, target: Path, exporter: Exporter, *, directory: bool, dry_run: bool) -> None:
        self._target, self._exporter = target.absolute(), exporter
        self._directory, self._dry_run = directory, dry_run
        self._open: dict[tuple[str, ...], _Writing] = {}
        self._parts: Counter[tuple[str, ...]] = Counter()
        self._places: dict[tuple[str, ...], str] = {}
        self._taken: set[str] = set()
        self._done: list[ExportedFile] = []
        self._hidden = self._inner = self._target  # set when entered
        self._leaving = ExitStack()

    def __enter__(self) -> Output:
        if not self._dry_run:
            with self._translated():
                sweep(self._target)
        _check(self._target, directory=self._directory)
        if not self._dry_run:
            with self._translated():
                self._hidden = self._leaving.enter_context(hidden_directory(self._target))
                self._inner = self._hidden / self._target.name
                if self._directory:
                    self._inner.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for writing in self._open.values():
            writing.file.abandon()
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
        """Append rows to the file of a partition. Raises StoreError, and UsageError for one that can have no name."""
        if self._directory:
            self._place(key)
        if self._dry_run:
            return
        with self._translated():
            writing = self._open.pop(key, None) or self._begin(key)
            self._open[key] = writing  # at the end: the first is the one that was not used for longest
            writing.write(rows)

    def _begin(self, key: tuple[str, ...]) -> _Writing:
        if len(self._open) >= OPEN_FILES:
            self._close(next(iter(self._open)))
        path = self._inner
        if self._directory:
            path /= self._place(key)
            path.mkdir(parents=True, exist_ok=True)
            path /= f"part-{self._parts[key]}{self._exporter.suffix}"
            self._parts[key] += 1
        return _Writing(path, self._exporter)

    def _place(self, key: tuple[str, ...]) -> str:
        """The partition's directory below the target. Raises UsageError if no file system takes its name."""
        if key not in self._places:
            names = list(zip(self._exporter.layout.partition_by, key, strict=True))
            place = "/".join(partition_name(name, value) for name, value in names)
            if place.lower() in self._taken:  # by a partition that a file system without case would not tell apart
                place = "/".join(partition_name(name, value, encode_letters=True) for name, value in names)
            self._taken.add(place.lower())
            self._places[key] = place
        return self._places[key]

    def _close(self, key: tuple[str, ...]) -> None:
        writing = self._open[key]
        writing.sink.close()
        digest = writing.file.finish()
        del self._open[key]
        name = str(writing.path.relative_to(self._inner)) if self._directory else self._target.name
        self._done.append(ExportedFile(name, writing.rows, writing.file.size, digest))

    def finish(self) -> tuple[ExportedFile, ...]:
        """Complete the files, and tell them in order of their paths. Without partitions there is always one."""
        with self._translated():
            if not self._dry_run and not self._exporter.layout.partition_by and not self._parts and not self._open:
                self._open[()] = self._begin(())
            while self._open:
                self._close(next(iter(self._open)))
        return tuple(sorted(self._done, key=lambda file: file.path))

    def publish(self, manifest: bytes) -> Path | None:
        """Show the files under their names, with the manifest, whose path is returned. After `finish`."""
        if self._dry_run:
            return None
        name = MANIFEST if self._directory else manifest_of(self._target).name
        written = (self._inner if self._directory else self._hidden) / name
        with self._translated():
            file = _Digested(written)
            try:
                file.write(manifest)
                file.finish()
            except BaseException:
                file.abandon()
                raise
            if self._directory:
                _sync_below(self._inner)
                self._show([(self._inner, self._target)])
                return self._target / name
            beside = manifest_of(self._target)
            self._show([(written, beside), (self._inner, self._target)])
            return beside

    def _show(self, names: list[tuple[Path, Path]]) -> None:
        shown: list[Path] = []
        try:
            for hidden, visible in names:
                show(hidden, visible)
                shown.append(visible)
            sync_directory(self._target.parent)
        except BaseException:
            for path in shown:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            raise


_LONGEST_NAME = 255
"""Bytes that file systems take in a name."""


def partition_name(name: str, value: str, *, encode_letters: bool = False) -> str:
    """The directory NAME=VALUE of a partition, percent-encoded, as Hive has it; with `encode_letters` letters, too.

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
    """The manifest beside a single file."""
    return file.with_name(f"{file.name}.manifest.json")


def _check(target: Path, *, directory: bool) -> None:
    """Raises UsageError unless something new can be made there."""
    if directory and target.is_dir():
        if any(target.iterdir()):
            raise UsageError(f"{target} is not empty", hint="--out a new or empty directory; pik overwrites nothing")
    else:
        for path in (target,) if directory else (target, manifest_of(target)):
            if os.path.lexists(path):
                raise exists_already(path)
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}", hint=shell_line("mkdir", "-p", str(target.parent)))


def _sync_below(directory: Path) -> None:
    for path, _, _ in os.walk(directory):
        sync_directory(Path(path))


_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def hidden_directory(target: Path) -> Iterator[Path]:
    """A new directory beside `target`, removed when the context ends. Raises OSError."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        handle = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without such locks, where nobody sweeps
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():  # somebody may have taken it for a dead one before it was locked
            break
        os.close(handle)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def sweep(target: Path) -> None:
    """Remove the hidden directories that killed processes have left beside `target`, and a file's manifest that one of
    them had shown already, the file itself not yet."""
    ours = re.compile(re.escape(_prefix(target)) + "[a-z0-9_]{8}")
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        if ours.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with suppress(OSError), _dead(path):
                if not os.path.lexists(target):
                    _unshow(path, target)
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _dead(path: Path) -> Iterator[None]:
    """Holds the lock of a directory that nobody holds. Raises OSError if somebody does, or nobody could."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _unshow(path: Path, target: Path) -> None:
    for hidden in path.iterdir():
        shown = target.with_name(hidden.name)
        if hidden.is_file() and shown.exists() and shown.samefile(hidden):
            shown.unlink()


def show(hidden: Path, visible: Path) -> None:
    """Give what is hidden its name. Raises UsageError where another file has taken it meanwhile, OSError."""
    if hidden.is_dir():
        hidden.rename(visible)  # which replaces an empty directory and nothing else
        return
    try:
        try:
            os.link(hidden, visible)  # unlike rename, link never replaces
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(visible, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # take the name, and replace ourselves
            hidden.rename(visible)
    except FileExistsError:
        raise exists_already(visible) from None


def exists_already(path: Path) -> UsageError:
    """The error for a name that is taken."""
    return UsageError(f"{path} exists already", hint="--out another name; pik overwrites nothing")


def _prefix(target: Path) -> str:
    return f".{target.name}.pik-"


class StreamOutput:
    """Takes what Output takes. The stream's errors pass through."""

    def __init__(self, stream: BinaryIO, exporter: Exporter) -> None:
        self._stream = stream
        self._exporter = exporter
        self._sink: Sink | None = None

    def __enter__(self) -> StreamOutput:
        self._sink = self._exporter.sink(self._stream)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Nothing is left to be removed."""

    def write(self, key: tuple[str, ...], rows: Rows) -> None:  # noqa: ARG002 - there are no partitions
        """Append rows."""
        assert self._sink is not None
        self._sink.write(rows)

    def finish(self) -> tuple[ExportedFile, ...]:
        """Write what the format needs at its end."""
        assert self._sink is not None
        self._sink.close()
        self._stream.flush()
        return ()

    def publish(self, manifest: bytes) -> None:
        """There is no place for a manifest."""
