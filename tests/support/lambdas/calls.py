"""What API Gateway and SQS hand in, and what goes back."""

from __future__ import annotations

import json
from io import StringIO

import msgspec
from aws_lambda_powertools.metrics.provider.cloudwatch_emf import cloudwatch

from pik import lambdas
from pik.engine import DuckEngine
from pik.lambdas import ingest, replay
from tests.support.lambdas.gateway import CONTEXT


def wire(patch, store) -> None:
    """Have the handlers work with this store."""
    patch.setattr(lambdas, "store", lambda: store)
    patch.setattr(lambdas, "engine", lambda: DuckEngine())


class Buffered:
    """A queue of buffered requests. `messages` are those that it would deliver, `released` has receipts and delays."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.released: list[tuple[str, float]] = []

    def put(self, message: str) -> None:
        self.messages.append(message)

    def release(self, receipt: str, delay: float) -> None:
        self.released.append((receipt, delay))

    def records(self, receives: int = 1):
        """What SQS would hand to the recorder."""
        attributes = {"ApproximateReceiveCount": str(receives)}
        return [
            {"messageId": f"m{n}", "receiptHandle": f"r{n}", "body": text, "attributes": attributes}
            for n, text in enumerate(self.messages)
        ]


def silence(patch) -> None:
    """Have the handlers tell nobody of logs and metrics: they would write to the standard output of whoever calls."""
    patch.setattr(cloudwatch, "print", lambda *_: None, raising=False)
    patch.setattr(lambdas.logger.handlers[0], "stream", StringIO())


def event(**changes):
    fields = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-31T00:00:00Z", "payload": {}}
    return {**fields, **changes}


def post(handler, body, **parts):
    text = body if isinstance(body, str) else json.dumps(body)
    answer = handler({"httpMethod": "POST", "body": text, "isBase64Encoded": False, **parts}, CONTEXT)
    return answer["statusCode"], json.loads(answer["body"])


def get(run_id: str):
    answer = replay.handler({"httpMethod": "GET", "pathParameters": {"run_id": run_id}, "body": None}, CONTEXT)
    return answer["statusCode"], json.loads(answer["body"])


def messages(store, run_id: str):
    """What SQS would hand to the processor."""
    while message := store.queue.receive(run_id, 60):
        yield {
            "messageId": message.receipt,
            "receiptHandle": message.receipt,
            "body": msgspec.json.encode(message.task).decode(),
            "attributes": {"ApproximateReceiveCount": str(message.receives)},
        }


def asked(**changes):
    return {"entity_id": "e", "start_time": "2026-01-30", "end_time": "2026-02-02T00:00:00Z", **changes}


def some_days(store) -> None:
    """3, 2 and 1 events on three days."""
    times = ["2026-01-30T01:00:00Z"] * 3 + ["2026-01-31T01:00:00Z"] * 2 + ["2026-02-01T01:00:00Z"]
    post(ingest.handler, [event(event_time=time, payload={"n": number}) for number, time in enumerate(times)])
