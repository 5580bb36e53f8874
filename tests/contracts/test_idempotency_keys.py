"""The contract of pik.ports.state.IdempotencyKeys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pik.ports.state import KeyClaim
from pik.ports.store import Store

FIRST, SECOND = KeyClaim("a", "RUN1"), KeyClaim("b", "RUN2")


def test_a_key_stands_for_what_came_first_until_it_expires(store: Store) -> None:
    keys = store.idempotency_keys
    assert keys.claim("k", FIRST, at=100, until=200) == FIRST
    assert keys.claim("k", SECOND, at=199, until=300) == FIRST
    assert keys.claim("other", SECOND, at=100, until=200) == SECOND
    assert keys.claim("k", SECOND, at=200, until=300) == SECOND, "DynamoDB may keep an item that has expired for days"
    assert keys.claim("k", FIRST, at=299, until=400) == SECOND


def test_of_several_at_once_one_is_kept(store: Store) -> None:
    claims = [KeyClaim(str(number), f"RUN{number}") for number in range(8)]
    with ThreadPoolExecutor(len(claims)) as pool:
        kept = set(pool.map(lambda claim: store.idempotency_keys.claim("k", claim, at=100, until=200), claims))
    assert len(kept) == 1
    assert kept <= set(claims)
