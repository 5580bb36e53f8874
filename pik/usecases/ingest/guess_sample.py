"""Samples of an input, by how it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pik.errors import InputError, Invalid, UsageError
from pik.inputs.mapping import RecordMapping
from pik.inputs.opened import OpenedInput, SampledRecord
from pik.model.layout import JSON_VALUES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.model.record_path import EACH, RecordPath, path_text, read_path

HALF_OF_A_PAIR = "the record has half of a surrogate pair, which is no character"
"""Why a record that is an object is passed over all the same, as an ingest rejects it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some records that are objects, how they lie in the input, and how many others are not, with the reason for the
    first of these."""

    layout: Layout
    records: tuple[SampledRecord, ...]
    unread: int
    problem: str

    @property
    def size(self) -> int:
        """The number of records that were looked at."""
        return len(self.records) + self.unread


class Samples:
    """Takes samples of an input, which can be read again."""

    def __init__(self, opened: OpenedInput, max_line: int) -> None:
        self._opened, self._max_line = opened, max_line
        self._known: dict[Layout, Sample] = {}

    @property
    def known(self) -> Collection[Sample]:
        """Those that were taken so far."""
        return self._known.values()

    def of(self, layout: Layout, parents: frozenset[str] = frozenset()) -> Sample:
        """Return the sample of an input that lies so, with these fields of the objects around its records. Raises
        InputError."""
        asked = replace(layout, parents=parents)
        if asked not in self._known:
            recognized = replace(self._opened.recognize(layout, mapped=True), parents=parents)
            every = self._opened.sample(recognized, self._max_line)
            problems = [one.problem or _problem(one.line) for one in every]
            records = tuple(one for one, problem in zip(every, problems, strict=True) if not problem)
            problem = next(filter(None, problems), "")
            self._known[asked] = Sample(recognized, records, len(every) - len(records), problem)
        return self._known[asked]

    def are_of_array(self, sample: Sample) -> bool:
        """Return whether the records are the elements of an array."""
        with suppress(InputError, UsageError):
            inside = replace(sample.layout, format=InputFormat.JSON, records=path_text((EACH,)))
            return sample.layout == JSON_VALUES and bool(self.of(inside).records)
        return False

    def path_to(self, sample: Sample) -> RecordPath | None:
        """Return the path to the records, without steps where each is a document; None if they are not JSON."""
        if sample.layout.format not in WRITTEN_AS_JSON:
            return None
        if sample.layout.records is not None:
            return read_path(sample.layout.records)
        return (EACH,) if self.are_of_array(sample) else ()


def _problem(line: bytes) -> str:
    """Return why a line is not a record that can be mapped; nothing if it is one."""
    try:
        found = json.loads(line.decode())
        if b"\\u" in line:
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return "the record is not UTF-8"
    except UnicodeEncodeError:
        return HALF_OF_A_PAIR
    except (ValueError, RecursionError):
        return "the line is not JSON"
    return "" if isinstance(found, dict) else "the record is not a JSON object"


def reading(mapping: RecordMapping) -> Callable[[SampledRecord], object]:
    return lambda one: mapping.read(one.line, one.place)


def count_read(sample: Sequence[SampledRecord], read: Callable[[SampledRecord], object]) -> tuple[int, str]:
    """Return how many records can be read so, and why the first other one cannot."""
    count, problem = 0, ""
    for one in sample:
        try:
            read(one)
            count += 1
        except Invalid as error:
            problem = problem or error.message
    return count, problem
