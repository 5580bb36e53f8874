"""Where the files of an export appear: made in a hidden directory, and published at once when they are complete."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import msgspec

from pik.errors import UsageError
from pik.runtime.new_file import expect_directory, take_name
from pik.runtime.storage import sync, sync_directory
from pik.usecases.export.parts import PartFile, writing_to

MANIFEST = "_manifest.json"
"""In a directory; readers of data sets skip names with an underscore in front."""


class ExportedFile(msgspec.Struct, frozen=True):
    """A file: its path below the directory (or its name), rows, size in bytes, SHA-256 in hex."""

    path: str
    rows: int
    bytes: int
    sha256: str


class ExportPlace:
    """The target of an export, a directory or a single file; a context manager that removes at its end what was not
    published.

    Files are written in `parts`, take their places in a hidden directory beside the target, and are published with it.
    A dry run has no directories.
    """

    def __init__(self, target: Path, partition_by: Sequence[str], *, directory: bool, dry_run: bool) -> None:
        self.target = target.absolute()
        self._partition_by, self._is_directory, self._dry_run = partition_by, directory, dry_run
        self._directories: dict[tuple[str, ...], str] = {}
        self._used: set[str] = set()
        self._hidden = self._inner = self.parts = self.target  # set when entered
        self._leaving = ExitStack()

    def __enter__(self) -> ExportPlace:
        if not self._dry_run:
            with writing_to(self.target):
                remove_abandoned(self.target)
        expect_new_target(self.target, directory=self._is_directory)
        if not self._dry_run:
            with writing_to(self.target):
                self._hidden = self._leaving.enter_context(hidden_directory(self.target))
                self._inner = self._hidden / self.target.name
                self.parts = self._hidden / f"{self.target.name}.parts"  # not the name of anything that is published
                self.parts.mkdir()
                if self._is_directory:
                    self._inner.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._leaving.close()

    def partition(self, key: tuple[str, ...]) -> str:
        """Return the partition's directory below the target. Raises UsageError if its name is too long."""
        if key not in self._directories:
            names = list(zip(self._partition_by, key, strict=True))
            directory = "/".join(partition_name(name, value) for name, value in names)
            if directory.lower() in self._used:  # by a partition that is the same to a case-insensitive file system
                directory = "/".join(partition_name(name, value, encode_letters=True) for name, value in names)
            self._used.add(directory.lower())
            self._directories[key] = directory
        return self._directories[key]

    def take(self, file: PartFile, name: str) -> ExportedFile:
        """Give one of the files in `parts` its place: below a directory with this name. Raises StoreError, and
        UsageError if the name of its partition is too long."""
        path, below = self._inner, self.target.name
        if self._is_directory:
            directory = self._inner / self.partition(file.key)
            path = directory / name
            below = str(path.relative_to(self._inner))
        with writing_to(self.target):
            path.parent.mkdir(parents=True, exist_ok=True)
            (self.parts / file.name).rename(path)
        return ExportedFile(below, file.rows, file.bytes, file.sha256)

    def publish(self, manifest: bytes) -> Path:
        """Give the target its name, with what has been taken and the manifest; return the path of this. Raises
        StoreError, and UsageError if something else has got a name meanwhile."""
        name = MANIFEST if self._is_directory else manifest_of(self.target).name
        written = (self._inner if self._is_directory else self._hidden) / name
        with writing_to(self.target):
            with open(written, "xb") as file:
                file.write(manifest)
                file.flush()
                sync(file.fileno())
            if self._is_directory:
                for path, _, _ in os.walk(self._inner):
                    sync_directory(Path(path))
                self._publish([(self._inner, self.target)])
                return self.target / name
            beside = manifest_of(self.target)
            self._publish([(written, beside), (self._inner, self.target)])
            return beside

    def _publish(self, names: list[tuple[Path, Path]]) -> None:
        published: list[Path] = []
        try:
            for hidden, visible in names:
                publish(hidden, visible)
                published.append(visible)
            sync_directory(self.target.parent)
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


def expect_new_target(target: Path, *, directory: bool) -> None:
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
