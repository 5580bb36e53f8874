"""A topic in SNS as a target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pik.errors import UsageError
from pik.ports.target import Message
from pik.targets.aws.batches import Failure
from pik.targets.aws.entries import entry_of, submit_entries
from pik.targets.aws.service import Address, AwsError, Service

_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}|[A-Za-z0-9_-]{1,251}\.fifo")


@dataclass(slots=True)
class Topic:
    """A standard or a FIFO topic. `check` finds out how large its messages may be."""

    title = "SNS"
    service: Service
    limit: int = 256 * 1024
    ordered: bool = field(init=False)
    _arn: str = ""

    def __post_init__(self) -> None:
        self._arn = self.service.address.arn
        self.ordered = self.service.address.name.endswith(".fifo")

    def check(self) -> None:
        at = self.service.address
        try:
            answer = self.service.call("get_topic_attributes", "sns:GetTopicAttributes", TopicArn=self._topic_arn())
        except AwsError as error:
            if error.absent:
                raise UsageError(
                    f"--target {at.shown}: there is no topic {at.name!r} in {self.service.region()}",
                    hint=f"aws sns list-topics --region {self.service.region()}",
                ) from None
            if not error.denied:  # publishing does not need this permission
                raise
            return
        self.limit = int(answer["Attributes"].get("MaximumMessageSize") or self.limit)

    def prepare(self) -> None:
        self._topic_arn()
        self.service.prepare()

    def _topic_arn(self) -> str:
        self._arn = self._arn or self.service.own_arn(self.service.address.name)
        return self._arn

    def entry(self, message: Message) -> tuple[dict[str, Any], int]:
        return entry_of(message, "Message", ordered=self.ordered)

    def submit(self, entries: Sequence[dict[str, Any]]) -> Mapping[int, Failure]:
        arn = self._topic_arn()
        return submit_entries(
            self.service, "publish_batch", "sns:Publish", "PublishBatchRequestEntries", entries, TopicArn=arn
        )

    def close(self) -> None:
        self.service.close()


def topic_of(at: Address) -> Topic:
    """Return the topic at an address: a name or an ARN. Raises UsageError."""
    if not _NAME.fullmatch(at.name):
        raise UsageError(
            f"--target {at.shown}: {at.name!r} cannot be the name of a topic",
            hint="--target sns://NAME?region=…, or sns:// and the topic's ARN",
        )
    return Topic(Service("sns", "SNS", at))
