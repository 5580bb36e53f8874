"""A topic in Kafka as a target, with librdkafka's idempotent producer."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from pik.errors import TargetUnavailable, UsageError
from pik.ports.target import Message, one_line, shown_url

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

CONFIG = "PIK_KAFKA_CONFIG"
"""The variable that names a file of librdkafka's settings, such as credentials."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_EXAMPLE = "--target 'kafka://HOST:PORT,HOST:PORT/TOPIC?config=FILE'"
_FIXED = {"acks": "all", "enable.idempotence": "true"}
_DEFAULTS = {"client.id": "pik", "message.timeout.ms": "60000"}
_NOT_IN_FILE = {
    *("acks", "request.required.acks", "enable.idempotence", "bootstrap.servers", "metadata.broker.list"),
    *("retries", "message.send.max.retries", "transactional.id", "test.mock.num.brokers"),
}
"""Settings on which order and delivery depend, and those that the URL has."""

_ABOUT_CONTENT = {"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG", "_INVALID_ARG"}
_HINTS = {
    "TOPIC_AUTHORIZATION_FAILED": "allow Write and Describe on the topic",
    "CLUSTER_AUTHORIZATION_FAILED": "allow IdempotentWrite on the cluster, or Write on the topic",
    "_AUTHENTICATION": f"compare the credentials in the file of ?config=… or {CONFIG}",
    "SASL_AUTHENTICATION_FAILED": f"compare the credentials in the file of ?config=… or {CONFIG}",
    "_SSL": f"compare security.protocol and ssl.ca.location in the file of ?config=… or {CONFIG}",
    "_RESOLVE": "compare the names of the brokers",
}
_HINT = f"check that the brokers run, their addresses, and security.protocol in the file of ?config=… or {CONFIG}"


def kafka_target(url: str, environment: Mapping[str, str]) -> KafkaTarget:
    """Return the target of `kafka://BROKERS/TOPIC`. Raises UsageError, also without the extra `kafka`."""
    shown = shown_url(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UsageError(f"--target {shown}: a broker's address is not valid", hint=_EXAMPLE) from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    topic = parts.path.strip("/")
    if "@" in parts.netloc:
        raise UsageError(f"--target {shown}: credentials do not belong in the URL", hint=_EXAMPLE)
    if unknown := sorted(options.keys() - {"config"}):
        raise UsageError(f"--target {shown}: unknown option {unknown[0]!r}", hint=_EXAMPLE)
    if not all(parts.netloc.split(",")):
        raise UsageError(f"--target {shown}: a broker's address is empty", hint=_EXAMPLE)
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise UsageError(f"--target {shown}: {topic!r} cannot be the name of a topic", hint=_EXAMPLE)
    try:
        import confluent_kafka  # noqa: F401 - the producer is made at the first call
    except ImportError:
        raise UsageError(
            f"--target {shown}: Kafka needs the package confluent-kafka",
            hint="in a copy of pik's repository: pip install '.[kafka]'",
        ) from None
    path = options["config"] if "config" in options else environment.get(CONFIG, "")
    return KafkaTarget(shown, parts.netloc, topic, _settings(path, shown) if path or "config" in options else {}, path)


def _settings(path: str, shown: str) -> dict[str, str]:
    """Return the settings NAME=VALUE in a file, without quoting what it holds in an error. Raises UsageError."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = (error.strerror or "it failed").lower() if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"--target {shown}: cannot read the settings in {path!r}: {reason}", hint=_EXAMPLE) from None
    found = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line[0] in "#!":
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not re.fullmatch(r"[a-z0-9._]+", name):
            raise UsageError(
                f"{path}, line {number}, is not a setting of librdkafka", hint="one NAME=VALUE per line, or # comment"
            )
        if name in _NOT_IN_FILE:
            raise UsageError(f"{path}, line {number}: {name} cannot be set", hint="remove this line")
        found[name] = value.strip()
    return found


@dataclass(slots=True)
class KafkaTarget:
    """Sends messages with the entity as key, so that one partition has all of an entity, in order."""

    shown: str
    brokers: str
    topic: str
    settings: Mapping[str, str] = field(repr=False)
    settings_path: str = ""
    at_most: int = 500
    patience: float = 10.0
    """Seconds to wait for an answer about the topic."""

    _producer: Producer | None = field(default=None, repr=False)
    _trouble: KafkaError | None = field(default=None, repr=False)
    """The last error of a connection."""

    def check(self) -> None:
        from confluent_kafka import KafkaException

        producer = self._made()
        try:
            # Of all topics: asking for one by name may create it.
            found = producer.list_topics(timeout=self.patience).topics.get(self.topic)
        except KafkaException as error:
            producer.poll(0)
            raise self._unavailable(self._trouble or error.args[0]) from None
        if found is None:
            raise UsageError(
                f"--target {self.shown}: there is no topic {self.topic!r}, or it is hidden from these credentials",
                hint="kafka-topics.sh --list --bootstrap-server BROKERS; to see and write it: Describe and Write",
            )
        if found.error is not None:
            raise self._unavailable(found.error)

    def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
        refused = self._deliver(messages, range(len(messages)), answers)
        if len(messages) > 1:
            # A broker refuses whole batches: each is sent alone, in order, to tell which one it does not take.
            for position in sorted(refused):
                answers.update(self._deliver(messages, [position], answers))
        else:
            answers.update(refused)

    def _deliver(
        self, messages: Sequence[Message], positions: Sequence[int], answers: dict[int, str]
    ) -> dict[int, str]:
        """Produce some messages and wait until each is acknowledged, which is noted in `answers`; return why some were
        refused. Raises TargetUnavailable, and drops then what is still waiting."""
        from confluent_kafka import KafkaException

        producer = self._made()
        refused: dict[int, str] = {}
        waiting = set(positions)
        fatal: list[KafkaError] = []

        def reported(position: int) -> Callable[[KafkaError | None, object], None]:
            def report(error: KafkaError | None, _message: object) -> None:
                waiting.discard(position)
                if error is not None and error.name() in _ABOUT_CONTENT:
                    refused[position] = one_line(self._reason(error))
                elif error is not None:
                    fatal.append(error)
                else:
                    answers[position] = ""

            return report

        try:
            for position in positions:
                try:
                    self._produce(producer, messages[position], reported(position))
                except KafkaException as error:
                    reported(position)(error.args[0], None)
                if fatal:
                    break
            while waiting and not fatal:
                producer.poll(0.1)
            if fatal:
                raise self._unavailable(fatal[0])
        finally:
            if waiting or fatal:
                self.close()
        return refused

    def _produce(
        self, producer: Producer, message: Message, report: Callable[[KafkaError | None, object], None]
    ) -> None:
        headers: list[tuple[str, str | bytes | None]] = [*message.attributes.items()]
        headers.append(("content-type", message.content_type))
        while True:
            try:
                producer.produce(
                    self.topic, message.body, message.entity_id.encode(), on_delivery=report, headers=headers
                )
            except BufferError:  # the producer's queue is full: reports make room
                producer.poll(0.1)
            else:
                producer.poll(0)
                return

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(1)

    def _made(self) -> Producer:
        if self._producer is None:
            self._trouble = None
            self._producer = self._new_producer()
        return self._producer

    def _new_producer(self) -> Producer:
        from confluent_kafka import KafkaException, Producer

        config = {**_DEFAULTS, **self.settings, **_FIXED, "bootstrap.servers": self.brokers}
        try:
            return Producer({**config, "error_cb": self._note, "logger": _quiet()})
        except KafkaException as error:
            what = self._text(error.args[0])
            if not what:
                what = ", ".join(name for name, value in self.settings.items() if not _is_setting(name, value))
            raise UsageError(
                f"--target {self.shown}: librdkafka does not take the settings in {self.settings_path!r}: {what}",
                hint="names and values as in librdkafka's CONFIGURATION.md, not those of Java clients",
            ) from None

    def _note(self, error: KafkaError) -> None:
        if error.name() != "_ALL_BROKERS_DOWN" or self._trouble is None:
            self._trouble = error

    def _unavailable(self, error: KafkaError) -> TargetUnavailable:
        if error.name() in ("_MSG_TIMED_OUT", "_PURGE_QUEUE", "_PURGE_INFLIGHT") and self._trouble is not None:
            error = self._trouble
        return TargetUnavailable(f"{self.shown}: {self._reason(error)}", hint=_HINTS.get(error.name(), _HINT))

    def _reason(self, error: KafkaError) -> str:
        text = self._text(error)
        return f"Kafka: {text} ({error.name()})" if text else f"Kafka: {error.name()}"

    def _text(self, error: KafkaError) -> str:
        """Return what an error says; nothing if it repeats a setting, which may be secret."""
        text = error.str()
        return "" if any(value and value in text for value in self.settings.values()) else one_line(text)


def _is_setting(name: str, value: str) -> bool:
    from confluent_kafka import KafkaException, Producer

    settings: dict[str, Any] = {name: value, "logger": _quiet()}
    try:
        Producer(settings)
    except KafkaException:
        return False
    return True


def _quiet() -> logging.Logger:
    """Return a logger that keeps librdkafka's lines away from stderr."""
    logger = logging.getLogger("pik.kafka")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    return logger
