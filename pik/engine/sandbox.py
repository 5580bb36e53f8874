"""What the SQL of a definition can reach and cost.

Connections read the named files and nothing else, with their configuration locked, and within bounds of memory and
time. A definition names the columns of the view `event` and listed functions only: each is exact or refused for its
type (see check.py), gives the same result for the same arguments everywhere, and needs time and memory in proportion to
its arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from zstandard import ZstdDecompressor, ZstdError

from pik.errors import Damaged, EngineError
from pik.model.event import ENVELOPE, FieldType
from pik.runtime.storage import reading_failure, temporary_directory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_MB = 256
"""What DuckDB may hold before it spills to a temporary directory. The process around it needs some 100 MiB."""

THREAD_MB, GROUPS_MB = 64, 64
"""What a connection needs for each thread and for its groups: a thread that reads raw holds 32 MiB whatever is set.
With one thread more it would nearly always run out of memory, and compute all of it again."""

LOAD_MB = 384
"""What DuckDB may hold while it reads raw into tables. For each thread and once more, 32 MiB of it are reserved for the
lines of a file and used only as far as it has some. With less, DuckDB returns what it frees to the system again and
again, and page faults cost a fifth of the time."""

DISK_LIMIT = "16GB"
"""What the temporary directory may hold."""

CHECK_SECONDS = 10.0
"""What checking one definition may take."""

FETCH = 8192
"""Rows that are fetched at a time."""

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
def session(
    files: Sequence[Path] = (), threads: int = 1, parts: int = 1, *, is_loading: bool = False
) -> Iterator[DuckDBPyConnection]:
    """Open a connection without access to anything but `files`, with one of so many parts of the memory.

    One that loads tables has its part of LOAD_MB, and a configuration that is not locked, until `lock`. Raises
    EngineError for those of DuckDB's errors that are not handled inside, KeyboardInterrupt for Ctrl-C.
    """
    import duckdb

    with temporary_directory() as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{(LOAD_MB if is_loading else MEMORY_MB) // parts}MB",
            "threads": threads,
            "temp_directory": str(scratch),
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
            if not is_loading:
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


def lock(db: DuckDBPyConnection, parts: int) -> None:
    """Leave a connection that has loaded its tables its part of the memory, and lock its configuration."""
    db.execute(f"SET memory_limit = '{MEMORY_MB // parts}MB'")
    db.execute("SET lock_configuration = true")


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


def path_hint(text: str) -> str:
    """Return how a name such as MongoDB's $date is written in a path, if a text of SQL that fails has one as it is."""
    if found := re.search(r"->>?\s*'(\$[A-Za-z_]\w*)'", text):
        return f"""a name that begins with $ has quotes in a path: '$."{found[1]}"'"""
    if found := re.search(r"->>?\s*'\$\.([^'\".]*\[[^]\d*#'\"][^'\".]*)'", text):
        return f"""a name with brackets has quotes in a path: '$."{found[1]}"'"""
    return ""


def type_hint(text: str) -> str:
    """Return how a field is cast that an expression, which fails, takes for more than a text."""
    if found := re.search(r"coalesce\s*\(\s*\(?(payload\s*->>\s*'[^']*')\)?\s*,\s*(true|false)", text, re.IGNORECASE):
        return f"a field is a text until it is cast: coalesce(({found[1]})::BOOLEAN, {found[2]})"
    if found := re.search(r"payload\s*->\s*('[^']*\[\*\][^']*')", text):
        return f"payload->{found[1]} is JSON; payload->>{found[1]} is a list, of texts"
    if "[]" not in text and (found := re.search(r"payload\s*->>\s*'[^']*\[\*\][^']*'", text)):
        return f"[*] makes a list, of texts: their sum as numbers is sum(list_sum(({found[0]})::DECIMAL(18, 2)[]))"
    return ""


def first_line(error: Exception) -> str:
    """Return the first line of DuckDB's message, without its picture of the statement; where a value is to blame, what
    is wrong with it stands in the place of the kind of the error."""
    message = str(error).split("\n", 1)[0].strip()
    what = _OF_VALUES.get(type(error).__name__)
    return (
        message.removeprefix("Binder Error: ") if what is None else f"{what}: {message.partition(': ')[2] or message}"
    )


_OF_VALUES = {
    "ConversionException": "a value cannot be converted",
    "OutOfRangeException": "a number is out of range",
    "InvalidInputException": "a function does not take a value",
}
"""What is wrong with a value, by the class of the error that DuckDB raises."""

OTHER_VALUES = "TRY_CAST in place of a cast, or a condition that fails for no event"
"""What to write where an expression fails on some values."""


def is_of_value(error: Exception) -> bool:
    """Return whether DuckDB raises the error because of a value."""
    return type(error).__name__ in _OF_VALUES


def damaged_file(file: Path, error: Exception) -> Damaged:
    """Return the error for a file of raw that DuckDB cannot read: in plain words where the file itself shows why."""
    try:
        with open(file, "rb") as opened, ZstdDecompressor().stream_reader(opened, read_across_frames=True) as reader:
            while reader.read(_CHUNK):
                pass
        what = first_line(error)
    except OSError as failure:
        what, _ = reading_failure(file, failure)
    except ZstdError:
        what = "it does not decompress: its bytes are not as they were written"
    return Damaged(f"raw file {file.name} cannot be read: {what}", hint="what is affected: pik verify --full")


_CHUNK = 1 << 20

_SQL_TYPES = {
    FieldType.TEXT: "VARCHAR",
    FieldType.INSTANT: "TIMESTAMP",
    FieldType.INTEGER: "BIGINT",
    FieldType.JSON: "JSON",
}

COLUMN_TYPES = {field.name: _SQL_TYPES[field.type] for field in ENVELOPE}
"""The columns of the view `event`, one row per delivery, with their SQL types."""


AS_SENT = "_sent"
"""The payload with its numbers as they were sent, beside the columns that a definition may name: for their types alone.
In `payload` a number that DuckDB would read through a double is a text."""


def raw_fields(column: str) -> dict[str, str]:
    """Return the raw fields that a column is made of, with the SQL types in which they are read."""
    if column == AS_SENT:
        return {"payload": "JSON"}
    sql_type = "VARCHAR" if COLUMN_TYPES[column] == "TIMESTAMP" else COLUMN_TYPES[column]
    return dict.fromkeys(("payload", "payload_text") if column == "payload" else (column,), sql_type)


def column_sql(column: str) -> str:
    """Return the SQL of a column of `line`."""
    if column == "payload":
        return "coalesce(line.payload_text, line.payload)"
    if column == AS_SENT:
        return "line.payload"
    if COLUMN_TYPES[column] == "TIMESTAMP":
        return f"CAST(line.{column} AS TIMESTAMP)"  # truncated to microseconds, not rounded
    return f"line.{column}"


AGGREGATES = frozenset("count_star count count_if countif sum min max bit_and bit_or bit_xor bool_and bool_or".split())
"""The aggregates whose result neither order nor floating point can change (`sum` not over DOUBLE: see check)."""

OPERATORS = frozenset("+ - * / // % & | << >> ~ || -> ->> ~~ !~~ ~~* !~~*".split())
"""Functions that are written as operators; the last four are LIKE, NOT LIKE, ILIKE, NOT ILIKE. `/`: see check.py."""

SCALARS = {
    "numbers": "abs greatest least mod round sign trunc floor ceil ceiling",
    "choices": "if ifnull nullif",
    "texts": "length len strlen lower lcase upper ucase trim ltrim rtrim substring substr left right starts_with "
    "prefix ends_with suffix contains position strpos instr replace split_part concat concat_ws reverse "
    "regexp_matches regexp_full_match regexp_extract regexp_replace",
    "times": "epoch_us epoch_ms epoch_ns date_trunc datetrunc date_part datepart year quarter month week weekofyear "
    "day dayofmonth dayofweek weekday isodow dayofyear isoyear yearweek hour minute second millisecond microsecond "
    "date_diff datediff date_sub datesub date_add make_date time_bucket strftime strptime try_strptime "
    "last_day days_in_month to_years to_months to_weeks to_days to_hours to_minutes to_seconds to_milliseconds "
    "to_microseconds",
    "JSON": "json_extract json_extract_string json_extract_path json_extract_path_text json_array_length json_exists "
    "json_type json_keys json_value",
    "lists": "array_extract array_slice array_length list_value list_filter list_transform list_sum list_min list_max "
    "list_count list_extract list_slice",
}
"""The functions of one row that a definition may call, by what they work on. docs/metrics.md lists them."""

_SCALARS = frozenset(name for names in SCALARS.values() for name in names.split())

_NOT_EXACT = {
    "adds in floating point, so the order of events would change it; exact is "
    "(sum(x) / count(x))::DECIMAL(18, 6), or one metric each for sum(x) and count(x)": "avg mean favg decimal_average",
    "takes whichever event comes first, and events have no order; exact is min(x) or max(x)": "first last any_value "
    "arbitrary mode arg_min arg_max argmin argmax min_by max_by arg_min_null arg_max_null arg_min_nulls_last "
    "arg_max_nulls_last",
    "keeps every value of a bucket in memory, in no order; exact is count(DISTINCT x), min(x), max(x)": "list "
    "array_agg string_agg group_concat listagg histogram histogram_exact median quantile quantile_disc quantile_cont "
    "mad",
    "approximates; exact is count(DISTINCT x)": "approx_count_distinct approx_quantile approx_top_k reservoir_quantile",
    "adds in floating point too, with smaller errors; exact is sum(x::DECIMAL(18, 6))": "fsum kahan_sum sumkahan",
}
"""Why other aggregates are refused, and what is exact in their place."""

_CLOCKS = frozenset("age current_localtime current_localtimestamp hash version".split())
"""Functions that depend on the clock or on DuckDB's version, whatever its catalog says of them."""

_POWERS = frozenset("** ^ pow power sqrt cbrt exp ln log log2 log10 divide fdiv fmod epoch julian".split())


def refusal(db: DuckDBPyConnection, name: str) -> str:
    """Return why a definition may not call this function, an empty text if it may."""
    if name in AGGREGATES or name in _SCALARS or name in OPERATORS:
        return ""
    for reason, names in _NOT_EXACT.items():
        if name in names.split():
            return f"{name} {reason}"
    row = db.execute(
        "SELECT list(DISTINCT function_type), bool_and(coalesce(stability, 'CONSISTENT') = 'CONSISTENT') "
        "FROM duckdb_functions() WHERE lower(function_name) = ?",
        [name],
    ).fetchone()
    assert row is not None
    kinds, consistent = row
    if not kinds:
        return f"unknown function {name}"
    if "aggregate" in kinds:
        exact = "count, count_if, sum, min, max, bit_and, bit_or, bit_xor, bool_and, bool_or"
        return f"{name} computes in floating point, so the order of events would change it; exact are {exact}"
    if "macro" in kinds:
        return f"{name} is a macro, which may hide anything; write out what it stands for"
    if "scalar" not in kinds:
        return f"{name} returns rows; a metric is computed from the bucket's events"
    if name in _CLOCKS or not consistent:
        return f"{name} depends on when and where it runs, so the same events would give another value"
    if name in _POWERS:
        return f"{name} computes in floating point"
    return f"{name} is not among the functions that a metric may call; docs/metrics.md lists them"


LONGEST = 10_000
"""Characters of a definition's value or condition."""

MOST_JOINED = 32
"""Texts that a definition joins by || and concat."""

JOINS = ("||", "concat", "concat_ws")
_GROWING = (*JOINS, "list_value")
_PATTERNS = frozenset("regexp_matches regexp_full_match regexp_extract regexp_replace".split())
_LIKES = frozenset("~~ !~~ ~~* !~~*".split())


def unbounded(name: str, arguments: Sequence[dict[str, Any]], in_lambda: bool) -> str:
    """Return why a call may take unbounded time or memory, or an empty text."""
    texts = [constant_text(argument) for argument in arguments]
    if in_lambda and name in _GROWING:
        return f"{name} inside a lambda may double its argument again and again"
    if name in _PATTERNS and (len(texts) < 2 or texts[1] is None):
        return f"the pattern of {name} must be a constant"
    if name == "regexp_replace" and texts[2:3] != [""]:
        return "regexp_replace takes only '' as the replacement, so that no text grows"
    if name == "replace" and (None in texts[1:] or len(texts[2] or "") > len(texts[1] or "")):
        return "replace takes constants, the second not longer than the first, so that no text grows"
    if name in _LIKES:
        return _like(name, texts[1])
    return ""


def deep_path(node: dict[str, Any]) -> bool:
    """Return whether a constant is a JSON path that searches at any depth more than once."""
    text = constant_text(node) or ""
    return text.startswith("$") and text.count("..") + text.count("**") > 1


def _like(name: str, pattern: str | None) -> str:
    """Return why a pattern is refused: DuckDB tries its rest wherever a % may end, and so on within each try."""
    if pattern is None:
        return "the pattern of LIKE must be a constant"
    recursive = name.endswith("*") or "_" in pattern
    if recursive and len([part for part in pattern.rstrip("%").split("%") if part]) + pattern.startswith("%") > 2:
        return "ILIKE, and LIKE with _, take one % besides one at the end; regexp_matches has no such limit"
    return ""


def constant_text(node: dict[str, Any]) -> str | None:
    """Return the text of a string constant."""
    literal = node.get("literal") or {}
    return str(literal["text"]) if node.get("class") == "CONSTANT" and literal.get("kind") == "STRING" else None
