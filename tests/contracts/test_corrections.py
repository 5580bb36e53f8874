"""The log of corrections, its objects and its index, on each store."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from pik.errors import Busy, Damaged, StoreError
from pik.model.correction import Correction, CorrectionKind, ListedDelivery, active
from pik.model.ids import new_id
from pik.model.instant import DAY, full_instant
from pik.model.window import ALL_TIME
from pik.ports.index import CORRECTIONS
from pik.ports.raw import ObjectReader, RawKey, RawKind
from pik.ports.store import Store
from pik.rawlog import corrections
from pik.rawlog.corrections import (
    adopt,
    known_corrections,
    list_texts,
    read_list,
    record,
    recording,
    with_frames,
    without_frames,
)
from pik.runtime import SILENT
from pik.stores.aws.catalog.corrections import AwsCorrections
from pik.stores.aws.table import Table
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.care.verify_findings import ProblemKind
from tests.support.corrections import listed_order, written_lists
from tests.support.faults import Crash, FailAt, OneByOne, wrapped
from tests.support.stores import PlainEngine

BATCH = "01J00000000000000000000001"


def listed(number: int, day: int = 0, **fields: Any) -> ListedDelivery:
    time = 20_000 * DAY + day * DAY + number * 1_000
    return ListedDelivery(
        event_id=f"{number:032x}",
        entity_id=f"entity {number % 7}",
        batch_id=BATCH,
        seq=number + 1,
        event_time=full_instant(time),
        **fields,
    )


def draft(kind: CorrectionKind = CorrectionKind.WITHOUT, **fields: Any) -> Correction:
    """A correction that is not recorded yet."""
    return Correction(format=0, correction_id="", kind=kind, recorded_at=0, reason="INC-1", events=1, **fields)


def with_lists(store: Store, deliveries: list[ListedDelivery], **fields: Any) -> Correction:
    made = new_id()
    return structs.replace(draft(**fields), correction_id=made, lists=written_lists(store.raw, made, deliveries))


def test_a_store_without_corrections_follows_none(store: Store) -> None:
    assert list(store.corrections.recorded()) == []


def test_recorded_corrections_come_in_the_order_of_the_log_without_frames(store: Store) -> None:
    first = record(
        store, [with_lists(store, [listed(n, n % 3) for n in range(20)], actor="ana", statement="without=x")]
    )
    others = record(store, [draft(CorrectionKind.WITHOUT_BATCH, batch_id=BATCH), draft(selected_until=2**61)])
    revocation = record(store, [draft(CorrectionKind.REVOCATION, revokes=others[0].correction_id)])
    made = [*first, *others, *revocation]
    times = [one.recorded_at for one in made]
    assert times == sorted(set(times))
    assert others[1].recorded_at > others[1].selected_until
    assert [one.format for one in made] == [store.format_version] * 4
    assert list(store.corrections.recorded()) == [without_frames(one) for one in made]
    assert list(reopened(store).corrections.recorded()) == [without_frames(one) for one in made]
    assert [with_frames(store.raw, one) for one in store.corrections.recorded()] == made
    assert active(store.corrections.recorded()) == [without_frames(made[0]), without_frames(made[2])]


def reopened(store: Store) -> Store:
    """As another process has it."""
    again: Store = pickle.loads(pickle.dumps(store))
    return again


def test_following_a_correction_again_changes_nothing(store: Store) -> None:
    made = record(store, [draft(), draft()])
    for some in (made, made[:1], []):
        with store.batches.writing(CORRECTIONS):
            store.corrections.follow(some)
        assert list(store.corrections.recorded()) == made


def test_another_process_waits_its_turn_to_record(store: Store) -> None:
    with recording(store), pytest.raises(Busy, match="another pik process is recording a correction"):
        record(reopened(store), [draft()])


@pytest.mark.parametrize("step", ["nothing", "list", "first header", "second header", "rows"])
def test_corrections_that_a_killed_process_began_hold_with_the_next_one_if_they_were_complete(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    done = ["nothing", "list", "first header", "second header", "rows"].index(step)
    broken = wrapped(store, FailAt(max(1, done), after=done > 0), "raw", "corrections")
    broken = replace(broken, raw=OneByOne(broken.raw))
    with pytest.raises(Crash):
        record(broken, [with_lists(broken, [listed(1)], statement="killed"), draft(statement="too")])
    other = reopened(store)
    was_recorded, expected = step == "rows", ["killed", "too"] if step in ("second header", "rows") else []
    assert [one.statement for one in other.corrections.recorded()] == (expected if was_recorded else [])
    monkeypatch.setattr("pik.usecases.care.verify_corrections.RECENT", 0)
    found = verify(other, PlainEngine(), ALL_TIME, SILENT)
    assert [one.kind for one in found] == [ProblemKind.INDEX] * (0 if was_recorded else len(expected))
    assert found.summary.unacknowledged == (0 if expected else done)
    if "header" in step:
        rebuild_index(other, SILENT)
        assert [one.statement for one in other.corrections.recorded()][:-1] == expected
    (mine,) = record(other, [draft(statement="mine")])
    recorded = [one for one in other.corrections.recorded() if one.kind is not CorrectionKind.VERDICT]
    assert [one.statement for one in recorded] == [*expected, "mine"]
    assert recorded[-1] == mine
    assert list(verify(other, PlainEngine(), ALL_TIME, SILENT)) == []


def test_a_header_that_cannot_be_read_does_not_keep_others_from_being_recorded(store: Store) -> None:
    store.raw.create(RawKind.CORRECTION.key(new_id()), b"no correction")
    made = record(store, [draft()])
    assert list(store.corrections.recorded()) == made


def test_what_a_rebuild_makes_of_the_index_follows_the_same_corrections(store: Store) -> None:
    made = record(store, [with_lists(store, [listed(1)]), draft(CorrectionKind.WITHOUT_BATCH, batch_id=BATCH)])
    with pytest.raises(Crash):
        record(wrapped(store, FailAt(1, after=True), "raw"), [draft(statement="left")])
    rebuild_index(store, SILENT, "eve")
    recorded = list(store.corrections.recorded())
    assert recorded[:2] == [without_frames(one) for one in made]
    assert [one.statement for one in recorded[2:3]] == ["left"]
    assert [(one.kind, one.actor) for one in recorded[3:]] == [(CorrectionKind.VERDICT, "eve")]
    rebuild_index(reopened(store), SILENT, "eve")
    assert list(reopened(store).corrections.recorded())[:4] == recorded
    after = record(store, [draft()])
    assert list(store.corrections.recorded())[5:] == after
    assert adopt(store) == []


def test_a_rebuild_keeps_following_a_correction_that_raw_has_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, kept = record(store, [draft(statement="lost"), draft()])
    objects = type(store.raw).objects
    gone = RawKind.CORRECTION.key(lost.correction_id)
    with monkeypatch.context() as patched:
        patched.setattr(
            type(store.raw), "objects", lambda raw, prefix: (one for one in objects(raw, prefix) if one.key != gone)
        )
        rebuild_index(store, SILENT)
    assert list(store.corrections.recorded())[:2] == [lost, kept]


def test_a_damaged_correction_does_not_take_those_along_that_were_recorded_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the index, which follows them, is lost as well."""
    broken, kept = record(store, [draft(statement="broken"), draft(statement="kept")])
    read = corrections.read_correction

    def read_other(raw: ObjectReader, key: str) -> Correction:
        if broken.correction_id in key:
            raise Damaged(key)
        return read(raw, key)

    monkeypatch.setattr(corrections, "read_correction", read_other)
    monkeypatch.setattr(type(store.corrections), "recorded", lambda _: (_ for _ in ()).throw(StoreError("lost")))
    assert known_corrections(store) == ([kept], [RawKind.CORRECTION.key(broken.correction_id)])


def shuffled(count: int, days: int) -> list[ListedDelivery]:
    made = [listed(n, n % days, time=full_instant(20_000 * DAY + n % 5)) for n in range(count)]
    random.Random(7).shuffle(made)
    return made


@pytest.mark.parametrize(("held", "days"), [(10**6, 3), (100, 1), (30, 12)])
def test_lists_have_each_delivery_once_sorted_within_its_day_whatever_fits_into_memory(
    store: Store, held: int, days: int
) -> None:
    deliveries = shuffled(500, days)
    made = new_id()
    lists = written_lists(store.raw, made, deliveries, held)
    read = {one.key: list(read_list(store.raw, one)) for one in lists}
    assert sorted((one for some in read.values() for one in some), key=listed_order) == sorted(
        deliveries, key=listed_order
    )
    assert {one.day for one in lists} == {20_000 + day for day in range(days)}
    assert [one.day for one in lists] == sorted(one.day for one in lists)
    for one in lists:
        key = RawKey.of(one.key)
        assert (key.kind, key.id, key.day) == (RawKind.LIST, made, one.day)
        assert len(read[one.key]) == one.deliveries <= held
        assert read[one.key] == sorted(read[one.key], key=listed_order)
        assert {delivery.event_time[:10] for delivery in read[one.key]} == {full_instant(one.day * DAY)[:10]}
        times = [delivery.time or "" for delivery in read[one.key]]
        assert (min(times), max(times)) == (full_instant(one.first_event), full_instant(one.last_event))
        assert one.size == store.raw.size(one.key)


@pytest.mark.parametrize("kind", ["local"])
def test_an_entity_reads_only_the_frames_that_may_hold_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pik.rawlog.correction_lists.FRAME", 1000)
    deliveries = shuffled(300, 1)
    (one,) = written_lists(store.raw, new_id(), deliveries)
    assert len(one.frames) > 10
    wanted = [delivery for delivery in sorted(deliveries, key=listed_order) if delivery.entity_id == "entity 3"]
    assert list(read_list(store.raw, one, ["entity 3"])) == wanted
    assert len(list(list_texts(store.raw, one, ["entity 3"]))) < len(one.frames) / 3
    assert list(read_list(store.raw, one, ["entity 9"])) == []


class Changed:
    """Raw in which one object has other bytes, or is not there."""

    def __init__(self, store: Store, key: str, data: bytes | None) -> None:
        self.raw, self.key, self.data = store.raw, key, data

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key != self.key:
            return self.raw.read(key, offset, length)
        if self.data is None:
            return self.raw.read(key + ".gone")
        return self.data[offset:] if length is None else self.data[offset : offset + length]


@pytest.mark.parametrize("kind", ["local"])
def test_a_flipped_bit_or_a_lost_object_is_never_read_as_a_correction_or_a_list(store: Store) -> None:
    made = with_lists(store, [listed(n) for n in range(30)])
    (followed,) = record(store, [made])
    (one,) = made.lists
    reads: dict[str, Callable[[Any], object]] = {
        RawKind.CORRECTION.key(made.correction_id): lambda raw: with_frames(raw, followed),
        one.key: lambda raw: (list(read_list(raw, one)), list(read_list(raw, one, ["entity 1"]))),
    }
    for key, read in reads.items():
        data = store.raw.read(key)
        whole = read(Changed(store, key, data))
        with pytest.raises(Damaged):
            read(Changed(store, key, None))
        with pytest.raises(Damaged):
            read(Changed(store, key, data[:-1]))
        for place in range(len(data)):
            flipped = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
            with pytest.raises(Damaged) as error:
                read(Changed(store, key, flipped))
            assert key in error.value.message
            assert error.value.hint
        assert read(Changed(store, key, data)) == whole


@pytest.mark.parametrize("kind", ["local"])
def test_frames_alone_show_a_flipped_bit_or_are_not_changed_by_it(store: Store) -> None:
    (one,) = written_lists(store.raw, new_id(), [listed(n) for n in range(30)])
    data, whole = store.raw.read(one.key), list(read_list(store.raw, one, ["entity 1"]))
    for place in range(len(data)):
        flipped = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        with suppress(Damaged):
            assert list(read_list(Changed(store, one.key, flipped), one, ["entity 1"])) == whole


def test_a_correction_that_is_not_the_one_that_the_index_follows_is_refused(store: Store) -> None:
    (made,) = record(store, [draft(statement="without=x")])
    with pytest.raises(Damaged, match="is not the correction that the index follows"):
        with_frames(store.raw, structs.replace(made, statement="without=y"))


@pytest.mark.parametrize("kind", ["aws"])
def test_a_stack_without_corrections_pays_no_call_to_know_it_and_one_with_some_pays_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(event_name: str, **_: object) -> None:
        calls.append(event_name.rpartition(".")[2])

    dynamodb = store.index.table.clients.client("dynamodb")  # type: ignore[attr-defined]
    dynamodb.meta.events.register("before-call.dynamodb", counted)
    monkeypatch.setattr("pik.stores.aws.catalog.generation.NOTICED", 60)
    store.index.generation.current()  # type: ignore[attr-defined]
    calls.clear()
    store.corrections.recorded()
    assert calls == []
    monkeypatch.setattr("pik.stores.aws.catalog.generation.NOTICED", 0.01)
    record(store, [draft()])
    monkeypatch.setattr("pik.stores.aws.catalog.generation.NOTICED", 60)
    store.index.generation.current()  # type: ignore[attr-defined]
    calls.clear()
    assert len(store.corrections.recorded()) == 1
    assert calls == ["Query"]


@pytest.mark.parametrize("kind", ["aws"])
def test_items_of_a_correction_that_a_killed_process_left_do_not_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store.corrections
    assert isinstance(log, AwsCorrections)
    monkeypatch.setattr("pik.stores.aws.catalog.corrections._PART", 100)
    made = structs.replace(draft(statement="x" * 50), correction_id=new_id(), recorded_at=5)
    with monkeypatch.context() as patched:
        patched.setattr(type(log.generation), "set_corrections", raise_crash)
        with pytest.raises(Crash):
            log.follow([made])
    assert list(log.recorded()) == []
    (other,) = record(store, [draft()])
    assert list(log.recorded()) == [other]
    log.follow([made])
    assert list(log.recorded()) == [made, other]


@pytest.mark.parametrize("kind", ["aws"])
def test_a_process_that_slept_while_another_recorded_corrections_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store.corrections
    assert isinstance(log, AwsCorrections)
    late, first = (structs.replace(draft(), correction_id=new_id(), recorded_at=at) for at in (7, 5))
    write_many = Table.write_many

    def meanwhile(table: Table, *args: Any, **options: Any) -> None:
        monkeypatch.undo()
        monkeypatch.setattr("pik.stores.aws.catalog.generation.NOTICED", 0.01)
        reopened(store).corrections.follow([first])
        write_many(table, *args, **options)

    monkeypatch.setattr(Table, "write_many", meanwhile)
    with pytest.raises(Busy):
        log.follow([late])
    assert list(reopened(store).corrections.recorded()) == [first]
    log.follow([late])
    assert list(log.recorded()) == [first, late]


def raise_crash(*_: object) -> None:
    raise Crash
