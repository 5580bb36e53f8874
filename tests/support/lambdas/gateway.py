"""A stand-in for API Gateway, on the loopback address: HTTP becomes Lambda proxy events, for the real handlers.

It does what callers come to notice: it wants a right signature (or the key), takes 10 MB, turns bodies into text, and
knows three routes. Like a function's instances, which do one thing at a time, it calls one handler at a time.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pik.lambdas import ingest, processor, replay
from pik.ports.remote import GZIP
from pik.ports.store import Store

REGION = "eu-central-1"
CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
KEY = "a-key-of-the-stack"
LARGEST = 10_000_000

CONTEXT = SimpleNamespace(
    function_name="f",
    memory_limit_in_mb=128,
    invoked_function_arn="arn:aws:lambda:eu-central-1:000000000000:function:f",
    aws_request_id="request-1",
)

Reply = tuple[int, dict[str, str], bytes]


CALLER = "arn:aws:iam::123456789012:user/ana"
REQUEST = "7c2f5a3e-8d41-4b0a-9a66-0f1c5d2e9b84"
"""The id of every request, which a real gateway makes anew."""


@dataclass
class Gateway:
    """`seen` are the requests that came, as method, path and body. Each of `faults` is what happens to one of the next
    requests: a status that is answered instead, `dropped` (handled, and the connection closed without an answer), or
    None. Before each look at a run the processor does one of its tasks."""

    store: Store
    url: str = ""
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    faults: deque[int | str | None] = field(default_factory=deque)
    lock: Lock = field(default_factory=Lock)

    def reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        """What is answered; None closes the connection."""
        with self.lock:
            self.seen.append((method, path, body))
            fault = self.faults.popleft() if self.faults else None
            if isinstance(fault, int):
                return _error(fault, "as ordered")
            reply = self._reply(method, path, headers, body)
            return None if fault == "dropped" else reply

    def _reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        if not self._is_allowed(method, path, headers, body):
            return _error(403, "Missing Authentication Token")
        if len(body) > LARGEST:
            return _error(413, "the request is larger than API Gateway takes")
        event: dict[str, Any] = {"httpMethod": method, "headers": headers, "isBase64Encoded": False}
        event["isBase64Encoded"] = {name.lower(): value for name, value in headers.items()}.get("content-type") == GZIP
        event["body"] = (
            b64encode(body).decode() if event["isBase64Encoded"] else body.decode(errors="replace")
        ) or None
        event["requestContext"] = {"requestId": REQUEST, "identity": {"userArn": CALLER}}
        path, _, query = path.partition("?")
        path = urlsplit(path).path
        event["queryStringParameters"] = dict(parse_qsl(query)) or None
        if (method, path) == ("POST", "/ingest"):
            return _answered(ingest.handler(event, CONTEXT))
        if (method, path) == ("POST", "/replay"):
            return _answered(replay.handler(event, CONTEXT))
        if method == "GET" and path.startswith("/replay/") and "/" not in path.removeprefix("/replay/"):
            run_id = unquote(path.removeprefix("/replay/"))
            self.process(run_id)
            return _answered(replay.handler({**event, "pathParameters": {"run_id": run_id}}, CONTEXT))
        return _error(403, "Missing Authentication Token")

    def process(self, run_id: str) -> None:
        """Have the processor do one task of the run, if one is waiting."""
        if message := self.store.queue.receive(run_id, 60):
            record = {
                "messageId": message.receipt,
                "receiptHandle": message.receipt,
                "body": msgspec.json.encode(message.task).decode(),
                "attributes": {"ApproximateReceiveCount": str(message.receives)},
            }
            processor.handler({"Records": [record]}, CONTEXT)

    def _is_allowed(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
        said = {name.lower(): value for name, value in headers.items()}
        if "x-api-key" in said:
            return said["x-api-key"] == KEY
        parts = dict(part.strip().split("=", 1) for part in said.get("authorization", "").partition(" ")[2].split(","))
        if parts.keys() != {"Credential", "SignedHeaders", "Signature"}:
            return False
        signed = {name: said.get(name, "") for name in parts["SignedHeaders"].split(";")}
        request = AWSRequest(method, self.url + path, signed, body)
        request.context["timestamp"] = said.get("x-amz-date", "")
        auth = SigV4Auth(CREDENTIALS, "execute-api", REGION)
        return bool(
            auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request) == parts["Signature"]
        )


def _answered(answer: dict[str, Any] | None) -> Reply:
    assert answer is not None
    return answer["statusCode"], answer["headers"], answer["body"].encode()


def _error(status: int, message: str) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps({"error": message, "request_id": REQUEST}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece
    disable_nagle_algorithm = True
    gateway: Gateway

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = self.gateway.reply(self.command, self.path, dict(self.headers.items()), body)
        if reply is None:
            self.close_connection = True
            return
        status, headers, text = reply
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # any method
            return self._answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(store: Store) -> Iterator[Gateway]:
    """A gateway in front of the handlers, which must be wired to this very store."""
    gateway = Gateway(store)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"gateway": gateway}))
    server.daemon_threads = True
    gateway.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
