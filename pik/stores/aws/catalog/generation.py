"""Which generation of the index is current. A rebuild fills another one beside it, and then moves the pointer.

`next` in the pointer shows that a rebuild is under way, as long as its lease is held. The next writer removes what a
rebuild that died left there; then that rebuild cannot move the pointer any more.

Requests take no lease, and readers do not look each time. Both rely on what they read for NOTICED seconds, and a
rebuild waits for as long: before it looks at raw, so that every request that is acknowledged has its raw there; and
after it moved the pointer, before anything may be written again, so that no reader misses what was written.

The pointer also has the format of the store, as format.json has in a directory: the first writer sets it, it never
changes, and readers of the pointer refuse another one. A stack that was never written to has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pik.errors import Busy, StoreError
from pik.stores import FORMAT, expect_format
from pik.stores.aws.lease import alive, any_alive, holding, lives
from pik.stores.aws.table import Item, Key, Table

NOTICED = 5.0
"""Seconds for which a process relies on what it read of the generation."""

REBUILDING = "rebuild"
"""The lease of a rebuild."""

_POINTER: Key[Item] = Key(("generation", "generation"))
_FIRST = 1  # where there is no pointer


def rebuilt() -> Busy:
    """Return the error for what was written to a generation that is not current any more. Its raw is in the new one."""
    return Busy("the index was rebuilt meanwhile", hint="run the same command again")


def _now() -> tuple[float, float]:
    """Return the time of two clocks: one may be set, the other stands still while a machine or a function sleeps."""
    return time.time(), time.monotonic()


def _is_recent(read_at: tuple[float, float]) -> bool:
    return all(0 <= now - then < NOTICED for now, then in zip(_now(), read_at, strict=True))


@dataclass(slots=True)
class Generation:
    """The current generation of the index table."""

    table: Table
    store: str = ""
    _marked: bool = field(default=False, compare=False)
    _current: int = field(default=_FIRST, compare=False)
    _readable_at: tuple[float, float] = field(default=(0.0, 0.0), compare=False)
    _writable_at: tuple[float, float] = field(default=(0.0, 0.0), compare=False)

    def current(self) -> int:
        """Return the generation to read."""
        if not _is_recent(self._readable_at):
            self._read()
        return self._current

    def for_writing(self) -> int:
        """Return the generation to write, for the holder of a lease. Raises Busy while a rebuild is under way; waits to
        see whether one that was begun still is."""
        return self._for_writing(alive)

    def for_request(self) -> int:
        """Return the generation to write, for a request, which holds no lease and does not wait. Raises Busy."""
        return self._current if _is_recent(self._writable_at) else self._for_writing(lives)

    def _for_writing(self, is_alive: Callable[[Table, str], bool]) -> int:
        if pending := self._read():
            if is_alive(self.table, REBUILDING):
                raise Busy("the index is being rebuilt", hint="wait until that has ended, then run this again")
            # Its process died. It must not come back to life and move the pointer after something is written now.
            self._end(pending)
            self._read()
        self._mark()
        self._writable_at = self._readable_at
        return self._current

    def expect(self, generation: int) -> None:
        """Raise Busy where what a request wrote to this generation may be lost, because a rebuild came in between."""
        if self.for_request() != generation:
            raise rebuilt()

    @contextmanager
    def replacing(self) -> Iterator[int]:
        """Yield an empty generation, which becomes the current one when the context ends without an error. Raises Busy
        while anything writes, StoreError if another process took the rebuild for dead."""
        with holding(self.table, REBUILDING):
            self._read()
            self._mark()
            new = max(time.time_ns() // 1_000_000, self._current + 1)  # never one that another rebuild began to fill
            self.table.update(_POINTER, "SET #next = :next", {"next": new})
            try:
                if (writer := any_alive(self.table, REBUILDING)) is not None:
                    raise Busy(
                        f"another pik process is working on {writer}",
                        hint="wait until it has ended, then run this again",
                    )
                time.sleep(NOTICED)
                yield new
                change, condition = "SET #current = #next", "#next = :next"
                if self.table.update(_POINTER, change, {"next": new}, condition=condition) is None:
                    raise StoreError("the rebuild lost its lease and was aborted", hint="run the same command again")
                time.sleep(NOTICED)  # `next` is still there: nothing is written before all readers have noticed
            finally:
                self._end(new)
                self._read()

    def _read(self) -> int:
        """Read the pointer, and return its `next` (0: none). Raises StoreError for a store of another format."""
        read_at = _now()
        item = self.table.get(_POINTER) or {}
        self._marked = "format" in item
        if self._marked:
            expect_format(self.store, int(item["format"]))
        self._current = item.get("current", _FIRST)
        self._readable_at = read_at
        return int(item.get("next", 0))

    def _end(self, rebuild: int) -> None:
        """Remove `next`, if it is still that of this rebuild."""
        self.table.update(_POINTER, "REMOVE #next", {"next": rebuild}, condition="#next = :next")

    def _mark(self) -> None:
        """Set the store's format before the first thing is written to it."""
        if not self._marked:
            change, condition = "SET #format = :format", "attribute_not_exists(#format)"
            if self.table.update(_POINTER, change, {"format": FORMAT}, condition=condition) is None:
                self._read()  # another writer was faster, and may be of another version
            self._marked = True
