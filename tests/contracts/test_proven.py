"""What `verify` says of values when raw has lost something, against plain Python: which are proven still, what the
others amount to, and which events are lost, before and after a rebuild of the index."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pik.engine import DuckEngine
from pik.inputs.source import file_source
from pik.model.delivery import Filter
from pik.model.instant import DAY, parse_instant
from pik.model.metric import Definition, Per
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.rawlog.replacements import ReplacingRaw
from pik.rawlog.segment_reader import ids_of
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.s3 import AwsRaw
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.restore_raw import restore_raw
from pik.usecases.care.restore_source import open_source
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import Problem, ProblemKind, VerifyReport
from pik.usecases.care.verify_remaining import Remaining, counted_among
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.winners import Winners
from tests.support.stores import replayed

ENGINE = DuckEngine(threads=1)
PAID = Definition(name="paid", value="sum((payload->>'$.n')::DECIMAL(18, 2))", where="event_type = 'paid'")
EVERYBODY = Definition(name="everybody", value="count(*)", per=Per.ALL)
Key = tuple[str, int, str]


def event(entity: str, number: int, day: int) -> dict[str, Any]:
    return {
        "source": "s",
        "event_type": "paid" if number % 2 else "seen",
        "entity_id": entity,
        "event_time": f"2026-01-0{day}T00:00:{number:02}Z",
        "payload": {"n": number, "pad": "x" * 300},
    }


FIRST = [event(entity, number, day) for day in (1, 2) for entity in "abcd" for number in range(12)]
SECOND = [event("a", number, 1) for number in range(6)] + [event("e", 3, 1), event("b", 40, 2)]


def put(store: Store, directory: Path, name: str, events: Iterable[dict[str, Any]]) -> None:
    path = directory / f"{name}.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in events))
    ingest(store, file_source(str(path)), IngestOptions(Reading(1 << 20), workers=0), SILENT)


@pytest.fixture
def known(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two batches, the second of which repeats events; every value current. A frame holds some six deliveries."""
    monkeypatch.setattr("pik.rawlog.segment_writer.FRAME", 3_500)
    add_version(store.metrics, PAID, 2)
    add_version(store.metrics, EVERYBODY, 0)
    put(store, tmp_path, "first", FIRST)
    put(store, tmp_path, "second", SECOND)
    replayed(store, ENGINE)
    return store


def truth(events: Iterable[dict[str, Any]]) -> dict[Key, Decimal]:
    values: dict[Key, Decimal] = defaultdict(Decimal)
    for one in {json.dumps(each): each for each in events}.values():
        at = parse_instant(one["event_time"])
        day, entity = at - at % DAY, one["entity_id"]
        values["event_count", day, entity] += 1
        values["everybody", day, ""] += 1
        if one["event_type"] == "paid":
            values["paid", day, entity] += one["payload"]["n"]
    return dict(values)


def ids(store: Store) -> dict[str, dict[str, Any]]:
    """The events by id, each as it was sent."""
    sent = {(each["entity_id"], parse_instant(each["event_time"])): each for each in [*FIRST, *SECOND]}
    rows = list_events(store, Filter(ALL_TIME))
    return {row.event_id: sent[row.entity_id, row.event_time] for row in rows}


def checked(store: Store) -> tuple[list[Problem], dict[Key, Problem], VerifyReport]:
    """The objects that are damaged, and the values in question."""
    listing = verify(store, ENGINE, ALL_TIME, SILENT)
    found = list(listing)
    values = {(one.value.metric, one.value.bucket, one.value.entity_id): one for one in found if one.value is not None}
    return [one for one in found if one.value is None], values, listing.summary


def change(store: Store, key: str, data: bytes | None) -> None:
    assert isinstance(store.raw, ReplacingRaw)
    raw = store.raw.raw
    if isinstance(raw, AwsRaw):
        s3: Any = raw.clients.client("s3")
        at = {"Bucket": raw.bucket, "Key": key}
        s3.delete_object(**at) if data is None else s3.put_object(**at, Body=data)
        return
    path = Path(store.url) / key
    path.chmod(0o644)
    path.unlink() if data is None else path.write_bytes(data)


def expect(store: Store, lost: Iterable[str], named: dict[str, dict[str, Any]]) -> None:
    """Exactly the values that counted one of the lost events are in question, with what the others come to."""
    everything = {json.dumps(each): each for each in [*FIRST, *SECOND]}
    gone = {json.dumps(named[event_id]): event_id for event_id in lost}
    before = truth(everything.values())
    after = truth(each for text, each in everything.items() if text not in gone)
    _, values, report = checked(store)
    touched = {key for text in gone for key in truth([everything[text]])}
    assert set(values) == touched
    assert (report.aggregates, report.unproven) == (len(before), len(touched))
    assert report.proven == len(before) - len(touched)
    for key, one in values.items():
        assert one.value is not None
        assert (one.kind, one.value.recorded, one.value.remaining) == (
            ProblemKind.UNPROVEN,
            before[key],
            after.get(key),
        )
        assert one.value.difference == after.get(key, Decimal(0)) - before[key]
        mine = {event_id for text, event_id in gone.items() if key in truth([everything[text]])}
        assert set(one.lost_events) == mine, key


@pytest.mark.parametrize("kind", ["local", pytest.param("aws", marks=pytest.mark.slow)])
def test_what_lost_events_were_counted_in_is_not_proven_and_all_else_is(known: Store, tmp_path: Path) -> None:
    """One frame of a segment is damaged, and another segment lost. The index knows their events, and so it does after a
    rebuild; the whole objects prove every value again."""
    named = ids(known)
    assert checked(known)[:2] == ([], {})
    segments = sorted(known.index.segments(ALL_TIME), key=lambda one: (one.batch_id, one.day))
    cut, gone = segments[0], segments[-1]
    assert len(cut.frames) > 4
    whole = {one.key: known.raw.read(one.key) for one in (cut, gone)}
    frame = cut.frames[2]
    data = bytearray(whole[cut.key])
    data[frame.offset + frame.length // 2] ^= 8
    in_frame = {e.hex() for e in rows(known, cut, {2})}
    repeated = {event_id for event_id in in_frame if named[event_id] in SECOND}
    lost = (in_frame - repeated) | {e.hex() for e in rows(known, gone, range(len(gone.frames)))}
    assert in_frame
    change(known, cut.key, bytes(data))
    change(known, gone.key, None)
    fresh = open_store(known.url)
    expect(fresh, lost, named)
    objects, _, _ = checked(fresh)
    by_key = {one.what: set(one.lost_events) for one in objects}
    assert by_key == {cut.key: in_frame, gone.key: lost - in_frame}
    rebuild_index(fresh, SILENT)
    fresh = open_store(known.url)
    expect(fresh, lost, named)
    assert {one.what: set(one.lost_events) for one in checked(fresh)[0]} == by_key
    for key, content in whole.items():
        (tmp_path / "copy" / key).parent.mkdir(parents=True)
        (tmp_path / "copy" / key).write_bytes(content)
    assert restore_raw(fresh, open_source(str(tmp_path / "copy"), no_foreign), ALL_TIME, SILENT).remaining == 0
    objects, values, report = checked(fresh)
    assert (objects, values, report.proven) == ([], {}, report.aggregates)


def rows(store: Store, segment: Any, frames: Iterable[int]) -> list[bytes]:
    return [event_id for _, event_id in ids_of(store.audit.deliveries(segment, set(frames)))]


def no_foreign() -> Any:
    raise AssertionError


def test_an_exact_duplicate_in_whole_raw_proves_what_the_lost_delivery_counted_in(known: Store) -> None:
    """Before a rebuild makes it the accepted one, and after that."""
    named = ids(known)
    first = next(one for one in known.index.segments(ALL_TIME) if one.day == 20454 and one.deliveries > 10)
    lost = {e.hex() for e in rows(known, first, range(len(first.frames)))}
    twice = {event_id for event_id, one in named.items() if one in SECOND and event_id in lost}
    assert len(twice) == 6
    change(known, first.key, None)
    expect(open_store(known.url), lost - twice, named)
    rebuild_index(known, SILENT)
    expect(open_store(known.url), lost - twice, named)


@pytest.mark.parametrize("kind", ["local"])
def test_lost_events_that_came_later_leave_a_value_proven(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tmp_path, "first", FIRST)
    replayed(store, ENGINE)
    put(store, tmp_path, "late", [event("a", 30, 1)])
    late = [one for one in store.index.segments(ALL_TIME) if one.deliveries == 1]
    change(store, late[0].key, None)
    objects, values, report = checked(open_store(store.url))
    assert [one.what for one in objects] == [late[0].key]
    assert [(one.kind, len(one.lost_events)) for one in values.values()] == [(ProblemKind.INCOMPLETE, 1)]
    assert report.proven == report.aggregates == 8


@pytest.mark.parametrize("kind", ["local"])
def test_a_window_meets_damage_of_the_days_into_which_its_buckets_reach(store: Store, tmp_path: Path) -> None:
    add_version(store.metrics, Definition(name="weekly", value="count(*)", bucket="7d"), 0)
    put(store, tmp_path, "first", FIRST)
    replayed(store, ENGINE)
    segments = {one.day: one for one in store.index.segments(ALL_TIME)}
    change(store, segments[max(segments)].key, None)
    first = min(segments) * DAY
    window = replace(ALL_TIME, start=first, end=first + DAY)
    found = list(verify(open_store(store.url), ENGINE, window, SILENT))
    assert {(one.kind, one.what) for one in found} == {(ProblemKind.UNPROVEN, "weekly")}
    assert len(found) == 4


@pytest.mark.parametrize("kind", ["local"])
def test_what_others_recorded_within_a_minute_is_not_provable_in_a_stack_and_no_damage(known: Store) -> None:
    row = next(known.aggregates.current("event_count", ALL_TIME))
    other = structs.replace(row, computed=structs.replace(row.computed, inputs=(row.computed.inputs or 0) + 1))
    metric = known.metrics.latest()[0]
    for deployed, kind in ((True, ProblemKind.UNCERTAIN), (False, ProblemKind.AGGREGATE)):
        remaining = Remaining(replace(known, deployed=deployed), {}, set(), Winners(known))
        assert remaining.problem(other, row.computed, metric).kind == kind
    long_after = structs.replace(other, known_until=other.known_until + 3600 * 10**9)
    remaining = Remaining(replace(known, deployed=True), {}, set(), Winners(known))
    assert remaining.problem(long_after, row.computed, metric).kind == ProblemKind.AGGREGATE


@pytest.mark.parametrize("seed", range(30))
def test_the_counted_ones_among_lost_ids_are_found_or_not_told(seed: int) -> None:
    draw = random.Random(seed)
    certain, others = ([draw.getrandbits(128) for _ in range(draw.randrange(most))] for most in (200, 120))
    some = draw.choice([[], others[: draw.randrange(len(others) + 1)], others])
    for chosen in ([*certain, *some], draw.sample(certain, min(len(certain), 3)), certain[:1]):
        found = counted_among(certain, others, len(chosen), reduce(xor, chosen, 0))
        assert sorted(found) == sorted(chosen) or (found == [] and len(certain) + len(others) > 96)
    assert counted_among(certain, others, len(certain) + 1, draw.getrandbits(128)) == []
