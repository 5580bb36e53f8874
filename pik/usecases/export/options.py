"""What the options of an export mean: the target, the format by its name, partitions and columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pik.errors import UsageError
from pik.model.delivery import ExtractedColumn, parse_column
from pik.ports.exporter import COLUMNS, CORRECTED, DELIVERY, PARTITIONS, Compression, Format

_FORMATS: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_RESERVED = {*COLUMNS, DELIVERY, *CORRECTED, *PARTITIONS, "original", "payload_text"}


STDOUT = "-"


def is_directory(out: str, *, partitioned: bool) -> bool:
    """Return whether `out` names a directory: it is one, has no extension, or ends in /. Raises UsageError if it cannot
    be."""
    if out == STDOUT:
        if partitioned:
            raise UsageError("--partition-by makes a directory, and - is standard output", hint="--out DIR")
        return False
    if "://" in out:
        raise UsageError(f"{out}: an export is written to a file system", hint=f"--out DIR; aws s3 sync DIR {out}")
    directory = out.endswith("/") or Path(out).is_dir() or not Path(out).suffix
    if partitioned and not directory:
        raise UsageError(f"--partition-by makes a directory, and {out} looks like a file", hint="--out DIR")
    return directory


def expect_several_files(on: str, out: str, *, directory: bool) -> None:
    """Raise UsageError unless the target can have the files of several machines."""
    if not directory:
        what = "standard output" if out == STDOUT else "a single file"
        raise UsageError(
            f"--on {on}: each task of a cluster writes its own files, and {out} is {what}",
            hint="--out DIR, which all machines of the cluster share, or leave --on out",
        )


def chosen_format(
    out: Path, format_: Format | None, compression: Compression | None, *, directory: bool
) -> tuple[Format, Compression]:
    """Return format and compression: as requested, else by the extension of the file. Raises UsageError where these
    differ, the extension is unknown, or the format cannot be compressed that way."""
    compressed = None if directory else _COMPRESSIONS.get(out.suffix)
    named = None if directory else _FORMATS.get(Path(out.stem).suffix if compressed else out.suffix)
    if format_ is None and named is None and not directory:
        raise UsageError(f"the name {out} does not tell the format", hint="add --as parquet, jsonl or csv")
    chosen = format_ or named or "parquet"
    if str(out) == STDOUT and chosen == "parquet":
        raise UsageError("Parquet is not written to standard output", hint="--as jsonl or csv, or --out FILE.parquet")
    if named not in (None, chosen):
        raise UsageError(f"--as {chosen} and the name {out} do not agree", hint="leave --as out, or name it otherwise")
    if compressed and (chosen == "parquet" or compression not in (None, compressed)):
        raise UsageError(
            f"the name {out} says {compressed}"
            + (f", --compression {compression}" if compression else " around Parquet"),
            hint="Parquet compresses inside: leave the ending out" if chosen == "parquet" else "leave one of them out",
        )
    if chosen != "parquet" and compression == "snappy":
        raise UsageError(f"{chosen} is not compressed with snappy", hint="--compression gzip, zstd or none")
    return chosen, compression or compressed or ("zstd" if chosen == "parquet" else "none")


def partitions(names: str | None) -> tuple[str, ...]:
    """Return the names in `--partition-by`. Raises UsageError."""
    chosen = tuple(name.strip() for name in names.split(",")) if names is not None else ()
    for name in chosen:
        if name not in PARTITIONS or chosen.count(name) > 1:
            raise UsageError(
                f"--partition-by {names}: {name!r} is not a partition column", hint=f"any of {', '.join(PARTITIONS)}"
            )
    return chosen


def checked_columns(texts: Iterable[str]) -> tuple[ExtractedColumn, ...]:
    """Return the columns of `--column`. Raises UsageError, also for a name that is used already, in whatever case."""
    columns: list[ExtractedColumn] = []
    taken = set(_RESERVED)
    for text in texts:
        column = parse_column(text)
        if column.name.lower() in taken:
            raise UsageError(f"--column {text}: there is a column {column.name} already", hint="name it otherwise")
        taken.add(column.name.lower())
        columns.append(column)
    return tuple(columns)
