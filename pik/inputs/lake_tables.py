"""Folders of Delta, Iceberg and Hudi, whose files are not the rows of their table: a log beside them says which files
hold deleted and replaced rows."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from pik.errors import InputError
from pik.inputs.source import shown_name

_DELTA, _HUDI, _METADATA = "_delta_log", ".hoodie", "metadata"
_OF_ICEBERG = ".metadata.json"

_KINDS = {
    _DELTA: ("a Delta table", "duckdb -c \"COPY (FROM delta_scan('{}')) TO 'rows.parquet'\""),
    _METADATA: ("an Iceberg table", "duckdb -c \"COPY (FROM iceberg_scan('{}')) TO 'rows.parquet'\""),
    _HUDI: ("a Hudi table", "Spark reads it with format('hudi')"),
}

_WHY = "files in its folder may have rows that were deleted or replaced"


def refuse_lake_table(folder: str, names: Collection[str]) -> None:
    """Raise InputError for a folder with folders of these names, if it is such a table."""
    if (kind := _kind(folder, names)) is not None:
        raise _error(shown_name(folder), kind)


def refuse_lake_objects(url: str, names: Iterable[str]) -> None:
    """Raise InputError for objects of these names below a URL, if they are the files of such a table."""
    for name in names:
        parts = name.split("/")
        log = next((part for part in parts[:-1] if part in (_DELTA, _HUDI)), None)
        if log is None and _METADATA in parts[:-1] and name.endswith(_OF_ICEBERG):
            log = _METADATA
        if log is not None:
            raise _error("/".join(parts[: parts.index(log)]) or url, log)


def lake_note(files: Iterable[str]) -> str:
    """Say that files are those of such a table; nothing if they are not."""
    for folder in dict.fromkeys(map(os.path.dirname, files)):
        while os.path.basename(folder).partition("=")[1]:  # of a partition
            folder = os.path.dirname(folder)
        there = [name for name in (_DELTA, _HUDI) if os.path.isdir(os.path.join(folder, name))]
        if there:
            what, _ = _KINDS[there[0]]
            return f"{shown_name(folder) or '.'} is {what}: {_WHY}, and these are read as well"
    return ""


def _kind(folder: str, names: Collection[str]) -> str | None:
    """Return which log the folder has."""
    for name in (_DELTA, _HUDI):
        if name in names:
            return name
    log = os.path.join(folder, _METADATA)
    if _METADATA in names and os.path.isdir(log):
        return _METADATA if any(name.endswith(_OF_ICEBERG) for name in os.listdir(log)) else None
    return None


def _error(shown: str, kind: str) -> InputError:
    what, export = _KINDS[kind]
    return InputError(f"{shown} is {what}: {_WHY}", hint=f"export the rows that it has now: {export.format(shown)}")
