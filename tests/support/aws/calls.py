"""What a store asks of AWS: every call, counted as it is sent, and DynamoDB's write units."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from threading import Lock
from typing import Any, NamedTuple

import pytest
from botocore.httpsession import URLLib3Session

from pik.ports.store import Store
from pik.rawlog.replacements import ReplacingRaw
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.stores.aws.s3 import AwsRaw

SERVICES = ("s3", "dynamodb", "sqs")
UNIT = 1024
SESSION = URLLib3Session()
"""Sends a request whose answer a test keeps from boto3."""


def clients_of(store: Store) -> Clients:
    """The clients of a deployed store, which no other store has."""
    assert isinstance(store.raw, ReplacingRaw)
    assert isinstance(store.raw.raw, AwsRaw)
    return store.raw.raw.clients


@contextmanager
def hooked(store: Store, event: str, hook: Callable[..., Any]) -> Iterator[None]:
    """Botocore's event of all the store's clients calls the hook meanwhile."""
    emitters = [clients_of(store).client(service).meta.events for service in SERVICES]
    for emitter in emitters:
        emitter.register_first(event, hook)
    try:
        yield
    finally:
        for emitter in emitters:
            emitter.unregister(event, hook)


class Write(NamedTuple):
    """The partition and sort key of an item that was written, or of its copy in the secondary index, and what that
    cost; both empty where a condition did not hold for an update."""

    pk: str
    sk: str
    units: int


@dataclass
class Calls:
    """Calls by operation; `writes` are items written, or tried to; `keys` are S3 objects that were read."""

    made: Counter[str] = field(default_factory=Counter)
    writes: list[Write] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @property
    def total(self) -> int:
        return self.made.total()

    @property
    def units(self) -> int:
        """Write units, those of the index included."""
        return sum(one.units for one in self.writes)

    def sent(self, event_name: str, **_: Any) -> None:
        with self._lock:
            self.made[event_name.rpartition(".")[2]] += 1

    def asked(self, params: Mapping[str, Any], event_name: str, **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        with self._lock:
            if operation == "GetObject":
                self.keys.append(params["Key"])
            self.writes += _WRITES[operation](params) if operation in _WRITES else ()

    def answered(self, parsed: Mapping[str, Any], event_name: str, **_: Any) -> None:
        if event_name.endswith(".UpdateItem"):  # what an update makes of an item only its answer tells
            with self._lock:
                self.writes += _write(parsed.get("Attributes", {}))


@contextmanager
def counting(store: Store, calls: Calls | None = None) -> Iterator[Calls]:
    """The calls that the store makes meanwhile, added to others."""
    calls = calls or Calls()
    with (
        hooked(store, "before-send", calls.sent),
        hooked(store, "before-parameter-build", calls.asked),
        hooked(store, "after-call", calls.answered),
    ):
        yield calls


@contextmanager
def counting_reads(store: Store) -> Iterator[Calls]:
    """As `counting`; and a slow machine does not ask for the generation again."""
    with pytest.MonkeyPatch.context() as patch, counting(store) as calls:
        patch.setattr(generation, "NOTICED", 60)
        yield calls


def units(item: Mapping[str, Any]) -> int:
    """What writing an item costs."""
    size = sum(len(name.encode()) + _size(value) for name, value in item.items())
    return max(1, ceil(size / UNIT))


def _size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return len(content) // 2 + 2
    return 1 if kind == "BOOL" else len(content)


def _write(item: Mapping[str, Any], times: int = 1) -> Iterator[Write]:
    pk, sk = (item.get(name, {}).get("S", "") for name in ("pk", "sk"))
    yield Write(pk, sk, times * units(item))
    if "bucket_key" in item:
        yield Write(f"by_bucket {item['bucket_key']['S']}", item["version_key"]["S"], times * units(item))


def _batch(params: Mapping[str, Any]) -> Iterator[Write]:
    for requests in params["RequestItems"].values():
        for request in requests:
            yield from _write(
                request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"]
            )


def _statements(params: Mapping[str, Any]) -> Iterator[Write]:
    for statement in params["Statements"]:
        text, values = statement["Statement"], statement["Parameters"]
        names = text.split("'")[1::2] if text.startswith("INSERT") else re.findall(r'"(\w+)" = \?', text)
        yield from _write(dict(zip(names, values, strict=True)))


def _transaction(params: Mapping[str, Any]) -> Iterator[Write]:
    for one in params["TransactItems"]:
        yield from _write(one["Put"]["Item"], 2)


_WRITES: dict[str, Callable[[Mapping[str, Any]], Iterator[Write]]] = {
    "PutItem": lambda params: _write(params["Item"]),
    "BatchWriteItem": _batch,
    "BatchExecuteStatement": _statements,
    "TransactWriteItems": _transaction,
    "DeleteItem": lambda params: _write(params["Key"]),
}
