"""Finding the id file of each of many segments, and reading each file about once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pik.errors import Damaged
from pik.model.batch import Segment
from pik.ports.raw import number_of
from pik.stores.aws.catalog.deliveries import Row, prefix_of, read_ids
from pik.stores.aws.clients import Flow
from pik.stores.aws.s3 import PAGE, AwsRaw

_REMEMBERED = 200_000
"""Rows of the files that were read last which are remembered, about."""

_AT_ONCE = 16
"""Files that are read before what is wanted of them is taken out."""


@dataclass(frozen=True, slots=True)
class ListedRows:
    """What an id file, of this name, has of a segment."""

    name: str
    segment: Segment
    rows: list[Row]


_File = dict[str, ListedRows] | str
"""What a file has of each segment, by key, or why it cannot be read."""


@dataclass(slots=True)
class IdFiles:
    """The id files of one generation, for segments that are asked for in the order of their days and batches.

    Files are listed by the page, since those of one day's batches follow each other, and the files that were read last
    are remembered, since the segments of a chunk do.
    """

    raw: AwsRaw
    generation: int
    _begin: str = ""
    _names: list[str] = field(default_factory=list)
    """The names from `_begin` on, as far as they were listed; all that there are after it, if `_is_end`."""
    _is_end: bool = False
    _files: dict[str, _File] = field(default_factory=dict)

    def of_each(self, segments: Sequence[Segment]) -> Iterator[ListedRows | str]:
        """Yield what the id files have of each segment; the empty text if there is nothing, or why a file cannot be
        read."""
        for begin in range(0, len(segments), _AT_ONCE):
            some = segments[begin : begin + _AT_ONCE]
            names = [self._candidates(segment) for segment in some]
            first = dict.fromkeys(of_segment[0] for of_segment in names if of_segment)
            self._read([name for name in first if name not in self._files])
            for segment, of_segment in zip(some, names, strict=True):
                yield self._found(segment, of_segment)
            self._forget()

    def _found(self, segment: Segment, names: Sequence[str]) -> ListedRows | str:
        problem = ""
        for name in names:
            if name not in self._files:
                self._read([name])
            file = self._files[name]
            if isinstance(file, str):
                problem = problem or file
            elif segment.key in file:
                return file[segment.key]
        return problem

    def _candidates(self, segment: Segment) -> list[str]:
        """Return the files of the segment's chunk, that which is most likely to have it first. A name has the first day
        of the file."""
        prefix = f"{prefix_of(self.generation)}{segment.batch_id}-{number_of(segment.key)}-"
        found = self._listed(prefix)
        day = segment.key.partition("=")[2].partition("/")[0]
        after = bisect_left(found, f"{prefix}{day}-~")
        return [*reversed(found[:after]), *found[after:]]

    def _listed(self, prefix: str) -> list[str]:
        if names := self._in_page(prefix):
            return names
        # Also where the page has none: it may be older than a file.
        self._begin, self._names, self._is_end = prefix, [], True
        for found in self.raw.objects(prefix_of(self.generation), after=prefix):
            self._names.append(found.key)
            if len(self._names) >= PAGE and not found.key.startswith(prefix):
                self._is_end = False
                break
        return self._in_page(prefix)

    def _in_page(self, prefix: str) -> list[str]:
        """Return the names with this prefix, if the page has all of them."""
        if not self._begin or prefix < self._begin:
            return []
        begin = bisect_left(self._names, prefix)
        end = bisect_left(self._names, f"{prefix}~")
        return self._names[begin:end] if end < len(self._names) or self._is_end else []

    def _read(self, names: Sequence[str]) -> None:
        self._files.update(zip(names, Flow().map(self._read_one, names), strict=True))

    def _read_one(self, name: str) -> _File:
        try:
            header, rows = read_ids(self.raw, name)
        except Damaged as error:
            return f"an id file of its batch cannot be read: {error}"
        of_segment: list[list[Row]] = [[] for _ in header.segments]
        for row in rows:
            of_segment[row.segment].append(row)
        both = zip(header.segments, of_segment, strict=True)
        return {segment.key: ListedRows(name, segment, of_this) for segment, of_this in both}

    def _forget(self) -> None:
        held = sum(map(_held, self._files.values()))
        while held > _REMEMBERED:
            held -= _held(self._files.pop(next(iter(self._files))))


def _held(file: _File) -> int:
    return 0 if isinstance(file, str) else sum(len(listed.rows) for listed in file.values())
