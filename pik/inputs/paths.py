"""The inputs that the arguments of a command name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from glob import glob, has_magic
from typing import TYPE_CHECKING

from pik.errors import UsageError, number_of
from pik.inputs.folders import SkippedFiles, folder_sources
from pik.inputs.lake_tables import lake_note, refuse_lake_objects
from pik.inputs.source import Source, file_source, foreign_sources, shown_name

if TYPE_CHECKING:
    from pik.ports.remote import Foreign


def sources_of(
    files: Sequence[str],
    foreign: Callable[[], Foreign],
    note: Callable[[str], None],
    *,
    batch_key: str | None = None,
    max_window: int | None = None,
) -> list[Source]:
    """Return the inputs that paths, globs, prefixes in S3 and `-` name; `foreign` opens what reads S3, and `note` is
    told what of a folder is skipped. Raises UsageError, InputError."""
    if batch_key is not None and list(files) != ["-"]:
        raise UsageError("--batch-key names standard input, and only that", hint="files are known by their content")
    sources: list[Source] = []
    for name in files:
        if name.startswith("s3://"):
            objects = foreign_sources(foreign(), name)
            refuse_lake_objects(foreign(), name, [source.name for source in objects])
            sources += objects
        elif name in ("", "-") or os.path.lexists(name):  # Path.exists raises an OSError for a name that is too long
            sources += _file_or_folder(name, note)
        elif found := sorted(one for one in glob(name, recursive=True) if "**" not in name or not os.path.isdir(one)):
            sources += [source for one in _linked(found, name, note) for source in _file_or_folder(one, note)]
        elif has_magic(name):
            hint = "** is any number of directories; - is standard input"
            raise UsageError(f"no file matches {shown_name(name)!r}", hint=hint)
        else:
            raise UsageError(f"there is no file {shown_name(name)}", hint="- is standard input")
    if of_table := lake_note(source.path for source in sources if source.path is not None):
        note(of_table)
    return [replace(source, window=max_window) for source in sources] if max_window else sources


def _linked(found: Sequence[str], pattern: str, note: Callable[[str], None]) -> Sequence[str]:
    """Return what a glob found without links that lead nowhere, unless there is nothing else."""
    leading = [one for one in found if os.path.exists(one)]
    if broken := len(found) - len(leading) if leading else 0:
        note(f"{shown_name(pattern)}: skipped {number_of(broken, 'broken link')}")
    return leading or found


def _file_or_folder(name: str, note: Callable[[str], None]) -> list[Source]:
    """Return the input that a path names, or the files of a folder."""
    if not os.path.isdir(name):
        return [file_source(name)]
    skipped = SkippedFiles()
    found = folder_sources(name, skipped)
    if str(skipped):
        note(f"{shown_name(name)}: {skipped}")
    return found
