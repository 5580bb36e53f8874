"""Keys of raw: built and parsed by one type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.model.instant import FIRST_DAY, LAST_DAY
from pik.ports.raw import DATED, NUMBERED, RawKey, RawKind, number_of

ULID = "01J00000000000000000000001"


@given(st.sampled_from(RawKind), st.integers(0, 10**15), st.integers(FIRST_DAY, LAST_DAY))
def test_every_key_that_is_built_parses_to_itself(kind: RawKind, number: int, day: int) -> None:
    key = RawKey(kind, ULID, number if kind in NUMBERED else None, day if kind in DATED else None)
    assert RawKey.parse(str(key)) == key
    assert kind.key(*key[1:]) == str(key)
    if kind in NUMBERED:
        assert number_of(str(key)) == number


@pytest.mark.parametrize(
    "text",
    [
        "raw/event_date=2026-02-30/01J00000000000000000000001-1.ndjson.zst",
        "raw/event_date=2026-02-28/01J00000000000000000000001.ndjson.zst",
        "raw/event_date=2026-02-28/01J00000000000000000000001-01.ndjson.zst",
        "raw/event_date=2026-02-28/01J00000000000000000000001-1.ndjson",
        "raw/batches/01J00000000000000000000001-1.ndjson.zst",
        "raw/batches/2026-02-28/01J00000000000000000000001.ndjson.zst",
        "raw/blocks/01J00000000000000000000001.ndjson.zst",
        "corrections/01J00000000000000000000001/01J00000000000000000000001-1.ndjson.zst",
        "corrections/01J00000000000000000000001/2026-02-30-1.ndjson.zst",
        "corrections/*/2026-02-28/01J00000000000000000000001-1.ndjson.zst",
        "raw/others/01J00000000000000000000001.ndjson.zst",
        "",
    ],
)
def test_other_texts_are_not_keys(text: str) -> None:
    assert RawKey.parse(text) is None
