"""The contract of Republishes: progress and refusals are kept together, and damage to them is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from pik.errors import Busy, Damaged, NotFound
from pik.model.republish import Form, Place, Refusal, Republish, RepublishRequest, RepublishState
from pik.ports.store import Store
from tests.contracts.conftest import local_store


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
        events=10,
        entities=2,
        list_digest="ab" * 16,
    )
    return structs.replace(plain, **changes)


def refusal(seq: int, reason: str = "HTTP 422 ñ") -> Refusal:
    return Refusal(place=Place("é", seq, f"{seq:032x}", "01KBA000000000000000000000", seq), reason=reason, at=5)


def test_a_republish_is_found_by_its_id_or_the_beginning_of_it(store: Store) -> None:
    first, second = republish_of(1), republish_of(2)
    assert list(store.republishes.newest_first()) == []
    store.republishes.create(first)
    store.republishes.create(second)
    assert list(store.republishes.newest_first()) == [second, first]
    assert store.republishes.get(first.republish_id) == first
    assert store.republishes.get(second.republish_id.lower()) == second
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
