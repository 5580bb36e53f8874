"""What `pik ingest` reads, and how, by its arguments, its options and pik.toml."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from pik.cli.context import Context
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.inputs.source import Source
    from pik.model.batch import Reject
    from pik.rawlog.segment_writer import Reading


def sources(cli: Context, files: list[str], batch_key: str | None) -> list[Source]:
    """What the arguments name, globs and prefixes resolved. Raises UsageError, InputError."""
    if batch_key is not None and files != ["-"]:
        raise UsageError("--batch-key names standard input, and only that", hint="files are known by their content")
    return [source for name in files for source in _named(cli, name)]


def _named(cli: Context, name: str) -> list[Source]:
    from pik.inputs.source import file_source, foreign_sources, shown_name

    if name.startswith("s3://"):
        return foreign_sources(cli.foreign(), name)
    # Not Path.exists: that raises an OSError for a name that is too long.
    found = sorted(glob(name, recursive=True)) if name not in ("", "-") and not os.path.lexists(name) else [name]
    if not found:
        raise _not_there(name, shown_name(name))
    return [file_source(one) for one in found]


def _not_there(name: str, shown: str) -> UsageError:
    if has_magic(name):
        return UsageError(f"no file matches {shown!r}", hint="** is any number of directories; - is standard input")
    return UsageError(f"there is no file {shown}", hint="quote globs; - is standard input")


def reading(
    cli: Context,
    mapping: list[str] | None,
    time_format: str | None,
    timezone: str | None,
    max_line: int,
    on_invalid: str | None,
) -> Reading:
    """How records are read: options, else pik.toml, else as events. Raises UsageError, Invalid."""
    from pik.rawlog.segment_writer import Reading

    fields = dict(cli.settings.ingest.map)
    for text in mapping or ():
        name, equals, expression = text.partition("=")
        if not equals or not expression:
            raise UsageError(f"--map {text}: expected FIELD=JMESPATH", hint="--map entity_id=body.user.id")
        fields[name.strip()] = expression
    time_format = time_format or cli.settings.ingest.time_format or "rfc3339"
    mapped = fields if fields or time_format != "rfc3339" else None
    timezone = timezone or cli.settings.ingest.timezone
    chosen = Reading(
        max_line,
        stop=on_invalid == "stop",
        mapping=mapped,
        time_format=time_format,
        timezone=timezone,
        mixed=on_invalid == "reject",
    )
    try:
        chosen.zone()  # complains now rather than in a worker
    except UsageError as error:
        raise UsageError(f"--timezone: {error.message}", hint=error.hint) from None
    chosen.record_mapping()
    return chosen


def expect_new(rejects: Path) -> None:
    """Raises UsageError where the file for rejected records cannot be made."""
    if rejects.exists():
        raise UsageError(f"--rejects {rejects}: the file exists already", hint="name another one")
    if not rejects.parent.is_dir():
        raise UsageError(
            f"--rejects {rejects}: there is no directory {rejects.parent}", hint="make it, or name another"
        )


@contextmanager
def rejects_file(path: Path | None) -> Iterator[Callable[[Reject], None]]:
    """What takes rejected records and writes them to a new file, as they came, a line each; without a path nowhere.

    Raises UsageError.
    """
    from pik.usecases.inspect.batches import record_bytes

    if path is None:
        yield lambda _: None
        return
    try:
        with open(path, "xb") as file:

            def write(reject: Reject) -> None:
                file.write(record_bytes(reject) + b"\n")

            try:
                yield write
            except BaseException:
                path.unlink()  # the same command, corrected, makes it again
                raise
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise
        raise UsageError(f"--rejects {path}: {error.strerror}", hint="name another file") from None
