"""Targets in AWS: what a service refuses, takes in part, or does not take at present; and how they are named."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import PikError, TargetUnavailable, UsageError
from pik.ports.target import Message, Target
from pik.runtime.retries import Backoff
from pik.stores.aws.clients import Clients
from pik.targets import target_of
from pik.targets.aws.batches import BatchTarget
from pik.targets.aws.events import Bus, bus_of
from pik.targets.aws.service import Service, address
from pik.targets.aws.sns import Topic, topic_of
from pik.targets.aws.sqs import Queue, queue_of
from tests.support.aws.emulator import ENVIRONMENT, REGION
from tests.support.aws.receivers import BusReceiver, FifoQueueReceiver, QueueReceiver, TopicReceiver
from tests.support.targets import message, send

SOON = Backoff(first=0.001, longest=0.01, attempts=5)
URL = f"http://127.0.0.1:1/000000000000/orders?region={REGION}"
ARN = f"arn:aws:sns:{REGION}:123456789012:orders"

Answer = Callable[[Sequence[dict[str, Any]]], dict[int, tuple[str, bool]]]
"""Given the entries of a call, why some are not taken: a code, and whether it is the sender's fault."""


class Scripted(Service):
    """A service that takes what `answer` lets it, in memory; threads may call it."""

    def __init__(self, url: str, answer: Answer = lambda _entries: {}) -> None:
        super().__init__(url.partition(":")[0], "AWS", address(url))
        self.answer = answer
        self.calls: list[Sequence[dict[str, Any]]] = []
        self.taken: list[dict[str, Any]] = []

    def prepare(self) -> None:
        """There is no client."""

    def call(self, operation: str, permission: str, **parameters: Any) -> Any:
        entries = parameters.get("Entries") or parameters.get("PublishBatchRequestEntries")
        if not entries:
            return {"Attributes": {}}
        self.calls.append(entries)
        failed = self.answer(entries)
        self.taken += [entry for place, entry in enumerate(entries) if place not in failed]
        if operation == "put_events":
            return {"Entries": [{"ErrorCode": failed[place][0]} if place in failed else {"EventId": "x"}
                                for place in range(len(entries))]}  # fmt: skip
        return {
            "Successful": [{"Id": each["Id"]} for place, each in enumerate(entries) if place not in failed],
            "Failed": [
                {"Id": entries[place]["Id"], "Code": code, "Message": "so it is", "SenderFault": fault}
                for place, (code, fault) in failed.items()
            ],
        }

    def numbers(self) -> list[int]:
        return [number_of(each) for each in self.taken]


def number_of(entry: Mapping[str, Any]) -> int:
    number: int = json.loads(entry.get("MessageBody") or entry.get("Message") or entry["Detail"])["number"]
    return number


def scripted(url: str, answer: Answer = lambda _entries: {}) -> tuple[BatchTarget, Scripted]:
    service = Scripted(url, answer)
    kinds: Mapping[str, Callable[[Any], Queue | Topic | Bus]] = {"sqs": Queue, "sns": Topic, "events": Bus}
    made = kinds[service.name](service)
    if isinstance(made, Queue):
        made.url = "https://queue"
    if isinstance(made, Topic):
        made._arn = "arn"
    return BatchTarget(made, url, backoff=SOON), service


def messages(count: int, entities: int) -> list[Message]:
    return [message(number, entity=f"e-{number % entities}") for number in range(count)]


def by_entity(numbers: Sequence[int], entities: int) -> dict[int, list[int]]:
    return {entity: [number for number in numbers if number % entities == entity] for entity in range(entities)}


def sometimes(code: str) -> Answer:
    """Every third message fails twice, by the service's own fault."""
    attempts: Counter[int] = Counter()

    def answer(entries: Sequence[dict[str, Any]]) -> dict[int, tuple[str, bool]]:
        failed = {}
        for place, entry in enumerate(entries):
            if number_of(entry) % 3 == 0 and attempts[number_of(entry)] < 2:
                attempts[number_of(entry)] += 1
                failed[place] = (code, False)
        return failed

    return answer


@pytest.mark.parametrize("url", ["sqs://q.fifo", "sns://t.fifo"])
@pytest.mark.parametrize("entities", [1, 3, 40])
def test_order_per_entity_is_kept_where_entries_fail_and_are_sent_again(url: str, entities: int) -> None:
    target, service = scripted(url, sometimes("InternalError"))
    sent = messages(100, entities)
    assert send(target, sent) == {}
    assert sorted(service.numbers()) == list(range(100))
    assert by_entity(service.numbers(), entities) == by_entity(range(100), entities)
    for call in service.calls:
        assert len({entry["MessageGroupId"] for entry in call}) == len(call) <= 10


@given(
    url=st.sampled_from(["sqs://q", "sqs://q.fifo", "sns://t.fifo", "events://b"]),
    # of each message: its entity, how often it fails by the service's fault, whether it is refused, its size
    wanted=st.lists(
        st.tuples(
            st.sampled_from("abcdefghijkl"), st.integers(0, 3), st.booleans(), st.sampled_from([0, 10, 90_000, 400_000])
        ),
        max_size=60,
    ),
)
@settings(max_examples=40)
def test_each_message_is_taken_once_or_refused_and_order_is_kept(
    url: str, wanted: list[tuple[str, int, bool, int]]
) -> None:
    attempts: Counter[int] = Counter()

    def answer(entries: Sequence[dict[str, Any]]) -> dict[int, tuple[str, bool]]:
        failed = {}
        for place, number in enumerate(map(number_of, entries)):
            attempts[number] += 1
            if attempts[number] <= wanted[number][1]:
                failed[place] = ("InternalFailure", False)
            elif wanted[number][2]:
                failed[place] = ("NotThat", True)
        return failed

    target, service = scripted(url, answer)
    sent = [
        message(number, entity=entity, body=json.dumps({"number": number, "x": "x" * size}).encode())
        for number, (entity, _, _, size) in enumerate(wanted)
    ]
    assert set(send(target, sent)) == {number for number, each in enumerate(wanted) if each[2]}
    taken = service.numbers()
    assert sorted(taken) == [number for number, each in enumerate(wanted) if not each[2]]
    if service.address.name.endswith(".fifo"):
        for entity in "abcdefghijkl":
            of_entity = [number for number in taken if wanted[number][0] == entity]
            assert of_entity == sorted(of_entity)


@pytest.mark.parametrize("url", ["sqs://q", "sqs://q.fifo", "sns://t", "events://b"])
def test_what_the_service_refuses_is_named_and_the_others_arrive(url: str) -> None:
    def answer(entries: Sequence[dict[str, Any]]) -> dict[int, tuple[str, bool]]:
        return {place: ("NotThat", True) for place, entry in enumerate(entries) if '"number": 7,' in str(entry)}

    target, service = scripted(url, answer)
    refused = send(target, messages(20, 2))
    assert list(refused) == [7]
    assert "refused it (NotThat)" in refused[7]
    assert sorted(service.numbers()) == [number for number in range(20) if number != 7]


@pytest.mark.parametrize("url", ["sqs://q", "sns://t", "events://b"])
def test_a_service_that_fails_on_and_on_is_unavailable(url: str) -> None:
    target, service = scripted(url, lambda entries: dict.fromkeys(range(len(entries)), ("ThrottlingException", False)))
    with pytest.raises(TargetUnavailable, match=r"takes no messages at present: .*ThrottlingException"):
        send(target, messages(20, 2))
    assert len(service.calls) in range(5, 11)  # two entities, each in a thread


def test_calls_have_at_most_ten_entries_and_the_bytes_that_the_service_takes() -> None:
    for url, limit in (("sqs://q", 1 << 20), ("sns://t", 256 << 10), ("events://b", 1_000_000)):
        target, service = scripted(url)
        text = b'{"number": 1, "text": "' + b"x" * 90_000 + b'"}'
        sent = [message(1, body=text if number % 2 else b'{"number": 1}') for number in range(60)]
        assert send(target, sent) == {}
        sizes = [sum(len(str(entry)) for entry in call) for call in service.calls]
        assert max(map(len, service.calls)) <= 10
        assert max(sizes) < limit + 10_000
        assert len(service.calls) < (6 if limit > 500_000 else 16) + 2


def test_a_queue_s_own_limits_halve_a_call_until_the_message_is_alone(aws: Clients) -> None:
    receiver = QueueReceiver(aws)
    large = [message(number, body=json.dumps({"text": "x" * size}).encode())
             for number, size in enumerate([10, 700_000, 1_200_000, 300_000, 20])]  # fmt: skip
    refused = send(target_of(receiver.url), large)
    assert list(refused) == [2]
    assert "1048576 bytes" in refused[2]
    assert sorted(len(body) for body, _ in receiver.received()) == sorted(
        len(each.body) for number, each in enumerate(large) if number != 2
    )


def test_a_message_that_is_too_large_for_a_topic_is_named(aws: Clients) -> None:
    receiver = TopicReceiver(aws)
    refused = send(target_of(receiver.url), [message(1, body=b"x" * 300_000), message(2)])
    assert list(refused) == [0]
    assert refused[0].startswith("SNS refused it (InvalidParameter): ")
    assert [body for body, _ in receiver.received()] == [message(2).body]


def test_a_topic_tells_how_large_its_messages_may_be() -> None:
    topic = topic_of(address(f"sns://{ARN}"))
    with stubbed(topic) as stub:
        stub.add_response("get_topic_attributes", {"Attributes": {"MaximumMessageSize": "1048576"}}, {"TopicArn": ARN})
        topic.check()
    assert topic.limit == 1 << 20


def test_a_fifo_queue_gets_the_entity_as_group_and_drops_what_it_has(aws: Clients) -> None:
    receiver = FifoQueueReceiver(aws)
    target = target_of(receiver.url)
    sent = [message(1, entity="a"), message(2, entity="a b"), message(3, entity="é"), message(4, entity="x" * 200)]
    for _ in range(2):
        assert send(target, sent) == {}
    receiver.collect()
    groups = [each["Attributes"]["MessageGroupId"] for each in receiver.messages]
    assert groups[0] == "a"
    assert [len(group) for group in groups[1:]] == [71] * 3
    assert len(set(groups)) == 4
    assert [each["Attributes"]["MessageDeduplicationId"] for each in receiver.messages] == [
        each.message_id for each in sent
    ]


def test_an_event_bus_gets_source_type_time_and_the_stamp(aws: Clients) -> None:
    receiver = BusReceiver(aws)
    assert send(target_of(receiver.url), [message(5)]) == {}
    receiver.collect()
    envelope = json.loads(receiver.messages[0]["Body"])
    assert envelope["source"] == "test"
    assert envelope["detail-type"] == "order"
    assert envelope["detail"]["number"] == 5
    assert envelope["resources"] == [f"{name}:{value}" for name, value in message(5).attributes.items()]
    entry, _ = bus_of(address("events://b")).entry(message(5))
    assert entry["Time"].isoformat() == "2026-01-01T00:00:00+00:00"


def test_an_event_bus_takes_json_and_short_types_only() -> None:
    target, service = scripted("events://b")
    line = replace(message(1, body=b"a;b"), content_type="text/plain")
    long = replace(message(2), event_type="t" * 129)
    assert send(target, [line, long, message(3)]) == {
        0: "EventBridge takes JSON objects only, and this is not one",
        1: "EventBridge takes no DetailType of more than 128 characters",
    }
    assert service.numbers() == [3]


def test_characters_that_sqs_does_not_take_are_sent_as_escapes(aws: Clients) -> None:
    receiver = QueueReceiver(aws)
    body = json.dumps({"text": "a\uffff\ufffe"}, ensure_ascii=False).encode()
    assert send(target_of(receiver.url), [message(1, body=body)]) == {}
    assert json.loads(receiver.received()[0][0]) == {"text": "a\uffff\ufffe"}


@pytest.mark.parametrize("kind", ["sqs://absent", "sqs://absent.fifo", "sns://absent", "events://absent",
                                  f"sqs://arn:aws:sqs:{REGION}:000000000000:absent",
                                  f"sns://arn:aws:sns:{REGION}:000000000000:absent",
                                  f"events://arn:aws:events:{REGION}:000000000000:event-bus/absent"])  # fmt: skip
def test_one_that_does_not_exist_is_found_before_anything_is_sent(aws: Clients, kind: str) -> None:
    with pytest.raises(UsageError, match=f"there is no (queue|topic|event bus) 'absent(.fifo)?' in {REGION}"):
        target_of(kind).check()


def test_an_event_bus_that_does_not_exist_is_not_sent_to(aws: Clients) -> None:
    with pytest.raises(UsageError, match="there is no event bus 'absent'"):
        send(target_of("events://absent"), [message(1)])


def test_a_queue_may_be_named_by_its_url_or_arn(aws: Clients) -> None:
    receiver = QueueReceiver(aws)
    names = [receiver.queue_url, receiver.queue_url.removeprefix("http://"), receiver.queue_arn(), receiver.name]
    for number, name in enumerate(names):
        target = target_of(f"sqs://{name}")
        target.check()
        assert send(target, [message(number)]) == {}
    assert len(receiver.received()) == len(names)


def test_a_queue_s_url_tells_its_region_and_account() -> None:
    at = queue_of(address("sqs://https://sqs.eu-west-3.amazonaws.com/123456789012/orders.fifo")).service.address
    assert (at.name, at.account, at.region) == ("orders.fifo", "123456789012", "eu-west-3")
    assert queue_of(address("sqs://sqs.eu-west-3.amazonaws.com/1/orders.fifo")).ordered


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqs://", "'' cannot be the name of a queue"),
        ("sqs://a b", "'a b' cannot be the name of a queue"),
        ("sqs://orders?regoin=x", "unknown option 'regoin'"),
        ("sqs://orders?region=", "'' is not a region"),
        ("sqs://arn:aws:sns:eu-west-1:1:orders", "is not the ARN of a resource of sqs"),
        ("sns://arn:aws:sns:eu-west-1:1:orders?region=eu-west-2", "the ARN is of another region"),
        ("sns://orders.fifo.x", "cannot be the name of a topic"),
        ("events://a*", "cannot be the name of an event bus"),
        ("events://arn:aws:events:eu-west-1:1:rule/x", "cannot be the name of an event bus"),
    ],
)
def test_a_url_that_names_nothing_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match="--target") as error:
        target_of(url)
    assert message in str(error.value)
    assert error.value.hint


def stubbed(made: Queue | Topic | Bus) -> Stubber:
    """A client of the service's own that answers as it is told."""
    name = made.service.name
    client: Any = boto3.client(name, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")  # type: ignore[call-overload]
    made.service.clients[name] = client
    return Stubber(client)


def bus(code: str) -> tuple[Bus, Stubber]:
    made = bus_of(address("events://orders"))
    stub = stubbed(made)
    stub.add_client_error("describe_event_bus", code, "not authorized to do this")
    return made, stub


@pytest.mark.parametrize(
    ("code", "error", "hint"),
    [
        ("AccessDenied", "SQS refused SendMessageBatch (AccessDenied): you may not", "allow sqs:SendMessage on orders"),
        ("KMS.AccessDeniedException", "SQS refused", "allow kms:GenerateDataKey and kms:Decrypt on the key of orders"),
        ("AWS.SimpleQueueService.NonExistentQueue", "SQS refused", "compare the name, the region and the account"),
        ("ExpiredToken", "the AWS credentials have expired", "aws sso login"),
        ("InvalidClientTokenId", "AWS does not know these credentials", "aws sts get-caller-identity"),
        ("RequestThrottled", "SQS refused SendMessageBatch (RequestThrottled)", "again later"),
    ],
)
def test_an_error_of_the_service_names_what_to_do(code: str, error: str, hint: str) -> None:
    queue = queue_of(address(f"sqs://{URL}"))
    with stubbed(queue) as stub:
        stub.add_client_error("send_message_batch", code, "you may not")
        with pytest.raises(TargetUnavailable) as found:
            BatchTarget(queue, "sqs://orders").send([message(1)], {})
    assert error in str(found.value)
    assert hint in found.value.hint


def test_sending_does_not_need_the_permission_to_look() -> None:
    queue, topic = queue_of(address(f"sqs://{URL}")), topic_of(address(f"sns://{ARN}"))
    for made, operation in ((queue, "get_queue_attributes"), (topic, "get_topic_attributes")):
        with stubbed(made) as stub:
            stub.add_client_error(operation, "AccessDenied")
            made.check()
    named = queue_of(address("sqs://orders"))
    with stubbed(named) as stub:
        stub.add_client_error("get_queue_url", "AccessDenied")
        with pytest.raises(TargetUnavailable) as found:
            named.check()
    assert found.value.hint == "allow sqs:GetQueueUrl on orders, or name the queue by its URL"


def test_a_bus_must_be_seen_because_events_to_an_absent_one_vanish() -> None:
    made, stub = bus("AccessDeniedException")
    with stub, pytest.raises(TargetUnavailable) as found:
        made.check()
    assert found.value.hint.startswith("allow events:DescribeEventBus on orders: ")


@pytest.mark.parametrize(
    ("url", "code", "hint"),
    [
        ("sqs://orders", "AccessDenied", "allow sqs:SendMessage on orders"),
        ("sqs://orders", "KmsAccessDenied", "allow kms:GenerateDataKey and kms:Decrypt on the key of orders"),
        ("sns://orders", "AuthorizationError", "allow sns:Publish on orders"),
        ("events://orders", "AccessDeniedException", "allow events:PutEvents on orders"),
    ],
)
def test_an_entry_that_is_denied_stops_everything(url: str, code: str, hint: str) -> None:
    target, service = scripted(url, lambda entries: dict.fromkeys(range(len(entries)), (code, True)))
    with pytest.raises(TargetUnavailable, match=code) as found:
        send(target, messages(100, 1))
    assert found.value.hint == hint
    assert len(service.calls) == 1


@pytest.mark.parametrize("url", ["sqs://q.fifo", "sns://t.fifo"])
def test_what_was_taken_before_everything_stopped_is_known_and_in_order(url: str) -> None:
    calls = count()

    def answer(entries: Sequence[dict[str, Any]]) -> dict[int, tuple[str, bool]]:
        return {len(entries) - 1: ("AccessDenied", True)} if next(calls) >= 20 else {}

    target, service = scripted(url, answer)
    answers: dict[int, str] = {}
    with pytest.raises(TargetUnavailable):
        target.send(messages(300, 30), answers)
    known = dict(answers)
    assert len(known) > 20
    assert set(known.values()) == {""}
    assert known.keys() <= set(service.numbers())
    for entity in range(30):
        of_entity = [number for number in sorted(known) if number % 30 == entity]
        assert of_entity == list(range(entity, 300, 30))[: len(of_entity)]


@pytest.mark.parametrize("url", ["sqs://q", "sns://t", "events://b"])
def test_what_an_answer_does_not_mention_is_sent_again(url: str) -> None:
    target, service = scripted(url)
    whole = service.call

    def cut(operation: str, permission: str, **parameters: Any) -> Any:
        answer = whole(operation, permission, **parameters)
        if len(service.calls) == 1:
            answer = {name: found[:-1] for name, found in answer.items()}
        return answer

    service.call = cut  # type: ignore[method-assign]
    assert send(target, messages(5, 1)) == {}
    assert service.numbers() == [0, 1, 2, 3, 4, 4]


@pytest.mark.parametrize("target", ["sqs://orders", "sns://orders"])
def test_without_region_credentials_or_network_there_is_a_hint(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    for name in (*ENVIRONMENT, "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    assert _error(target_of(target)) == ("no AWS region is set", "add ?region=eu-central-1")
    assert _error(target_of(f"{target}?profile=nobody"))[1] == "aws configure list-profiles"
    target += f"?region={REGION}"
    assert _error(target_of(target))[1] == "aws sts get-caller-identity"
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert _error(target_of(target))[1] == "check the network, the region and AWS_ENDPOINT_URL"


def _error(target: Target) -> tuple[str, str]:
    with pytest.raises(PikError) as found:
        target.check()
    return str(found.value).rpartition(": ")[2], found.value.hint
