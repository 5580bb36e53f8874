"""An event bus of EventBridge as a target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pik.errors import UsageError
from pik.ports.target import Message
from pik.targets.aws.batches import Failure, UnsuitableMessage
from pik.targets.aws.service import Address, AwsError, Service

_NAME = re.compile(r"[./A-Za-z0-9_-]{1,256}")
_PASSING = {"InternalException", "InternalFailure", "ServiceUnavailable", "Throttling", "ThrottlingException"}
_DETAIL_TYPE = 128
"""Characters of a DetailType: EventBridge accepts an entry with more, and never delivers it."""


@dataclass(slots=True)
class Bus:
    """An event bus. It is looked up before the first call, because PutEvents reports success for one that is absent."""

    title = "EventBridge"
    ordered = False
    limit = 1_000_000
    service: Service
    _found: bool = False

    @property
    def _name(self) -> str:
        return self.service.address.arn or self.service.address.name

    def check(self) -> None:
        at = self.service.address
        try:
            self.service.call("describe_event_bus", "events:DescribeEventBus", Name=self._name)
        except AwsError as error:
            if error.absent:
                raise UsageError(
                    f"--target {at.shown}: there is no event bus {at.name!r} in {self.service.region()}",
                    hint=f"aws events list-event-buses --region {self.service.region()}",
                ) from None
            if error.denied:
                error.hint += ": PutEvents reports success for a bus that does not exist"
            raise
        self._found = True

    def prepare(self) -> None:
        if not self._found:
            self.check()

    def entry(self, message: Message) -> tuple[dict[str, Any], int]:
        if message.content_type == "text/plain":
            raise UnsuitableMessage("EventBridge takes JSON objects only, and this is not one")
        if len(message.event_type) > _DETAIL_TYPE:
            raise UnsuitableMessage(f"EventBridge takes no DetailType of more than {_DETAIL_TYPE} characters")
        text = message.body.decode()
        resources = [f"{name}:{value}" for name, value in message.attributes.items()]
        entry = {
            "EventBusName": self._name,
            "Source": message.source,
            "DetailType": message.event_type,
            "Detail": text,
            "Time": datetime.fromtimestamp(message.event_time // 10**9, UTC),
            "Resources": resources,
        }
        size = 14 + sum(len(part.encode()) for part in (message.source, message.event_type, text, *resources))
        return entry, size

    def submit(self, entries: Sequence[dict[str, Any]]) -> Mapping[int, Failure]:
        answer = self.service.call("put_events", "events:PutEvents", Entries=list(entries))
        failures = {
            place: Failure("EventBridge did not answer for it", passing=True)
            for place in range(len(answer["Entries"]), len(entries))
        }
        for place, each in enumerate(answer["Entries"]):
            code = each.get("ErrorCode", "")
            if code or not each.get("EventId"):
                reason = f"EventBridge refused it ({code or 'no reason'}): {each.get('ErrorMessage') or code}"
                passing = not code or code in _PASSING
                failures[place] = Failure(reason, passing, self.service.hint(code, "events:PutEvents"))
        return failures

    def close(self) -> None:
        self.service.close()


def bus_of(at: Address) -> Bus:
    """Return the bus at an address: a name or an ARN. Raises UsageError."""
    name = at.name.removeprefix("event-bus/") if at.arn else at.name
    if not _NAME.fullmatch(name) or (at.arn and name == at.name):
        raise UsageError(
            f"--target {at.shown}: {at.name!r} cannot be the name of an event bus",
            hint="--target events://NAME?region=…, or events:// and the bus's ARN",
        )
    return Bus(Service("events", "EventBridge", replace(at, name=name)))
