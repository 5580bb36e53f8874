"""Copies that a compaction made are not kept longer than raw, and no answer relies on them then."""

from __future__ import annotations

import json
from time import time_ns
from typing import Any

import pytest

from pik.errors import NotHeld
from pik.model.delivery import Filter
from pik.model.instant import SECOND
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.clients import Clients
from pik.stores.aws.s3 import AwsRaw
from pik.usecases.care.compact import compact
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Depth
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.events import list_events
from tests.support.aws.emulator import make_stack, publish
from tests.support.stores import PlainEngine, event, window


def keeping(url: str) -> Store:
    """The store of a stack whose raw expires."""
    return open_store(f"{url}{'&' if '?' in url else '?'}raw_retention_days=30")


def post(store: Store, number: int, day: str) -> None:
    record_request(store, json.dumps(event(number, f"e{number % 2}", f"{day}T00:0{number}")).encode())


def listed(store: Store, within: Window) -> int:
    return len(list(list_events(store, Filter(within))))


def raw_of(store: Store) -> AwsRaw:
    assert isinstance(store.index, AwsIndex)
    return store.index.raw


def found(store: Store, depth: Depth) -> tuple[list[Any], int]:
    checked = verify(store, PlainEngine(), ALL_TIME, SILENT, depth)
    return list(checked), checked.summary.expired


def test_what_expires_is_gone_from_copies_and_counted_as_expired(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    url, until = publish(aws, make_stack(aws)), 0
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    monkeypatch.setattr("pik.usecases.care.compact.SETTLED_AFTER", -SECOND)
    for module in ("pik.stores.aws.catalog.packing", "pik.usecases.availability"):
        monkeypatch.setattr(f"{module}.expired", lambda created, days, _now: days is not None and created < until)
    store = keeping(url)
    for number in range(4):
        post(store, number, "01" if number < 3 else "02")
    post(store, 4, "01")
    compact(store, SILENT, window("01", "02"))
    raw = raw_of(store)
    (old,) = (each.key for each in raw.objects("compact/"))

    until = time_ns()  # the one of 2 January was never compacted
    for each in raw.objects("raw/"):
        raw.clients.client("s3").delete_object(Bucket=raw.bucket, Key=each.key)
    for number in (5, 6):
        post(store, number, "01")
    post(store, 7, "03")
    for depth in Depth:
        assert found(keeping(url), depth) == ([], 5)
    assert compact(keeping(url), SILENT, dry_run=True).packed.segments == 4
    done = compact(keeping(url), SILENT).packed
    assert (done.segments, done.left) == (4, 0)
    assert [one for one in keeping(url).index.segments(ALL_TIME) if one.inline] == []  # no bytes in the table either
    assert old not in [each.key for each in raw.objects("compact/")]
    assert len(list(raw.objects("compact/"))) == 2  # of what came later, which was not merged with what is gone
    assert compact(keeping(url), SILENT).packed.segments == 0
    for depth in Depth:
        assert found(keeping(url), depth) == ([], 5)
    with pytest.raises(NotHeld, match=r"4 of the segments|5 of the segments"):
        listed(keeping(url), ALL_TIME)
    assert listed(keeping(url), window("03", "04")) == 1
    assert keeping(url).index.totals().events == 8

    rebuild_index(keeping(url), SILENT)
    assert found(keeping(url), Depth.STORED) == ([], 5)
    with pytest.raises(NotHeld):
        listed(keeping(url), window("01", "02"))
