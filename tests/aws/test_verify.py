"""What `verify` takes S3's word for, and what it and a rebuild cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pik.errors import StoreError
from pik.model.instant import day_text
from pik.model.share import Share
from pik.model.window import ALL_TIME
from pik.ports.raw import Raw, RawKind
from pik.ports.store import Store
from pik.runtime import SILENT, checkpoint
from pik.runtime.checkpoint import Checkpoint
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.catalog.layout import Listed
from pik.stores.aws.clients import Clients
from pik.usecases.care import verify as care
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_continue import Earlier
from pik.usecases.care.verify_findings import Depth, ProblemKind, VerifyReport
from pik.usecases.ingest.api_request import record_request
from tests.support.aws.calls import clients_of, counting, counting_reads
from tests.support.aws.emulator import make_stack, publish
from tests.support.fleet import RepeatingFleet
from tests.support.stores import PlainEngine, ingest, replayed

ONE, SEVERAL = 1, 6
"""Events of a request. Those of one with several are of three days, so that it is three objects."""


@pytest.fixture
def store(aws: Clients) -> Store:
    return open_store(publish(aws, make_stack(aws)))


def post(store: Store, number: int, events: int) -> None:
    body = [
        {
            "source": "shop",
            "event_type": "order",
            "entity_id": f"customer-{(number + place) % 7}",
            "event_time": f"2026-01-0{1 + place % 3}T00:{number % 60:02}:{number // 60:02}Z",
            "payload": {"number": number, "place": place},
        }
        for place in range(events)
    ]
    record_request(store, json.dumps(body if events > 1 else body[0]).encode())


def checked(store: Store, depth: Depth) -> tuple[list[tuple[ProblemKind, str]], VerifyReport]:
    found = verify(store, PlainEngine(), ALL_TIME, SILENT, depth)
    return [(one.kind, one.what) for one in found], found.summary


@pytest.mark.parametrize(
    ("events", "requests"),
    [
        (ONE, 100),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((SEVERAL, 100), (ONE, 1000), (SEVERAL, 1000))),
    ],
)
def test_a_verification_and_a_rebuild_take_two_calls_an_object(
    store: Store, monkeypatch: pytest.MonkeyPatch, events: int, requests: int
) -> None:
    """And the rebuild reads each object once."""
    for number in range(requests):
        post(store, number, events)
    objects = requests * min(events, 3)
    for depth in (Depth.STORED, Depth.FULL):
        fresh = open_store(store.url)
        with counting_reads(fresh) as calls:
            problems, found = checked(fresh, depth)
        assert (problems, found.valid, found.depth) == ([], objects, depth)
        assert (found.vouched, found.read) == ((objects, 0) if depth == Depth.STORED else (0, objects))
        assert calls.made["HeadObject"] == found.vouched
        assert calls.total <= 2.2 * objects, calls.made
        beside = calls.total - objects - (requests if events == SEVERAL else 0)  # the latter for their id files
        once = 110 + 3 * min(events, 3)  # for the whole store, mostly, and for each day
        assert beside <= once + objects / 10, calls.made

    monkeypatch.setattr(generation, "NOTICED", 0.01)
    before = list(store.index.batches()), store.index.totals()
    fresh = open_store(store.url)
    with counting(fresh) as calls:
        done = rebuild_index(fresh, SILENT)
    assert (done.segments, done.superseded, done.revised, done.guessed) == (objects, 0, 0, 0)
    assert Counter(calls.keys).most_common(1)[0][1] == 1
    assert calls.total <= 2.2 * objects + 180, calls.made
    assert (list(store.index.batches()), store.index.totals()) == before
    assert checked(store, Depth.FULL)[0] == []


@pytest.mark.parametrize("depth", [Depth.STORED, Depth.FULL])
def test_what_is_taken_over_is_not_asked_for_again_and_counts_the_same(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: Depth
) -> None:
    """Requests are checked by what only their objects have: their lags, sources and actor."""
    ingest(store, tmp_path)
    for number, events in ((1, ONE), (2, ONE), (2, ONE), (3, SEVERAL), (3, SEVERAL)):
        post(store, number, events)
    whole = checked(store, depth)
    monkeypatch.setattr(checkpoint, "WAIT", 0.0)

    def kept(resume: bool) -> Earlier:
        found = Checkpoint(tmp_path / "kept", pytest.fail)
        assert found.resume() == resume
        return Earlier(store, depth, found)

    with monkeypatch.context() as patch:
        patch.setattr(care, "copy_problems", Mock(side_effect=StoreError("no network")))
        failing = verify(store, PlainEngine(), ALL_TIME, SILENT, depth, kept(False))
        with pytest.raises(StoreError, match="no network"):
            list(failing)
    fresh = open_store(store.url)
    with counting(fresh) as calls:
        found = verify(fresh, PlainEngine(), ALL_TIME, SILENT, depth, kept(True))
        assert (list(found), whole[0]) == ([], [])
    taken, segments = found.summary.taken_over, whole[1].segments
    assert taken is not None
    assert (taken.segments, found.summary) == (segments, replace(whole[1], taken_over=taken))
    assert calls.made["HeadObject"] == 1  # of the record of the file's batch
    assert [key for key in calls.keys if key.startswith(RawKind.SEGMENT)] == []
    assert not (tmp_path / "kept").exists()


@dataclass
class Rotten:
    """Raw of which one object has another bit than S3 was given."""

    raw: Raw
    key: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self.raw.read(key, offset, length)
        return data[:-1] + bytes([data[-1] ^ 1]) if key == self.key else data


def test_promise_2_only_a_full_verification_reads_what_s3_answers_for(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path)
    post(store, 0, SEVERAL)
    keys = segments(store)
    for key in keys:
        rotten = replace(store, raw=Rotten(store.raw, key))
        stored, report = checked(rotten, Depth.STORED)
        assert (stored, report.vouched) == ([], len(keys))
        assert checked(rotten, Depth.FULL)[0] == [(ProblemKind.MODIFIED, key)]


@pytest.mark.parametrize("depth", [Depth.STORED, pytest.param(Depth.FULL, marks=pytest.mark.slow)])
def test_a_fleet_finds_the_same(store: Store, tmp_path: Path, depth: Depth) -> None:
    ingest(store, tmp_path)
    for number in range(3):
        post(store, number, SEVERAL)
    replayed(store, PlainEngine())
    lost, damaged = segments(store)[0], segments(store)[-1]
    s3, bucket = clients_of(store).client("s3"), store.raw.raw.bucket  # type: ignore[attr-defined]
    s3.put_object(Bucket=bucket, Key=damaged, Body=store.raw.read(damaged)[:-1])
    s3.delete_object(Bucket=bucket, Key=lost)
    here, there = (
        verify(store, PlainEngine(), ALL_TIME, SILENT, depth, fleet=fleet)
        for fleet in (None, RepeatingFleet(store, PlainEngine()))
    )
    shares = [Counter(key for key, rows in store.audit.rows(Share(number, 2)) if rows) for number in range(2)]
    assert sum(shares, Counter()) == Counter(key for key, rows in store.audit.rows() if rows) != Counter()
    problems = list(here)
    assert (list(there), there.summary) == (problems, here.summary)
    assert {ProblemKind.MISSING, ProblemKind.MODIFIED, ProblemKind.UNPROVEN} <= {one.kind for one in problems}


def test_what_s3_has_no_digest_of_is_read(store: Store, tmp_path: Path) -> None:
    """As of objects that were copied into the bucket by another tool; or its digest is not the recorded one."""
    ingest(store, tmp_path)
    keys = segments(store)
    whole, s3 = store.raw.read(keys[0]), clients_of(store).client("s3")
    at = {"Bucket": store.raw.raw.bucket, "Key": keys[0]}  # type: ignore[attr-defined]
    s3.put_object(**at, Body=whole)
    problems, found = checked(store, Depth.STORED)
    assert (problems, found.read, found.vouched) == ([], 1, len(keys) - 1)
    other = whole[:-1] + bytes([whole[-1] ^ 1])
    for algorithm in ("SHA256", "CRC32"):
        s3.put_object(**at, Body=other, ChecksumAlgorithm=algorithm)
        problems, found = checked(store, Depth.STORED)
        assert (problems, found.modified, found.vouched) == ([(ProblemKind.MODIFIED, keys[0])], 1, len(keys) - 1)


def test_a_copy_in_the_index_that_is_not_the_object_is_found(store: Store) -> None:
    """Readers take it for the object, for which S3 answers."""
    post(store, 0, ONE)
    index: Any = store.index
    table, g = index.table, index.generation.current()
    (item,) = index.listing(g).of_day(day_text(next(store.index.segments(ALL_TIME)).day), Listed.REQUEST)
    table.put({**item, "inline": item["inline"][:-1] + bytes([item["inline"][-1] ^ 1])})
    assert [kind for kind, _ in checked(store, Depth.STORED)[0]] == [ProblemKind.INDEX]


def segments(store: Store) -> Sequence[str]:
    return [segment.key for segment in store.index.segments(ALL_TIME)]
