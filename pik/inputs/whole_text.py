"""Short files of text that are read whole, opened as inputs are: definitions, statements, lists of ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import BinaryIO

from pik.errors import InputError
from pik.inputs.advice import Advice, typed_name
from pik.inputs.archives import is_archive, with_members
from pik.inputs.binary import refuse_binary
from pik.inputs.encoding import shown_encoding
from pik.inputs.opened_file import HEAD, OpenedFile
from pik.inputs.source import Source, file_source
from pik.model.layout import READS


def whole_text(path: str, reads: str) -> str:
    """Return the text of a file, - for standard input, in UTF-8 or UTF-16, plain, compressed or alone in an archive.
    Raises InputError; `reads` is the hint where it is not a text."""
    try:
        with single_file(file_source(path), reads) as (_, opened):
            encoding = shown_encoding(opened.beginning(HEAD))
            if encoding is None:
                refuse_binary(opened.beginning(HEAD), opened.name)
            stream = opened.decompressed()
            data = b"".join(iter(partial(stream.read, HEAD), b""))  # an error comes after what precedes it
            return data.decode(encoding or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = f"iconv -f cp1252 -t UTF-8 {typed_name(path)} makes UTF-8 of what Windows writes"
        raise InputError(f"{opened.name} is not {encoding or 'UTF-8'}: line {line:,}", hint=hint) from None
    except InputError as error:
        if isinstance(error.hint, Advice):  # the command reads nothing else
            error.hint = reads
        raise


@contextmanager
def single_file(source: Source, reads: str) -> Iterator[tuple[OpenedFile, OpenedFile]]:
    """Open a file that is not ingested: as it is stored, and itself, or what is in it where it is an archive of one.
    Raises InputError; its hint is `reads` in the place of one for an ingest."""
    try:
        with source.open() as first, first.repeatable() as stored, _inside(source, stored).open() as opened:
            yield stored, opened
    except InputError as error:
        error.hint = _for_others(error.hint, reads)
        raise


def _inside(source: Source, stored: OpenedFile) -> Source:
    def opener() -> nullcontext[BinaryIO]:
        stored.stored.seek(0)
        return nullcontext(stored.stored)

    again = replace(source, opener=opener, path=None, is_stream=False)
    if not is_archive(stored):
        return again
    whole = replace(again, is_stream=source.is_stream)  # its end cannot be sought for
    one, *others = islice(with_members([whole], lambda _skipped: None), 2)
    if others:
        what = f"{source.name} has several files, such as {one.name} and {others[0].name}"
        raise InputError(what, hint="unpack it, and name the one that is wanted")
    assert isinstance(one, Source)
    return one


def _for_others(hint: str, reads: str) -> str:
    """Return the hint of a reader for a command that has no options of how records are read."""
    if isinstance(hint, Advice):
        return hint.of(hint.name, reads)
    return reads if hint == READS else hint
