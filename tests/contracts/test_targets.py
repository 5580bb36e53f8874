"""The contract of Target: what is not reported as refused was taken, in order per entity, at least once."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol

import pytest
import urllib3

from pik.errors import PikError, TargetUnavailable, UsageError
from pik.ports.target import Message, Target, one_line, shown_url
from pik.runtime.retries import Backoff
from pik.targets import target_of
from pik.targets.http import HttpTarget
from tests.support.aws.receivers import AWS_RECEIVERS
from tests.support.kafka import KafkaReceiver
from tests.support.targets import HttpReceiver, message, send


class Receiver(Protocol):
    """The other end of a target, as a test sees it. New targets add theirs to `RECEIVERS`."""

    url: str
    keeps_attributes: bool
    verbatim: bool
    """Whether a body arrives byte for byte; otherwise it is the same JSON value."""

    def received(self) -> Sequence[tuple[bytes, dict[str, str]]]:
        """Return bodies and attributes of everything that arrived, in order."""


class FileReceiver:
    keeps_attributes = False
    verbatim = True

    def __init__(self, path: Path) -> None:
        self.url, self._path = str(path), path

    def received(self) -> list[tuple[bytes, dict[str, str]]]:
        return [(line, {}) for line in self._path.read_bytes().splitlines()] if self._path.exists() else []


RECEIVERS = ["file", "http", "kafka", *AWS_RECEIVERS]
BACKOFF = Backoff(first=0.001, longest=0.01, attempts=5)


@pytest.fixture(params=RECEIVERS)
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    if request.param == "file":
        yield FileReceiver(tmp_path / "sent.ndjson")
    elif request.param == "http":
        with HttpReceiver() as http:
            yield http
    elif request.param == "kafka":
        with KafkaReceiver() as kafka:
            yield kafka
    else:
        yield AWS_RECEIVERS[request.param](request.getfixturevalue("aws"))


@pytest.fixture
def target(receiver: Receiver) -> Iterator[Target]:
    target = target_of(receiver.url, environment={})
    yield target
    target.close()


def messages(count: int, entities: int = 3) -> list[Message]:
    return [message(number, entity=f"e-{number % entities}") for number in range(count)]


def bodies_by_entity(bodies: Sequence[bytes]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for body in bodies:
        found.setdefault(json.loads(body)["entity"], []).append(body)
    return found


def test_what_is_sent_arrives_in_order_per_entity(receiver: Receiver, target: Target) -> None:
    target.check()
    sent = messages(35)
    step = min(7, target.at_most)
    for at in range(0, len(sent), step):
        assert send(target, sent[at : at + step]) == {}
    arrived = [body for body, _ in receiver.received()]
    assert bodies_by_entity(arrived) == bodies_by_entity([one.body for one in sent])


def test_as_many_as_the_target_takes_are_sent_at_once(receiver: Receiver, target: Target) -> None:
    sent = messages(target.at_most, entities=50)
    assert send(target, sent) == {}
    arrived = [body for body, _ in receiver.received()]
    assert bodies_by_entity(arrived) == bodies_by_entity([one.body for one in sent])


def test_attributes_arrive_beside_the_body(receiver: Receiver, target: Target) -> None:
    sent = messages(3)
    send(target, sent)
    if receiver.keeps_attributes:
        found = dict(receiver.received())
        for one in sent:
            assert {**found[one.body], **one.attributes} == found[one.body]


def test_bodies_arrive_byte_for_byte(receiver: Receiver, target: Target) -> None:
    texts = ["ä€😀", '\\"\\\\', "\u2028", "<&>'", "\x7f"]
    bodies = [json.dumps({"entity": "e", "text": text}, ensure_ascii=False).encode() for text in texts]
    assert send(target, [message(number, body=body) for number, body in enumerate(bodies)]) == {}
    arrived = [body for body, _ in receiver.received()]
    assert arrived == bodies if receiver.verbatim else list(map(json.loads, arrived)) == list(map(json.loads, bodies))


def test_nothing_is_sent_before_and_by_check_and_close(receiver: Receiver, target: Target) -> None:
    target.check()
    target.close()
    assert not receiver.received()


def test_an_unknown_scheme_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="unknown scheme 'ftp'") as error:
        target_of("ftp://ana:secret@host/x")
    assert "secret" not in str(error.value)
    assert "https://" in error.value.hint


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ana:s3cret@host:8443/in?token=abc&b=2#x", "https://…@host:8443/in?token=…&b=…"),
        ("https://host/in?abc", "https://host/in?…"),
        ("https://host/in", "https://host/in"),
        ("kafka://ana:s3cret@one:9092,two:9092/topic", "kafka://…@one:9092,two:9092/topic"),
        ("sqs://queue?region=eu-west-1", "sqs://queue?region=eu-west-1"),
        ("sqs://https://ana:s3cret@host/1/queue?region=r&b=s3cret", "sqs://…@host/1/queue?region=r&b=…"),
        (
            "kafka://one:9092/topic?config=c.txt&sasl.password=s3cret",
            "kafka://one:9092/topic?config=c.txt&sasl.password=…",
        ),
        ("HTTPS://host/in?token=s3cret", "https://host/in?token=…"),
        ("wss://ana:s3cret/1@host?token=s3cret#s3cret", "wss://…@host?token=…"),
        ("https://ana:s3/cret@host/in", "https://…"),
        ("https://ana:s3?cret@host/in", "https://…"),
        ("https://ana:s3#cret@host/in", "https://…"),
        ("https://host/@ana/in", "https://host/@ana/in"),
        ("out/a?b.ndjson", "out/a?b.ndjson"),
    ],
)
def test_a_shown_url_has_no_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_a_reason_is_one_printable_line() -> None:
    assert one_line("a\n\x1b[31mb\t c\0") == "a [31mb c"
    assert len(one_line("x" * 1000)) == 300


@pytest.mark.parametrize("url", ["https:/ana:s3cret@host", "HTTP:host?token=s3cret", "sqs:queue", "-", ""])
def test_what_may_be_a_url_with_a_mistake_is_not_taken_for_a_file(url: str) -> None:
    with pytest.raises(UsageError) as error:
        target_of(url)
    assert "s3cret" not in str(error.value)


class TestFile:
    def test_a_file_that_exists_is_not_written(self, tmp_path: Path) -> None:
        path = tmp_path / "there.ndjson"
        path.write_bytes(b"mine\n")
        target = target_of(str(path))
        for call in (target.check, lambda: send(target, messages(1))):
            with pytest.raises(UsageError, match="exists already"):
                call()
        assert path.read_bytes() == b"mine\n"

    @pytest.mark.parametrize("half", [b"", b"{", b'{"a":' + b"x" * 200_000])
    def test_a_line_that_a_kill_cut_off_is_removed(self, tmp_path: Path, half: bytes) -> None:
        path = tmp_path / "sent.ndjson"
        for whole in (b"", b"one\ntwo\n"):
            path.write_bytes(whole + half)
            target = target_of(str(path), taken=0)
            target.check()
            send(target, [message(3, body=b"three")])
            target.close()
            assert path.read_bytes() == whole + b"three\n"

    def test_a_file_that_is_gone_is_not_begun_again(self, tmp_path: Path) -> None:
        path = tmp_path / "sent.ndjson"
        target_of(str(path), taken=0).check()
        with pytest.raises(UsageError, match="what was sent before is gone"):
            target_of(str(path), taken=3).check()

    def test_a_directory_and_a_missing_one_are_refused(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "absent" / "x"):
            with pytest.raises(UsageError, match="director"):
                target_of(str(path)).check()

    def test_a_full_disk_makes_the_target_unavailable(self) -> None:
        target = target_of("/dev/full", taken=0)
        with pytest.raises(TargetUnavailable, match="no space left"):
            send(target, messages(1))

    def test_a_file_that_can_grow_no_more_has_whole_calls_only(self, tmp_path: Path) -> None:
        path, sent = tmp_path / "sent.ndjson", messages(30)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (sum(len(one.body) + 1 for one in sent) + 50, limits[1]))
        try:
            target, answers = target_of(str(path)), dict[int, str]()
            assert send(target, sent) == {}
            with pytest.raises(TargetUnavailable, match="file too large"):
                target.send(sent, answers)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (answers, path.read_bytes()) == ({}, b"".join(one.body + b"\n" for one in sent))


class TestHttp:
    @pytest.fixture
    def http(self) -> Iterator[HttpReceiver]:
        with HttpReceiver() as http:
            yield http

    def quick(self, http: HttpReceiver) -> Target:
        target = target_of(http.url, environment={"PIK_TARGET_AUTHORIZATION": "Bearer t0p"})
        target.backoff = BACKOFF  # type: ignore[attr-defined]
        return target

    def test_one_that_is_refused_is_named_and_the_others_arrive(self, http: HttpReceiver) -> None:
        http.answers = lambda _attempt, body: (422, b"no such\n field") if b'"number": 4,' in body else (204, b"")
        assert send(self.quick(http), messages(9)) == {4: "HTTP 422 no such field"}
        assert len(http.received()) == 8

    def test_what_passes_is_repeated(self, http: HttpReceiver) -> None:
        http.answers = lambda attempt, _body: ((503, b""), (500, b""), (429, b""), None, (200, b""))[min(attempt, 4)]
        assert send(self.quick(http), messages(3)) == {}
        assert len(http.received()) == 3

    @pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 429, 502, 503, 504, 307])
    def test_a_service_that_takes_nothing_is_unavailable(self, http: HttpReceiver, status: int) -> None:
        http.answers = lambda _attempt, _body: (status, b"")
        with pytest.raises(TargetUnavailable, match=f"HTTP {status}"):
            send(self.quick(http), messages(3))

    def test_a_service_that_stalls_is_asked_again(self, http: HttpReceiver) -> None:
        def stall(attempt: int, _body: bytes) -> tuple[int, bytes]:
            if attempt < 2:
                time.sleep(0.6)
            return 204, b""

        http.answers = stall
        target = self.quick(http)
        target.pool = urllib3.PoolManager(timeout=0.3, retries=False, maxsize=8)  # type: ignore[attr-defined]
        assert send(target, messages(3)) == {}
        http.answers = lambda _attempt, _body: stall(0, b"")
        with pytest.raises(TargetUnavailable, match="no answer in time"):
            send(target, messages(1))

    def test_an_error_of_the_service_is_a_reason_of_the_message(self, http: HttpReceiver) -> None:
        http.answers = lambda _attempt, body: (500, b"null pointer") if b'"number": 1,' in body else (200, b"")
        assert send(self.quick(http), messages(3)) == {1: "HTTP 500 null pointer"}

    def test_credentials_are_sent_and_shown_nowhere(self, http: HttpReceiver) -> None:
        send(self.quick(http), messages(1))
        url = http.url.replace("://", "://ana:s3cr%40t@")
        target = target_of(url, environment={})
        send(target, messages(1))
        sent = [attributes["authorization"] for _, attributes in http.received()]
        assert sent == ["Bearer t0p", "Basic YW5hOnMzY3JAdA=="]
        assert "s3cr" not in repr(target) + target.shown

    @pytest.mark.parametrize("status", [403, 422, 302])
    def test_an_answer_that_repeats_a_secret_is_shown_without_it(self, http: HttpReceiver, status: int) -> None:
        http.answers = lambda _attempt, _body: (status, b"s3cr@t t0ken9 YW5hOnMzY3JAdA== no such customer")
        http.headers = {"Location": "/login?token=t0ken9&next=t0ken9"}
        url = http.url.replace("://", "://ana:s3cr%40t@") + "?token=t0ken9"
        answers: dict[int, str] = {}
        try:
            target_of(url, environment={}).send([message(1)], answers)
        except TargetUnavailable as error:
            answers[0] = str(error)
        assert "HTTP" in answers[0]
        assert ("/login?token=…" if status == 302 else "… … … no such customer") in answers[0]
        for secret in ("s3cr", "t0ken9", "YW5h"):
            assert secret not in answers[0]

    @pytest.mark.parametrize("value", ["Bearer t0p\r\nX: y", "Bearer t€p"])
    def test_what_cannot_be_a_header_is_not_shown(self, http: HttpReceiver, value: str) -> None:
        with pytest.raises(UsageError, match="not the value of a header") as error:
            target_of(http.url, environment={"PIK_TARGET_AUTHORIZATION": value})
        assert "t0p" not in str(error.value) + error.value.hint

    def test_what_asks_to_wait_is_waited_for_unless_that_is_too_long(self, http: HttpReceiver) -> None:
        waited: list[float] = []

        class Clock(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                waited.append(timeout or 0)
                return False

        http.answers = lambda attempt, _body: (429 if attempt < 2 else 204, b"")
        for number, (seconds, asks) in enumerate([(7, False), (50, True), (3600, False), (3600, True)]):
            date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
            http.headers = {"Retry-After": date if asks else str(seconds)}
            target = self.quick(http)
            assert isinstance(target, HttpTarget)
            if seconds < 60:
                assert target._send_one(message(number), Clock()) == ""
                assert [seconds - 5 < one <= seconds for one in waited] == [True, True]
            else:
                with pytest.raises(TargetUnavailable, match="HTTP 429") as error:
                    target._send_one(message(number), Clock())
                assert error.value.hint.startswith("it asks to wait")
                assert waited == []
            waited.clear()

    def test_credentials_are_not_sent_in_clear(self) -> None:
        with pytest.raises(UsageError, match="without encryption"):
            target_of("http://ana:secret@example.org/", environment={})

    def test_nothing_listens(self, http: HttpReceiver) -> None:
        http.close()
        with pytest.raises(PikError, match="the connection is refused"):
            send(self.quick(http), messages(1))
