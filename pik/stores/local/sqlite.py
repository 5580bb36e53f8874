"""SQLite as the local store uses it: write-ahead log, durable commits, patience; its errors are translated here.

Where this process cannot write (a snapshot, a read-only mount, another user's store, a full disk), SQLite cannot even
read a database with a write-ahead log, unless its files are there already. Where no log lies beside the database,
nothing can be in it, and SQLite may take the file as it is (`immutable`); if the file is written to meanwhile, the
reader notices and gives up. Where a log lies there, ignoring it would silently lose what was committed last, so
database and log are copied and the copy is read.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakSet

from pik.errors import Busy, PikError, StoreError
from pik.ports.index import unheard
from pik.runtime import called_from_c, raise_lost
from pik.runtime.retries import Backoff, retry
from pik.runtime.storage import hint_for_room
from pik.stores.local.access import access_error, is_read_only, make_file, read_only_error
from pik.stores.local.private_copy import Stamp, has_log, private_copy, stamp_of
from pik.stores.state_rows import row_digest

_FETCHED = 1000  # rows at a time, where they are iterated over
_READER_KIB, _WRITER_KIB = 8192, 32768  # page cache
_UNTOLD = 5.0  # seconds that a writer waits for a lock before it says so

_Done = TypeVar("_Done")
_Connection = TypeVar("_Connection", bound=sqlite3.Connection)


class EmptyDatabase(StoreError):
    """A database has no tables: a process was killed while it made them, or the file was cut."""


class Database:
    """One database file. Each process and thread opens its own connections when it first uses it; pickled as its path.

    `schema` is a series of statements, each ending with `;` at the end of its line. `repair` is the hint for a damaged
    file. SQLite itself waits `busy` seconds for a lock, and is asked again for `patience` seconds: writers hold the
    lock for well under a second each, only a stuck one lasts longer. `waiting` is told of one.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        repair: str = "restore it from a backup",
        *,
        busy: float = 60.0,
        patience: float = 600.0,
        waiting: Callable[[str], None] = unheard,
    ) -> None:
        self.path, self.repair, self._waiting = path, repair, waiting
        self._schema, self._busy = schema, busy
        self._backoff = Backoff(first=0.02, longest=0.02, attempts=None, patience=patience)
        self._mine = _Connections()

    def __reduce__(self) -> tuple[type[Database], tuple[Path, str, str]]:
        return Database, (self.path, self._schema, self.repair)

    def read(self) -> sqlite3.Connection:
        """Return a connection that reads what is committed now. Rows that are still iterated over keep their own
        snapshot and block nothing. Raises StoreError, here and while reading."""
        for reader in self._mine.readers:
            if not reader.cursors:  # a connection sees no newer state while one of its cursors is in use
                return reader
        reader = self._reader()
        self._mine.readers.append(reader)
        return reader

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that sees the state of one moment until the context ends. Raises StoreError, here and
        while reading."""
        # A generator that holds a snapshot may be closed by the garbage collector, in any thread.
        connection = self._reader(check_same_thread=False)
        try:
            with self.translated():
                connection.execute("BEGIN")
                yield connection
        finally:
            connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction: all of it is durable when the context ends, or with an error nothing is there. Inside
        another one of this thread it is a part of that. Waits for other writers. Raises StoreError."""
        connection = self.writer()
        is_inside = connection.in_transaction  # then the outer context ends it
        with nullcontext() if is_inside else self._transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    @contextmanager
    def staging(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction that fills temporary tables only, and so waits for nothing and locks nothing."""
        with self._transaction(self.writer(), "BEGIN"):
            yield self.writer()

    def writer(self) -> sqlite3.Connection:
        """Return the connection that `write` uses, outside of a transaction: for temporary tables."""
        if self._mine.writer is None:
            if self.path.exists() and not os.access(self.path, os.W_OK):  # SQLite would open it nevertheless, and
                raise read_only_error(self.path.parent)  # leave a log beside it that its owner cannot write to
            self._mine.writer = self._connected(sqlite3.Connection, self.path, _WRITER_KIB)
            self._mine.writer.execute(f"PRAGMA busy_timeout = {min(self._busy, _UNTOLD) * 1000:.0f}")
        return self._mine.writer

    def reconnect(self) -> None:
        """Close the connections to a file that another one has replaced."""
        if self._mine.file not in (None, _identity(self.path)):
            self.close()

    def close(self) -> None:
        """Close this thread's connections; the next use opens others."""
        for connection in (*self._mine.readers, self._mine.writer):
            if connection is not None:
                connection.close()
        self._mine = _Connections()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLite's errors into StoreError and Busy; those that show a mistake of ours stay as they are. An
        interruption inside a function that SQLite calls comes out of it as one of its errors: it is raised again."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except UnicodeDecodeError as error:  # damage: every text was written as UTF-8
            raise StoreError(f"{self.path.name} is damaged: {error}", hint=self.repair) from error
        except sqlite3.DatabaseError as error:
            raise_lost()
            raise self._store_error(error) from error

    def create(self) -> None:
        """Make the file and its tables, unless they are there. Raises StoreError."""
        with suppress(OSError):  # connecting raises the reason
            make_file(self.path)
        with self.translated():
            connection = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None)
        try:
            with self._transaction(connection, "BEGIN IMMEDIATE"):
                if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # else another process was faster
                    for statement in self._schema.split(";\n"):
                        connection.execute(statement)
                    connection.execute("PRAGMA user_version = 1")
        finally:
            connection.close()

    def patiently(self, action: Callable[[], _Done]) -> _Done:
        """Return the result of `action`, tried again while SQLite reports that the database is locked. SQLite waits by
        itself nearly always; it does not while the log is being set up, recovered or closed."""
        began = monotonic()
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not _is_locked(error):
                raise
        if monotonic() - began >= _UNTOLD / 2:  # else it was not waited for
            self._waiting(f"waiting for another process, which keeps {self.path} locked")
        return retry(action, _is_locked, self._backoff)

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection, begin: str) -> Iterator[None]:
        with self.translated():
            self.patiently(lambda: connection.execute(begin))
            try:
                yield
                self.patiently(lambda: connection.execute("COMMIT"))
            except BaseException:
                if connection.in_transaction:  # a full disk may have ended it already
                    connection.rollback()
                raise

    def _reader(self, **options: Any) -> _Reader:
        kind = partial(_Reader, self, **options)
        if is_read_only(self.path) and self.path.exists() and not has_log(self.path):
            return self._immutable(kind)
        try:  # also beside files that another process has left or uses now
            return self._connected(kind, self.path, _READER_KIB)
        except StoreError:
            if not self.path.exists() or not (is_read_only(self.path) or is_full(self.path)):
                raise
            if not has_log(self.path):
                return self._immutable(kind)
            return self._connected(kind, private_copy(self.path), _READER_KIB)

    def _immutable(self, kind: Callable[..., _Reader]) -> _Reader:
        before = stamp_of(self.path)
        url = f"file:{quote(os.fsencode(self.path.absolute()))}?immutable=1"  # as it is, without a log and locks
        reader = self._connected(kind, url, _READER_KIB, uri=True)
        reader.stamp = before
        return reader

    def _connected(
        self, kind: Callable[..., _Connection], place: Path | str, cache_kib: int, *, uri: bool = False
    ) -> _Connection:
        if not self.path.exists():  # SQLite would make an empty one, which answers every question wrongly
            raise StoreError(f"{self.path} is missing", hint=self.repair)
        self._mine.file = self._mine.file or _identity(self.path)
        if not _connected:
            atexit.register(_close_all)
        _connected.add(self)
        with self.translated():
            connection = kind(place, uri=uri, timeout=self._busy, isolation_level=None)
            connection.create_function("row_digest", -1, called_from_c(row_digest), deterministic=True)
            self.patiently(lambda: self._prepare(connection, cache_kib))
        return connection

    def _prepare(self, connection: sqlite3.Connection, cache_kib: int) -> None:
        # Reading the log first spares a writer's lock, and a write at all, wherever the database is there already.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal" and not is_read_only(self.path):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # for macOS, as pik.runtime.storage has it; no effect elsewhere
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute(f"PRAGMA cache_size = -{cache_kib:d}")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            raise EmptyDatabase(f"{self.path} is empty", hint=self.repair)

    def _store_error(self, error: sqlite3.DatabaseError) -> PikError:
        name, code = self.path.name, _code(error)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_full(self.path)):
            hint = f"make room on the disk of {self.path.parent}, then run the same command again"
            return StoreError(f"no space left on the disk for {self.path}", hint=hint_for_room(self.path, hint))
        if getattr(error, "sqlite_errorname", None) in _NO_LOCKS:
            return StoreError(f"cannot lock {self.path}: {error}", hint="--store DIR, on a disk with locks")
        match code:
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
                return access_error(self.path, error)
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return StoreError(f"{name} is damaged: {error}", hint=self.repair)
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return Busy(f"another process has kept {name} locked", hint="end it, then run this again")
        return StoreError(f"{self.path} cannot be used: {error}", hint="look at the disk and its permissions")


_connected: WeakSet[Database] = WeakSet()
"""Databases of this process, to be closed when it ends: the last one to close a database takes its log into it. A log
that stays is a second file whose loss or damage would silently take committed changes along."""


def _close_all() -> None:
    for database in list(_connected):
        with suppress(sqlite3.Error):  # what is committed is durable, wherever it is
            database.close()


class _Connections(threading.local):
    """The connections of one thread, and the identity of the file that they are connected to."""

    def __init__(self) -> None:
        self.readers: list[_Reader] = []
        self.writer: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None


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
        with self._translated() as database:
            database.patiently(lambda: super(_Rows, self).execute(*args))
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
    def _translated(self) -> Iterator[Database]:
        reader = self.connection
        assert isinstance(reader, _Reader)
        path = reader.database.path
        with reader.database.translated():
            try:
                yield reader.database
            finally:
                if reader.stamp is not None and stamp_of(path) != reader.stamp:
                    raise Busy(f"{path} was written to while it was being read", hint="run the same command again")


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):  # connecting raises the reason
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


_LOCKING = "PROTOCOL IOERR_LOCK IOERR_RDLOCK IOERR_UNLOCK IOERR_CHECKRESERVEDLOCK IOERR_SHMLOCK IOERR_SHMMAP"
_NO_LOCKS = {f"SQLITE_{name}" for name in _LOCKING.split()}
"""What SQLite reports of network file systems: they have no locks, or no memory that processes share."""

_ROOM = 1 << 17
"""Bytes that SQLite may need beside a database that it only reads."""


def is_full(path: Path) -> bool:
    """Return whether the disk has no room for what SQLite writes beside the file, even to read it."""
    try:
        return shutil.disk_usage(path.parent).free < _ROOM
    except OSError:  # the directory is gone
        return False
