"""The files of a folder, and what is left out of folders and archives."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator

from pik.errors import InputError
from pik.inputs.lake_tables import refuse_lake_table
from pik.inputs.manifests import manifests
from pik.inputs.source import Source, regular_file, shown_name


class SkippedFiles:
    """Files of a folder or an archive that are not read, counted by what they are."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()

    def is_read(self, name: str, what: str, size: int) -> bool:
        """Return whether a file of that name and size is read; count it otherwise. `what`: it is not a plain file."""
        what = what or ("hidden file" if is_hidden(name) else "" if size else "empty file")
        if what:
            self._counted[what] += 1
        return not what

    def without_manifests(self, sources: list[Source]) -> list[Source]:
        """Return the files that have data, and keep the names of those that only list them."""
        listing = manifests(sources)
        self._counted.update(f"manifest ({os.path.basename(name)})" for name in listing)
        return [one for one in sources if one.name not in listing]

    def __str__(self) -> str:
        """Say how many there are: `skipped 2 hidden files, 1 link`; nothing if there are none."""
        counted = sorted(self._counted.items())
        said = ", ".join(f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counted)
        return f"skipped {said}" if said else ""


def is_hidden(name: str) -> bool:
    """Return whether a file of that name is not meant to be seen: `.DS_Store`, `.git/config`, `__MACOSX/._a.jsonl`, and
    what Spark writes beside its data, unfinished attempts (`_temporary/…`) too."""
    parts = name.split("/")
    return any(
        part == "__MACOSX" or _OF_SPARK.fullmatch(part) or (part.startswith(".") and part not in (".", ".."))
        for part in parts
    )


_OF_SPARK = re.compile(r"_temporary|_metadata|_common_metadata|_(?:committed|started)_\d+", re.ASCII)


def folder_sources(path: str, skipped: SkippedFiles) -> list[Source]:
    """Return the files of a folder and of the folders in it, ordered by name, but not those that only list others.
    Raises InputError where there are none, one cannot be read, or they are those of a lake's table."""
    found = list(_files(path, skipped))
    if not found:
        raise InputError(f"there is no file with content in {shown_name(path)}", hint=str(skipped))
    return skipped.without_manifests(found)


def _files(folder: str, skipped: SkippedFiles) -> Iterator[Source]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name), reverse=True)
    except OSError as error:
        raise InputError(f"cannot read {shown_name(folder)}: {error.strerror}") from None
    refuse_lake_table(folder, {entry.name for entry in entries if entry.is_dir()})
    while entries:
        entry = entries.pop()  # with all of them, a folder of 100,000 files takes as much memory again
        if entry.is_dir(follow_symlinks=False):
            if skipped.is_read(entry.name, "hidden folder" if is_hidden(entry.name) else "", 1):
                yield from _files(entry.path, skipped)
        else:
            what = _what(entry)
            size = 0 if what else entry.stat().st_size
            if skipped.is_read(entry.name, what, size):
                yield regular_file(entry.path, size)


def _what(entry: os.DirEntry[str]) -> str:
    """Return what else than a file it is. Links to files are followed; those to folders might lead around."""
    if entry.is_file():
        return ""
    return "folder link" if entry.is_dir() else "broken link" if entry.is_symlink() else "special file"
