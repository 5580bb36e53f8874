"""Several files as one input: a batch whose records are those of all files, one file after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from pik.errors import InputError, UsageError
from pik.inputs import blocks as limits
from pik.inputs.archives import is_archive, with_members
from pik.inputs.blocks import Block, FilePart, ParentPart
from pik.inputs.document_lists import DocumentList
from pik.inputs.mapping import RecordMapping
from pik.inputs.opened import Chosen, OpenedInput
from pik.inputs.source import Input, Source, file_state, shown_name
from pik.model.layout import Layout

_HINT = "what was read is kept; run the command again when nothing writes to the files"


@dataclass(frozen=True, slots=True)
class OneBatch:
    """Files that are one input. They are named without the `folder`; `note` is told what is skipped of archives."""

    name: str
    size: int | None
    sources: Sequence[Source]
    folder: str
    note: Callable[[str], None]
    is_stream = False

    def open(self) -> AbstractContextManager[OpenedInput]:
        """Open the input: each file is opened when its turn comes."""
        return nullcontext(_OpenedFiles(self.name, self.sources, self.folder, self.note))


def one_batch(sources: Sequence[Source], name: str, folder: str, note: Callable[[str], None]) -> OneBatch:
    """Return the input that is all of these, of that name.

    Raises UsageError for an input that can be read only once: it is read for its digest first.
    """
    for source in sources:
        if source.is_stream:
            raise UsageError(f"--one-batch: {source.name} can be read only once", hint="write it to a file")
    sizes = [source.size for source in sources]
    size = None if None in sizes else sum(size or 0 for size in sizes)
    return OneBatch(name, size, sources, folder, note)


class _OpenedFiles(OpenedInput):
    """The files of a batch, each opened when its turn comes."""

    def __init__(self, name: str, sources: Sequence[Source], folder: str, note: Callable[[str], None]) -> None:
        super().__init__(name, file=sources[0].file.removesuffix(sources[0].name.removeprefix(folder)))
        self._sources, self._folder, self._note = sources, folder, note
        self._is_file = bytearray(len(sources))  # found not to be an archive
        self._states = [file_state(one.path) for one in sources if one.path is not None]
        self._given, self._mapped, self._layout = Layout(), False, Layout()
        self._is_alike: Callable[[str], bool] = lambda _: True

    def chosen(self, by_file: Callable[[str], Chosen]) -> Chosen:
        """Return what is chosen for the first file, which must be chosen for all."""
        with self._first() as opened:
            first = opened.chosen(by_file)
        self._is_alike = lambda file: by_file(file) == first
        return first

    def recognize(self, layout: Layout, *, mapped: bool) -> Layout:
        """Return the layout of the first file, which is that of all."""
        self._given, self._mapped = layout, mapped
        with self._first() as opened:
            self._layout = opened.recognize(layout, mapped=mapped)
        return self._layout

    def with_dialect(self, layout: Layout) -> Layout:
        """Return the layout of a table with the quotes and the escape that the first file shows, where it has none."""
        with self._first() as opened:
            return opened.with_dialect(layout)

    def known_mapping(self, layout: Layout) -> str | None:
        """Return the name of the shipped mapping that is certainly for the first file, if there is one."""
        with self._first() as opened:
            return opened.known_mapping(layout)

    def expect_fields(self, layout: Layout, mapping: RecordMapping) -> None:
        """Raise UsageError where the mapping fits none of the first file's first records."""
        with self._first() as opened:
            opened.expect_fields(layout, mapping)

    def expect_events(self, layout: Layout) -> None:
        """Raise UsageError where none of the first file's first records has a field that each event has."""
        with self._first() as opened:
            opened.expect_events(layout)

    def lists(self, layout: Layout) -> Sequence[DocumentList]:
        """Return the lists in the first file."""
        with self._first() as opened:
            return opened.lists(layout)

    def expect_records(self, layout: Layout, max_line: int) -> None:
        """Raise UsageError where the path to records finds no list in the first file."""
        with self._first() as opened:
            opened.expect_records(layout, max_line)

    def digest(self) -> str:
        """Return a digest over the names and contents of all files, in their order. Raises InputError for a file of
        another format, UsageError for one with another mapping."""
        digest = sha256()
        for opened in self._each_opened():
            self._expect_alike(opened)
            self._expect_layout(opened)
            digest.update(f"{opened.digest()} {self._short(opened.name)}\n".encode())
        return digest.hexdigest()

    def _each_opened(self) -> Iterator[OpenedInput]:
        """Yield all files, each open: a file on a disk is opened once, to be read and to see that it is not an
        archive."""
        for number, source in enumerate(self._sources):
            if source.path is not None:
                with source.open() as opened:
                    if not is_archive(opened):
                        self._is_file[number] = True
                        yield opened
                        continue
            for found in with_members([source], self._note):
                self._is_file[number] = found is source
                with found.open() as member:
                    yield member

    def blocks(self, layout: Layout, max_line: int, *, first_seq: int = 1, offset: int = 0) -> Iterator[Block]:  # noqa: ARG002
        """Yield the blocks from record `first_seq` on. All files are read again up to there."""
        self.position = 0
        joined = _JoinedBlocks()
        for source in self._files():
            begin = joined.next_seq
            with source.open() as opened:
                for block in map(partial(_moved, begin - 1), opened.blocks(layout, max_line)):
                    if not joined.has_room(block):
                        yield from joined.take(first_seq)
                    joined.add(block, FilePart(self._short(source.name), begin, block.last_seq, opened.file))
                opened.expect_unchanged(_HINT)
            self.position += source.size or 0
        yield from joined.take(first_seq)

    def expect_unchanged(self, hint: str = "") -> None:
        """Raise InputError where a file was written to, replaced or removed since the first one was opened."""
        paths = [source.path for source in self._sources if source.path is not None]
        for path, state in zip(paths, self._states, strict=True):
            if file_state(path) != state:
                raise InputError(f"{shown_name(path)} changed while it was being read", hint=hint or _HINT)

    def _files(self, note: Callable[[str], None] = lambda _: None) -> Iterator[Input]:
        for number, source in enumerate(self._sources):
            if self._is_file[number]:
                yield source
                continue
            for found in with_members([source], note):
                self._is_file[number] = found is source
                yield found

    def _first(self) -> AbstractContextManager[OpenedInput]:
        return next(self._files()).open()

    def _expect_alike(self, opened: OpenedInput) -> None:
        if not self._is_alike(opened.file):
            raise UsageError(
                f"{opened.name} has another mapping in pik.toml than the first file of {self.name}",
                hint="--mapping NAME reads all files by one mapping, --mapping none by none",
            )

    def _expect_layout(self, opened: OpenedInput) -> None:
        found = opened.recognize(self._given, mapped=self._mapped)
        if found != self._layout:
            alone = "without --one-batch each is read as what it is"
            if found.format == self._layout.format:
                raise InputError(f"{opened.name} is written otherwise than the first file of {self.name}", hint=alone)
            raise InputError(
                f"{opened.name} is {found.format}, the first file of {self.name} is {self._layout.format}",
                hint=f"--input FORMAT reads all files as one format; {alone}",
            )

    def _short(self, name: str) -> str:
        return name.removeprefix(self._folder)


def _moved(by: int, block: Block) -> Block:
    """Return a block of a file as it is counted in the batch."""
    problems = {seq + by: problem for seq, problem in block.problems.items()}
    parents = tuple(ParentPart(part.fields, part.last_seq + by) for part in block.parents)
    return Block(
        block.first_seq + by, block.last_seq + by, block.data, block.offset, problems=problems, parents=parents
    )


class _JoinedBlocks:
    """Blocks of small files that become one."""

    def __init__(self) -> None:
        self.next_seq = 1
        self._offset = 0
        self._blocks: list[Block] = []
        self._parts: list[FilePart] = []
        self._size = self._records = 0

    def has_room(self, block: Block) -> bool:
        """Return whether the block may be added to those before it."""
        records = self._records + block.last_seq - block.first_seq + 1
        return not self._blocks or (self._size + len(block.data) <= limits.BLOCK and records <= limits.LINES)

    def add(self, block: Block, part: FilePart) -> None:
        """Add a block, which is that part of a file."""
        self._blocks.append(block)
        self._records += block.last_seq - block.first_seq + 1
        self._size += len(block.data)
        self._parts.append(part)
        self.next_seq = block.last_seq + 1

    def take(self, first_seq: int) -> Iterator[Block]:
        """Yield the block that they make, if it is not before that record, and begin the next one."""
        blocks, parts = self._blocks, self._parts
        self._offset += self._size
        self._blocks, self._parts, self._size, self._records = [], [], 0, 0
        if not blocks or blocks[-1].last_seq < first_seq:
            return
        data = b"".join(block.data if block.data.endswith(b"\n") else block.data + b"\n" for block in blocks)
        problems = {seq: problem for block in blocks for seq, problem in block.problems.items()}
        whole = Block(
            blocks[0].first_seq,
            blocks[-1].last_seq,
            data,
            self._offset,
            problems=problems,
            files=tuple(parts),
            parents=tuple(part for block in blocks for part in block.parents),
        )
        yield whole if whole.first_seq >= first_seq else whole.split(first_seq - 1)[1]
