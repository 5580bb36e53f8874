"""Archives as inputs: each file in a tar or zip archive is an input, as if it lay there alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import BinaryIO

from pik.errors import InputError, UsageError
from pik.inputs.advice import Advice, Recorded
from pik.inputs.copies import IN_MEMORY, Opener, copy, part, reopened, seekable
from pik.inputs.folders import SkippedFiles
from pik.inputs.lake_tables import OF_ROWS, is_lake_log, refuse_lake_archive
from pik.inputs.opened_file import OpenedFile
from pik.inputs.source import Input, Refuse, Source, stop
from pik.inputs.tar_archive import BLOCK, is_tar, tar_entries
from pik.inputs.zip_archive import is_zip, zip_entries

DEPTH = 3
"""Most archives of a file, one within another."""

_HINT = Advice(
    (Recorded("what was ingested before that is kept"),), "get a whole copy of the archive, and run this again"
)


def with_members(
    inputs: Iterable[Input], note: Callable[[str], None], refuse: Refuse = stop
) -> Generator[Input, None, None]:
    """Yield the inputs, and in the place of each archive its files, in its order; `note` is told what is skipped.

    A file of an archive is named ARCHIVE:FILE, and can be read again, as a file can. A stream must be read before the
    next input is asked for.

    An archive that is damaged, cut or encrypted, or has no file, is refused, after the files before that.
    """
    for one in inputs:
        if not isinstance(one, Source):
            yield one
            continue
        try:
            with one.held() as held:
                yield from _inputs(held, note, refuse, DEPTH)
        except InputError as error:
            refuse(one.name, error)


@contextmanager
def first_member(inputs: Iterable[Input], note: Callable[[str], None]) -> Iterator[Input]:
    """Provide the first input that `with_members` yields; what it is in stays open meanwhile. Raises UsageError where
    there is none."""
    with closing(with_members(inputs, note)) as members:
        found = next(members, None)
        if found is None:
            raise UsageError("there is no file to look at", hint="name one that is not empty or hidden")
        yield found


def is_archive(opened: OpenedFile) -> bool:
    """Return whether an input is an archive; it can be read again."""
    head = opened.beginning(BLOCK)
    return is_zip(head) or is_tar(head)


def _inputs(source: Source, note: Callable[[str], None], refuse: Refuse, depth: int) -> Iterator[Source]:
    """Yield the inputs in a source: itself, unless it is an archive."""
    archive = _Archive(source)
    kind = archive.kind() if depth else None
    if kind is None:
        yield archive.looked_at()
        return
    skipped, found = SkippedFiles(), False
    for file in kind(skipped):
        found = True
        try:
            yield from _inputs(file, note, refuse, depth - 1)
        except InputError as error:
            refuse(file.name, error)
    archive.expect_unchanged()
    if not found:
        raise InputError(f"there is no file with content in {source.name}", hint=str(skipped))
    if str(skipped):
        note(f"{source.name}: {skipped}")


class _Archive:
    """An input that may be an archive, open as long as one of its files is referred to."""

    def __init__(self, source: Source) -> None:
        self._source, self._open = source, ExitStack()
        self._opened = self._open.enter_context(source.open())

    def looked_at(self) -> Source:
        """Return the input, which is not an archive. What S3 has sent already is not asked for again."""
        if self._source.path is not None or self._source.is_stream:
            self._open.close()
            return self._source
        return replace(self._source, opener=_Opened(self, self._source.opener))

    @property
    def stored(self) -> BinaryIO:
        """The bytes as they are stored."""
        return self._opened.stored

    def kind(self) -> Callable[[SkippedFiles], Iterator[Source]] | None:
        """Return what yields the files, if it is an archive."""
        head = self._opened.beginning(BLOCK)
        return self._of_zip if is_zip(head) else self._of_tar if is_tar(head) else None

    def expect_unchanged(self, hint: str = "") -> None:
        """Raise InputError if the archive was written to since it was opened."""
        self._opened.expect_unchanged(hint or _HINT)

    def _of_zip(self, skipped: SkippedFiles) -> Iterator[Source]:
        stream = self._opened.decompressed(_HINT)
        is_plain = stream is self._opened.stored and not self._source.is_stream
        file = stream if is_plain else self._open.enter_context(seekable(stream))
        for entry in zip_entries(file, self._source.name, _HINT):
            if skipped.is_read(entry.name, entry.what, entry.size):
                yield self._file(entry.name, entry.size, reopened(entry.open, entry.size))

    def _of_tar(self, skipped: SkippedFiles) -> Iterator[Source]:
        stream = self._opened.decompressed(_HINT)
        is_plain = self._source.path is not None and stream is self._opened.stored
        has_rows = False
        for entry in tar_entries(stream, self._source.name, _HINT):
            refuse_lake_archive(self._source.name, [entry.name])
            if not has_rows and entry.name.endswith(OF_ROWS):
                has_rows = True
                self._refuse_log_behind()
            if not skipped.is_read(entry.name, entry.what, entry.size):
                continue
            name = f"{self._source.name}:{entry.name}"
            if is_plain and entry.size > IN_MEMORY:
                opener = part(self._opened.stored, entry.offset, entry.size, name)
            else:
                opener = copy(entry.read, entry.size, name)
            yield self._file(entry.name, entry.size, opener)

    def _refuse_log_behind(self) -> None:
        """Raise InputError if a tar archive that can be read again has the log of a lake's table at any place."""
        if self._source.is_stream:
            return
        log: str | None = None
        with self._source.open() as again, suppress(InputError):  # where it is damaged is said when that is reached
            entries = tar_entries(again.decompressed(_HINT), self._source.name, _HINT)
            log = next((entry.name for entry in entries if is_lake_log(entry.name)), None)
        refuse_lake_archive(self._source.name, [log] if log else [])

    def _file(self, name: str, size: int, opener: Opener) -> Source:
        # The method refers to the archive, which stays open.
        inside = f"{self._source.file}/{name}"
        return Source(
            f"{self._source.name}:{name}",
            size,
            opener,
            unchanged=self.expect_unchanged,
            in_archive=inside,
            window=self._source.window,
        )


class _Opened:
    """Opens an input that is open already: the first time as it is."""

    def __init__(self, first: _Archive, opener: Opener) -> None:
        self._first: _Archive | None = first
        self._opener = opener

    def __call__(self) -> AbstractContextManager[BinaryIO]:
        self._open, self._first = self._first, None  # open as long as this is referred to
        if self._open is None:
            return self._opener()
        self._open.stored.seek(0)
        return self._open.stored
