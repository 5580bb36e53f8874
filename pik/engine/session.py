"""DuckDB connections that can read the named files and nothing else, and never change their mind about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pik.errors import EngineError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "1GB"
"""What DuckDB may hold before it spills to a temporary directory."""


def literal(text: str) -> str:
    """SQL of a string constant."""
    return "'" + text.replace("'", "''") + "'"


def file_list(files: Sequence[Path]) -> str:
    """SQL of a list of file names."""
    return "[" + ", ".join(literal(str(file.absolute())) for file in files) + "]"


@contextmanager
def session(files: Sequence[Path] = (), threads: int | None = None) -> Iterator[DuckDBPyConnection]:
    """A connection without access to anything but `files`. `threads` None: as many as there are processors.

    Raises EngineError for whatever DuckDB says that nobody inside understood better, KeyboardInterrupt for Ctrl-C.
    """
    import duckdb

    with TemporaryDirectory(prefix="pik-", ignore_cleanup_errors=True) as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": scratch,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": False,
        }
        if threads is not None:
            settings["threads"] = threads
        db = duckdb.connect(":memory:", config=settings)
        try:
            db.execute("SET TimeZone = 'UTC'")
            # Raw streams past the tables of skipped deliveries and of entities, never the other way round.
            db.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            db.execute(f"SET allowed_paths = {file_list(files)}")
            db.execute("SET enable_external_access = false")
            db.execute("SET lock_configuration = true")
            yield db
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except duckdb.Error as error:
            raise EngineError(f"DuckDB failed: {first_line(error)}") from None
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # how its Python module tells Ctrl-C
                raise KeyboardInterrupt from None
            raise
        finally:
            db.close()


def first_line(error: Exception) -> str:
    """What DuckDB says, without its picture of the statement."""
    return str(error).split("\n", 1)[0].strip()
