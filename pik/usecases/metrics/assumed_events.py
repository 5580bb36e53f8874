"""Events of a file that are assumed to count: read as an ingest would read them, without those that are known."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from pik.errors import InputError, NothingSelected, UsageError, command
from pik.inputs.advice import OF_FIELDS, Advice, CommandLine, Option, Read, converted
from pik.inputs.archives import with_members
from pik.inputs.compression import WINDOW
from pik.inputs.folders import SkippedFiles, folder_sources
from pik.inputs.source import Input, file_source
from pik.model.assumption_text import WITH_OPTIONS
from pik.model.delivery import Delivery, read_delivery
from pik.model.named_mapping import NONE
from pik.model.pairs import typed_pairs
from pik.model.scenario import ASSUMED_BATCH, With
from pik.rawlog.objects import unpacked
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.runtime.parallel import processors
from pik.runtime.storage import scratch
from pik.usecases.inspect.producer_log import LogBlock, read_blocks


def reading_of(assumed: With) -> Reading:
    """Return how the file is read. Raises UsageError for options that cannot be."""
    named = "" if assumed.named is None or assumed.named == NONE else assumed.named
    reading = Reading(
        assumed.max_line, mapping=dict(assumed.mapping), times=assumed.times, layout=assumed.layout, named=named
    )
    try:
        reading.record_mapping()
    except UsageError as error:
        raise refused(assumed, error.message, error.hint) from None
    return reading


def reading_for_all(assumed: With, reading: Reading) -> Reading:
    """Return how all files that the assumption names are read, where the reading depends on their names. Raises
    UsageError where they are read by several mappings, InputError where one cannot be read."""
    if reading.by_file is None:
        return reading
    chosen = None
    for source in _sources(assumed):
        with source.open() as opened:
            found = opened.chosen(reading.by_file)
        if chosen not in (None, found):
            what = f"{source.name} has another mapping in pik.toml than the file before it"
            raise UsageError(what, hint="mapping=NAME reads all by one, mapping=none by none")
        chosen = found
    return chosen or reading


def write_new(assumed: With, target: Path, seen: set[bytes], is_known: Callable[[str], bool]) -> int:
    """Write the events of the file that are neither known nor seen before as raw lines; return their number.

    Raises InputError where a record is not an event or the file cannot be read, UsageError where its options do not fit
    it, NothingSelected where all of its events are known.
    """
    count, is_new = 0, False
    with (
        open(target, "wb") as raw,
        zstandard.ZstdCompressor(level=1, write_checksum=True).stream_writer(raw) as writer,
    ):
        for delivery, line in _deliveries(assumed):
            event_id = bytes.fromhex(delivery.event_id)
            if event_id in seen:  # in an earlier line, or an earlier file
                is_new = True
            elif not is_known(delivery.event_id):
                seen.add(event_id)
                is_new, count = True, count + 1
                writer.write(line + b"\n")
    if not is_new:
        raise NothingSelected(f"{assumed}: the store has all of its events already", hint="pik show EVENT_ID")
    return count


def _deliveries(assumed: With) -> Iterator[tuple[Delivery, bytes]]:
    """Yield the events of the file, archive or folder and their raw lines, in its order."""
    reading = reading_of(assumed)
    read, rejected, wrong = 0, 0, ""
    with scratch() as directory:
        try:
            for source in _sources(assumed):
                for block in read_blocks(source, reading, ASSUMED_BATCH, directory, processors(), SILENT):
                    read += block.chunk.read
                    if block.reject is not None and block.chunk.rejects is not None:
                        rejected += block.chunk.rejects.records
                        wrong = (
                            wrong or f"{source.name}: record {block.reject.seq} is not an event: {block.reject.reason}"
                        )
                    if not rejected:
                        yield from _in_order(block)
                    for path in block.files:
                        path.unlink()
        except UsageError as error:
            raise refused(assumed, error.message, error.hint) from None
        except InputError as error:
            error.hint = _worded(assumed, error.hint)
            raise
    if not read:
        raise NothingSelected(f"{assumed}: the file has no event")
    if wrong:
        hint = _spelled(wrong, _ingest(assumed))
        raise InputError(f"{wrong} ({rejected:,} of {read:,} records are not)", hint=hint)


def _sources(assumed: With) -> Iterator[Input]:
    """Yield the inputs in what the assumption names. Raises UsageError for one that can be read only once."""
    sources = (
        folder_sources(assumed.path, SkippedFiles()) if os.path.isdir(assumed.path) else [file_source(assumed.path)]
    )
    if sources[0].is_stream:
        raise UsageError(f"{sources[0].name} can be read only once", hint="write it to a file")
    window = assumed.max_window or WINDOW
    return with_members([replace(source, window=window) for source in sources], lambda _: None)


def _in_order(block: LogBlock) -> Iterator[tuple[Delivery, bytes]]:
    """Yield the events of a block, which are by day and entity in its files, by their place in the input."""
    lines = [line for path in block.files for line in unpacked(path.name, path.read_bytes())]
    yield from sorted(((read_delivery(line), line) for line in lines), key=lambda one: one[0].seq)


def refused(assumed: With, message: str, hint: str) -> UsageError:
    """Return the error for an assumption whose file cannot be read as it says."""
    found = _worded(assumed, hint) or _ingest(assumed)
    return UsageError(f"--assume {assumed}: {message}", hint=_spelled(message, found))


def _spelled(text: str, hint: str) -> str:
    """Return the hint, after how the options that a text names are written in an assumption."""
    known = dict.fromkeys(name for name in re.findall("--([a-z-]+)", text) if name in WITH_OPTIONS)
    return "; ".join([*(f"--{name} is {name}= here" for name in known), hint])


def _worded(assumed: With, hint: str) -> str:
    """Return the hint of a reader in the words of the assumption."""
    return hint.by(AssumedFile(assumed)) if isinstance(hint, Advice) else hint


@dataclass(frozen=True, slots=True)
class AssumedFile:
    """The assumption, as hints of what reads its file name it. It cannot read what another program prints."""

    assumed: With
    records: bool = False
    between: str = ","

    @property
    def encoding(self) -> str | None:
        """The encoding of the text that is given."""
        return self.assumed.layout.encoding

    def option(self, option: Option) -> str | None:
        """Return the option as it is typed here; None if it is not one of those of the assumption."""
        if option.name == "on-invalid":
            return None
        return typed_pairs([(option.name, option.value or "")])[0]

    def read(self, read: Read, file: str) -> str | None:
        """Return the assumption, or the command that proposes a mapping of the file."""
        [path] = shlex.split(file)
        if read.instead and self.assumed.named is not None:
            read = Read(convert=read.instead)
        given = [Option(*pair) for pair in self.assumed.options if pair[0] != "encoding" or not read.convert]
        if read.guess and not read.convert and not any(one.name in ("map", "mapping") for one in given):
            return CommandLine(reading=tuple(self.assumed.options)).read(read, file)
        added = {one.name for one in read.options if one.name not in OF_FIELDS}
        chosen = [one for one in given if one.name not in added] + list(read.options)
        named = [("with", f"@{'NEW' if read.convert else path}"), *((one.name, one.value or "") for one in chosen)]
        text = ",".join(typed_pairs(named))
        before = f"{converted(read.convert, file, self.encoding)} > NEW, then " if read.convert else ""
        return f"{before}--assume {shlex.quote(text)}"


def _ingest(assumed: With) -> str:
    """Return the command that shows how an ingest would read the file."""
    words = [word for name, value in assumed.options for word in (f"--{name}", value)]
    return command("ingest", "--dry-run", *words, assumed.path)
