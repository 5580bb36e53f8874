"""Which generation of the index counts. A rebuild fills another one beside it, and then moves the pointer.

`next` in the pointer says that a rebuild is under way, as long as its lease is held; what a rebuild that died left
there, the next writer removes, and then that rebuild cannot move the pointer any more.

Requests take no lease, and readers do not ask each time. Both believe what they were told for NOTICED seconds, and a
rebuild waits for as long: before it looks at raw, so that every request that is acknowledged has its raw there; and
after it moved the pointer, before anybody may write again, so that nobody reads an index that lacks what was written.

The pointer also says which format the store has, as format.json does in a directory: the first writer sets it, nobody
changes it, and whoever reads the pointer refuses another one. A stack that was never written to has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pik.errors import Busy, StoreError
from pik.stores.aws.lease import alive, any_alive, holding, lives
from pik.stores.aws.table import Item, Key, Table
from pik.stores.common import FORMAT, expect_format

NOTICED = 5.0
"""Seconds for which a process believes what it was told of the generation."""

REBUILDING = "rebuild"
"""The lease of a rebuild."""

_POINTER: Key[Item] = Key(("generation", "generation"))
_FIRST = 1  # where there is no pointer
_UNSAID = "attribute_not_exists(#format)"


def rebuilt() -> Busy:
    """The error for what was written to an index that counts no more. Its raw is in the new one."""
    return Busy("the index was rebuilt meanwhile", hint="run the same command again")


_Asked = tuple[float, float]
_LONG_AGO: _Asked = (0.0, 0.0)


def _now() -> _Asked:
    """On two clocks: one may be set, the other stands still while a machine or a function sleeps."""
    return time.time(), time.monotonic()


def _recent(asked: _Asked) -> bool:
    return all(0 <= now - then < NOTICED for now, then in zip(_now(), asked, strict=True))


@dataclass(slots=True)
class Generation:
    """The current generation of the index table."""

    table: Table
    store: str = ""
    _marked: bool = field(default=False, compare=False)
    _current: int = field(default=_FIRST, compare=False)
    _readable: _Asked = field(default=_LONG_AGO, compare=False)
    _writable: _Asked = field(default=_LONG_AGO, compare=False)

    def current(self) -> int:
        """For reading."""
        if not _recent(self._readable):
            self._look()
        return self._current

    def for_writing(self) -> int:
        """For whoever holds a lease already. Raises Busy while a rebuild is under way; whether one that somebody began
        still is, this waits to see."""
        return self._for_writing(alive)

    def for_request(self) -> int:
        """For a request, which holds no lease and does not wait. Raises Busy."""
        return self._current if _recent(self._writable) else self._for_writing(lives)

    def _for_writing(self, is_alive: Callable[[Table, str], bool]) -> int:
        pending = self._look()
        if pending:
            if is_alive(self.table, REBUILDING):
                raise Busy("the index is being rebuilt", hint="wait until that has ended, then run this again")
            # Its process died. It must not come back to life and move the pointer behind what is written now.
            self.table.update(_POINTER, "REMOVE #next", {"next": pending}, condition="#next = :next")
            self._look()
        self._mark()
        self._writable = self._readable
        return self._current

    def expect(self, generation: int) -> None:
        """Raise Busy where what a request wrote to this generation may be lost, because a rebuild came in between."""
        if self.for_request() != generation:
            raise rebuilt()

    @contextmanager
    def replacing(self) -> Iterator[int]:
        """An empty generation, which becomes the current one when the context ends without an error. Raises Busy while
        anything writes, StoreError if somebody has taken the rebuild for dead."""
        with holding(self.table, REBUILDING):
            made = self._begin()
            try:
                if (writer := any_alive(self.table, REBUILDING)) is not None:
                    raise Busy(
                        f"another pik process is working on {writer}",
                        hint="wait until it has ended, then run this again",
                    )
                time.sleep(NOTICED)
                yield made
                self._move(made)
                time.sleep(NOTICED)
            finally:
                self.table.update(_POINTER, "REMOVE #next", {"next": made}, condition="#next = :next")
                self._look()

    def _look(self) -> int:
        """Read the pointer, and return what `next` says (0: nothing). Raises StoreError for a store of another
        format."""
        asked = _now()
        item = self.table.get(_POINTER) or {}
        self._marked = "format" in item
        if self._marked:
            expect_format(self.store, int(item["format"]))
        self._current = item.get("current", _FIRST)
        self._readable = asked
        return int(item.get("next", 0))

    def _mark(self) -> None:
        """Say which format the store has, before the first thing is written to it."""
        if not self._marked:
            values = {"format": FORMAT}
            if self.table.update(_POINTER, "SET #format = :format", values, condition=_UNSAID) is None:
                self._look()  # another writer was faster, and may be of another version
            self._marked = True

    def _begin(self) -> int:
        self._look()
        self._mark()
        made = max(time.time_ns() // 1_000_000, self._current + 1)  # never one that another rebuild has begun to fill
        self.table.update(_POINTER, "SET #next = :next", {"next": made})
        return made

    def _move(self, made: int) -> None:
        """`next` stays for a while: nobody writes before everybody has noticed."""
        moved = self.table.update(_POINTER, "SET #current = #next", {"next": made}, condition="#next = :next")
        if moved is None:
            raise StoreError("the rebuild lost its lease and was aborted", hint="run the same command again")
