"""Republishes: history that was sent again to consumers, how far each is, and what was refused."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pik.model.window import Window


class Form(StrEnum):
    """What is sent of an event."""

    CLOUDEVENTS = "cloudevents"
    """A CloudEvent 1.0 in structured JSON."""
    ORIGINAL = "original"
    """The record as the producer sent it."""


class RepublishState(StrEnum):
    """The state of a republish."""

    RUNNING = "RUNNING"
    """A process sends, or was killed while it did."""
    STOPPED = "STOPPED"
    """Ended before everything was sent; it can be resumed."""
    COMPLETED = "COMPLETED"
    """Everything was taken."""
    PARTIAL = "PARTIAL"
    """Everything was sent, and some was refused; that can be sent again."""
    CANCELLED = "CANCELLED"
    """Given up; what is left is not sent any more."""


class RepublishRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a republish was asked for. Two equal requests are the same work. Instants in nanoseconds; `target` is a URL
    without secrets; `as_received`: every delivery, not only what counts."""

    start: int
    end: int
    target: str
    form: Form = Form.CLOUDEVENTS
    entities: tuple[str, ...] = ()
    source: str | None = None
    event_type: str | None = None
    where: str | None = None
    as_received: bool = False
    reason: str = ""

    @property
    def window(self) -> Window:
        """The window of event times."""
        return Window(self.start, self.end)


class SendingPlace(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The place of a delivery in the order of sending: by entity, then by the time that counts."""

    entity_id: str
    event_time: int
    event_id: str
    batch_id: str
    seq: int


class Republish(msgspec.Struct, frozen=True, kw_only=True):
    """A republish, and how far it is.

    What counts is taken as it was `known_until`, with the corrections recorded until `corrections_until` (0: none), so
    that every attempt sends the same list: `events` messages about `entities` entities, of which corrections moved
    `moved`; they took `taken_out` others out, which are not sent. `list_digest` tells one list from another. Everything
    up to `cursor` was sent: `taken` were taken, `refused` were not; but for those `unanswered` (by batch and seq) whose
    answer the last attempt did not wait for. The last attempt was sent at most `rate` messages per second, and would
    have stopped after `stop_after` refusals; `stopped_because` is why it ended early, or who cancelled it and why.
    """

    republish_id: str
    request: RepublishRequest
    actor: str
    created_at: int
    known_until: int
    corrections_until: int
    events: int
    moved: int
    taken_out: int
    entities: int
    list_digest: str
    state: RepublishState = RepublishState.RUNNING
    cursor: SendingPlace | None = None
    unanswered: tuple[tuple[str, int], ...] = ()
    taken: int = 0
    refused: int = 0
    attempts: int = 0
    rate: float | None = None
    stop_after: int | None = None
    finished_at: int | None = None
    stopped_because: str = ""

    @property
    def is_active(self) -> bool:
        """Whether there is something left to send for the first time."""
        return self.state in (RepublishState.RUNNING, RepublishState.STOPPED)

    @property
    def can_be_resumed(self) -> bool:
        """Whether something is left that may still be sent."""
        return self.is_active or self.state == RepublishState.PARTIAL


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that a target did not take, and why."""

    place: SendingPlace
    reason: str
    at: int
