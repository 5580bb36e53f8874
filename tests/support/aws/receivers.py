"""The other ends of targets in AWS: each has a queue at its end, of which a test reads what arrived."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from pik.stores.aws.clients import Clients
from tests.support.aws.emulator import REGION


class QueueReceiver:
    """A queue of its own."""

    keeps_attributes = True
    verbatim = True
    fifo = False

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.name = f"pik-{uuid4().hex[:12]}" + (".fifo" if self.fifo else "")
        self._sqs = clients.client("sqs")
        attributes: Any = {"FifoQueue": "true"} if self.fifo else {}
        self.queue_url = self._sqs.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]
        self.url = f"sqs://{self.name}?region={REGION}"
        self.messages: list[Any] = []

    def received(self) -> list[tuple[bytes, dict[str, str]]]:
        self.collect()
        return [(each["Body"].encode(), attributes(each)) for each in self.messages]

    def collect(self) -> None:
        """Move what is in the queue to `messages`, as SQS delivers it."""
        while found := self._sqs.receive_message(
            QueueUrl=self.queue_url,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        ).get("Messages"):
            self.messages += found
            entries: Any = [
                {"Id": str(place), "ReceiptHandle": each["ReceiptHandle"]} for place, each in enumerate(found)
            ]
            self._sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=entries)

    def queue_arn(self) -> str:
        answer = self._sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]


def attributes(message: Any) -> dict[str, str]:
    """The message attributes."""
    return {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}


class FifoQueueReceiver(QueueReceiver):
    fifo = True


class TopicReceiver(QueueReceiver):
    """A topic, and a queue that subscribes to it: raw messages."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        self._sns = clients.client("sns")
        settings = {"FifoTopic": "true"} if self.fifo else {}
        self.topic_arn = self._sns.create_topic(Name=self.name, Attributes=settings)["TopicArn"]
        self._sns.subscribe(
            TopicArn=self.topic_arn,
            Protocol="sqs",
            Endpoint=self.queue_arn(),
            Attributes={"RawMessageDelivery": "true"},
        )
        self.url = f"sns://{self.name}?region={REGION}"


class FifoTopicReceiver(TopicReceiver):
    fifo = True


class BusReceiver(QueueReceiver):
    """An event bus, and a rule that sends everything to a queue."""

    keeps_attributes = False
    verbatim = False

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients)
        events = clients.client("events")
        events.create_event_bus(Name=self.name)
        pattern = json.dumps({"source": [{"prefix": ""}]})
        events.put_rule(Name=self.name, EventBusName=self.name, EventPattern=pattern)
        target = {"Id": "queue", "Arn": self.queue_arn()}
        events.put_targets(Rule=self.name, EventBusName=self.name, Targets=[target])
        self.url = f"events://{self.name}?region={REGION}"

    def received(self) -> list[tuple[bytes, dict[str, str]]]:
        self.collect()
        return [(json.dumps(json.loads(each["Body"])["detail"]).encode(), {}) for each in self.messages]


AWS_RECEIVERS = {
    "sqs": QueueReceiver,
    "sqs-fifo": FifoQueueReceiver,
    "sns": TopicReceiver,
    "sns-fifo": FifoTopicReceiver,
    "events": BusReceiver,
}
