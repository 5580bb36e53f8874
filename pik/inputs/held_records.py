"""Records that wait for the fields of the objects around them, as these may come after the list that they are in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from pik.errors import InputError
from pik.inputs import blocks as limits
from pik.inputs.advice import Advice, Option
from pik.inputs.blocks import Block, ParentPart, Problem
from pik.model.event import one_line

HELD = 4 << 20
"""Bytes of the records of an object that wait for its fields, about."""

OVERHEAD = 96
"""Bytes that a record takes besides its own, about."""

_encode = msgspec.json.Encoder().encode


@dataclass(eq=False, slots=True)
class _Parent:
    """An object around records that is being read: its fields that are wanted, the first group of its records, and the
    names of fields that may not come any more."""

    first: int
    fields: dict[str, bytes] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Group:
    """Records one after the other in the same objects, of which the last is the nearest."""

    parents: tuple[_Parent, ...] = ()
    lines: list[bytes] = field(default_factory=list)
    problems: dict[int, Problem] = field(default_factory=dict)
    size: int = 0

    def nearest(self, name: str) -> int:
        """Return which of the objects around the records is the nearest with that field, -1 if none has it."""
        return next((at for at in reversed(range(len(self.parents))) if name in self.parents[at].fields), -1)


class HeldRecords:
    """Records become blocks in their order, each when the objects around it have been read, or when too many wait.

    Without wanted fields nothing waits.
    """

    def __init__(self, name: str, wanted: frozenset[str], most: int) -> None:
        self._name, self._wanted, self._most = name, sorted(wanted), most
        self._parents: list[_Parent] = []
        self._waiting: deque[_Group] = deque()
        self._first = 0  # the number of the first group that waits
        self._group: _Group | None = None  # the last one, if records may be added to it
        self._ready = _Group()
        self._parts: list[ParentPart] = []
        self._next_seq = 1
        self._size = 0  # of all that wait
        self._limit = HELD if wanted else limits.BLOCK
        self.is_full = False
        """Whether `full` has something to do."""

    def open(self) -> None:
        """An object begins."""
        if self._wanted:
            self._parents.append(_Parent(self._first + len(self._waiting)))
            self._group = None

    def close(self) -> None:
        """The last object that began ends."""
        if self._wanted:
            self._parents.pop()
            self._group = None
            if not self._parents:
                self._release(len(self._waiting))

    @property
    def waits(self) -> bool:
        """Whether records wait for fields."""
        return bool(self._wanted)

    def wants(self, name: str) -> bool:
        """Return whether it is the name of a field that is wanted of the objects around records."""
        return name in self._wanted

    def set(self, name: str, value: bytes, line: int) -> None:
        """The last object that began has this field, on that line. Raises InputError if it comes too late, or if the
        objects have too much."""
        parent = self._parents[-1]
        hint = f"a mapping without parent('{name}') reads the file"
        if name in parent.late:
            what = f"the field {name} comes after more than {HELD >> 20} MiB of the records in its object"
            rest = f"; {hint}, and so does one before the list"
            raise InputError(f"{self._name}: {what} (line {line})", hint="records before are read without it" + rest)
        parent.fields[name] = one_line(value)
        if sum(len(one) for each in self._parents for one in each.fields.values()) > self._most:
            what = f"the fields around the records, {name} among them, have more than {self._most:,} bytes"
            raise InputError(
                f"{self._name}: {what} (line {line})", hint=Advice((Option("max-line"), " raises this"), hint)
            )

    def add(self, line: bytes, problem: Problem | None = None) -> None:
        """Add a record."""
        group = self._group = self._group or self._new_group()
        if problem is not None:
            group.problems[len(group.lines)] = problem
        group.lines.append(line)
        self._grow(len(line) + OVERHEAD)

    def extend(self, lines: Sequence[bytes]) -> None:
        """Add records, where none waits."""
        self._group = self._group or self._new_group()
        self._group.lines += lines
        self._grow(sum(map(len, lines)) + OVERHEAD * len(lines))

    def _new_group(self) -> _Group:
        group = _Group(tuple(self._parents))
        self._waiting.append(group)
        return group

    def _grow(self, size: int) -> None:
        assert self._group is not None
        self._group.size += size
        self._size += size
        self.is_full = self._size >= self._limit

    def full(self, offset: int) -> Iterator[Block]:
        """Yield a block if there are enough records for one; the text has been read up to that offset."""
        if self._size >= self._limit:
            self._release(self._overdue())
        self.is_full = False
        if self._ready.size >= limits.BLOCK:
            yield self._block(offset)

    def rest(self, offset: int) -> Iterator[Block]:
        """Yield what there is, at the end of the text."""
        self._parents.clear()
        self._release(len(self._waiting))
        if self._ready.lines:
            yield self._block(offset)

    def abandon(self, reason: str) -> None:
        """The objects around the records cannot be read to their end. Records that wait for a field are problems."""
        for group in self._waiting:
            missing = [name for name in self._wanted if group.parents and group.nearest(name) < 0]
            for at, line in enumerate(group.lines if missing else ()):
                why = f"parent('{missing[0]}') is not known: {reason}"
                group.problems.setdefault(at, Problem(why, line))
        self._parents.clear()
        self._release(len(self._waiting))

    def _overdue(self) -> int:
        """Return how many groups have waited long enough: those before the nearest objects, of which less is held."""
        sizes = [group.size for group in self._waiting]
        for parent in self._parents:
            first = max(0, parent.first - self._first)
            if sum(sizes[first:]) < self._limit:
                return first
        return len(sizes)

    def _release(self, count: int) -> None:
        """The first groups wait no longer."""
        for _ in range(count):
            group = self._waiting.popleft()
            self._size -= group.size
            self._first += 1
            for name in self._wanted:
                nearest = group.nearest(name)
                for parent in group.parents[max(0, nearest) :]:
                    parent.late.add(name)
            self._append(group)
        if not self._waiting:
            self._group = None

    def _append(self, group: _Group) -> None:
        ready = self._ready
        ready.problems.update((at + len(ready.lines), problem) for at, problem in group.problems.items())
        ready.lines += group.lines
        ready.size += group.size
        if self._wanted:
            last_seq = self._next_seq + len(ready.lines) - 1
            part = ParentPart(_merged(group), last_seq)
            if self._parts and self._parts[-1].fields == part.fields:
                self._parts.pop()
            else:
                ready.size += len(part.fields)
            self._parts.append(part)

    def _block(self, offset: int) -> Block:
        """Return what is ready as a block."""
        ready, self._ready = self._ready, _Group()
        parts, self._parts = tuple(self._parts), []
        first_seq, self._next_seq = self._next_seq, self._next_seq + len(ready.lines)
        problems = {first_seq + at: problem for at, problem in ready.problems.items()}
        data = b"\n".join(ready.lines) + b"\n"
        return Block(first_seq, self._next_seq - 1, data, offset, problems=problems, parents=parts)


def _merged(group: _Group) -> bytes:
    """Return the fields around the records as a JSON object."""
    fields: dict[str, bytes] = {}
    for parent in group.parents:
        fields.update(parent.fields)
    return b"{" + b",".join(_encode(name) + b":" + value for name, value in sorted(fields.items())) + b"}"
