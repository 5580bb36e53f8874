"""Leases: the right to do something alone.

A lease is an item whose holder renews it while it lives. Clocks differ, so the end that a holder writes is never
compared with another clock, except to tell people: a lease is over when it was seen unchanged for as long as it lasts,
by the clock of who sees it. A process may sleep for longer than its lease lasts, so what is written under a lease must
be safe without it: it only saves useless waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep, time_ns
from uuid import uuid4

from pik.errors import Busy, StoreError
from pik.stores.aws.table import Item, Key, Partition, Table, Value

LASTING = 30.0
"""Seconds for which a lease must be seen unchanged before it may be taken over."""

_RENEWALS = 6
"""How often a holder renews its lease in that time, so that others soon see that it lives."""

_CERTAINLY_OVER = 3600.0
"""Seconds since a lease's end after which its holder is gone, however wrong its clock was."""

_LOOKS = 60
"""How often a lease is read while it lasts."""

_PARTITION: Partition[Item] = Partition("lease")
_TIDY = 24 * 3600  # seconds after its end at which DynamoDB may remove a lease that was not given back

_State = tuple[str, int]
"""Holder and end of a lease."""

_seen: dict[tuple[str, str], tuple[_State, float]] = {}
"""The state of each lease that this process has seen, by table and name, and since when."""

HELD: set[tuple[str, str]] = set()
"""The leases that this process holds."""


@contextmanager
def holding(table: Table, name: str, lasting: float = LASTING) -> Iterator[None]:
    """Hold the lease `name` until the context ends, or `lasting` seconds after the process died. Waits until that of a
    dead process is over; raises Busy if its holder lives."""
    lease = _Lease(table, name, uuid4().hex, lasting)
    if not lease.take() and not lease.take_over():
        raise busy(name)
    mine = (table.name, name)
    HELD.add(mine)
    ended = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(ended,), name=f"lease {name}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        HELD.discard(mine)
        lease.give_back()


def busy(name: str) -> Busy:
    """Return the error for what another process holds the lease of."""
    return Busy(f"another pik process is working on {name}", hint="wait until it has ended, then run this again")


def held(table: Table, name: str) -> bool:
    """Return whether a lease seems to be held, as far as clocks agree: enough to tell people, not to take it over."""
    return any(item["ends"] > time_ns() and not _is_over(table, item, LASTING) for item in _read(table, name))


def lives(table: Table, name: str) -> bool:
    """Return whether a lease's holder may be alive: until the lease was seen unchanged for as long as it lasts."""
    return any(not _is_over(table, item, LASTING) for item in _read(table, name))


def alive(table: Table, name: str) -> bool:
    """Return whether a lease's holder is alive, as soon as that is certain."""
    return _wait(table, lambda: _read(table, name), LASTING)[0] is not None


def await_holders(table: Table, apart: str, is_short: Callable[[str], bool]) -> None:
    """Wait until those have ended that hold a lease now, except `apart`, for a short time, or have died. Raises Busy if
    the holder of another one lives."""
    held_now = {_whose(item) for item in table.query(_PARTITION) if item["sk"] != apart}

    def still() -> list[Item]:
        return [item for item in table.query(_PARTITION) if _whose(item) in held_now]

    living, _ = _wait(table, lambda: [item for item in still() if not is_short(item["sk"])], LASTING)
    if living is not None:
        raise busy(living)
    while any(not _is_over(table, item, LASTING) for item in still()):
        sleep(LASTING / _LOOKS)


def _whose(item: Item) -> tuple[str, str]:
    return item["sk"], item["holder"]


def _read(table: Table, name: str) -> list[Item]:
    item = table.get(_key(name))
    return [] if item is None else [item]


def _wait(table: Table, read: Callable[[], list[Item]], lasting: float) -> tuple[str | None, list[Item]]:
    """Read leases until one of them is seen to live or all are over; return the name of that one, and what was read
    last."""
    first: dict[str, _State] = {}
    while True:
        items = read()
        waiting = [item for item in items if not _is_over(table, item, lasting)]
        for item in waiting:
            name = item["sk"]
            if (table.name, name) in HELD or first.setdefault(name, _state(item)) != _state(item):
                return name, items
        if not waiting:
            return None, items
        sleep(lasting / _LOOKS)


def _state(item: Item) -> _State:
    return item["holder"], item["ends"]


def _is_over(table: Table, item: Item, lasting: float) -> bool:
    """Return whether a lease's holder is gone."""
    key = table.name, item["sk"]
    state, since = _seen.get(key, (None, 0.0))
    if state != _state(item):
        since = monotonic()
        _seen[key] = _state(item), since
    certainly = item["ends"] + int(_CERTAINLY_OVER * 1e9) < time_ns()
    return key not in HELD and (certainly or monotonic() - since >= lasting)


@dataclass(frozen=True, slots=True)
class _Lease:
    table: Table
    name: str
    holder: str
    lasting: float

    def take(self) -> bool:
        """Take or renew it; False if another holds it."""
        return self._write("attribute_not_exists(pk) OR holder = :holder", {})

    def take_over(self) -> bool:
        """Wait until another's lease is over and take it; False once its holder is seen to live."""
        living, items = _wait(self.table, lambda: _read(self.table, self.name), self.lasting)
        if living is not None:
            return False
        if not items:
            return self.take()
        holder, ends = _state(items[0])
        return self._write("holder = :other AND ends = :seen", {"other": holder, "seen": ends})

    def keep(self, ended: threading.Event) -> None:
        """Renew it now and then. A renewal that fails is tried again: if that succeeds, the lease was not taken."""
        while not ended.wait(self.lasting / _RENEWALS):
            with suppress(StoreError):
                self.take()

    def _write(self, condition: str, values: dict[str, Value]) -> bool:
        ends = time_ns() + int(self.lasting * 1e9)
        values = {"holder": self.holder, "ends": ends, "expires": ends // 10**9 + _TIDY, **values}
        change = "SET holder = :holder, ends = :ends, expires = :expires"
        return self.table.update(_key(self.name), change, values, condition=condition) is not None

    def give_back(self) -> None:
        """Delete it. It expires anyway, so an error here must not hide what was done under it."""
        with suppress(StoreError):
            self.table.delete(_key(self.name), condition="holder = :holder", values={"holder": self.holder})


def _key(name: str) -> Key[Item]:
    return Key((_PARTITION, name))
