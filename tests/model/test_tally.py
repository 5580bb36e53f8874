"""Counts over a batch: bounded, and the same however the batch was cut into parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.model import batch as tally
from pik.model.batch import OTHERS, are_exact, count_lags, three_digits, with_lags, with_names
from pik.model.duration import format_about
from pik.model.instant import DAY, HOUR, SECOND

LAGS = st.integers(-(10**19), 10**19) | st.integers(-2000, 2000)


def in_parts(values: list[Any], cuts: set[int], add: Callable[[Any, Any], Any], count: Callable[[Any], Any]) -> Any:
    total: Mapping[Any, int] = {}
    ends = sorted(cut for cut in cuts if 0 < cut < len(values))
    for begin, end in zip([0, *ends], [*ends, len(values)], strict=True):
        total = add(total, count(values[begin:end]))
    return total


@given(st.lists(st.sampled_from("abcdef")), st.sets(st.integers(1, 50)))
def test_names_beyond_the_first_are_counted_together(names: list[str], cuts: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "NAMES", 3)
        found = in_parts(names, cuts, with_names, Counter)
    first = list(dict.fromkeys(names))[:3]
    others = sum(name not in first for name in names)
    assert found == {name: names.count(name) for name in first} | ({OTHERS: others} if others else {})


@given(st.lists(LAGS), st.sets(st.integers(1, 50)))
def test_lags_are_exact_or_all_cut(lags: list[int], cuts: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "EXACT_LAGS", 5)
        found = in_parts(lags, cuts, with_lags, count_lags)
        assert are_exact(found) == (len(lags) <= 5)
    assert found == Counter(lags if len(lags) <= 5 else map(three_digits, lags))


@given(LAGS)
def test_a_truncated_lag_is_marked(lag: int) -> None:
    assert format_about(three_digits(lag)).startswith("~")


def test_only_three_digits_are_shown() -> None:
    lags = [5079 * DAY + 10 * HOUR, 438_000_000 * SECOND, 5010 * SECOND, -12_000_000, 999, 0]
    assert [format_about(three_digits(lag)) for lag in lags] == [
        *("~5,070d", "~5,070d", "~1.39h", "~-12.0ms", "~999ns", "~0s")
    ]
