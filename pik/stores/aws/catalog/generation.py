"""The generation of the index that is current: a rebuild fills another one beside it, and then moves the pointer.

The pointer says how far a rebuild is:

    `next`                 the new generation; requests write to both
    `next` and `filled`    what the current one knew before the rebuild is in the new one
    `replaced`             the new one is the current one; requests still write to both, since readers may not know yet

Only the holder of a lease may rebuild. The next writer removes what a rebuild that died left there; then that rebuild
cannot move the pointer any more.

Requests take no lease, and readers do not look each time. Both rely on what they read for NOTICED seconds, and a
request may take some times as long. A rebuild waits for so long before it relies on what requests that begin now do:
before it reads raw, so that each request that it does not find writes to the new generation itself.

`compacted` in the pointer shows that segments may be listed in packs: 1 from the moment on that readers have to look
there, 2 once all of them have noticed, so that items of the table may be deleted.

The pointer also has the format of the store, as format.json has in a directory: the first writer sets it, it never
changes, and readers of the pointer refuse another one. A stack that was never written to has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep, time_ns
from typing import NamedTuple

from pik.errors import Busy, StoreError
from pik.model.ids import MILLISECOND
from pik.ports.index import RebuildUnderWay, being_rebuilt, unheard
from pik.stores import FORMAT, expect_format
from pik.stores.aws.lease import alive, await_holders, busy, held, holding, lives
from pik.stores.aws.table import Item, Key, Table

NOTICED = 5.0
"""Seconds for which a process relies on what it read of the generation."""

_REQUEST = 6
"""How many times as long a request may take: IngestFunction ends after 29 seconds."""

_REBUILDING = "rebuild"
"""The lease of a rebuild."""

_POINTER: Key[Item] = Key(("generation", "generation"))

_FIRST = 1  # where there is no pointer

_ALL_NOTICED = 2


def rebuilt() -> Busy:
    """Return the error for what was written to a generation that is not current any more. Its raw is in the new one."""
    return Busy("the index was rebuilt meanwhile", hint="run the same command again")


def _tell_wait(waiting: Callable[[str], None], times: int, until: str) -> None:
    """Tell that it will take so many times NOTICED until something is so, if that is a second or more."""
    if times * NOTICED >= 1:
        waiting(f"waiting {times * NOTICED:.0f} s until {until}")


def tell_requests_wait(waiting: Callable[[str], None]) -> None:
    """Tell that requests are waited for, as `Generation.await_requests` does."""
    _tell_wait(waiting, _REQUEST, "the requests have ended that were being recorded")


def _now() -> tuple[float, float]:
    """Return the time of two clocks: one may be set, the other stands still while a machine or a function sleeps."""
    return time_ns() / 1e9, monotonic()


def _is_recent(read_at: Iterable[float], within: float | None = None) -> bool:
    within = NOTICED if within is None else within
    return all(0 <= now - then < within for now, then in zip(_now(), read_at, strict=True))


class _Rebuild(NamedTuple):
    """What the pointer says of a rebuild: the generation that it made; the one that this has replaced, 0 before that;
    whether what that knew is in the new one."""

    made: int
    replaced: int = 0
    is_filled: bool = False


_NONE = _Rebuild(0)

_DONE = "#replaced, #filled"
"""Attributes of the pointer."""


class Target(NamedTuple):
    """The generations that a request writes, as read at this time of two clocks. While a rebuild is under way `second`
    is the new one, else 0. `is_filled`: what the first knew before the rebuild is in the second, unless it is lost."""

    first: int
    second: int
    is_filled: bool
    read_at: tuple[float, float]


@dataclass(slots=True)
class Generation:
    """The current generation of the index table."""

    table: Table
    store: str = ""
    _marked: bool = field(default=False, compare=False)
    _current: int = field(default=_FIRST, compare=False)
    _corrections: int = field(default=0, compare=False)
    _summed: str = field(default="", compare=False)
    _compacted: int = field(default=0, compare=False)
    _rebuild: _Rebuild = field(default=_NONE, compare=False)
    _writes: tuple[int, int, bool] = field(default=(_FIRST, 0, False), compare=False)
    """What requests write, as in Target: set at once, for threads."""
    _readable_at: tuple[float, float] = field(default=(0.0, 0.0), compare=False)
    _writable_at: tuple[float, float] = field(default=(0.0, 0.0), compare=False)
    _seen: tuple[_Rebuild, float] = field(default=(_NONE, 0.0), compare=False)
    """A rebuild, and since when this process has seen it in this state."""

    def current(self) -> int:
        """Return the generation to read."""
        if not _is_recent(self._readable_at):
            self._read()
        return self._current

    def corrections(self) -> tuple[int, int]:
        """Return the generation to read, and the revision of its corrections; 0 if there are none."""
        return self.current(), self._corrections

    def summed(self) -> str:
        """Return the id before which batches may have been summed up; empty if none were."""
        self.current()
        return self._summed

    def announce_sums(self, before: str) -> str:
        """Say that batches with smaller ids will be summed up, and return the greatest such id that was ever said. All
        writers have noticed when this returns."""
        condition = "attribute_not_exists(#summed) OR #summed < :summed"
        self.table.update(_POINTER, "SET #summed = :summed", {"summed": before}, condition=condition)
        self._read()
        sleep(NOTICED)
        return self._summed

    def set_corrections(self, revision: int) -> None:
        """Make this the revision of the corrections of the generation that was read last; all readers have noticed when
        this returns. Raises Busy if another process was faster."""
        change = "SET #corrections = :corrections"
        condition = "attribute_not_exists(#corrections)"
        values = {"corrections": revision}
        if self._corrections:
            condition, values = "#corrections = :before", {**values, "before": self._corrections}
        if self._current != _FIRST:
            condition, values = f"{condition} AND #current = :current", {**values, "current": self._current}
        else:
            condition = f"{condition} AND attribute_not_exists(#current)"
        is_set = self.table.update(_POINTER, change, values, condition=condition) is not None
        generation = self._current
        self._read()
        # Where the answer was lost, the call was sent again: the first one may have set it.
        if not is_set and (self._current, self._corrections) != (generation, revision):
            raise busy("corrections")  # this process slept for longer than its lease
        sleep(NOTICED)

    def announce_corrections(self) -> None:
        """Let readers look for corrections from now on."""
        if not self._corrections:
            change, condition = "SET #corrections = :first", "attribute_not_exists(#corrections)"
            self.table.update(_POINTER, change, {"first": 1}, condition=condition)
            self._read()

    def is_compacted(self) -> bool:
        """Return whether there may be packs. Whoever asks after reading the list of a day in the table misses none: an
        item is deleted there only after every reader has noticed."""
        self.current()
        return self._compacted > 0

    def announce_packs(self) -> None:
        """Let readers look for packs from now on; all of them have noticed when this returns."""
        if self._compacted == _ALL_NOTICED:
            return
        change, condition = "SET #compacted = :compacted", "attribute_not_exists(#compacted)"
        self.table.update(_POINTER, change, {"compacted": 1}, condition=condition)
        sleep(NOTICED)
        self.table.update(_POINTER, change, {"compacted": _ALL_NOTICED})
        self._read()

    def for_writing(self) -> int:
        """Return the generation to write, for the holder of a lease. Raises Busy while a rebuild is under way; waits to
        see whether one that was begun still is."""
        if self._read() != _NONE:
            if alive(self.table, _REBUILDING):
                raise being_rebuilt(self._rebuild.made * MILLISECOND)
            # Its process died. It must not come back to life and move the pointer after something is written now.
            self._end(self._rebuild)
            self._read()
        self._mark()
        self._writable_at = self._readable_at
        return self._current

    def for_request(self) -> Target:
        """Return what a request writes, which holds no lease, and does not wait for a rebuild to end."""
        if not _is_recent(self._writable_at):
            rebuild = self._read()
            is_noticed = self._is_noticed(rebuild)
            if rebuild != _NONE and not lives(self.table, _REBUILDING) and is_noticed:
                self._end(rebuild)
                self._read()
            self._mark()
            self._writable_at = self._readable_at
        return Target(*self._writes, self._writable_at)

    def expect(self, target: Target) -> None:
        """Raise Busy where a request took longer than a rebuild waits for it, and one came in between."""
        if not _is_recent(target.read_at, (1 + _REQUEST) * NOTICED):
            self._writable_at = (0.0, 0.0)
            if self.for_request()[:2] != target[:2]:
                raise rebuilt()

    def rebuilding(self) -> RebuildUnderWay | None:
        """Return the rebuild that is under way, as far as clocks agree; a generation is named by the time at which its
        rebuild began."""
        self.current()
        if not self._rebuild.made or self._rebuild.replaced or not held(self.table, _REBUILDING):
            return None
        return RebuildUnderWay(self._rebuild.made * MILLISECOND)

    @contextmanager
    def replacing(self, is_short: Callable[[str], bool], waiting: Callable[[str], None] = unheard) -> Iterator[int]:
        """Yield an empty generation, which becomes the current one when the context ends without an error. Requests
        that begin after this was entered write to both, and all others have ended. Raises Busy while a lease is held,
        but waits for those that are held for a short time; StoreError if another process took the rebuild for dead.
        `waiting` is told what is waited for."""
        with self._rebuilding_alone():
            if self._read().replaced:  # readers may not have noticed yet that another rebuild moved the pointer
                sleep(NOTICED)
            self._mark()
            new = max(time_ns() // 1_000_000, self._current + 1)  # never one that another rebuild began to fill
            self.table.update(_POINTER, f"SET #next = :next REMOVE {_DONE}", {"next": new})
            try:
                # A holder of a lease reads the pointer after it has got it: who has one later knows of the rebuild.
                await_holders(self.table, _REBUILDING, is_short)
                _tell_wait(waiting, 1 + _REQUEST, "all writers have noticed the rebuild")
                sleep(NOTICED)
                self.await_requests()
                yield new
                change = "SET #current = :next, #replaced = :replaced REMOVE #next, #filled"
                values = {"next": new, "replaced": self._current}
                condition = "#next = :next OR #current = :next"  # the latter after a call whose answer was lost
                if self.table.update(_POINTER, change, values, condition=condition) is None:
                    raise StoreError("the rebuild lost its lease and was aborted", hint="run the same command again")
                _tell_wait(waiting, 1, "all readers have noticed the new index")
                sleep(NOTICED)  # `replaced` is still there: both are written until all readers have noticed
            finally:
                self._end(_Rebuild(new))
                self._read()

    @contextmanager
    def _rebuilding_alone(self) -> Iterator[None]:
        """Hold the right to rebuild. Raises BeingRebuilt."""
        with ExitStack() as stack:
            try:
                stack.enter_context(holding(self.table, _REBUILDING))
            except Busy:
                raise being_rebuilt(self._read().made * MILLISECOND) from None
            yield

    def await_requests(self) -> None:
        """Wait until the requests have ended that are being recorded now."""
        sleep(_REQUEST * NOTICED)

    def announce_filled(self, new: int, waiting: Callable[[str], None] = unheard) -> None:
        """Let requests know that this new generation has what the replaced one knew before the rebuild; those that did
        not know it have ended when this returns."""
        self.table.update(_POINTER, "SET #filled = :next", {"next": new}, condition="#next = :next")
        _tell_wait(waiting, 1 + _REQUEST, "all writers have noticed that the new index is filled")
        sleep(NOTICED)
        self.await_requests()

    def _read(self) -> _Rebuild:
        """Read the pointer, and return the rebuild that is under way. Raises StoreError for a store of another
        format."""
        read_at = _now()
        item = self.table.get(_POINTER) or {}
        self._marked = "format" in item
        if self._marked:
            expect_format(self.store, item["format"])
        self._current = item.get("current", _FIRST)
        self._corrections = item.get("corrections", 0)
        self._summed = item.get("summed", "")
        self._compacted = item.get("compacted", 0)
        self._rebuild = _NONE
        if "next" in item:
            self._rebuild = _Rebuild(item["next"], 0, item.get("filled") == item["next"])
        elif "replaced" in item:
            self._rebuild = _Rebuild(self._current, item["replaced"], is_filled=True)
        self._writes = self._rebuild.replaced or self._current, self._rebuild.made, self._rebuild.is_filled
        self._readable_at = read_at
        return self._rebuild

    def _is_noticed(self, rebuild: _Rebuild) -> bool:
        """Return whether this process has seen a rebuild in this state for so long that all have noticed it."""
        if self._seen[0] != rebuild:
            self._seen = rebuild, monotonic()
        return monotonic() - self._seen[1] >= NOTICED

    def _end(self, rebuild: _Rebuild) -> None:
        """Remove what the pointer says of a rebuild, if it is still this one."""
        condition = "#next = :made OR (#current = :made AND attribute_exists(#replaced))"
        self.table.update(_POINTER, f"REMOVE #next, {_DONE}", {"made": rebuild.made}, condition=condition)

    def _mark(self) -> None:
        """Set the store's format before the first thing is written to it."""
        if not self._marked:
            change, condition = "SET #format = :format", "attribute_not_exists(#format)"
            if self.table.update(_POINTER, change, {"format": FORMAT}, condition=condition) is None:
                self._read()  # another writer was faster, and may be of another version
            self._marked = True
