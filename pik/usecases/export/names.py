"""What an export is asked for in words: names of files, columns and partitions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from pik.errors import UsageError
from pik.model.column import OwnColumn, parse_column
from pik.ports.exporter import COLUMNS, DELIVERY, PARTITIONS, Compression, Format

_FORMATS: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_PACKED: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_RESERVED = {*COLUMNS, DELIVERY, *PARTITIONS, "original", "payload_text"}


STDOUT = "-"


def is_directory(out: str, *, partitioned: bool) -> bool:
    """Whether `out` is to be a directory: it is one, has no ending, or ends in /. Raises UsageError if it cannot be."""
    if out == STDOUT:
        if partitioned:
            raise UsageError("--partition-by makes a directory, and - is standard output", hint="--out DIR")
        return False
    if "://" in out:
        raise UsageError(f"{out}: files are written on this machine", hint=f"--out DIR; aws s3 sync DIR {out}")
    directory = out.endswith("/") or Path(out).is_dir() or not Path(out).suffix
    if partitioned and not directory:
        raise UsageError(f"--partition-by makes a directory, and {out} looks like a file", hint="--out DIR")
    return directory


def chosen_format(
    out: Path, format_: Format | None, compression: Compression | None, *, directory: bool
) -> tuple[Format, Compression]:
    """Format and compression: as asked for, else as the file's name says. Raises UsageError where the two differ, the
    name tells nothing, or the format is not compressed that way."""
    packed = None if directory else _PACKED.get(out.suffix)
    told = None if directory else _FORMATS.get(Path(out.stem).suffix if packed else out.suffix)
    if format_ is None and told is None and not directory:
        raise UsageError(f"the name {out} does not tell the format", hint="add --as parquet, jsonl or csv")
    chosen = format_ or told or "parquet"
    if str(out) == STDOUT and chosen == "parquet":
        raise UsageError("Parquet is not written to standard output", hint="--as jsonl or csv, or --out FILE.parquet")
    if told not in (None, chosen):
        raise UsageError(f"--as {chosen} and the name {out} do not agree", hint="leave --as out, or name it otherwise")
    if packed and (chosen == "parquet" or compression not in (None, packed)):
        raise UsageError(
            f"the name {out} says {packed}" + (f", --compression {compression}" if compression else " around Parquet"),
            hint="Parquet compresses inside: leave the ending out" if chosen == "parquet" else "leave one of them out",
        )
    if chosen != "parquet" and compression == "snappy":
        raise UsageError(f"{chosen} is not compressed with snappy", hint="--compression gzip, zstd or none")
    return chosen, compression or packed or ("zstd" if chosen == "parquet" else "none")


def partitions(names: str | None) -> tuple[str, ...]:
    """The names of `--partition-by`. Raises UsageError."""
    chosen = tuple(name.strip() for name in names.split(",")) if names is not None else ()
    for name in chosen:
        if name not in PARTITIONS or chosen.count(name) > 1:
            raise UsageError(
                f"--partition-by {names}: {name!r} is not a partition column", hint=f"any of {', '.join(PARTITIONS)}"
            )
    return chosen


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


def checked_columns(texts: Iterable[str]) -> tuple[OwnColumn, ...]:
    """The columns of `--column`. Raises UsageError, for a name that is taken too (case does not tell names apart)."""
    columns: list[OwnColumn] = []
    taken = set(_RESERVED)
    for text in texts:
        column = parse_column(text)
        if column.name.lower() in taken:
            raise UsageError(f"--column {text}: there is a column {column.name} already", hint="name it otherwise")
        taken.add(column.name.lower())
        columns.append(column)
    return tuple(columns)
