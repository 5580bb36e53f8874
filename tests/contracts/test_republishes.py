"""The contract of Republishes: progress and refusals are kept together, and damage to them is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from pik.engine import DuckEngine
from pik.errors import Busy, Damaged, NotFound, UsageError
from pik.model.instant import parse_instant
from pik.model.republish import Form, Refusal, Republish, RepublishRequest, RepublishState, SendingPlace
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores.aws.state.layout import REPUBLISHES, refusals_pk
from pik.stores.aws.state.republishes import AwsRepublishes
from pik.usecases.other_ids import other_kind
from pik.usecases.republish.send import Pace, begin, cancel, plan_republish, resume
from tests.contracts.conftest import local_store
from tests.support.stores import EVENTS, event, ingest
from tests.support.targets import FakeTarget


def republish_of(number: int, **changes: object) -> Republish:
    request = RepublishRequest(
        start=1, end=9, target="sqs://q", form=Form.ORIGINAL, entities=("é", "b"), where="true", reason="why"
    )
    plain = Republish(
        republish_id=f"01KBB0000000000000000000{number:02}",
        request=request,
        actor="ana",
        created_at=number,
        known_until=7,
        corrections_until=3,
        moved=1,
        taken_out=2,
        events=10,
        entities=2,
        list_digest="ab" * 16,
    )
    return structs.replace(plain, **changes)


def refusal(seq: int, reason: str = "HTTP 422 ñ") -> Refusal:
    return Refusal(place=SendingPlace("é", seq, f"{seq:032x}", "01KBA000000000000000000000", seq), reason=reason, at=5)


def test_a_republish_is_found_by_its_id_or_the_beginning_of_it(store: Store) -> None:
    first, second = republish_of(1), republish_of(2)
    assert list(store.republishes.newest_first()) == []
    store.republishes.create(first)
    store.republishes.create(second)
    assert list(store.republishes.newest_first()) == [second, first]
    assert store.republishes.get(first.republish_id) == first
    assert store.republishes.get(second.republish_id.lower()) == second
    assert other_kind(store, second.republish_id.lower(), "run") == ("republish", second.republish_id)
    assert other_kind(store, second.republish_id, "republish") is other_kind(store, "f" * 32, "run") is None
    with pytest.raises(NotFound, match=f"start with 01KBB: {second.republish_id}, {first.republish_id}"):
        store.republishes.get("01KBB")
    for absent in ("01J", "", "%", "01KBB000000000000000000003"):
        with pytest.raises(NotFound):
            store.republishes.get(absent)


def test_progress_and_refusals_are_recorded_any_number_of_times(store: Store) -> None:
    republish, other = republish_of(1), republish_of(2)
    for one in (republish, other):
        store.republishes.create(one)
    later = structs.replace(republish, cursor=refusal(40).place, taken=3, refused=40)
    for _ in range(2):
        store.republishes.record(later, [refusal(seq) for seq in range(40, 0, -1)])
    assert store.republishes.get(republish.republish_id) == later
    assert list(store.republishes.refusals(republish.republish_id)) == [refusal(seq) for seq in range(1, 41)]
    assert list(store.republishes.refusals(other.republish_id)) == []
    ended = structs.replace(later, taken=41, refused=1, state=RepublishState.PARTIAL, finished_at=9)
    for _ in range(2):
        taken = [refusal(seq).place for seq in range(1, 41) if seq != 7]
        store.republishes.record(ended, [refusal(7, "again")], taken)
    assert list(store.republishes.refusals(republish.republish_id)) == [refusal(7, "again")]
    assert store.republishes.get(republish.republish_id) == ended
    assert store.republishes.get(other.republish_id) == other
    assert list(store.state_audit.problems()) == []


def test_only_one_sends_at_a_time(store: Store) -> None:
    with store.republishes.sending("a"):
        with pytest.raises(Busy, match="republish a"), store.republishes.sending("a"):
            pass
        with store.republishes.sending("b"):
            pass
        assert (store.republishes.is_sending("a"), store.republishes.is_sending("b")) == (True, False)
    assert not store.republishes.is_sending("a")
    with store.republishes.sending("a"):
        pass


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE republish SET body = replace(body, 'ana', 'eva')", "republish 01KBB000000000000000000001"),
        ("UPDATE refusal SET body = replace(body, '422', '200')", "refusal of republish 01KBB000000000000000000001"),
        ("DELETE FROM refusal WHERE seq = 2", "it counts 2 refused deliveries, and 1 are there"),
        ("DELETE FROM republish", "its row is lost"),
    ],
)
def test_damage_in_a_directory_is_found(tmp_path: Path, damage: str, said: str) -> None:
    store = local_store(tmp_path / "local")
    store.republishes.create(republish_of(1))
    store.republishes.record(republish_of(1, refused=2), [refusal(1), refusal(2)])
    assert list(store.state_audit.problems()) == []
    with closing(sqlite3.connect(Path(store.url) / "state.db")) as connection:
        connection.execute(damage)
        connection.commit()
    found = [f"{one.what}: {one.detail}" for one in store.state_audit.problems()]
    assert any(said in one for one in found), found
    if "body" in damage:
        with pytest.raises(Damaged):
            (list(store.republishes.newest_first()), list(store.republishes.refusals(republish_of(1).republish_id)))


@pytest.mark.parametrize("kind", ["aws"], indirect=True)
def test_damage_in_a_stack_is_found(store: Store) -> None:
    republish = republish_of(1, refused=2)
    store.republishes.create(republish)
    store.republishes.record(republish, [refusal(1), refusal(2)])
    assert list(store.state_audit.problems()) == []
    assert isinstance(store.republishes, AwsRepublishes)
    table, refused = store.republishes.table, refusals_pk(republish.republish_id)
    (item,) = table.query(REPUBLISHES)
    first, second = table.query(refused)

    def problems() -> list[str]:
        return [f"{one.what}: {one.detail}" for one in store.state_audit.problems()]

    table.put({**first, "body": first["body"].replace("422", "200")})
    assert problems() == [f"refusal of republish {republish.republish_id}: its digest does not match"]
    with pytest.raises(Damaged):
        list(store.republishes.refusals(republish.republish_id))
    table.delete((refused, first["sk"]))
    assert problems() == [
        f"republish {republish.republish_id}: it counts 2 refused deliveries, and 1 are there",
    ]
    table.put(first)
    table.put({**item, "body": item["body"].replace("ana", "eva")})
    assert f"republish {republish.republish_id}: its digest does not match" in problems()
    with pytest.raises(Damaged):
        store.republishes.get(republish.republish_id)
    table.delete((REPUBLISHES, republish.republish_id))
    assert f"republish {republish.republish_id}: its row is lost; what it could not send is there" in problems()
    table.put(item)
    assert problems() == []
    assert second["sk"].endswith("/0000000000000002")


def test_every_store_sends_what_counts_in_the_same_order(store: Store, tmp_path: Path) -> None:
    late = event(3, "a", "01T00:00", kind="seen")
    ingest(store, tmp_path, [*reversed(EVENTS), *EVENTS[:3], late])
    every = [*EVENTS, late]
    order = sorted(every, key=lambda one: (one["entity_id"], one["event_time"]))
    expected = [(one["entity_id"], parse_instant(one["event_time"])) for one in order]
    engine, target = DuckEngine(), FakeTarget(lambda message: "no" if message.entity_id == "b" else "", at_most=3)
    request = RepublishRequest(start=ALL_TIME.start, end=ALL_TIME.end, target=target.shown)
    with plan_republish(store, engine, request, SILENT, now=1, actor="ana") as plan:
        first = begin(store, plan, target, Pace(), SILENT)
    assert [(one.entity_id, one.event_time) for one in target.attempt] == expected
    assert (first.state, first.taken, first.refused) == (RepublishState.PARTIAL, 9, 2)
    target.refuses, target.attempt = lambda _: "", []
    ended = resume(store, engine, first.republish_id, target, Pace(), SILENT)
    assert [one.entity_id for one in target.attempt] == ["b", "b"]
    assert (ended.state, ended.taken, ended.refused) == (RepublishState.COMPLETED, 11, 0)
    assert list(store.republishes.refusals(ended.republish_id)) == []
    target.refuses = lambda _: "no"
    with plan_republish(store, engine, structs.replace(request, reason="again"), SILENT, now=2, actor="ana") as plan:
        stopped = begin(store, plan, target, Pace(stop_after=5), SILENT)
    given_up = cancel(store, stopped.republish_id, "they have it", now=9, actor="eve")
    assert (given_up.state, given_up.refused) == (RepublishState.CANCELLED, 6)
    assert store.republishes.get(stopped.republish_id) == given_up
    with pytest.raises(UsageError, match="is CANCELLED"):
        resume(store, engine, stopped.republish_id, target, Pace(), SILENT)
    assert list(store.state_audit.problems()) == []
