"""DuckDB connections that can read the named files and nothing else, with their configuration locked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import TYPE_CHECKING

from pik.errors import EngineError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_MB = 256
"""What DuckDB may hold before it spills to a temporary directory. The process around it needs some 100 MiB."""

THREAD_MB, GROUPS_MB = 64, 64
"""What a connection needs for each thread and for its groups: a thread that reads raw holds 32 MiB whatever is set.
With one thread more it would nearly always run out of memory, and compute all of it again."""

DISK_LIMIT = "16GB"
"""What the temporary directory may hold."""

CHECK_SECONDS = 10.0
"""What checking one definition may take."""

SCAN_SECONDS = 60.0
DELIVERY_SECONDS = 0.0005
"""What one metric may take: SCAN_SECONDS, and DELIVERY_SECONDS for each delivery. Ordinary ones take a hundredth."""

_AGAIN = 0.05


def literal(text: str) -> str:
    """Return the SQL of a string constant."""
    return "'" + text.replace("'", "''") + "'"


def file_list(files: Sequence[Path]) -> str:
    """Return the SQL of a list of file names."""
    return "[" + ", ".join(literal(str(file.absolute())) for file in files) + "]"


class OutOfMemory(EngineError):
    """A statement needs more memory than the limit, or more disk to spill to, than it has."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"the metrics need more memory than the engine has: {first_line(error)}",
            hint="compute one metric at a time (--metric NAME), or give it a smaller bucket; what does not fit into "
            "memory goes to the directory for temporary files (TMPDIR), which needs room for it",
        )


def threads_for(wanted: int | None, parts: int) -> int:
    """Return how many threads a connection gets: the wanted ones (None: one per processor), but no more than its part
    of the memory allows."""
    on_mac = not hasattr(os, "sched_getaffinity")
    processors = os.cpu_count() or 1 if on_mac else len(os.sched_getaffinity(0))
    return max(1, min(wanted or processors, (MEMORY_MB // parts - GROUPS_MB) // THREAD_MB))


@contextmanager
def session(files: Sequence[Path] = (), threads: int = 1, parts: int = 1) -> Iterator[DuckDBPyConnection]:
    """Open a connection without access to anything but `files`, with one of so many parts of the memory.

    Raises EngineError for those of DuckDB's errors that are not handled inside, KeyboardInterrupt for Ctrl-C.
    """
    import duckdb

    with TemporaryDirectory(prefix="pik-", ignore_cleanup_errors=True) as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{MEMORY_MB // parts}MB",
            "threads": threads,
            "temp_directory": scratch,
            "max_temp_directory_size": DISK_LIMIT,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": False,
        }
        db = duckdb.connect(":memory:", config=settings)
        try:
            db.execute("SET TimeZone = 'UTC'")
            # Raw is streamed past the tables of skipped deliveries and of entities, never the other way round.
            db.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            db.execute(f"SET allowed_paths = {file_list(files)}")
            db.execute("SET enable_external_access = false")
            db.execute("SET lock_configuration = true")
            yield db
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except duckdb.OutOfMemoryException as error:
            raise OutOfMemory(error) from None
        except duckdb.Error as error:
            raise EngineError(f"DuckDB failed: {first_line(error)}") from None
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # how its Python module reports Ctrl-C
                raise KeyboardInterrupt from None
            raise
        finally:
            db.close()


@contextmanager
def bounded(db: DuckDBPyConnection, seconds: float, what: str) -> Iterator[None]:
    """Interrupt what runs on the connection after so many seconds, and raise EngineError: `what` took too long."""
    import duckdb

    done, late = Event(), Event()

    def watch() -> None:
        if done.wait(seconds):
            return
        late.set()
        while not done.wait(_AGAIN):  # an interrupt between two statements stops neither
            db.interrupt()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except (duckdb.InterruptException, RuntimeError):
        if not late.is_set():
            raise
        raise EngineError(f"{what} took more than {seconds:,.0f} s and was stopped") from None
    finally:
        done.set()
        watcher.join()


def first_line(error: Exception) -> str:
    """Return the first line of DuckDB's message, without its picture of the statement."""
    return str(error).split("\n", 1)[0].strip()
