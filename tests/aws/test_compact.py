"""Promise 9 for a stack that is compacted: its totals are exact at every moment, whoever dies or sleeps meanwhile."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from typing import Any

import pytest
import zstandard

from pik.__main__ import main
from pik.errors import BeingRebuilt, Busy, StoreError
from pik.model.batch import Batch, BatchState, request_origin
from pik.model.delivery import Filter
from pik.model.ids import digits, time_digits
from pik.model.instant import SECOND
from pik.model.window import ALL_TIME
from pik.ports.compaction import Packed
from pik.ports.index import Summary
from pik.ports.store import Store
from pik.rawlog.replacements import ReplacingRaw
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation, layout, totals
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.clients import Clients
from pik.stores.aws.s3 import AwsRaw
from pik.usecases.care.compact import CompactReport, compact
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.events import list_events
from tests.aws.test_crash import DieAt
from tests.support.aws.calls import hooked
from tests.support.aws.emulator import make_stack, publish
from tests.support.contracts.chunks import Sent, chunk, origin
from tests.support.faults import Crash
from tests.support.stores import event, window


@pytest.fixture
def url(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    monkeypatch.setattr(totals, "_SLICE", 3)
    return publish(aws, make_stack(aws))


def batch_by_batch(store: Store) -> Summary:
    """What the store holds, without the sums."""
    assert isinstance(store.index, AwsIndex)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(totals, "read_sums", lambda *_: totals.Summed(totals.Sums(), is_stored=False, exceptions=[]))
        return store.index.summary()


def sum_up(store: Store, before: int | None = None) -> int:
    assert store.compaction is not None
    with store.compaction.compacting():
        return sum(store.compaction.sum_up(time.time_ns() + SECOND if before is None else before))


def kept(store: Store) -> totals.Summed:
    """What is summed up."""
    assert isinstance(store.index, AwsIndex)
    return totals.read_sums(store.index.table, store.index.generation.current())


@contextmanager
def dying(store: Store, number: int) -> Iterator[None]:
    """The process is killed with its n-th call."""
    with hooked(store, "before-send", DieAt(store, number)), suppress(Crash):
        yield


class Life:
    """Batches of all kinds that begin, go on and end in a random order, some with ids of long ago."""

    def __init__(self, url: str, seed: int) -> None:
        self.random, self.url = Random(seed), url
        self.store = open_store(url)
        self.open: dict[str, int] = {}

    def new_id(self) -> str:
        age = self.random.choice([0, 0, 0, 700, 7000]) * SECOND
        return time_digits(time.time_ns() - age) + digits(self.random.getrandbits(80), 16)

    def sent(self, most: int = 3) -> list[Sent]:
        return [Sent(f"event {self.random.randrange(40)}") for _ in range(self.random.randint(1, most))]

    def begin(self) -> None:
        batch_id = self.new_id()
        self.store.batches.open(origin(batch_id), batch_id, 1)
        self.open[batch_id] = 1

    def go_on(self) -> None:
        for batch_id in self.random.sample(sorted(self.open), min(1, len(self.open))):
            seq, sent = self.open[batch_id], self.sent()
            self.store.batches.record(chunk(sent, batch_id=batch_id, first_seq=seq, number=seq))
            self.open[batch_id] += len(sent)

    def end(self) -> None:
        for batch_id in self.random.sample(sorted(self.open), min(1, len(self.open))):
            self.store.batches.finish(batch_id, 2)
            del self.open[batch_id]

    def request(self, batch_id: str = "") -> None:
        batch_id = batch_id or self.new_id()
        batch = Batch(batch_id=batch_id, origin=request_origin(batch_id), state=BatchState.COMPLETE, started_at=1)
        self.store.requests.record_request(batch, chunk(self.sent(), batch_id=batch_id, number=0), {})

    def dying_request(self) -> None:
        store, self.store = self.store, open_store(self.url)
        with dying(self.store, self.random.randint(3, 9)):
            self.request()
        self.store = store

    def compaction(self) -> None:
        before = time.time_ns() - self.random.choice([-1, 0, 650]) * SECOND
        sum_up(open_store(self.url), before)

    def dying_compaction(self) -> None:
        """Its lease is left alone: that another takes it over is another test's matter."""
        store = open_store(self.url)
        assert store.compaction is not None
        with dying(store, self.random.randint(2, 14)):
            deque_of(store.compaction.sum_up(time.time_ns() + SECOND))


def deque_of(steps: Iterator[int]) -> None:
    for _ in steps:
        pass


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 15))])
def test_the_totals_are_exact_whatever_happens_before_during_and_after_a_compaction(url: str, seed: int) -> None:
    life = Life(url, seed)
    steps = [life.begin, life.go_on, life.go_on, life.end, life.request, life.request, life.dying_request]
    steps += [life.compaction, life.dying_compaction]
    for _ in range(30):
        life.random.choice(steps)()
        reader = open_store(url)
        assert reader.overview.summary() == batch_by_batch(reader)
    sum_up(life.store)
    assert kept(life.store).sums.batches > 2
    assert life.store.overview.summary() == batch_by_batch(life.store)
    assert sum_up(life.store) == 0


@pytest.mark.parametrize("kind", ["array", *(pytest.param(one, marks=pytest.mark.slow) for one in ("file", "request"))])
def test_a_writer_that_slept_over_a_compaction_is_counted(url: str, kind: str) -> None:
    """Before one of its first calls another process sums up a later batch."""
    life = Life(url, 1)
    other, sums = life.store, 0

    def write(store: Store, number: int) -> None:
        batch_id = time_digits(time.time_ns()) + digits(number, 16)
        sent = [Sent(f"{number}/{each}") for each in range(1 if kind == "request" else 2)]
        if kind == "file":
            store.batches.open(origin(batch_id), batch_id, 1)
            store.batches.record(chunk(sent, batch_id=batch_id))
            store.batches.finish(batch_id, 2)
            return
        batch = Batch(batch_id=batch_id, origin=request_origin(batch_id), state=BatchState.COMPLETE, started_at=1)
        store.requests.record_request(batch, chunk(sent, batch_id=batch_id, number=0), {})

    for number in range(1, 5):
        store, calls = open_store(url), 0

        def interrupt(at: int = number, **_: object) -> None:
            nonlocal calls, sums
            calls += 1
            if calls == at:
                sums += 1
                time.sleep(2 * generation.NOTICED)
                life.request(time_digits(time.time_ns()) + digits(0, 16))
                sum_up(other, time.time_ns() + SECOND // 1000)

        store.requests.expect_ready()
        with hooked(store, "before-send", interrupt):
            write(store, number)
        reader = open_store(url)
        assert reader.overview.summary() == batch_by_batch(reader), number
        assert reader.index.totals().batches == number + sums
    sum_up(other)
    assert kept(other).sums.batches == 4 + sums


def test_a_compaction_that_was_taken_for_dead_changes_nothing_more(url: str) -> None:
    asleep, other = open_store(url), open_store(url)
    life = Life(url, 1)
    for _ in range(7):
        life.request()
    assert asleep.compaction is not None
    steps = asleep.compaction.sum_up(time.time_ns() + SECOND)
    assert next(steps) == 3
    assert sum_up(other) == 4
    with pytest.raises(Busy, match="changed the sums"):
        next(steps)
    assert other.overview.summary() == batch_by_batch(other)


def test_one_compaction_at_a_time_and_none_during_a_rebuild(url: str) -> None:
    store, other = open_store(url), open_store(url)
    assert store.compaction is not None
    with ExitStack() as stack:
        stack.enter_context(store.compaction.compacting())
        with pytest.raises(Busy, match="working on compact"):
            compact(other, SILENT)
    with store.batches.rebuild():
        for refused in (lambda: compact(other, SILENT), lambda: rebuild_index(other, SILENT)):
            with pytest.raises(BeingRebuilt, match="the index is being rebuilt by another pik process, since 20"):
                refused()
        under_way = other.overview.rebuilding()
        assert under_way is not None
        assert 0 <= time.time_ns() - (under_way.since or 0) < 600 * SECOND
    assert open_store(url).overview.rebuilding() is None


def test_a_rebuilt_index_begins_without_sums(url: str) -> None:
    life = Life(url, 1)
    life.request()
    assert sum_up(life.store) == 1
    with life.store.batches.rebuild():
        pass
    reader = open_store(url)
    assert kept(reader).sums.batches == 0
    assert reader.index.totals().batches == 0
    life.store = reader
    life.request()
    assert [reader.index.totals().batches, sum_up(reader), reader.index.totals().batches] == [1, 1, 1]


def test_damaged_sums_are_an_error_that_says_what_to_do(url: str) -> None:
    life = Life(url, 1)
    life.request()
    sum_up(life.store)
    assert isinstance(life.store.index, AwsIndex)
    table = life.store.index.table
    item = table.get(layout.sums_key(1))
    assert item is not None
    table.put({**item, "sums": b"not compressed"})
    with pytest.raises(StoreError, match="index is damaged: item 1/totals sums") as caught:
        life.store.overview.summary()
    assert caught.value.hint == "pik verify --rebuild-index"


def test_what_a_compaction_reports(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(url)
    for number in range(4):
        record_request(store, json.dumps(event(number, "e", f"0{1 + number % 2}T00:00")).encode())
    record_request(store, json.dumps([event(8, "e", "01T01:00"), event(9, "e", "02T01:00")]).encode())
    at_once = compact(store, SILENT)  # all of them began a moment ago
    assert at_once == CompactReport(is_compacted=True, packed=Packed(young=6))
    monkeypatch.setattr("pik.usecases.care.compact.SETTLED_AFTER", -SECOND)
    possible = compact(store, SILENT, dry_run=True)
    assert (possible.batches, possible.days, possible.packed.segments) == (5, 2, 6)
    stopped = compact(store, SILENT, goes_on=lambda: False)
    assert (stopped.batches, stopped.days, stopped.is_unfinished) == (3, 0, True)
    first_day = compact(store, SILENT, window("01", "02"))
    assert (first_day.batches, first_day.days, first_day.packed.segments) == (2, 1, 3)
    size = sum(one.size for one in store.index.segments(window("01", "02")))
    assert first_day.packed.size == size
    rest = compact(store, SILENT)
    assert (rest.batches, rest.days, rest.packed.segments) == (0, 1, 3)
    assert compact(store, SILENT, dry_run=True) == CompactReport(is_compacted=True)


def test_what_is_too_young_is_counted(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, said = open_store(url), {}
    for numbers in (range(1), range(1, 4)):
        record_request(store, json.dumps([event(n, "e", f"01T00:0{n}") for n in numbers]).encode())
    for dry in ([], ["--dry-run"]):
        monkeypatch.setattr("sys.argv", ["pik", "compact", "--store", url, "--format", "json", *dry])
        assert main() == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["days"], said["segments"], said["segments_too_young"]) == (0, 0, 2)
        assert said["outcome"] == ("nothing, a dry run" if dry else "nothing to do yet")


def test_a_segment_that_is_not_as_recorded_is_left_and_named(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pik.usecases.care.compact.SETTLED_AFTER", -SECOND)
    store = open_store(url)
    for array in (range(2), range(2, 4)):
        record_request(store, json.dumps([event(each, "e", f"01T00:0{each}") for each in array]).encode())
    lost, _ = sorted(one.key for one in store.index.segments(ALL_TIME))
    raw_of(store).clients.client("s3").delete_object(Bucket=raw_of(store).bucket, Key=lost)
    monkeypatch.setattr("sys.argv", ["pik", "compact", "--store", url, "--format", "json"])
    assert main() == 3
    said = json.loads(capsys.readouterr().out)
    assert {name: said[name] for name in ("segments", "segments_left", "next")} == {
        "segments": 1,
        "segments_left": 1,
        "next": f"pik --store {url} verify",
    }
    assert [lost in one for one in said["left_because"]] == [True]


HARMS = {
    "a bit of a copy is flipped": (r"its SHA-256 is not the recorded one; it has copies of segments \(6\)", "compact/"),
    "a copy is cut": (r"it has \d+ bytes in place of \d+; it has copies", "compact/"),
    "the copies are missing": (r"it is missing; it has copies of segments \(6\), which are read in raw", "compact/"),
    "a directory is missing": ("is missing", "index/1/packs/"),
    "a bit of a directory is flipped": ("it is not what was written", "index/1/packs/"),
    "the item of a pack is damaged": ("the index is damaged: item 1/pack 2026-01-01/request/", "item"),
}


@pytest.mark.parametrize(
    "harm",
    [next(iter(HARMS)), *(pytest.param(harm, marks=pytest.mark.slow) for harm in list(HARMS)[1:])],
)
def test_promise_2_what_is_wrong_with_a_pack_is_found_and_a_rebuild_mends_it(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    monkeypatch.setattr("pik.usecases.care.compact.SETTLED_AFTER", -SECOND)
    store = open_store(url)
    for number in range(6):
        record_request(store, json.dumps(event(number, f"e{number % 2}", f"01T00:0{number}")).encode())
    before = [(row.event_id, row.deliveries) for row in list_events(store, Filter())]
    compact(store, SILENT)
    detail, prefix = HARMS[harm]
    key = damaged_item(store) if prefix == "item" else damaged_object(store, prefix, harm)

    def pik(*arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["pik", *arguments, "--store", url, "--format", "json"])
        code = main()
        return code, json.loads(capsys.readouterr().out)

    depths = ((), ("--full",), ("--quick",)) if "item" in harm or "missing" in harm else ((), ("--full",))
    for depth in depths:
        code, said = pik("verify", *depth)
        found = [one["detail"] for one in said["problems"] if one["what"] == key]
        assert (code, len(found)) == (1, 1), said
        assert re.search(detail, found[0])
        assert "verify --rebuild-index" in said["next"]
    if "missing" in harm and prefix == "compact/":
        reader = open_store(url)
        assert [(row.event_id, row.deliveries) for row in list_events(reader, Filter())] == before
    assert pik("verify", "--rebuild-index")[0] == 0
    assert pik("compact")[1]["segments"] == 6
    assert pik("verify")[0] == 0
    assert [(row.event_id, row.deliveries) for row in list_events(open_store(url), Filter())] == before


def damaged_object(store: Store, prefix: str, harm: str) -> str:
    raw = raw_of(store)
    s3 = raw.clients.client("s3")
    (key,) = (found.key for found in raw.objects(prefix))
    data = bytearray(raw.read(key))
    data[len(data) // 2] ^= 1
    s3.delete_object(Bucket=raw.bucket, Key=key)
    if "missing" not in harm:
        s3.put_object(Bucket=raw.bucket, Key=key, Body=bytes(data[:-1] if "cut" in harm else data))
    return key


def damaged_item(store: Store) -> str:
    """Without what only `copies` needs; other attributes are as they were."""
    assert isinstance(store.index, AwsIndex)
    (item,) = store.index.listing(1).pack_items()
    del item["body_digest"]  # type: ignore[misc]
    store.index.table.put(item)
    return f"item {item['pk']} {item['sk']}"


def test_an_erased_event_is_gone_from_copies_after_the_steps_of_the_page_on_security(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pik.usecases.care.compact.SETTLED_AFTER", -SECOND)
    store = open_store(url)
    secret = event("my secret", "e", "01T00:00")
    for body in (secret, event(1, "e", "01T00:01"), event(2, "f", "01T00:02")):
        record_request(store, json.dumps(body).encode())
    (key,) = (one.key for one in store.index.segments(ALL_TIME) if b"secret" in expanded(one.inline))
    compact(store, SILENT)
    assert [place.split("/")[0] for place in places(store, b"secret")] == ["compact", "raw"]

    raw = raw_of(store)
    for copy in [key, *(found.key for found in raw.objects("compact/event_date=2026-01-01/"))]:
        raw.clients.client("s3").delete_object(Bucket=raw.bucket, Key=copy)
    for _ in range(2):
        rebuild_index(open_store(url), SILENT)
    compact(open_store(url), SILENT)
    assert places(store, b"secret") == []
    assert {"compact", "raw"} <= {place.split("/")[0] for place in places(store, b'"v": 1')}  # as others are


def places(store: Store, text: bytes) -> list[str]:
    """The objects and items that have this text, compressed or not."""
    assert isinstance(store.index, AwsIndex)
    raw = raw_of(store)
    objects = [found.key for found in raw.objects("") if text in expanded(raw.read(found.key))]
    items = [
        item["pk"]
        for item in store.index.table.scan()
        for value in item.values()
        if isinstance(value, bytes) and text in expanded(value)
    ]
    return sorted([*objects, *items])


def expanded(data: bytes) -> bytes:
    """The bytes, and what they are compressed of."""
    with suppress(zstandard.ZstdError):
        return data + zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return data


def raw_of(store: Store) -> AwsRaw:
    assert isinstance(store.raw, ReplacingRaw)
    assert isinstance(store.raw.raw, AwsRaw)
    return store.raw.raw
