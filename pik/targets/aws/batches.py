"""Sending messages with the batch calls of a service, whose entries may fail one by one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

from pik.errors import TargetUnavailable
from pik.ports.target import Message, one_line
from pik.runtime.retries import Backoff, attempts
from pik.targets.aws.service import AwsError
from pik.targets.parallel import send_in_threads

BACKOFF = Backoff(first=0.2, longest=20.0, attempts=8)
CONNECTIONS = 8
"""Calls at a time, each of other entities."""

ENTRIES = 10
"""Entries that SendMessageBatch, PublishBatch and PutEvents take at once."""

_ABOUT_CONTENT = {
    *("BatchRequestTooLong", "BatchRequestTooLongException", "InvalidMessageContents", "InvalidAttributeValue"),
    *("InvalidParameter", "InvalidParameterException", "InvalidParameterValue", "InvalidParameterValueException"),
    *("InvalidParameterCombination", "MissingParameter", "UnsupportedOperation", "ValidationError"),
    *("ValidationException", "RequestEntityTooLarge", "RequestEntityTooLargeException", "413"),
}
"""Errors of a whole call that one of its entries may have caused."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an entry was not taken.

    `passing`: it is the service's own fault, and the same entry may be sent again. `hint`: what to do about an error
    that every other entry would get, too.
    """

    reason: str
    passing: bool = False
    hint: str = ""


class UnsuitableMessage(Exception):
    """A message that the service could never take. It says why."""


class Destination(Protocol):
    """A queue, a topic or a bus, of a service that has a batch call."""

    title: str
    ordered: bool
    """Whether messages of one entity stay in order. Then a call has one of each entity: entries fail one by one."""

    limit: int
    """Bytes that a call takes at most."""

    def check(self) -> None: ...

    def prepare(self) -> None:
        """Find out what a call needs. It is called before each first call, by one thread."""

    def entry(self, message: Message) -> tuple[dict[str, Any], int]:
        """Return a message as an entry, and its bytes as the service counts them. Raises UnsuitableMessage."""

    def submit(self, entries: Sequence[dict[str, Any]]) -> Mapping[int, Failure]:
        """Call the service; return what was not taken, by position. Raises AwsError, TargetUnavailable."""

    def close(self) -> None: ...


@dataclass(slots=True)
class BatchTarget:
    """A queue, a topic or a bus as a target."""

    destination: Destination
    shown: str
    backoff: Backoff = BACKOFF
    at_most: int = 500
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    """Ends what the threads of the last call still do."""

    def check(self) -> None:
        self.destination.check()

    def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
        entries: dict[int, dict[str, Any]] = {}
        sizes: dict[int, int] = {}
        for position, message in enumerate(messages):
            try:
                entries[position], sizes[position] = self.destination.entry(message)
            except UnsuitableMessage as error:
                answers[position] = one_line(str(error))
        self.destination.prepare()
        self._stopped = threading.Event()

        def send(lane: Sequence[int], stopped: threading.Event) -> None:
            for part in _rounds(messages, lane) if self.destination.ordered else [lane]:
                for call in _calls(part, sizes, self.destination.limit):
                    if stopped.is_set():
                        return
                    self._send(call, entries, answers, stopped)

        send_in_threads(_lanes(messages, entries), send, self._stopped, CONNECTIONS)

    def _send(
        self,
        positions: Sequence[int],
        entries: Mapping[int, dict[str, Any]],
        answers: dict[int, str],
        stopped: threading.Event,
    ) -> None:
        """Send some entries until the service has taken or refused each, or sending is stopped. Raises
        TargetUnavailable."""
        reason = ""
        for _ in attempts(self.backoff, stopped.wait):
            if stopped.is_set():
                return
            passing: list[int] = []
            hinting: list[Failure] = []
            for position, failure in self._submit(positions, entries):
                if failure is None:
                    answers[position] = ""
                elif failure.hint:
                    hinting.append(failure)
                elif failure.passing:
                    passing.append(position)
                    reason = failure.reason
                else:
                    answers[position] = one_line(failure.reason)
            if hinting:
                raise TargetUnavailable(f"{self.shown}: {hinting[0].reason}", hint=hinting[0].hint)
            if not passing:
                return
            positions = passing
        raise TargetUnavailable(
            f"{self.shown}: {self.destination.title} takes no messages at present: {one_line(reason)}",
            hint="run the same command again later",
        )

    def _submit(
        self, positions: Sequence[int], entries: Mapping[int, dict[str, Any]]
    ) -> Iterator[tuple[int, Failure | None]]:
        """Yield what became of each entry of a call. A call that is refused as a whole, perhaps because of one entry,
        is halved."""
        try:
            failures = self.destination.submit([entries[position] for position in positions])
        except AwsError as error:
            if error.code not in _ABOUT_CONTENT:
                raise
            if len(positions) == 1:
                yield positions[0], Failure(error.message.removeprefix(f"{self.shown}: "))
                return
            middle = len(positions) // 2
            yield from self._submit(positions[:middle], entries)
            yield from self._submit(positions[middle:], entries)
            return
        for place, position in enumerate(positions):
            yield position, failures.get(place)

    def close(self) -> None:
        self._stopped.set()
        self.destination.close()


def _lanes(messages: Sequence[Message], positions: Collection[int]) -> list[list[int]]:
    """Return positions that may be sent in parallel: all of one entity are in one lane, and lanes fill whole calls."""
    of_entities: dict[str, list[int]] = {}
    for position in positions:
        of_entities.setdefault(messages[position].entity_id, []).append(position)
    count = min(CONNECTIONS, len(of_entities), ceil(len(positions) / ENTRIES))
    lanes: list[list[int]] = [[] for _ in range(count)]
    for of_entity in of_entities.values():
        min(lanes, key=len).extend(of_entity)
    return lanes


def _rounds(messages: Sequence[Message], positions: Iterable[int]) -> Iterator[list[int]]:
    """Yield the first message of each entity, then the second of each, and so on."""
    waiting: dict[str, deque[int]] = {}
    for position in positions:
        waiting.setdefault(messages[position].entity_id, deque()).append(position)
    while waiting:
        yield [of_entity.popleft() for of_entity in waiting.values()]
        waiting = {entity: of_entity for entity, of_entity in waiting.items() if of_entity}


def _calls(positions: Iterable[int], sizes: Mapping[int, int], limit: int) -> Iterator[list[int]]:
    """Yield what fits into one call each. What is too large for any call is sent alone: the service decides."""
    call: list[int] = []
    size = 0
    for position in positions:
        if call and (len(call) == ENTRIES or size + sizes[position] > limit):
            yield call
            call, size = [], 0
        call.append(position)
        size += sizes[position]
    if call:
        yield call
