"""Producers beside something that a store does: requests that stop before any call, go on later, or die there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from threading import Lock, Semaphore, Thread
from typing import Any

from pik.errors import StoreError
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.ingest.api_request import EventResult, record_request
from tests.support.aws.calls import hooked

_AT_ONCE = 4
"""Requests that are being recorded."""


class Killed(StoreError):
    """In the place of the end of a process."""

    def __init__(self) -> None:
        super().__init__("killed")


@dataclass
class Request:
    """A request, in a thread of its own, which waits before each call."""

    store: Store
    body: bytes
    gate: Semaphore = field(default_factory=lambda: Semaphore(0))
    is_killed: bool = False
    is_free: bool = False
    results: tuple[EventResult, ...] = ()
    batch_id: str = ""
    error: Exception | None = None
    thread: Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with hooked(self.store, "before-send", self._wait):
                report = record_request(self.store, self.body)
            self.batch_id, self.results = report.batch_id, report.results
        except Exception as error:  # noqa: BLE001 - the test asks for it
            self.error = error

    def _wait(self, **_: Any) -> None:
        if not self.is_free:
            self.gate.acquire()
        if self.is_killed:
            raise Killed

    def step(self, calls: int) -> None:
        """Let it send so many calls."""
        self.gate.release(calls)
        self.thread.join(0.002)

    def finish(self, *, kill: bool = False) -> None:
        """Let it go on to its end, or end here."""
        self.is_killed, self.is_free = kill, True
        self.gate.release(1000)
        self.thread.join(600)
        assert not self.thread.is_alive()


@dataclass
class Traffic:
    """Requests of few events, so that most are duplicates."""

    url: str
    random: Random
    look: Callable[[], None]
    """Called now and then."""
    dying: float = 0.3
    """The share of requests that die."""
    ended: list[Request] = field(default_factory=list)
    _flying: list[Request] = field(default_factory=list)
    _idle: list[Store] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._idle = [open_store(self.url) for _ in range(_AT_ONCE)]

    @property
    def acknowledged(self) -> list[Request]:
        """The requests that had an answer."""
        return [one for one in self.ended if one.error is None]

    @contextmanager
    def beside(self, store: Store, calls: int | None = None) -> Iterator[None]:
        """Something happens before each call of this store meanwhile, whose process is killed after so many calls."""
        left = iter(range(calls or 10**9))

        def before(**_: Any) -> None:
            if next(left, None) is None:
                raise Killed
            self.happen()

        with hooked(store, "before-send", before):
            yield

    def happen(self, **_: Any) -> None:
        """Do something at random."""
        with self._lock:
            what = self.random.random()
            if what < 0.3 and self._idle:
                self._flying.append(Request(self._idle.pop(), self._body()))
            elif what < 0.7 and self._flying:
                self.random.choice(self._flying).step(self.random.randrange(1, 5))
            elif what < 0.85 and self._flying:
                self._end(self.random.choice(self._flying), kill=self.random.random() < self.dying)
            elif what < 0.9:
                self.look()

    def finish(self) -> None:
        """Let all requests end that are being recorded; some of them die."""
        with self._lock:
            for one in list(self._flying):
                self._end(one, kill=self.random.random() < self.dying)

    def _end(self, one: Request, *, kill: bool) -> None:
        one.finish(kill=kill)
        self._flying.remove(one)
        self._idle.append(one.store)
        self.ended.append(one)

    def _body(self) -> bytes:
        several = self.random.random() < 0.4
        events = [event(self.random) for _ in range(self.random.randrange(2, 6) if several else 1)]
        return json.dumps(events if several else events[0]).encode()


def event(random: Random) -> dict[str, object]:
    """Return one of few events."""
    number = random.randrange(24)
    time = f"2026-01-0{1 + number % 3}T00:00:00Z"
    fields = {"source": "s", "event_type": "t", "entity_id": f"e/{number % 4}", "event_time": time}
    if number % 3:
        return {**fields, "payload": {"number": number}}
    return {**fields, "idempotency_key": f"k{number}", "payload": {"number": number + 100 * random.randrange(2)}}
