"""The other ends of targets, for tests: an HTTP service that fails as it is told; and messages."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from pik.ports.target import EVENT_ID, REPUBLISH_ID, Message, Target

Answers = Callable[[int, bytes], "tuple[int, bytes] | None"]
"""Returns status and body for the n-th attempt (0, 1, …) of a body; None closes the connection without an answer."""


class HttpReceiver:
    """A service on a free port of this machine. It keeps what it answered with a 2xx."""

    keeps_attributes = True
    verbatim = True

    def __init__(self, answers: Answers = lambda _attempt, _body: (204, b"")) -> None:
        self.answers = answers
        self.headers: dict[str, str] = {}
        """What every answer has as well."""
        self._received: list[tuple[bytes, dict[str, str]]] = []
        self._attempts: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"receiver": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/events"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def received(self) -> list[tuple[bytes, dict[str, str]]]:
        return list(self._received)

    def answer(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes] | None:
        with self._lock:
            attempt = self._attempts[body]
            self._attempts[body] += 1
        answer = self.answers(attempt, body)
        if answer and 200 <= answer[0] < 300:
            with self._lock:
                self._received.append((body, headers))
        return answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    receiver: HttpReceiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.receiver.answer(body, {name.lower(): value for name, value in self.headers.items()})
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        for name, value in self.receiver.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@dataclass
class FakeTarget:
    """Takes everything but what `refuses` says, in an `order` of positions, unless `fault` raises before or in the
    midst of a call."""

    refuses: Callable[[Message], str] = lambda _message: ""
    fault: Callable[[], None] = lambda: None
    at_most: int = 7
    order: Callable[[Sequence[Message]], Sequence[int]] = lambda messages: range(len(messages))
    shown: str = "fake://target"
    taken: list[Message] = field(default_factory=list)
    attempt: list[Message] = field(default_factory=list)

    def check(self) -> None: ...

    def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
        assert 0 < len(messages) <= self.at_most
        for at in self.order(messages):
            self.fault()
            message = messages[at]
            self.attempt.append(message)
            answers[at] = self.refuses(message)
            if not answers[at]:
                self.taken.append(message)
        self.fault()

    def close(self) -> None: ...


def send(target: Target, messages: Sequence[Message]) -> dict[int, str]:
    """Send the messages; return why some were refused, by position. All have an answer."""
    answers: dict[int, str] = {}
    target.send(messages, answers)
    assert sorted(answers) == list(range(len(messages)))
    return {at: reason for at, reason in answers.items() if reason}


def message(number: int, *, entity: str = "e", body: bytes | None = None) -> Message:
    """Return a message that can be told from others by its number."""
    event_id = f"{number:032x}"
    text = json.dumps({"entity": entity, "number": number, "text": "x"}).encode()
    republish_id = "01KBB00000000000000000REPB"
    return Message(
        message_id=f"{republish_id}-{event_id}",
        event_id=event_id,
        source="test",
        event_type="order",
        entity_id=entity,
        event_time=1_767_225_600_000_000_000 + number,
        body=text if body is None else body,
        content_type="application/json",
        attributes={REPUBLISH_ID: republish_id, EVENT_ID: event_id},
    )
