"""AWS as it is on a bad day: throttling, errors, answers that are lost behind their effect, batches done in part."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import cycle
from random import Random
from threading import Lock
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from pik.ports.store import Store
from tests.support.aws.calls import SESSION, hooked

_THROTTLED = b'{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}'
_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>"


@dataclass
class Unreliable:
    """What goes wrong, and how often; each of a call's attempts is another draw, so that calls succeed in the end.

    When is drawn, what is not: a store calls from several threads, in any order, and each kind has to happen.
    """

    store: Store
    random: Random
    share: float
    happened: list[str] = field(default_factory=list)
    kinds: Iterator[str] = field(default_factory=lambda: cycle(["error", "lost", "throttled", "time-out"]))
    lock: Lock = field(default_factory=Lock)

    def send(self, request: Any, event_name: str, **_: Any) -> AWSResponse | None:
        """Instead of sending a request, or behind it."""
        service, operation = event_name.split(".")[1:]
        with self.lock:
            if self.random.random() >= self.share:
                return None
            what = next(self.kinds)
        self.happened.append(f"{what} {operation}")
        if what in ("error", "throttled"):
            return _answer(request.url, service, what)
        SESSION.send(request)
        raise (ConnectionClosedError if what == "lost" else ReadTimeoutError)(endpoint_url=request.url)

    def cut(self, params: dict[str, Any], context: dict[str, Any], event_name: str, **_: Any) -> None:
        """Keep some of a batch from being done: of each operation's first batch always, of others by chance."""
        operation = event_name.rpartition(".")[2]
        if operation not in _CUTS:
            return
        body = json.loads(params["body"])
        parts = _CUTS[operation](body)
        with self.lock:
            first = f"cut {operation}" not in self.happened
            if len(parts) == 1 or not (first or self.random.random() < self.share):
                return
            self.happened.append(f"cut {operation}")
            cut = [(place, part) for place, part in enumerate(parts) if place and self.random.random() < 0.5]
            cut = cut or [(len(parts) - 1, parts[-1])]
        for each in cut:
            parts.remove(each[1])
        params["body"] = json.dumps(body).encode()
        context["left"] = cut, list(body.get("RequestItems", ()))

    def tell(self, parsed: dict[str, Any], context: dict[str, Any], event_name: str, **_: Any) -> None:
        """Say so in the answer."""
        left, tables = context.pop("left", ((), ()))
        if not left or "Error" in parsed:
            return
        if event_name.endswith("BatchExecuteStatement"):
            for place, _ in left:
                parsed["Responses"].insert(place, {"Error": {"Code": "ThrottlingError", "Message": "slow down"}})
        elif event_name.endswith("BatchWriteItem"):
            parsed["UnprocessedItems"] = {tables[0]: [_parsed(request) for _, request in left]}
        else:
            parsed["UnprocessedKeys"] = {tables[0]: {"Keys": [key for _, key in left]}}


def _only(requests: dict[str, Any]) -> Any:
    (found,) = requests.values()
    return found


_CUTS = {
    "BatchExecuteStatement": lambda body: body["Statements"],
    "BatchWriteItem": lambda body: _only(body["RequestItems"]),
    "BatchGetItem": lambda body: _only(body["RequestItems"])["Keys"],
}


def _parsed(value: Any) -> Any:
    """A request as botocore would have read it from an answer: bytes are no text any more."""
    if isinstance(value, dict):
        if value.keys() == {"B"}:
            return {"B": b64decode(value["B"])}
        return {name: _parsed(one) for name, one in value.items()}
    return value


def _answer(url: str, service: str, what: str) -> AWSResponse:
    status = 503 if what == "throttled" or service == "s3" else 500
    body = _SLOW_DOWN if service == "s3" else _THROTTLED if what == "throttled" else b"{}"
    if service != "s3" and what == "throttled":
        status = 400
    raw: Any = BytesIO(body)
    raw.stream = lambda *_args, **_options: iter([body])
    headers: Any = {"Content-Length": str(len(body))}
    return AWSResponse(url, status, headers, raw)


@contextmanager
def unreliable(store: Store, seed: int, share: float = 0.15) -> Iterator[Unreliable]:
    """The store's AWS is unreliable meanwhile."""
    made = Unreliable(store, Random(seed), share)
    with ExitStack() as stack:
        stack.enter_context(hooked(store, "before-send", made.send))
        stack.enter_context(hooked(store, "before-call", made.cut))
        stack.enter_context(hooked(store, "after-call", made.tell))
        yield made


@contextmanager
def forgetful(store: Store) -> Iterator[None]:
    """The first answer to each of the store's calls is lost meanwhile, behind its effect."""

    def lose(request: Any, **_: Any) -> None:
        if b"attempt=1" in request.headers["amz-sdk-request"]:
            SESSION.send(request)
            raise ConnectionClosedError(endpoint_url=request.url)

    with hooked(store, "before-send", lose):
        yield
