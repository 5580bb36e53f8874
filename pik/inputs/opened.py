"""An input that is open: recognized by its first bytes, identified, and read as blocks of records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, TypeVar

from pik.inputs.blocks import Block
from pik.inputs.document_lists import DocumentList
from pik.inputs.mapping import RecordMapping
from pik.inputs.parents import Parents
from pik.model.layout import Layout
from pik.model.place import Place

Chosen = TypeVar("Chosen")

SAMPLE_BLOCKS, SAMPLE_FIRST, SAMPLE_SPREAD = 2, 100, 50
"""Blocks that a sample is taken from, records at the beginning, and others of each block."""


class SampledRecord(NamedTuple):
    """A record as a line of JSON, and where it stands; or the problem why it cannot become JSON."""

    line: bytes
    place: Place
    problem: str = ""


class OpenedInput(ABC):
    """An input that stays open while it is examined, identified and read: each of these sees the same bytes.

    Every method reads from the beginning; a stream can be examined and then read once. All raise InputError where the
    input cannot be read, and StoreError where it is in S3 and access fails.
    """

    def __init__(self, name: str, *, file: str = "", is_stream: bool = False) -> None:
        self.name, self.is_stream = name, is_stream
        self.file = file
        """The path of the file; of several files that of their folder, with a slash at its end; of a stream none."""
        self.position = 0
        """Bytes of the input that have been read for the blocks so far, as stored."""

    def chosen(self, by_file: Callable[[str], Chosen]) -> Chosen:
        """Return what is chosen for the input by the path of its file."""
        return by_file(self.file)

    @contextmanager
    def repeatable(self) -> Iterator[OpenedInput]:
        """Provide the input so that it can be read more than once: what is read of a stream is kept meanwhile."""
        yield self

    @abstractmethod
    def recognize(self, layout: Layout, *, mapped: bool) -> Layout:
        """Return the layout with its format, by the content and the name where it has none. Raises InputError where the
        input is certainly not of that format, or of none that can be read. `mapped`: any JSON object is a record."""

    @abstractmethod
    def with_dialect(self, layout: Layout) -> Layout:
        """Return the layout of a table with the quotes and the escape that its first rows show, where it has none."""

    @abstractmethod
    def known_mapping(self, layout: Layout) -> str | None:
        """Return the name of the shipped mapping that is certainly for the input, if there is one."""

    @abstractmethod
    def lists(self, layout: Layout) -> Sequence[DocumentList]:
        """Return the lists in the document that the input begins with, the longest first."""

    @abstractmethod
    def expect_fields(self, layout: Layout, mapping: RecordMapping) -> None:
        """Raise UsageError where the mapping fits none of the input's first records."""

    @abstractmethod
    def expect_events(self, layout: Layout) -> None:
        """Raise UsageError where none of the input's first records has a field that each event has."""

    @abstractmethod
    def expect_records(self, layout: Layout, max_line: int) -> None:
        """Raise UsageError where the path to records finds no list at the input's beginning."""

    @abstractmethod
    def digest(self) -> str:
        """Return the identity of the content, in hex."""

    @abstractmethod
    def blocks(self, layout: Layout, max_line: int, *, first_seq: int = 1, offset: int = 0) -> Iterator[Block]:
        """Yield the blocks from record `first_seq` on, which starts `offset` uncompressed bytes into the input.

        A run of NUL bytes is one record. Raises InputError as `blocks` of each reader does. The caller checks
        afterwards that the input is unchanged.
        """

    def sample(self, layout: Layout, max_line: int) -> list[SampledRecord]:
        """Return records of the first blocks: those that come first, and others evenly spread. A stream is read."""
        found: list[SampledRecord] = []
        for block in islice(self.blocks(layout, max_line), SAMPLE_BLOCKS):
            found += sample_block(block, self.file, first=0 if found else SAMPLE_FIRST)
        return found

    @abstractmethod
    def expect_unchanged(self, hint: str = "") -> None:
        """Raise InputError if the input was written to since it was opened."""


def sample_block(block: Block, file: str, first: int) -> list[SampledRecord]:
    """Return the first records of a block, and some of the others, evenly spread."""
    parents, reasons = Parents(block), {seq: problem.reason for seq, problem in block.problems.items()}
    found = [
        SampledRecord(line, Place(file, seq, parents.of(seq)), reasons.get(seq, ""))
        for seq, line in enumerate(block.data.split(b"\n"), block.first_seq)
        if line.strip() or seq in reasons
    ]
    others = found[first:]
    return found[:first] + others[:: max(1, len(others) // SAMPLE_SPREAD)][:SAMPLE_SPREAD]
