"""Ports that misbehave: wrappers around those of a store that fail, delay or repeat calls.

A wrapper satisfies the port it wraps. `durable` names the calls that change what a store holds for good.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from pik.ports.raw import Object
from pik.ports.store import Store

Around = Callable[[str, Callable[[], Any]], Any]
"""Given the name of a call and the call itself; does it, or not, or more than once."""

DURABLE = {
    "raw": {"create", "create_all"},
    "batches": {"open", "record", "finish"},
    "corrections": {"follow"},
    "metrics": {"apply"},
    "runs": {"create", "set_state", "mark"},
    "queue": {"send", "acknowledge", "release", "drop"},
    "dead_letters": {"bury", "delete", "purge"},
    "aggregates": {"write"},
    "promotions": {"promote", "rollback"},
}


class Wrapped:
    """A port whose calls of some names go through `around`."""

    def __init__(self, port: Any, name: str, calls: Iterable[str], around: Around) -> None:
        self._port, self._name, self._calls, self._around = port, name, frozenset(calls), around

    def __getattr__(self, call: str) -> Any:
        method = getattr(self._port, call)
        if call not in self._calls:
            return method
        return lambda *args, **options: self._around(f"{self._name}.{call}", lambda: method(*args, **options))


def wrapped(store: Store, around: Around, *ports: str) -> Store:
    """The store with the durable calls of these ports (of all) going through `around`."""
    made: dict[str, Any] = {
        port: Wrapped(getattr(store, port), port, DURABLE[port], around) for port in ports or DURABLE
    }
    return replace(store, **made)


@dataclass
class OneByOne:
    """Raw that creates several objects one after the other, so that a fault may come between two of them."""

    port: Any

    def __getattr__(self, call: str) -> Any:
        return getattr(self.port, call)

    def create_all(self, objects: Iterable[Object]) -> None:
        for key, data in objects:
            self.port.create(key, data)


class Crash(BaseException):
    """The process is gone; no handler of errors gets to see it."""


@dataclass
class FailAt:
    """Fails at the n-th call (from 1): before it is done, or after, when its caller does not get to know."""

    number: int
    error: BaseException = field(default_factory=Crash)
    after: bool = False
    calls: list[str] = field(default_factory=list)

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls.append(name)
        if len(self.calls) != self.number:
            return call()
        if self.after:
            call()
        raise self.error


@dataclass
class ExitAt:
    """As FailAt, but ends the process at once: no context ends, nothing is flushed."""

    number: int
    after: bool = False
    calls: int = 0

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls != self.number:
            return call()
        if self.after:
            call()
        os._exit(9)


@dataclass
class Slow:
    """Waits before each call, up to so many seconds."""

    seconds: float
    random: Random

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        time.sleep(self.random.random() * self.seconds)
        return call()


@dataclass
class Twice:
    """Repeats calls, as a client does that did not get the first answer; what comes of the repeat is the answer.

    Raw has to refuse a repeat, so it is left out.
    """

    random: Random

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        answer = call()
        if name.startswith("raw.") or self.random.random() < 0.5:
            return answer
        repeated = call()
        return answer if name == "batches.record" else repeated  # a repeat has nothing left to count
