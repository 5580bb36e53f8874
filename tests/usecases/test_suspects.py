"""Suspects: exactly the events that a plain comparison of all pairs finds."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.model.batch import Frame, Segment
from pik.model.delivery import Filter
from pik.model.instant import SECOND, format_instant, parse_instant
from pik.model.path import EventPath
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog import objects
from pik.rawlog.objects import unpack_frame
from pik.usecases.ingest import batch_ingest
from pik.usecases.inspect import suspects
from pik.usecases.inspect.suspects import SuspectRow, SuspectRule, count_suspects, list_suspects
from tests.support.stores import ingest

ALL = Filter()
FIVE = SuspectRule(5 * SECOND)


def made(at: str, payload: Any, entity: str = "e", source: str = "web", **more: Any) -> dict[str, Any]:
    fields = {"source": source, "event_type": "paid", "entity_id": entity, "event_time": f"2026-01-02T{at}Z"}
    return {**fields, "payload": payload, **more}


def listed(store: Store, rule: SuspectRule = FIVE, wanted: Filter = ALL, **more: Any) -> list[SuspectRow]:
    return list(list_suspects(store, DuckEngine(), wanted, rule, **more))


def times(rows: list[SuspectRow]) -> list[tuple[str, str]]:
    return [(format_instant(row.earlier_time)[11:-1], format_instant(row.event_time)[11:-1]) for row in rows]


def test_an_event_like_an_earlier_one_within_reach_is_a_suspect(store: Store, tmp_path: Path) -> None:
    same = {"v": 1}
    others = [made("00:00:03", {"v": 2}), made("00:00:03", same, "f"), made("00:00:03", same, source="app")]
    ingest(store, tmp_path, [made("00:00:00", same), made("00:00:05", same), made("00:00:10.000000001", same), *others])
    [row] = listed(store)
    assert times([row]) == [("00:00:00", "00:00:05")]
    assert (row.distance, row.seq, row.earlier_seq, row.entity_id) == (5 * SECOND, 2, 1, "e")
    assert len(listed(store, SuspectRule(6 * SECOND))) == 2
    assert listed(store, SuspectRule(4 * SECOND)) == []


def test_duplicates_are_no_suspects_and_a_chain_names_the_event_before(store: Store, tmp_path: Path) -> None:
    chain = [made(f"00:00:0{second}", {"v": 1}) for second in (0, 2, 4)]
    ingest(store, tmp_path, [*chain, *chain])
    assert times(listed(store)) == [("00:00:00", "00:00:02"), ("00:00:02", "00:00:04")]


def test_payloads_are_compared_as_identity_compares_them(store: Store, tmp_path: Path) -> None:
    texts = [
        '{"a":10,"b":"é"}',
        '{"b":"\\u00e9", "a":1.0e1}',
        '{"a":10,"b":"e"}',
        '{"b":"é","a":9,"a":10.0}',
        '{"n":9007199254740993}',
        '{"n":9007199254740992}',
        '{"n":123456789012345678.123456}',
        '{"n":"123456789012345678.123456"}',
        '{"n":123456789012345678.1234560}',
    ]
    path = tmp_path / "odd.jsonl"
    lines = []
    for second, text in enumerate(texts):
        event = json.dumps(made(f"00:00:{second:02}", 0))
        lines.append(event.replace('"payload": 0', f'"payload": {text}'))
    path.write_text("\n".join(lines), encoding="utf-8")
    ingest_file(store, path)
    assert times(listed(store)) == [("00:00:00", "00:00:01"), ("00:00:01", "00:00:03"), ("00:00:06", "00:00:08")]


def ingest_file(store: Store, path: Path) -> None:
    from pik.inputs.source import file_source
    from pik.rawlog.reading import Reading
    from pik.runtime import SILENT
    from pik.usecases.ingest.batch_ingest import IngestOptions
    from pik.usecases.ingest.batch_ingest import ingest as ingest_source

    ingest_source(store, file_source(str(path)), IngestOptions(Reading(1 << 20), workers=0), SILENT)


def test_of_events_with_new_keys_at_the_same_time_all_but_the_one_recorded_first_are_suspects(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids of the batches fall, so that neither they nor the ids of the events give the order."""
    ids = [f"01M8KRBVSEXGD35HEZJZZWZFY{digit}" for digit in "KJHGF"]
    fresh = iter(ids)
    monkeypatch.setattr(batch_ingest, "new_id", lambda: next(fresh))
    others = [made("00:00:02", {"v": 2}, idempotency_key="k9"), made("00:00:02", {"v": 1}, "f", idempotency_key="k1")]
    for key in ("k2", "k0", "k3", "k1"):
        ingest(store, tmp_path, [*others, made("00:00:02", {"v": 1}, idempotency_key=key)], again=True)
    ingest(store, tmp_path, [made("00:00:02", {"v": 1})], again=True)  # with no key at all
    found = listed(store)
    assert [(row.earlier_batch_id, row.batch_id) for row in sorted(found, key=lambda row: ids.index(row.batch_id))] == [
        *pairwise(ids)
    ]
    assert {row.distance for row in found} == {0}


def test_each_suspect_looks_like_the_one_before_it_by_time_and_then_by_recording(store: Store, tmp_path: Path) -> None:
    sent = [("02", "a"), ("02", "b"), ("00", "c"), ("00", "d")]
    ingest(store, tmp_path, [made(f"00:00:{second}", {"v": 1}, idempotency_key=key) for second, key in sent])
    assert {(row.earlier_seq, row.seq) for row in listed(store)} == {(3, 4), (4, 1), (1, 2)}
    only = Filter(Window(parse_instant("2026-01-02T00:00:01Z")))
    assert {(row.earlier_seq, row.seq) for row in listed(store, wanted=only)} == {(4, 1), (1, 2)}


def test_paths_can_be_compared_instead_and_events_without_them_are_counted(store: Store, tmp_path: Path) -> None:
    payloads = [{"id": 7, "try": 1}, {"id": 7.0, "try": 2}, {"id": "7", "try": 3}, {"try": 1}, {"id": None, "try": 4}]
    ingest(store, tmp_path, [made(f"00:00:0{second}", payload) for second, payload in enumerate(payloads)])
    found = list_suspects(
        store, DuckEngine(), Filter(), SuspectRule(5 * SECOND, (EventPath("payload.id", "--same"),)), paths=()
    )
    assert times(list(found)) == [("00:00:00", "00:00:01")]
    assert found.summary.incomparable == 2
    assert listed(store) == []


def test_an_event_before_the_window_is_what_one_in_it_looks_like(store: Store, tmp_path: Path) -> None:
    ingest(store, tmp_path, [made("00:00:00", {"v": 1}), made("00:00:03", {"v": 1}), made("00:00:06", {"v": 1})])
    begin = parse_instant("2026-01-02T00:00:01Z")
    assert times(listed(store, wanted=Filter(Window(begin, begin + 3 * SECOND)))) == [("00:00:00", "00:00:03")]
    assert listed(store, wanted=Filter(source="app")) == []
    assert len(listed(store, wanted=Filter(ALL_TIME, ("e",), "web", "paid"), limit=1)) == 1


def brute(events: list[dict[str, Any]], within: int) -> set[tuple[int, int]]:
    """The pairs (earlier, suspect) by seq, from a comparison of all with all."""
    seen = set()
    first = []
    for seq, one in enumerate(events, 1):
        key = one.get("idempotency_key")
        identity = json.dumps([one["source"], one["event_type"], one["entity_id"], key or one], sort_keys=True)
        if identity not in seen:
            seen.add(identity)
            first.append((parse_instant(one["event_time"]), seq, one))
    found = set()
    for time, seq, one in first:
        fields = ("source", "event_type", "entity_id", "payload")
        before = [
            (other_time, other_seq)
            for other_time, other_seq, other in first
            if time - other_time <= within
            and (other_time, other_seq) < (time, seq)
            and all(one[field] == other[field] for field in fields)
        ]
        if before:
            found.add((max(before)[1], seq))
    return found


@pytest.mark.parametrize("held", [100_000, 40])
def test_they_are_those_that_comparing_all_pairs_finds(
    store: Store, tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "HELD", held)
    chance = random.Random(3)
    events = [
        made(
            f"0{chance.randrange(2)}:00:{chance.randrange(60):02}.{chance.randrange(2)}",
            {"v": chance.randrange(3)},
            f"e{chance.randrange(2)}",
            **({"idempotency_key": f"k{chance.randrange(200)}"} if chance.randrange(2) else {}),
        )
        for _ in range(300)
    ]
    ingest(store, tmp_path, events)
    rows = listed(store)
    assert {(row.earlier_seq, row.seq) for row in rows} == brute(events, 5 * SECOND)
    assert rows == sorted(rows, key=lambda row: (row.event_time, row.event_id))
    groups = count_suspects(store, DuckEngine(), Filter(), FIVE, EventPath("payload.v", "--by"))
    assert sum(group.suspects for group in groups) == len(rows) == groups.summary.suspects
    assert len(rows) > 100
    assert 10 < sum(not row.distance for row in rows) < 60


def test_only_frames_with_an_event_close_to_another_are_read_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ["e000", "e123", "e124", "e299"]
    payload = {"text": random.Random(5).randbytes(800).hex()}
    events = [made("00:00:00", payload, f"e{number:03}") for number in range(300)]
    ingest(store, tmp_path, [*events, made("00:00:04", payload, "e123"), made("00:00:04", payload, "e299")])
    ingest(store, tmp_path, [made("00:00:04", payload, "e000"), made("00:00:04", payload, "e124")])
    read = list[int]()

    def unpack(segment: Segment, frame: Frame, data: bytes) -> list[bytes]:
        read.append(frame.lines)
        return unpack_frame(segment, frame, data)

    monkeypatch.setattr(objects, "unpack_frame", unpack)
    assert [row.entity_id for row in sorted(listed(store), key=lambda row: row.entity_id)] == pairs
    assert sum(read) < 250
    assert [row.entity_id for row in listed(store, wanted=Filter(entities=("e123",)))] == ["e123"]
