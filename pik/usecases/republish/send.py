"""Sending history on again: planned, sent, resumed, looked at.

Everything is sent at least once. How far the republish is, is recorded after each call of the target, and when an error
or an interruption ends a call. After a kill, what was sent since the last record is sent again when it is resumed. The
list is made anew then, from the same recordings, and must be the same list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from time import monotonic, sleep, time_ns

from msgspec import structs

from pik.errors import NothingSelected, PikError, StoreError, UsageError, command
from pik.model.republish import Refusal, Republish, RepublishRequest, RepublishState, SendingPlace
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.ports.target import Message, Target, one_line
from pik.runtime import Progress, showing
from pik.usecases.inspect.where import Places
from pik.usecases.republish.messages import message_of
from pik.usecases.republish.order import Known, OrderedDeliveries, SentDelivery, order_deliveries

SAMPLE = 3
"""Messages that a plan shows."""

NOT_GIVEN_YET = "REPUBLISH-ID"
"""Stands in the messages of a plan for the id, which a republish is given when it begins."""

SENT_BYTES = 4 << 20
"""Bytes of bodies after which a call of the target takes no more messages."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to send: messages per second at most, and after how many refusals in one attempt to stop (None: no
    limit)."""

    rate: float | None = None
    stop_after: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A republish as it would begin, its list, and the first messages as they would be sent."""

    republish: Republish
    ordered: OrderedDeliveries
    sample: tuple[Message, ...]


@contextmanager
def plan_republish(
    store: Store, engine: Engine, request: RepublishRequest, progress: Progress, *, now: int, actor: str
) -> Iterator[Plan]:
    """Provide the plan of a request; nothing is stored or sent. Raises NothingSelected, and as `order_deliveries`."""
    from ulid import ULID

    with order_deliveries(store, engine, request, progress) as ordered:
        extent = ordered.extent
        if not extent.events:
            what = "delivery" if request.as_received else "event"
            gone = f"; corrections took {extent.taken_out:,} out" if extent.taken_out else ""
            raise NothingSelected(
                f"nothing to send: no such {what} {request.window.within}{gone}", hint="what there is: pik events"
            )
        republish = Republish(
            republish_id=str(ULID()),
            request=request,
            actor=actor,
            created_at=now,
            known_until=ordered.known.deliveries,
            corrections_until=ordered.known.corrections,
            events=extent.events,
            moved=extent.moved,
            taken_out=extent.taken_out,
            entities=extent.entities,
            list_digest=extent.digest,
        )
        first = islice(ordered, SAMPLE)
        yield Plan(republish, ordered, tuple(message_of(NOT_GIVEN_YET, request, one) for one in first))


def begin(store: Store, plan: Plan, target: Target, pace: Pace, progress: Progress) -> Republish:
    """Store the planned republish and send it. Raises as `_send` does."""
    store.republishes.create(plan.republish)
    with store.republishes.sending(plan.republish.republish_id):
        return _send(store, plan.republish, plan.ordered, target, pace, progress)


def resume(
    store: Store, engine: Engine, republish_id: str, target: Target, pace: Pace, progress: Progress
) -> Republish:
    """Send what is left of a republish, and in its place what was refused. Raises UsageError if nothing is left, Busy,
    StoreError where the list is not the one that was planned; and as `_send` does."""
    with store.republishes.sending(republish_id):
        republish = store.republishes.get(republish_id)
        expect_unfinished(republish)
        known = Known(republish.known_until, republish.corrections_until)
        with order_deliveries(store, engine, republish.request, progress, known) as ordered:
            if ordered.extent.digest != republish.list_digest:
                raise StoreError(
                    f"what republish {republish_id} selected is not what counts today: a rebuild of the index changed"
                    " it",
                    hint="send it anew, with another --reason; consumers drop what they have by event_id",
                )
            return _send(store, republish, ordered, target, pace, progress)


def expect_unfinished(republish: Republish) -> None:
    """Raise UsageError if everything was taken, or what is left was given up."""
    if republish.can_be_resumed:
        return
    is_cancelled = republish.state == RepublishState.CANCELLED
    why = "it is not sent any more" if is_cancelled else "there is nothing left to send"
    raise UsageError(
        f"republish {republish.republish_id} is {republish.state}: {why}",
        hint="give the same command as at first"
        if is_cancelled
        else command("republish", "show", republish.republish_id),
    )


def cancel(store: Store, republish_id: str, reason: str, *, now: int, actor: str) -> Republish:
    """Give up what is left of a republish; what was sent stays sent. One that was cancelled stays as it is. Raises
    UsageError if everything was taken, Busy while a process sends it."""
    with store.republishes.sending(republish_id):
        republish = store.republishes.get(republish_id)
        if republish.state == RepublishState.CANCELLED:
            return republish
        expect_unfinished(republish)
        ended = structs.replace(
            republish,
            state=RepublishState.CANCELLED,
            finished_at=now,
            stopped_because=f"cancelled by {actor}: {reason}",
        )
        store.republishes.record(ended)
        return ended


def unfinished(store: Store, request: RepublishRequest) -> Republish | None:
    """Return the newest republish of exactly this request that did not reach its end."""
    return next((one for one in store.republishes.newest_first() if one.request == request and one.is_active), None)


def is_sending(store: Store, republish: Republish) -> bool:
    """Return whether a living process sends it."""
    return republish.state == RepublishState.RUNNING and store.republishes.is_sending(republish.republish_id)


def _send(
    store: Store, republish: Republish, ordered: OrderedDeliveries, target: Target, pace: Pace, progress: Progress
) -> Republish:
    """Send what was not taken yet, and return the republish as it ended or stopped. Whatever ends the sending is
    recorded, as far as that is possible. Raises TargetUnavailable, StoreError."""
    refused = _Refused(store, republish.republish_id)
    sending = structs.replace(
        republish,
        state=RepublishState.RUNNING,
        attempts=republish.attempts + 1,
        rate=pace.rate,
        stop_after=pace.stop_after,
        refused=refused.count,
        finished_at=None,
        stopped_because="",
    )
    unanswered = frozenset(republish.unanswered)
    sender = _Sender(store, target, pace, progress, sending, refused)
    store.republishes.record(sender.republish)
    try:
        with showing(progress, f"sending to {target.shown}", republish.events, "messages", sending.taken):
            sender.send(ordered.after(sending.cursor, lambda place: place in unanswered or refused.has(place)))
    except KeyboardInterrupt:
        sender.stop("interrupted")
        raise
    except PikError as error:
        sender.stop(one_line(error.message))
        raise
    except Exception as error:
        sender.stop(f"a bug in pik: {type(error).__name__}")
        raise
    return sender.republish


class _Refused:
    """What was refused before this attempt."""

    def __init__(self, store: Store, republish_id: str) -> None:
        self.count = 0

        def places() -> Iterator[tuple[str, int]]:
            for one in store.republishes.refusals(republish_id):
                self.count += 1
                yield one.place.batch_id, one.place.seq

        self._places = Places(places())

    def has(self, place: tuple[str, int]) -> bool:
        """Return whether the delivery with this batch and seq was refused."""
        return place in self._places


@dataclass(slots=True)
class _Sender:
    """One attempt."""

    store: Store
    target: Target
    pace: Pace
    progress: Progress
    republish: Republish
    refused: _Refused
    refusals: int = 0
    unrecorded: tuple[list[Refusal], list[SendingPlace]] = ([], [])
    """What was refused, and refused before and taken now, of the calls that are not recorded yet."""
    sent: int = 0
    began: float = 0.0

    def send(self, deliveries: Iterator[SentDelivery]) -> None:
        """Send these deliveries, and end the republish; or stop after too many refusals."""
        self.began = monotonic()
        for some in self._calls(deliveries):
            self._send(some)
            limit = self.pace.stop_after
            if limit is not None and self.refusals >= limit:
                self.stop(f"{self.refusals:,} refused in this attempt")
                return
        state = RepublishState.PARTIAL if self.republish.refused else RepublishState.COMPLETED
        self._record(state=state, finished_at=time_ns())

    def stop(self, because: str) -> None:
        """Record that the attempt ended early."""
        self._record(state=RepublishState.STOPPED, finished_at=time_ns(), stopped_because=because)

    def _calls(self, deliveries: Iterator[SentDelivery]) -> Iterator[list[tuple[SendingPlace, Message]]]:
        """Yield what is sent with one call: at a given rate no more than a tenth of a second's, so that it is even."""
        rate = self.pace.rate
        most = self.target.at_most if rate is None else max(1, min(self.target.at_most, int(rate / 10)))
        some: list[tuple[SendingPlace, Message]] = []
        size = 0
        for one in deliveries:
            message = message_of(self.republish.republish_id, self.republish.request, one)
            some.append((one.place, message))
            size += len(message.body)
            if len(some) >= most or size >= SENT_BYTES:
                yield some
                some, size = [], 0
        if some:
            yield some

    def _send(self, some: Sequence[tuple[SendingPlace, Message]]) -> None:
        if self.pace.rate:
            sleep(max(0.0, self.began + self.sent / self.pace.rate - monotonic()))
        answers: dict[int, str] = {}
        try:
            self.target.send([message for _, message in some], answers)
        finally:  # a thread may still add to the answers
            self._note([place for place, _ in some], dict(answers))
        self.sent += len(some)
        self._record()
        self.progress.advance(len(some))

    def _note(self, places: Sequence[SendingPlace], answers: Mapping[int, str]) -> None:
        """Take in what became of the messages of a call. It may have been interrupted: then some have no answer."""
        if not answers:
            return
        now = time_ns()
        refused = [Refusal(place=places[at], reason=answers[at], at=now) for at in sorted(answers) if answers[at]]
        taken = [places[at] for at in answers if not answers[at]]
        # What was refused in an earlier attempt is counted already.
        again = [place for place in taken if self._was_refused(place)]
        new = [one for one in refused if not self._was_refused(one.place)]
        cursor = max(places[at] for at in answers)
        if self.republish.cursor is not None:
            cursor = max(cursor, self.republish.cursor)
        waiting = [place for at, place in enumerate(places) if at not in answers and place <= cursor]
        answered = {(places[at].batch_id, places[at].seq) for at in answers}
        unanswered = {one for one in self.republish.unanswered if one not in answered}
        unanswered |= {(place.batch_id, place.seq) for place in waiting if not self._was_refused(place)}
        self.refusals += len(refused)
        self.unrecorded = (self.unrecorded[0] + refused, self.unrecorded[1] + again)
        self.republish = structs.replace(
            self.republish,
            cursor=cursor,
            unanswered=tuple(sorted(unanswered)),
            taken=self.republish.taken + len(taken),
            refused=self.republish.refused + len(new) - len(again),
        )

    def _was_refused(self, place: SendingPlace) -> bool:
        """Return whether an earlier attempt had this refused."""
        return self.refused.has((place.batch_id, place.seq))

    def _record(self, **changes: object) -> None:
        self.republish = structs.replace(self.republish, **changes)
        self.store.republishes.record(self.republish, *self.unrecorded)
        self.unrecorded = ([], [])
