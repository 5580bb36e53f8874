"""SQLite as the local store uses it: write-ahead log, durable commits, patience; its errors are translated here.

A database is also read where this process cannot write: a snapshot, a read-only mount, another user's, a full disk.
SQLite needs to write beside a database with a write-ahead log even to read it, unless its files are there already.
Where no log lies beside the database, nothing can be in it, and SQLite may take the file as it is (`immutable`); if the
file is written to meanwhile, the reader notices and gives up. Where a log lies there, ignoring it would silently lose
what was committed last, so database and log are copied and the copy is read.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakSet

from pik.errors import Busy, PikError, StoreError
from pik.runtime.interaction import called_from_c, raise_lost
from pik.stores.state_rows import row_digest

BUSY_SECONDS = 60.0
"""How long SQLite itself waits for a lock."""

PATIENCE_SECONDS = 600.0
"""How long we ask SQLite again. Writers hold the lock for well under a second each; only a stuck one lasts longer."""

_FETCHED = 1000  # rows at a time, where they are iterated over

_Done = TypeVar("_Done")
_Connection = TypeVar("_Connection", bound=sqlite3.Connection)


class Database:
    """One database file. Connects when first used, in each process and thread by itself: it is pickled as its path.

    `schema` is a series of statements, each ending with `;` at the end of its line. `repair` is the hint for a file
    that turns out to be damaged.
    """

    def __init__(self, path: Path, schema: str, repair: str = "restore it from a backup") -> None:
        self.path = path
        self._schema = schema
        self.repair = repair
        self._mine = _Connections()

    def __reduce__(self) -> tuple[type[Database], tuple[Path, str, str]]:
        return Database, (self.path, self._schema, self.repair)

    def read(self) -> sqlite3.Connection:
        """A connection for reading what is committed now. Rows that are still iterated over keep their own snapshot
        and stop nobody. Raises StoreError, here and while reading."""
        for reader in self._mine.readers:
            if not reader.cursors:  # a connection sees no newer state while one of its cursors is at work
                return reader
        reader = self._reader()
        self._mine.readers.append(reader)
        return reader

    def _reader(self) -> _Reader:
        def kind(*args: Any, **options: Any) -> _Reader:
            return _Reader(self, *args, **options)

        if is_read_only(self.path) and self.path.exists() and not has_log(self.path):
            return self._immutable(kind)
        try:
            return self._connected(kind, cache_kib=8192)  # also beside files that another process has left or uses now
        except StoreError:
            if not self.path.exists() or not (is_read_only(self.path) or is_full(self.path)):
                raise
            if not has_log(self.path):
                return self._immutable(kind)
            return self._connected(kind, cache_kib=8192, place=private_copy(self.path))

    def _immutable(self, kind: Callable[..., _Reader]) -> _Reader:
        before = stamp(self.path)
        reader = self._connected(kind, cache_kib=8192, place=immutable_url(self.path), uri=True)
        reader.stamp = before
        return reader

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, durable when the context ends, or with an error nothing. Inside of another one of
        this thread it is a part of that. Waits for other writers. Raises StoreError."""
        connection = self.writer()
        inside: bool = connection.in_transaction
        if inside:  # the caller's, who ends it
            yield connection
            return
        with self.translated():
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                yield connection
                patiently(lambda: connection.execute("COMMIT"))
            except BaseException:
                if connection.in_transaction:  # a full disk may have ended it already
                    connection.rollback()
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the state of one moment until the context ends. Raises StoreError, here and while
        reading."""
        connection = self._reader()
        try:
            with self.translated():
                connection.execute("BEGIN")
                yield connection
        finally:
            connection.close()

    def writer(self) -> sqlite3.Connection:
        """The connection that `write` uses, outside of a transaction: for temporary tables."""
        if self._mine.writer is None:
            self._mine.writer = self._connected(sqlite3.Connection, cache_kib=32768)
        return self._mine.writer

    def reconnect(self) -> None:
        """Let go of a file that another one has taken the place of."""
        if self._mine.file not in (None, _file(self.path)):
            self.close()

    def close(self) -> None:
        """Close this thread's connections; the next use opens others."""
        for connection in self._mine.all():
            connection.close()
        self._mine = _Connections()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turns SQLite's errors into StoreError and Busy; those that tell of a mistake of ours stay as they are. An
        interruption inside of a function that SQLite calls comes out of it as one of its errors: it is raised again."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except UnicodeDecodeError as error:  # of a text that nobody wrote so
            raise StoreError(f"{self.path.name} is damaged: {error}", hint=self.repair) from error
        except sqlite3.DatabaseError as error:
            raise_lost()
            raise self._store_error(error) from error

    def create(self) -> None:
        """Make the file and its tables, unless they are there. Raises StoreError."""
        with self.translated():
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                patiently(lambda: self._create(connection))
            finally:
                connection.close()

    def _connected(
        self, kind: Callable[..., _Connection], cache_kib: int, place: Path | str | None = None, *, uri: bool = False
    ) -> _Connection:
        if not self.path.exists():  # SQLite would make an empty one, which answers every question wrongly
            raise StoreError(f"{self.path} is missing", hint=self.repair)
        self._mine.file = self._mine.file or _file(self.path)
        if not _connected:
            atexit.register(_close_all)
        _connected.add(self)
        with self.translated():
            connection = kind(place or self.path, uri=uri, timeout=BUSY_SECONDS, isolation_level=None)
            connection.create_function("row_digest", -1, called_from_c(row_digest), deterministic=True)
            patiently(lambda: self._prepare(connection, cache_kib))
        return connection

    def _prepare(self, connection: sqlite3.Connection, cache_kib: int) -> None:
        # Reading the log first spares a writer's lock, and a write at all, wherever the database is there already.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal" and not is_read_only(self.path):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # for macOS, as pik.runtime.spool has it; elsewhere it does nothing
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute(f"PRAGMA cache_size = -{cache_kib:d}")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            raise StoreError(f"{self.path} is empty", hint=self.repair)

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody did meanwhile
                for statement in self._schema.split(";\n"):
                    connection.execute(statement)
                connection.execute("PRAGMA user_version = 1")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise

    def _store_error(self, error: sqlite3.DatabaseError) -> PikError:
        name = self.path.name
        code = _code(error)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_full(self.path)):
            return StoreError(
                f"no space left on the disk for {self.path}",
                hint=f"make room on the disk of {self.path.parent}, then run the same command again",
            )
        match code:
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
                if is_read_only(self.path):
                    hint = "commands that only read work on it; for a copy to work with: pik pull --into DIR"
                    return StoreError(f"the store at {self.path.parent} is read-only", hint=hint)
                return StoreError(
                    f"no access to {self.path}: {error}", hint="look at the permissions of the file and its directory"
                )
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return StoreError(f"{name} is damaged: {error}", hint=self.repair)
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return Busy(f"another process has kept {name} locked", hint="end it, then run this again")
        return StoreError(f"{self.path} cannot be used: {error}", hint="look at the disk and its permissions")


_connected: WeakSet[Database] = WeakSet()
"""Databases of this process, to be closed when it ends: the last one to close a database takes its log into it. A log
that stays behind is a second file whose loss or damage would silently take committed changes along."""


def _close_all() -> None:
    for database in list(_connected):
        with suppress(sqlite3.Error):  # what is committed is durable, wherever it is
            database.close()


class _Connections(threading.local):
    """The connections of one thread."""

    def __init__(self) -> None:
        self.readers: list[_Reader] = []
        self.writer: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None  # which they are connected to

    def all(self) -> list[sqlite3.Connection]:
        return [*self.readers, *([self.writer] if self.writer else [])]


class _Reader(sqlite3.Connection):
    """Knows which of its cursors are still in use."""

    def __init__(self, database: Database, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.database = database
        self.cursors: WeakSet[_Rows] = WeakSet()
        self.stamp: Stamp | None = None  # of a file that is read without locks

    def execute(self, *args: Any) -> _Rows:
        rows = self.cursor(_Rows)
        self.cursors.add(rows)
        return rows.execute(*args)


class _Rows(sqlite3.Cursor):
    """A cursor that raises our errors."""

    def execute(self, *args: Any) -> _Rows:
        with self._translated():
            patiently(lambda: super(_Rows, self).execute(*args))
        return self

    def fetchone(self) -> Any:
        with self._translated():
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        with self._translated():
            return super().fetchall()

    def __iter__(self) -> Any:
        with self._translated():
            while rows := self.fetchmany(_FETCHED):
                yield from rows

    @contextmanager
    def _translated(self) -> Iterator[None]:
        reader = self.connection
        assert isinstance(reader, _Reader)
        with reader.database.translated():
            try:
                yield
            finally:
                if reader.stamp is not None:
                    unchanged(reader.database.path, reader.stamp)


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # connecting tells why
    return found.st_dev, found.st_ino


def patiently(action: Callable[[], _Done]) -> _Done:
    """The result of `action`, tried again while SQLite says that the database is locked. SQLite waits by itself nearly
    always; it does not while the log is being set up, recovered or closed."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


_TRIES = 5
_ROOM = 1 << 17

_copies: dict[tuple[Path, object], Path] = {}
_directories: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends."""
_guard = threading.Lock()

Stamp = tuple[tuple[int, int, int] | None, ...]
"""What shows that a database or its log has been written to."""


def is_read_only(path: Path) -> bool:
    """Whether this process must not write beside the file."""
    return path.parent.is_dir() and not os.access(path.parent, os.W_OK)


def is_full(path: Path) -> bool:
    """Whether the disk has no room for what SQLite writes beside the file, even to read it."""
    try:
        found = os.statvfs(path.parent)
    except OSError:  # the directory is gone
        return False
    return found.f_bavail * found.f_frsize < _ROOM


def has_log(path: Path) -> bool:
    """Whether a write-ahead log with anything in it lies beside the database."""
    try:
        return os.stat(_log(path)).st_size > 0
    except FileNotFoundError:
        return False


def immutable_url(path: Path) -> str:
    """The URL with which SQLite reads the file as it is, without a log and without locks."""
    return f"file:{quote(os.fsencode(path.absolute()))}?immutable=1"


def stamp(path: Path) -> Stamp:
    """The state of database and log; another one later means that somebody has written."""
    return _stamp(path), _stamp(_log(path))


def unchanged(path: Path, before: Stamp) -> None:
    """Raises Busy if somebody has written to the database since."""
    if stamp(path) != before:
        raise Busy(f"{path} was written to while it was being read", hint="run the same command again")


def private_copy(path: Path) -> Path:
    """A copy of the database with its log, one for each state that they have, removed when this process ends.

    Raises Busy while somebody keeps writing, StoreError if there is no room for it.
    """
    with _guard:
        for _ in range(_TRIES):
            before = stamp(path)
            if (path, before) in _copies:
                return _copies[path, before]
            copy = _copied(path)
            if stamp(path) == before:
                _copies[path, before] = copy
                return copy
    raise Busy(f"{path} is being written to", hint="run the same command again")


def _copied(path: Path) -> Path:
    try:
        directory = tempfile.TemporaryDirectory(prefix="pik-read-only-")
        _directories.append(directory)
        copy = Path(directory.name) / path.name
        shutil.copyfile(path, copy)
        if has_log(path):
            shutil.copyfile(_log(path), _log(copy))
    except OSError as error:
        raise StoreError(
            f"cannot copy {path} to {tempfile.gettempdir()}: {error.strerror}",
            hint="the store is read-only, so its log is read from a copy; TMPDIR names a directory with room for it",
        ) from error
    return copy


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
