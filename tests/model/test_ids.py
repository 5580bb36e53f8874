"""The time in an id, against the library that makes ids."""

from itertools import islice

import pytest
from ulid import ULID

from pik.model.ids import creation_time, new_id, new_ids, time_digits

MILLISECOND = 1_000_000


@pytest.mark.parametrize("milliseconds", [0, 1, 31, 32, 1_795_952_869_289, 2**48 - 1])
def test_the_time_in_an_id_is_that_of_the_library(milliseconds: int) -> None:
    made = str(ULID.from_timestamp(milliseconds))
    assert creation_time(made) == milliseconds * MILLISECOND
    assert time_digits(milliseconds * MILLISECOND + MILLISECOND - 1) == made[:10]


def test_ids_sort_by_the_time_at_which_they_were_made() -> None:
    first, second = new_id(), new_id()
    assert creation_time(first) <= creation_time(second)
    assert first != second


@pytest.mark.parametrize("text", ["", "01KB", "0" * 25, "0" * 27, "01KBL" + "0" * 21, "01kb0" + "0" * 21])
def test_what_is_not_an_id_has_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        creation_time(text)


def test_ids_that_sort_are_those_of_nothing_else() -> None:
    """Not those that are made next, in the same millisecond."""
    ids = [one for _ in range(50) for one in (*islice(new_ids(), 5), new_id(), new_id())]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
