"""Many producers at once on a bad day: `python -m bench.load --producers 100 --seconds 180`.

The producers send events one by one, in arrays and buffered, with duplicates and conflicts, to the functions of a
stack in MiniStack. The functions run in processes of which some are killed at work, 5 % of their calls of AWS fail, and
the queue delivers again what a dead one had taken. In the end each event that was acknowledged must count once, and
each duplicate be recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event, Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack
from tests.support.aws.emulator import ENVIRONMENT, REGION, make_stack, ministack, publish
from tests.support.lambdas.instances import Instances, running

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType
    from mypy_boto3_sqs.type_defs import MessageTypeDef

ROUTES = ("single", "array", "buffered")
TRIES = 50
"""Times that a producer sends a request until it gives up."""

KILLED_AFTER = 100
"""Requests after which an instance is killed, at most."""

VISIBLE_AGAIN = 30
"""Seconds after which the queue delivers again what was not deleted."""

WINDOW, TOGETHER = 5.0, 1000
"""Seconds for which messages are gathered for the recorder, and after how many no more are; those of the template are
5 s and 10,000, or 6 MB."""


@dataclass
class Load:
    """What the producers saw. `acknowledged` has, by batch, how many events it was sent with, `buffered` the same by
    the id of a buffered request; `events` are the distinct events of both, as (entity, number); `milliseconds` are
    those that a function worked on each acknowledged request."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    buffered: dict[str, int] = field(default_factory=dict)
    events: set[tuple[str, int]] = field(default_factory=set)
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    killed: int = 0
    _lock: Lock = field(default_factory=Lock)

    def note(self, route: str, body: Sequence[dict[str, Any]], answer: dict[str, Any] | None, seconds: float) -> bool:
        """Note an answer; return whether it is an acknowledgement."""
        status = 502 if answer is None else answer["statusCode"]
        with self._lock:
            if answer is None or status not in (200, 202):
                self.refused[f"{route} {status}"] += 1
                return False
            said = json.loads(answer["body"])
            if status == 202:
                self.buffered[said["buffered_id"]] = len(body)
            else:
                self.acknowledged[said["batch_id"]] = len(body)
            self.events.update((one["entity_id"], one["payload"]["n"]) for one in body)
            self.milliseconds[route].append(seconds * 1000)
            return True

    def percentile(self, route: str, share: float) -> float:
        """Return the milliseconds within which that share of the route's requests was acknowledged."""
        ordered = sorted(self.milliseconds[route])
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def event_of(random: Random, events: int) -> dict[str, Any]:
    """Return one of so many events, of which every tenth has a key, and perhaps another content each time."""
    number = random.randrange(events)
    event = {
        "source": "load",
        "event_type": "sent",
        "entity_id": f"e{number % 97}",
        "event_time": f"2026-03-{1 + number % 3:02}T{number // 3 % 24:02}:00:00Z",
        "payload": {"n": number},
    }
    if number % 10:
        return event
    return {**event, "idempotency_key": f"k{number}", "payload": {"n": number, "attempt": random.randrange(3)}}


def produce(functions: Instances, load: Load, seed: int, events: int, until: float) -> None:
    """Send requests until then, each again until it is acknowledged."""
    random = Random(seed)
    while time.monotonic() < until:
        route = random.choice(ROUTES)
        body = [event_of(random, events) for _ in range(1 if route == "single" else random.randint(2, 20))]
        for attempt in range(TRIES):
            answer, seconds = functions.invoke(_request(route, body, random))
            if load.note(route, body, answer, seconds):
                break
            time.sleep(min(2.0, 0.05 * 2**attempt) * random.random())
        else:
            load.lost += 1


def _request(route: str, body: Sequence[dict[str, Any]], random: Random) -> dict[str, Any]:
    context = {
        "requestId": str(UUID(int=random.getrandbits(128), version=4)),
        "requestTimeEpoch": time.time_ns() // 1_000_000,
        "identity": {"userArn": "arn:aws:iam::000000000000:user/load"},
    }
    return {
        "httpMethod": "POST",
        "headers": {"Content-Type": "application/json"},
        "queryStringParameters": {"mode": "async" if route == "buffered" else "sync"},
        "isBase64Encoded": False,
        "body": json.dumps(body[0] if route == "single" else body),
        "requestContext": context,
    }


def deliver(clients: Clients, queue_url: str, recorders: Instances, ended: Event) -> None:
    """Hand messages of the queue to the recorder as Lambda does, until `ended` and the queue is empty."""
    sqs = clients.client("sqs")
    while True:
        found = _received(clients, queue_url)
        if not found:
            if ended.is_set() and _is_empty(clients, queue_url):
                return
            continue
        records = [
            {
                "messageId": one["MessageId"],
                "receiptHandle": one["ReceiptHandle"],
                "body": one["Body"],
                "attributes": one["Attributes"],
            }
            for one in found
        ]
        answer, _ = recorders.invoke({"Records": records})
        if answer is not None:
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
            for one in found:
                if one["MessageId"] not in failed:
                    with suppress(sqs.exceptions.ReceiptHandleIsInvalid):  # it took so long that it comes again
                        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=one["ReceiptHandle"])


def _received(clients: Clients, queue_url: str) -> list[MessageTypeDef]:
    """Return what is in the queue, but no more than comes within the window that the template's event source has."""
    sqs = clients.client("sqs")
    found: list[MessageTypeDef] = []
    until = time.monotonic() + WINDOW
    while len(found) < TOGETHER and time.monotonic() < until:
        some = sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1, AttributeNames=["ApproximateReceiveCount"]
        ).get("Messages", [])
        if not some:
            break
        found += some
    return found


_WAITING: Sequence[QueueAttributeNameType] = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


def _is_empty(clients: Clients, queue_url: str) -> bool:
    found = clients.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=_WAITING)["Attributes"]
    return not any(int(found[name]) for name in _WAITING)


def run(
    clients: Clients,
    stack: Stack,
    *,
    producers: int,
    seconds: float,
    events: int,
    instances: int,
    seed: int = 1,
    acknowledged: Callable[[Load], None] = lambda _: None,
) -> Load:
    """Send for so many seconds, call `acknowledged`, and wait until all that was buffered is recorded."""
    queue = clients.client("sqs").create_queue(
        QueueName=f"{stack.name}-ingest", Attributes={"VisibilityTimeout": str(VISIBLE_AGAIN)}
    )["QueueUrl"]
    load, ended, random = Load(), Event(), Random(seed)
    with (
        _environment(stack, queue),
        running("ingest", instances) as functions,
        running("recorder", max(1, instances // 3)) as recorders,
    ):
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(producers + 2) as pool:
            seeds = range(seed * 1000, seed * 1000 + producers)
            sent = [pool.submit(produce, functions, load, number, events, until) for number in seeds]
            delivered = [pool.submit(deliver, clients, queue, recorders, ended) for _ in range(2)]
            _kill(functions, recorders, until, random)
            wait(sent)
            load.killed = functions.killed + recorders.killed
            acknowledged(load)
            ended.set()
        for future in (*sent, *delivered):
            future.result()
    return load


def _kill(functions: Instances, recorders: Instances, until: float, random: Random) -> None:
    """Kill an instance at work after some answers, again and again, until then."""
    wanted = random.randint(10, KILLED_AFTER)
    while time.monotonic() < until:
        time.sleep(0.05 * random.random())
        if functions.answered >= wanted:
            random.choice((functions, functions, recorders)).kill(random)
            wanted = functions.answered + random.randint(10, KILLED_AFTER)


@contextmanager
def _environment(stack: Stack, queue_url: str) -> Iterator[None]:
    """What the template gives its functions."""
    given = {
        "PIK_STACK": stack.name,
        "PIK_RAW_BUCKET": stack.raw_bucket,
        "PIK_INDEX_TABLE": stack.index_table,
        "PIK_STATE_TABLE": stack.state_table,
        "PIK_QUEUE_URL": stack.queue_url,
        "PIK_DEAD_LETTER_QUEUE_URL": stack.dead_letter_queue_url,
        "PIK_INGEST_QUEUE_URL": queue_url,
        "PIK_MAX_RECEIVES": "6",
        "AWS_LAMBDA_LOG_LEVEL": "CRITICAL",
        "POWERTOOLS_METRICS_NAMESPACE": "pik/load",
        "POWERTOOLS_SERVICE_NAME": "load",
    }
    before = dict(os.environ)
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--producers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--instances", type=int, default=6)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ministack(Path(directory)) as url:
        os.environ.update({**ENVIRONMENT, "AWS_ENDPOINT_URL": url})
        clients = Clients(REGION)
        stack = make_stack(clients)
        publish(clients, stack)
        run(
            clients,
            stack,
            producers=given.producers,
            seconds=given.seconds,
            events=given.events,
            instances=given.instances,
            acknowledged=show,
        )
        print("all that was buffered is recorded")


def show(load: Load) -> None:
    """Print what the producers saw."""
    requests = {**load.acknowledged, **load.buffered}
    print(f"{len(requests):,} requests acknowledged, of {sum(requests.values()):,} deliveries; {load.killed} kills")
    print(f"refused and sent again: {dict(sorted(load.refused.items()))}; given up: {load.lost}")
    for route in ROUTES:
        count, p50, p99 = len(load.milliseconds[route]), load.percentile(route, 0.5), load.percentile(route, 0.99)
        print(f"{route}: {count:,} requests, p50 {p50:,.0f} ms, p99 {p99:,.0f} ms", flush=True)


if __name__ == "__main__":
    main()
