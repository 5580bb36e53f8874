"""The right to do something alone: an item with an owner, which is renewed while it is held and expires by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import time_ns
from uuid import uuid4

from pik.errors import Busy, StoreError
from pik.stores.aws.table import Key, Table, Value

LASTING = 30.0
"""Seconds after which the lease of somebody who is gone may be taken over."""

_PARTITION = "lease"
_TIDY = 24 * 3600  # seconds after its end at which DynamoDB may remove a lease that nobody gave back


@contextmanager
def holding(table: Table, name: str, lasting: float = LASTING) -> Iterator[None]:
    """Holds the lease called `name` until the context ends, or `lasting` seconds after the process died. Raises Busy if
    another has it.

    Clocks differ, and a process may sleep for longer than its lease lasts. So a lease keeps people from waiting for
    each other in vain; what is written under it must be safe without it.
    """
    lease = _Lease(table, name, uuid4().hex, lasting)
    if not lease.take():
        raise Busy(
            f"another pik process is at work on {name}",
            hint=f"wait until it has ended (up to {lasting:.0f} s if it was killed), then run this again",
        )
    ended = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(ended,), name=f"lease {name}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        lease.give_back()


def held(table: Table, name: str) -> bool:
    """Whether somebody who lives, as far as is known, holds the lease."""
    item = table.get(_key(name))
    return item is not None and int(item["ends"]) > time_ns()


def all_held(table: Table) -> list[str]:
    """The names of all leases that are held."""
    return [item["sk"] for item in table.query(_PARTITION) if int(item["ends"]) > time_ns()]


@dataclass(frozen=True, slots=True)
class _Lease:
    table: Table
    name: str
    holder: str
    lasting: float

    def take(self) -> bool:
        """Take or renew it; False if it is another's."""
        now = time_ns()
        ends = now + int(self.lasting * 1e9)
        values: dict[str, Value] = {"holder": self.holder, "ends": ends, "expires": ends // 10**9 + _TIDY, "now": now}
        free = "attribute_not_exists(pk) OR holder = :holder OR ends <= :now"
        change = "SET holder = :holder, ends = :ends, expires = :expires"
        return self.table.update(_key(self.name), change, values, condition=free) is not None

    def keep(self, ended: threading.Event) -> None:
        """Renew it now and then. What does not succeed is tried again: nobody took it if it does later."""
        while not ended.wait(self.lasting / 3):
            with suppress(StoreError):
                self.take()

    def give_back(self) -> None:
        """It expires anyway, so an error here must not hide what was done under it."""
        with suppress(StoreError):
            self.table.delete(_key(self.name), condition="holder = :holder", values={"holder": self.holder})


def _key(name: str) -> Key:
    return _PARTITION, name
