"""What becomes of the first records of an input: events, or why not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pik.errors import Invalid
from pik.inputs.blocks import Block
from pik.inputs.source import Input
from pik.rawlog.reading import Reading
from pik.rawlog.segment_writer import place_of
from pik.usecases.ingest.preview import Preview, preview


@dataclass(frozen=True, slots=True)
class Attempt:
    """A record, at its position in the input: the event that it is, or the `reason` why it is none, with the field that
    is wrong, if it is one."""

    seq: int
    line: bytes
    event: Preview | None = None
    reason: str = ""
    field: str = ""


def first_attempts(source: Input, reading: Reading, count: int) -> tuple[Reading, list[Attempt]]:
    """Return how the input is read, and what becomes of so many of its first records. Raises as `ingest` does."""
    with source.open() as opened:
        reading = reading.of(opened)
        blocks = opened.blocks(reading.layout, reading.max_line)
        attempts = (attempt for block in blocks for attempt in _attempts(block, reading))
        return reading, list(islice(attempts, count))


def _attempts(block: Block, reading: Reading) -> Iterator[Attempt]:
    mapping, zones = reading.record_mapping(), reading.times.zones()
    for seq, line in enumerate(io.BytesIO(block.data), block.first_seq):
        line = line.removesuffix(b"\n")
        if seq in block.problems:
            yield Attempt(seq, block.problems[seq].record, reason=block.problems[seq].reason)
        elif len(line) > reading.max_line:
            yield Attempt(seq, line, reason=f"the line is longer than {reading.max_line} bytes")
        elif line.strip():
            try:
                yield Attempt(seq, line, preview(line, seq, mapping, zones, place_of(block, seq, reading.file)))
            except Invalid as error:
                yield Attempt(seq, line, reason=error.message, field=error.field)
