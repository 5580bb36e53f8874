"""Folders of Delta, Iceberg and Hudi, whose files are not the rows of their table: a log beside them says which files
hold deleted and replaced rows."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pik.errors import InputError, StoreError
from pik.inputs.source import shown_name

if TYPE_CHECKING:
    from pik.ports.remote import Foreign

_DELTA, _HUDI, _METADATA = "_delta_log", ".hoodie", "metadata"
_OF_ICEBERG = ".metadata.json"

_KINDS = {
    _DELTA: ("a Delta table", "duckdb -c \"COPY (FROM delta_scan('{}')) TO 'rows.parquet'\""),
    _METADATA: ("an Iceberg table", "duckdb -c \"COPY (FROM iceberg_scan('{}')) TO 'rows.parquet'\""),
    _HUDI: ("a Hudi table", "Spark reads it with format('hudi')"),
}

OF_ROWS = ".parquet", ".avro"
"""How the names of the files end that have rows."""

_WHY = "files in its folder may have rows that were deleted or replaced"


def refuse_lake_table(folder: str, names: Collection[str]) -> None:
    """Raise InputError for a folder with folders of these names, if it is such a table."""
    if (kind := _kind(folder, names)) is not None:
        raise _error(shown_name(folder), kind)


def refuse_lake_objects(foreign: Foreign, url: str, found: Collection[str]) -> None:
    """Raise InputError for the objects of these names, which a URL or its glob finds, if they are the files of such a
    table, whose log may lie beside or above them."""
    for name in found:
        if (log := _log(name)) is not None:
            raise _error(log[0] or url, log[1])
    before, *glob = re.split(r"[*?\[]", url, maxsplit=1)
    if not glob or not any(name.endswith(OF_ROWS) for name in found):
        return
    for table, kind in _logs_near(foreign, before):
        if any(name.startswith(f"{table}/") for name in found):
            raise _error(table, kind)


def refuse_lake_archive(archive: str, names: Iterable[str]) -> None:
    """Raise InputError for an archive with files of these names, if they are those of such a table."""
    for log in filter(None, map(_log, names)):
        folder, (what, export) = log[0], _KINDS[log[1]]
        shown = ":".join(filter(None, (archive, folder)))
        unpacked = export.format("/".join(filter(None, ("FOLDER", folder))))
        raise InputError(
            f"{shown} is {what}: {_WHY}",
            hint=f"unpack the archive into FOLDER, and export the rows that the table has now: {unpacked}",
        )


def is_lake_log(name: str) -> bool:
    """Return whether a file of that name is a part of the log of such a table."""
    return _log(name) is not None


def lake_note(files: Iterable[str]) -> str:
    """Say that files are those of such a table; nothing if they are not."""
    for folder in dict.fromkeys(map(os.path.dirname, files)):
        while os.path.basename(folder).partition("=")[1]:  # of a partition
            folder = os.path.dirname(folder)
        above = [os.path.dirname(folder)] if os.path.basename(folder) == "data" else []  # where Iceberg has its rows
        for table in (folder, *above):
            there = [name for name in _KINDS if os.path.isdir(os.path.join(table, name))]
            if (kind := _kind(table, there)) is not None:
                what, _ = _KINDS[kind]
                return f"{shown_name(table) or '.'} is {what}: {_WHY}, and these are read as well"
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


def _log(name: str) -> tuple[str, str] | None:
    """Return the folder of the table, and the kind of the log that a file of that name is a part of."""
    *folders, file = name.removeprefix("./").split("/")
    log = next((part for part in folders if part in (_DELTA, _HUDI)), None)
    if log is None and _METADATA in folders and file.endswith(_OF_ICEBERG):
        log = _METADATA
    return None if log is None else ("/".join(folders[: folders.index(log)]), log)


def _logs_near(foreign: Foreign, before: str) -> Iterator[tuple[str, str]]:
    """Yield the folders of tables, and the kinds of their logs, among what a glob in S3 may match that has this before
    its first magic character, and in the folders above."""
    scheme, _, path = before.partition("://")
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
    logs = f"{_DELTA}/*", f"{_HUDI}/*", f"{_METADATA}/*{_OF_ICEBERG}"
    for glob in (f"{path}**", *(f"{folder}/{log}" for folder in above for log in logs)):
        with suppress(InputError, StoreError):  # there is none, or the caller must not list what is there
            yield from filter(None, (_log(file.name) for file in foreign.find(f"{scheme}://{glob}")))


def _error(shown: str, kind: str) -> InputError:
    what, export = _KINDS[kind]
    return InputError(f"{shown} is {what}: {_WHY}", hint=f"export the rows that it has now: {export.format(shown)}")
