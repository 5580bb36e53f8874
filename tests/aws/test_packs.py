"""Compaction of a deployed store: no answer changes, whatever happens meanwhile."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from math import log2
from random import Random
from threading import Event, Thread
from time import time_ns
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pik.__main__ import main
from pik.errors import NoAccess, StoreError
from pik.model.batch import Segment
from pik.model.ids import new_id
from pik.model.instant import DAY
from pik.model.window import ALL_TIME
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation, packing, packs
from pik.stores.aws.catalog.layout import Listed
from pik.stores.aws.catalog.listing import Listing, runs_of
from pik.stores.aws.catalog.packs import body_key, packs_prefix
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from tests.aws.test_crash import dying
from tests.support.aws.compacted import compact
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.refusing import refusing
from tests.support.aws.unreliable import unreliable
from tests.support.snapshot import assert_sound, damage, snapshot


@pytest.fixture
def url(aws: Clients, monkeypatch: pytest.MonkeyPatch, no_delays: None) -> str:
    """The store of a new stack."""
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    return publish(aws, make_stack(aws))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of a few segments, whose directories have several frames."""
    monkeypatch.setattr(packing, "SEGMENTS", 4)
    monkeypatch.setattr(packs, "FRAME", 300)


def event(number: int, **fields: object) -> dict[str, object]:
    return {
        "source": "shop",
        "event_type": "order",
        "entity_id": f"customer-{number % 3}",
        "event_time": f"2026-01-{1 + number % 2:02}T00:{number % 60:02}:00Z",
        "payload": {"number": number},
        **fields,
    }


def printed(*arguments: str) -> Any:
    """What a command prints as JSON."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", ["pik", *arguments, "--format", "json"])
        main()
    return json.loads(said.getvalue())


def answers(url: str) -> dict[str, Any]:
    """All that a store answers: what commands print, and every fact about each segment but where its bytes are."""
    store = open_store(url)
    found = {command: printed(command, "--store", url) for command in ("events", "duplicates", "verify", "status")}
    shown = [printed("show", one["event_id"], "--store", url) for one in found["events"]["events"][::9]]
    found["events"]["events"].sort(key=lambda one: one["event_id"])
    # A segment with a copy need not be read where S3 keeps the digest of its object.
    found["verify"]["segments_read"] += found["verify"].pop("checked_by_s3")
    segments = {one.key: (bare(one), store.index.skipped(one)) for one in store.index.segments(ALL_TIME)}
    of_batches = {
        one.key: (bare(one), store.index.skipped(one))
        for batch in store.index.batches()
        for one in store.index.segments(ALL_TIME, batch_id=batch.batch_id)
    }
    assert of_batches == segments
    located = [place for each in store.index.locate("", 100) for place in store.index.deliveries(each)]
    assert {key: bare(one) for key, one in open_store(url).index.segments_of(located).items()} == {
        key: one for key, (one, _) in segments.items()
    }
    times = {(place.batch_id, place.seq): place.recorded_at for place in located}
    return {**found, "show": shown, "segments": segments, "times": times, "snapshot": snapshot(store)}


def bare(segment: Segment) -> dict[str, Any]:
    names = [name for name in segment.__struct_fields__ if name not in ("inline", "packed")]
    return {name: getattr(segment, name) for name in names}


def post(url: str, *numbers: int, **fields: object) -> None:
    """A request with these events: alone, or as an array."""
    events = [event(number, **fields) for number in numbers]
    record_request(open_store(url), json.dumps(events[0] if len(events) == 1 else events).encode())


def packed(url: str) -> list[bool]:
    return [segment.packed is not None for segment in open_store(url).index.segments(ALL_TIME)]


@pytest.mark.parametrize("is_rebuilt", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_answer_is_as_before(url: str, small: None, is_rebuilt: bool) -> None:
    for number in (0, 1, 2, 3, 1, 4, 6):
        post(url, number)
    for numbers in ((3, 4, 5), (9, 11)):
        post(url, *numbers)
    post(url, 20, idempotency_key="k")
    post(url, 21, idempotency_key="k")
    post(url, 22, 23, idempotency_key="k")
    before = answers(url)
    assert not any(packed(url))
    done = compact(open_store(url))
    assert sum(one.segments for one in done) == len(packed(url)) == 14
    assert all(packed(url))
    assert answers(url) == before
    post(url, 30)
    post(url, 0)
    assert packed(url).count(False) == 2
    after = answers(url)
    assert sum(one.segments for one in compact(open_store(url))) == 2
    assert answers(url) == after
    if not is_rebuilt:
        return
    rebuild_index(open_store(url), SILENT)
    assert not any(packed(url))
    assert snapshot(open_store(url)) == after["snapshot"]
    assert_sound(open_store(url))
    compact(open_store(url))
    assert all(packed(url))
    assert snapshot(open_store(url)) == after["snapshot"]


def test_a_pack_that_may_not_be_read_is_not_damage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor anything that a rebuild of the index would mend."""
    post(url, 0)
    assert compact(open_store(url))
    store = open_store(url)
    expected = r"^raw object index/1/packs/\w+ cannot be read: S3 denies GetObject: you may not$"
    with refusing(403, "AccessDenied", "you may not") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with pytest.raises(NoAccess, match=expected):
            list(store.index.segments(ALL_TIME))


STEP = st.one_of(
    st.tuples(st.just("post"), st.lists(st.integers(0, 11), min_size=1, max_size=4)),
    st.tuples(st.just("keyed"), st.lists(st.integers(0, 5), min_size=1, max_size=2)),
    st.tuples(st.just("compact"), st.just([])),
    st.tuples(st.just("die"), st.lists(st.integers(1, 60), min_size=1, max_size=1)),
    st.tuples(st.just("faults"), st.lists(st.integers(0, 999), min_size=1, max_size=1)),
    st.tuples(st.just("rebuild"), st.just([])),
)


def take(url: str, name: str, numbers: list[int]) -> None:
    """One step; those that may end early leave what they leave."""
    store = open_store(url)
    if name in ("post", "keyed"):
        post(url, *numbers, **({"idempotency_key": "k"} if name == "keyed" else {}))
    elif name == "rebuild":
        rebuild_index(store, SILENT)
    elif name == "faults":
        with unreliable(store, numbers[0]), suppress(StoreError):
            compact(store)
    elif name == "die":
        with dying(store, numbers[0]):
            compact(store)
    else:
        compact(store)


def machine(aws: Clients, steps: list[tuple[str, list[int]]]) -> None:
    """What does not record changes no answer."""
    url = publish(aws, make_stack(aws))
    before: dict[str, Any] = {}
    for name, numbers in steps:
        take(url, name, numbers)
        store = open_store(url)
        if name in ("post", "keyed"):
            before = snapshot(store)
        elif before:
            assert snapshot(store) == before, (name, numbers)
            assert damage(store) == [], (name, numbers)


STATELESS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)


@pytest.mark.slow
@given(st.lists(STEP, min_size=10, max_size=30))
@STATELESS
def test_whatever_is_recorded_and_compacted(aws: Clients, url: str, small: None, steps: list[Any]) -> None:
    machine(aws, steps)


@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.slow)])
def test_a_death_after_every_call(url: str, small: None, step: int, aws: Clients) -> None:
    """The next compaction completes what is left; until then, and after, every answer is as before."""
    for number in (0, 2, 4, 6, 8, 10, 12):
        post(url, number)
    post(url, 1, 2, 3)
    post(url, 5, 8)
    before, number = snapshot(open_store(url)), 1
    while True:
        with dying(open_store(url), number) as die:
            compact(die.store)
        assert snapshot(open_store(url)) == before, f"call {number}"
        assert damage(open_store(url)) == [], f"call {number}"
        if die.calls < number:
            break
        number += step
    compact(open_store(url))
    assert all(packed(url))
    assert snapshot(open_store(url)) == before


def test_packs_are_merged_and_what_is_replaced_is_removed_after_a_day(url: str, small: None) -> None:
    """Every hour a compaction: there are few runs, and in the end no object that nothing names."""
    expected: dict[str, Any] = {}
    for hour in range(7):
        post(url, 2 * hour)
        post(url, 2 * hour + 40)
        post(url, *range(2 * hour, 2 * hour + 6, 2))
        if hour == 5:
            expected = snapshot(open_store(url))
        compact(open_store(url))
        if hour == 5:
            assert snapshot(open_store(url)) == expected
    expected = snapshot(open_store(url))
    listing = listing_of(url)
    tidy = packing.Packing(listing.table, listing.raw, listing.pointer).tidy
    for kind in packing.KINDS:
        runs = runs_of(listing.packs(packs_prefix("2026-01-01", kind)))
        assert len(runs) <= 3
        assert sum(pack.item["segments"] for run in runs for pack in run) == (14 if kind == Listed.REQUEST else 7)
    named = {key for pack in listing.packs() for key in (pack.body, pack.directory)}
    listing.raw.create(body_key("2026-01-01", new_id()), b"what a process left that died")
    left = set(objects(listing)) - named
    assert tidy(time_ns()) == 0
    assert tidy(time_ns() + 2 * DAY) == len(left) > 3
    assert set(objects(listing)) == named
    assert snapshot(open_store(url)) == expected
    assert damage(open_store(url)) == []


def listing_of(url: str) -> Listing:
    index: Any = open_store(url).index
    listing: Listing = index.listing(index.generation.current())
    return listing


def objects(listing: Listing) -> list[str]:
    return [found.key for prefix in ("compact/", "index/1/packs/") for found in listing.raw.objects(prefix)]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_the_number_of_runs_grows_by_the_logarithm(sizes: list[int]) -> None:
    """And each byte is written again about as often."""
    runs: list[int] = []
    written = 0
    for size in sizes:
        runs.append(size)
        merged = [one[0].size for one in packing.to_merge([[SimpleNamespace(size=one)] for one in runs])]  # type: ignore[list-item]
        if merged:
            for one in merged:
                runs.remove(one)
            runs.append(sum(merged))
            written += sum(merged)
        assert len(runs) <= 1 + log2(sum(runs))
    assert written <= sum(sizes) * (1 + 2 * log2(sum(sizes)))


@pytest.mark.slow
def test_readers_at_the_same_time_miss_nothing(url: str, small: None) -> None:
    for number in range(24):
        post(url, number)
    post(url, 1, 2, 3, 24, 25)
    keys = {segment.key for segment in open_store(url).index.segments(ALL_TIME)}
    with reading(url) as wrong:
        for number in range(26, 34):
            compact(open_store(url))
            post(url, number)
        rebuild_index(open_store(url), SILENT)
        compact(open_store(url))
    assert wrong(keys) == []


@contextmanager
def reading(url: str) -> Iterator[Any]:
    """Readers that list all segments again and again; what they missed or had twice is returned in the end."""
    ended, lists = Event(), list[list[str]]()

    def read(seed: int) -> None:
        while not ended.is_set():
            store, draw = open_store(url), Random(seed)
            lists.append([each.key for each in store.index.segments(ALL_TIME) if draw.random() < 2])

    threads = [Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield lambda keys: [
            (sorted(keys - set(one)), len(one) - len(set(one)))
            for one in lists
            if not keys <= set(one) or len(one) != len(set(one))
        ]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(lists) > 10
