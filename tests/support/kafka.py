"""The other end of a Kafka target: librdkafka's mock cluster, in this process, read by a consumer."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest


class KafkaReceiver:
    """Three brokers and one topic of four partitions. It ends with the producer that runs the brokers."""

    keeps_attributes = True
    verbatim = True

    def __init__(self, brokers: str = "") -> None:
        kafka = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
        quiet = logging.getLogger("tests.kafka")
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())
        mock = {"bootstrap.servers": brokers} if brokers else {"test.mock.num.brokers": 3}
        self._cluster = kafka.Producer({**mock, "logger": quiet})
        addresses = self._cluster.list_topics(timeout=10).brokers.values()
        self.brokers = ",".join(f"{each.host}:{each.port}" for each in addresses)
        self.new_topic()
        self._consumer = kafka.Consumer(
            {
                "bootstrap.servers": self.brokers,
                "group.id": "tests",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "logger": quiet,
            }
        )
        self._assign = lambda: [
            kafka.TopicPartition(self.topic, each, 0)
            for each in self._cluster.list_topics(self.topic, timeout=10).topics[self.topic].partitions
        ]

    def new_topic(self) -> None:
        """Begin with an empty topic."""
        self.topic = f"orders-{uuid4().hex[:8]}"
        self._cluster.list_topics(self.topic, timeout=10)  # creates it
        self.url = f"kafka://{self.brokers}/{self.topic}"

    def messages(self) -> list[Any]:
        """Everything in the topic, in order per partition."""
        found: list[Any] = []
        partitions = self._assign()
        self._consumer.assign(partitions)
        ended: set[int] = set()
        while len(ended) < len(partitions):
            message = self._consumer.poll(10)
            assert message is not None, "the mock cluster does not answer"
            if message.error() is None:
                found.append(message)
            else:
                ended.add(message.partition())
        return found

    def received(self) -> list[tuple[bytes, dict[str, str]]]:
        return [
            (each.value(), {name: value.decode() for name, value in each.headers() or ()}) for each in self.messages()
        ]

    def close(self) -> None:
        self._consumer.close()
        self._cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FailingCluster:
    """A mock cluster whose brokers answer with errors: librdkafka has this in C only."""

    def __init__(self) -> None:
        package = Path(pytest.importorskip("confluent_kafka").__file__).parent
        libraries = sorted(package.parent.glob("confluent_kafka.libs/librdkafka-*"))
        if not libraries:
            pytest.skip("this confluent-kafka has no library of its own")
        self._library = ctypes.CDLL(str(libraries[0]))
        settings = self._call("rd_kafka_conf_new")
        self._call("rd_kafka_conf_set", settings, b"log_level", b"0", None, ctypes.c_size_t(0))
        self._client = self._call("rd_kafka_new", 0, settings, None, ctypes.c_size_t(0))
        self._cluster = self._call("rd_kafka_mock_cluster_new", self._client, 1)
        addresses = self._call("rd_kafka_mock_cluster_bootstraps", self._cluster).value
        assert addresses is not None
        self.brokers = ctypes.string_at(addresses).decode()

    def fail_produce(self, codes: Sequence[int]) -> None:
        """Answer the next requests to produce with these errors."""
        errors = (ctypes.c_int * len(codes))(*codes)
        count = ctypes.c_size_t(len(codes))
        self._call("rd_kafka_mock_push_request_errors_array", self._cluster, ctypes.c_int16(0), count, errors)

    def close(self) -> None:
        self._call("rd_kafka_mock_cluster_destroy", self._cluster)
        self._call("rd_kafka_destroy", self._client)

    def _call(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        function = getattr(self._library, name)
        function.restype = ctypes.c_void_p
        return ctypes.c_void_p(function(*arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
