"""The right to do something alone: an item with a holder, who renews it while it lives; others see when it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep, time_ns
from uuid import uuid4

from pik.errors import Busy, StoreError
from pik.stores.aws.table import Item, Key, Partition, Table, Value

LASTING = 30.0
"""Seconds for which a lease must be seen unchanged, by the clock of whoever looks, before it may be taken over."""

_RENEWALS = 6
"""How often a holder renews its lease in that time: so a living one is soon seen to live."""

_CERTAINLY_OVER = 3600.0
"""Seconds since the end of a lease after which its holder is gone, however wrong its clock was."""

_LOOKS = 60
"""How often a lease is looked at while it lasts."""

_PARTITION: Partition[Item] = Partition("lease")
_TIDY = 24 * 3600  # seconds after its end at which DynamoDB may remove a lease that nobody gave back

_State = tuple[str, int]
"""Holder and end of a lease."""

_seen: dict[tuple[str, str], tuple[_State, float]] = {}
"""What this process has seen of each lease, by table and name, and since when: a clock is compared with itself only."""

_mine: set[tuple[str, str]] = set()
"""The leases of this process: no look is needed to know that their holder lives."""


@contextmanager
def holding(table: Table, name: str, lasting: float = LASTING) -> Iterator[None]:
    """Holds the lease called `name` until the context ends, or `lasting` seconds after the process died. Raises Busy if
    another has it.

    Clocks differ, so the end that a holder has written down is compared with nobody else's clock: a lease is taken over
    when it was seen unchanged for `lasting` seconds, which this waits for. A process may sleep for longer than its
    lease lasts. So a lease keeps people from waiting for each other in vain; what is written under it must be safe
    without it.
    """
    lease = _Lease(table, name, uuid4().hex, lasting)
    if not lease.take() and not lease.take_over():
        raise Busy(
            f"another pik process is working on {name}",
            hint="wait until it has ended, then run this again",
        )
    mine = (table.name, name)
    _mine.add(mine)
    ended = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(ended,), name=f"lease {name}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        _mine.discard(mine)
        lease.give_back()


def held(table: Table, name: str) -> bool:
    """Whether somebody seems to hold the lease: its end has not come, as far as the clocks agree, and it was not seen
    unchanged for as long as one lasts. For telling people; nothing is taken over on such a word."""
    item = table.get(_key(name))
    return item is not None and int(item["ends"]) > time_ns() and not _is_over(table, item, LASTING)


def lives(table: Table, name: str) -> bool:
    """Whether the holder of a lease may be alive. It is, until this process has seen the lease unchanged for as long as
    one lasts."""
    item = table.get(_key(name))
    return item is not None and not _is_over(table, item, LASTING)


def alive(table: Table, name: str) -> bool:
    """As `lives`, but this waits until it is certain."""
    first: _State | None = None
    while (item := table.get(_key(name))) is not None and not _is_over(table, item, LASTING):
        if (table.name, name) in _mine or (first := first or _state(item)) != _state(item):
            return True
        sleep(LASTING / _LOOKS)
    return False


def any_alive(table: Table, apart: str) -> str | None:
    """The name of a lease, not that called `apart`, whose holder lives; waits until those of the dead are over."""
    first: dict[str, _State] = {}
    while True:
        items = [item for item in table.query(_PARTITION) if item["sk"] != apart]
        items = [item for item in items if not _is_over(table, item, LASTING)]
        for item in items:
            if (table.name, item["sk"]) in _mine or first.setdefault(item["sk"], _state(item)) != _state(item):
                return str(item["sk"])
        if not items:
            return None
        sleep(LASTING / _LOOKS)


def _state(item: Item) -> _State:
    return item["holder"], int(item["ends"])


def _is_over(table: Table, item: Item, lasting: float) -> bool:
    """Whether the holder of a lease is gone."""
    if int(item["ends"]) + int(_CERTAINLY_OVER * 1e9) < time_ns():
        return True
    key = table.name, item["sk"]
    state, since = _seen.get(key, (None, 0.0))
    if state != _state(item):
        _seen[key] = _state(item), monotonic()
        return False
    return key not in _mine and monotonic() - since >= lasting


@dataclass(frozen=True, slots=True)
class _Lease:
    table: Table
    name: str
    holder: str
    lasting: float

    def take(self) -> bool:
        """Take or renew it; False if it is another's."""
        return self._write("attribute_not_exists(pk) OR holder = :holder", {})

    def take_over(self) -> bool:
        """Wait until another's lease is over, and take it then; False once its holder is seen to live."""
        first: _State | None = None
        while (item := self.table.get(_key(self.name))) is not None:
            state = _state(item)
            if (self.table.name, self.name) in _mine or (first := first or state) != state:
                return False
            if _is_over(self.table, item, self.lasting):
                return self._write("holder = :other AND ends = :seen", {"other": state[0], "seen": state[1]})
            sleep(self.lasting / _LOOKS)
        return self.take()

    def keep(self, ended: threading.Event) -> None:
        """Renew it now and then. What does not succeed is tried again: nobody took it if it does later."""
        while not ended.wait(self.lasting / _RENEWALS):
            with suppress(StoreError):
                self.take()

    def _write(self, condition: str, values: dict[str, Value]) -> bool:
        ends = time_ns() + int(self.lasting * 1e9)
        values = {"holder": self.holder, "ends": ends, "expires": ends // 10**9 + _TIDY, **values}
        change = "SET holder = :holder, ends = :ends, expires = :expires"
        return self.table.update(_key(self.name), change, values, condition=condition) is not None

    def give_back(self) -> None:
        """It expires anyway, so an error here must not hide what was done under it."""
        with suppress(StoreError):
            self.table.delete(_key(self.name), condition="holder = :holder", values={"holder": self.holder})


def _key(name: str) -> Key[Item]:
    return Key((_PARTITION, name))
