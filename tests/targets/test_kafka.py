"""A topic in Kafka: keys, settings and their secrets, what brokers refuse, and brokers that are away."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pik.errors import PikError, TargetUnavailable, UsageError
from pik.ports.target import Message
from pik.targets import target_of
from pik.targets.kafka import KafkaTarget, kafka_target
from tests.support.kafka import FailingCluster, KafkaReceiver
from tests.support.targets import message, send

kafka = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaReceiver]:
    with KafkaReceiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(cluster: KafkaReceiver) -> KafkaReceiver:
    """A topic of the test's own."""
    cluster.new_topic()
    return cluster


def made(url: str, **environment: str) -> KafkaTarget:
    return kafka_target(url, environment)


def messages(count: int, entities: int = 3) -> list[Message]:
    return [message(number, entity=f"é-{number % entities}") for number in range(count)]


def numbers(found: Sequence[Any], entity: str) -> list[int]:
    return [json.loads(each.value())["number"] for each in found if each.key() == entity.encode()]


def test_an_entity_is_the_key_and_has_one_partition_in_order(receiver: KafkaReceiver) -> None:
    target = made(receiver.url)
    target.check()
    assert send(target, messages(500, 7)) == {}
    target.close()
    found = receiver.messages()
    assert len(found) == 500
    for entity in range(7):
        key = f"é-{entity}"
        assert numbers(found, key) == list(range(entity, 500, 7))
        assert len({each.partition() for each in found if each.key() == key.encode()}) == 1
    assert dict(found[0].headers())["content-type"] == b"application/json"


def test_a_message_that_is_too_large_is_named_and_the_others_stay_in_order(receiver: KafkaReceiver) -> None:
    sent = messages(20, 1)
    sent[7] = replace(sent[7], body=b"x" * 2_000_000)
    target = made(receiver.url)
    refused = send(target, sent)
    assert list(refused) == [7]
    assert refused[7].endswith("Message size too large (MSG_SIZE_TOO_LARGE)")
    assert numbers(receiver.messages(), "é-0") == [number for number in range(20) if number != 7]


def test_a_topic_that_does_not_exist_is_found_and_not_created(receiver: KafkaReceiver) -> None:
    target = made(f"kafka://{receiver.brokers}/absent")
    for _ in range(2):
        with pytest.raises(UsageError, match="there is no topic 'absent'"):
            target.check()


@pytest.mark.parametrize("brokers", ["127.0.0.1:1", "no-such-host.invalid:9092"])
def test_brokers_that_cannot_be_reached_are_named(brokers: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = made(f"kafka://{brokers}/orders")
    target.patience = 0.3
    with pytest.raises(TargetUnavailable, match=brokers.partition(":")[0]) as found:
        target.check()
    assert found.value.hint.startswith(("check that the brokers run", "compare the names of the brokers"))
    target.close()
    assert capfd.readouterr() == ("", "")


def test_what_was_waiting_when_the_brokers_went_away_is_dropped(tmp_path: Path) -> None:
    settings = tmp_path / "kafka.properties"
    settings.write_text("message.timeout.ms = 1500\n")
    with KafkaReceiver() as going:
        target = made(going.url, PIK_KAFKA_CONFIG=str(settings))
        assert send(target, messages(3)) == {}
    with pytest.raises(TargetUnavailable, match=r"Kafka: .*(refused|broken|failed|closed|timed out)"):
        send(target, messages(3))
    assert target._producer is None


@pytest.fixture
def failing() -> Iterator[FailingCluster]:
    with FailingCluster() as cluster:
        yield cluster


def test_order_is_kept_where_brokers_fail_and_requests_are_sent_again(failing: FailingCluster) -> None:
    error = kafka.KafkaError
    passing = [error.NOT_ENOUGH_REPLICAS, error.REQUEST_TIMED_OUT, error.NOT_LEADER_FOR_PARTITION, error._TRANSPORT]
    with KafkaReceiver(failing.brokers) as receiver:
        target = made(receiver.url)
        sent = [message(number, entity=f"é-{number % 5}") for number in range(300)]
        for start in range(0, 300, 100):
            failing.fail_produce(passing[: start // 100 + 2])
            assert send(target, sent[start : start + 100]) == {}
        found = receiver.messages()
        for entity in range(5):
            # A broker drops what it has already when a connection broke; the mock does not.
            assert list(dict.fromkeys(numbers(found, f"é-{entity}"))) == list(range(entity, 300, 5))
        target.close()


def test_a_broker_that_refuses_a_batch_gets_its_messages_one_by_one(failing: FailingCluster) -> None:
    with KafkaReceiver(failing.brokers) as receiver:
        target = made(receiver.url)
        failing.fail_produce([kafka.KafkaError.MSG_SIZE_TOO_LARGE])
        assert send(target, messages(30, 1)) == {}
        assert numbers(receiver.messages(), "é-0") == list(range(30))
        failing.fail_produce([kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED])
        with pytest.raises(TargetUnavailable, match="TOPIC_AUTHORIZATION_FAILED"):
            send(target, messages(30, 1))
        target.close()


class Refusing:
    """A producer whose brokers answer as they are told: the name of an error, for the numbers of a batch."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.batch: list[tuple[int, Any]] = []
        self.taken: list[int] = []
        self.purged = False

    def produce(self, topic: str, value: bytes, key: bytes, *, on_delivery: Any, headers: Any) -> None:
        self.batch.append((json.loads(value)["number"], on_delivery))

    def poll(self, timeout: float) -> None:
        if not timeout:
            return
        batch, self.batch = self.batch, []
        code = self.answer([number for number, _ in batch])
        self.taken += [number for number, _ in batch if code is None]
        for _, report in batch:
            report(None if code is None else kafka.KafkaError(code), None)

    def purge(self) -> None:
        self.purged = True

    def flush(self, timeout: float) -> None:
        pass


def test_of_a_batch_that_a_broker_refuses_only_the_message_that_it_is_about_is_refused() -> None:
    target = made("kafka://one/orders")
    producer = Refusing(lambda batch: kafka.KafkaError.MSG_SIZE_TOO_LARGE if 4 in batch else None)
    target._producer = producer  # type: ignore[assignment]
    assert list(send(target, messages(9, 1))) == [4]
    assert producer.taken == [0, 1, 2, 3, 5, 6, 7, 8]
    assert not producer.purged


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TOPIC_AUTHORIZATION_FAILED", "allow Write and Describe on the topic"),
        ("CLUSTER_AUTHORIZATION_FAILED", "allow IdempotentWrite"),
        ("_MSG_TIMED_OUT", "check that the brokers run"),
        ("NOT_ENOUGH_REPLICAS", "check that the brokers run"),
    ],
)
def test_an_error_that_is_not_about_a_message_stops_everything(name: str, hint: str) -> None:
    target = made("kafka://one/orders")
    producer = Refusing(lambda _batch: getattr(kafka.KafkaError, name))
    target._producer = producer  # type: ignore[assignment]
    with pytest.raises(TargetUnavailable, match=rf"kafka://one/orders: Kafka: .*\({name}\)") as found:
        send(target, messages(9))
    assert found.value.hint.startswith(hint)
    assert producer.purged


def test_settings_come_from_the_file_in_the_url_or_the_variable(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"# {name}\n\n! old\nsasl.username = {name}\nsasl.password=a=b # c\n")
    url = "kafka://one:9092,two/orders"
    assert made(url).settings == {}
    by_variable = made(url, PIK_KAFKA_CONFIG=str(tmp_path / "one"))
    assert by_variable.settings == {"sasl.username": "one", "sasl.password": "a=b # c"}
    by_url = made(f"{url}?config={tmp_path / 'two'}", PIK_KAFKA_CONFIG=str(tmp_path / "one"))
    assert by_url.settings["sasl.username"] == "two"
    assert "a=b" not in repr(by_url) + by_url.shown


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"acks=1\n", "line 1: acks cannot be set"),
        (b"#\nenable.idempotence=false", "line 2: enable.idempotence cannot be set"),
        (b"s3cret\n", "line 1, is not a setting of librdkafka"),
        (b"sasl.jaas.config=user s3cret\nlinger.ms=1", "JAAS"),
        (b"security.protocol=s3cret", "kafka.properties': security.protocol"),
        (b"no.such.s3tting=s3cret", "no.such.s3tting"),
        (b"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN", "sasl.username and sasl.password must be set"),
        (b"\xff\xfe\0", "it is not text"),
    ],
)
def test_settings_that_are_wrong_are_named_without_their_values(tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / "kafka.properties"
    path.write_bytes(content)
    with pytest.raises(UsageError) as found:
        made(f"kafka://127.0.0.1:1/orders?config={path}").check()
    assert error in str(found.value)
    assert "s3cret" not in str(found.value) + found.value.hint


def test_a_file_of_settings_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path, ""):
        with pytest.raises(UsageError, match="cannot read the settings in"):
            made(f"kafka://one/orders?config={path}")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("kafka://one:9092", "'' cannot be the name of a topic"),
        ("kafka:///orders", "a broker's address is empty"),
        ("kafka://one,,two/orders", "a broker's address is empty"),
        ("kafka://[one/orders", "a broker's address is not valid"),
        ("kafka://one/a/b", "'a/b' cannot be the name of a topic"),
        ("kafka://one/..", "'..' cannot be the name of a topic"),
        ("kafka://one/orders?acks=1", "unknown option 'acks'"),
        ("kafka://ana:s3cret@one/orders", "credentials do not belong in the URL"),
    ],
)
def test_a_url_that_is_wrong_is_refused(url: str, error: str) -> None:
    with pytest.raises(UsageError) as found:
        made(url)
    assert error in str(found.value)
    assert "s3cret" not in str(found.value)


def test_without_the_extra_there_is_a_hint_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(PikError) as found:
        target_of("kafka://one/orders", environment={})
    assert (found.value.exit_code, found.value.hint) == (2, "in a copy of pik's repository: pip install '.[kafka]'")
