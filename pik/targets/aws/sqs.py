"""A queue in SQS as a target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from pik.errors import UsageError
from pik.ports.target import Message
from pik.targets.aws.batches import Failure
from pik.targets.aws.entries import entry_of, submit_entries
from pik.targets.aws.service import Address, AwsError, Service

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_HOST = re.compile(r"sqs\.(?P<region>[a-z0-9-]+)\.(amazonaws\.com(\.cn)?|api\.aws)")


@dataclass(slots=True)
class Queue:
    """A standard or a FIFO queue. Without its URL, the first call asks for it by name."""

    title = "SQS"
    limit = 1 << 20
    service: Service
    url: str = ""
    ordered: bool = field(init=False)

    def __post_init__(self) -> None:
        self.ordered = self.service.address.name.endswith(".fifo")

    def check(self) -> None:
        url = self._queue_url()
        try:
            self.service.call(
                "get_queue_attributes", "sqs:GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn"]
            )
        except AwsError as error:
            if error.absent:
                raise self._absent() from None
            if not error.denied:  # sending does not need this permission
                raise

    def prepare(self) -> None:
        self._queue_url()
        self.service.prepare()

    def _queue_url(self) -> str:
        if not self.url:
            at = self.service.address
            owner = {"QueueOwnerAWSAccountId": at.account} if at.account else {}
            try:
                answer = self.service.call("get_queue_url", "sqs:GetQueueUrl", QueueName=at.name, **owner)
            except AwsError as error:
                if error.absent:
                    raise self._absent() from None
                if error.denied:
                    error.hint += ", or name the queue by its URL"
                raise
            self.url = answer["QueueUrl"]
        return self.url

    def _absent(self) -> UsageError:
        at = self.service.address
        return UsageError(
            f"--target {at.shown}: there is no queue {at.name!r} in {self.service.region()}",
            hint=f"aws sqs list-queues --region {self.service.region()}",
        )

    def entry(self, message: Message) -> tuple[dict[str, Any], int]:
        return entry_of(message, "MessageBody", ordered=self.ordered)

    def submit(self, entries: Sequence[dict[str, Any]]) -> Mapping[int, Failure]:
        url = self._queue_url()
        return submit_entries(self.service, "send_message_batch", "sqs:SendMessage", "Entries", entries, QueueUrl=url)

    def close(self) -> None:
        self.service.close()


def queue_of(at: Address) -> Queue:
    """Return the queue at an address: a name, an ARN or a URL. Raises UsageError."""
    url = ""
    if "/" in at.name:
        url = at.name if "://" in at.name else f"https://{at.name}"
        parts = urlsplit(url)
        words = parts.path.strip("/").split("/")
        host = _HOST.fullmatch(parts.netloc)
        region = at.region or (host and host["region"]) or None
        account = words[-2] if len(words) > 1 else ""
        at = replace(at, name=words[-1], account=account, region=region)
    if not _NAME.fullmatch(at.name):
        raise UsageError(
            f"--target {at.shown}: {at.name!r} cannot be the name of a queue",
            hint="--target sqs://NAME?region=…, sqs:// and the queue's ARN, or sqs:// and the queue's URL",
        )
    return Queue(Service("sqs", "SQS", at), url)
