"""Reading scenarios from the command line: as typed, echoed, and refused with a reason."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.errors import PikError, UsageError
from pik.model.assumption_text import read_assumption, read_scenario
from pik.model.criteria import Criteria, read_criteria
from pik.model.instant import HOUR, SECOND, parse_instant
from pik.model.scenario import (
    PLAIN,
    CountedConflict,
    CountedDelivery,
    LocalTime,
    Shift,
    Which,
    With,
    Without,
    WithoutBatch,
    WithoutCorrection,
    WithoutCorrections,
    WithoutSelected,
    WithoutSuspects,
)
from pik.model.times import Times
from pik.model.window import ALL_TIME, Window

FEBRUARY = parse_instant("2026-02-01T00:00:00Z")


def ids(path: str) -> tuple[str, ...]:
    return (f"ids of {path}",)


def test_a_scenario_without_options_assumes_nothing() -> None:
    assert read_scenario(None, [], ids) == PLAIN
    assert not PLAIN
    scenario = read_scenario(parse_instant("2026-02-01", date_only=True), ["duplicates=counted"], ids)
    assert scenario
    assert scenario.texts == ["as-of=2026-02-01T00:00:00Z", "duplicates=counted"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("without=ABCD1234", Without(("abcd1234",))),
        ("without=@ids.txt", Without(("ids of ids.txt",))),
        ("without=selected,source=web", WithoutSelected(Criteria(source="web"))),
        ("without=suspects", WithoutSuspects(Criteria())),
        (
            'without=suspects,within=30s,same="[a, b]",same=payload.n,source=web,where=x = 1, y',
            WithoutSuspects(Criteria(source="web", where="x = 1, y"), 30 * SECOND, ("[a, b]", "payload.n")),
        ),
        ("without-batch=01j8z3", WithoutBatch("01J8Z3")),
        ("with=@late.jsonl", With("late.jsonl")),
        (
            'with="@a,b",map=entity_id=body.user,map="payload={a: x}",timezone=UTC,time-format=event_time=%d.%m.%Y',
            With(
                "a,b",
                (("entity_id", "body.user"), ("payload", "{a: x}")),
                Times(timezone="UTC", special=(("time-format", "event_time", "%d.%m.%Y"),)),
            ),
        ),
        (
            'with="@a,b",max-line=9,map=entity_id=body.user,map="payload={a: x, b: ""y z""}",timezone=UTC',
            With("a,b", (("entity_id", "body.user"), ("payload", '{a: x, b: "y z"}')), Times(timezone="UTC"), 9),
        ),
        ("corrections=none", WithoutCorrections()),
        ("without-correction=01j8z3", WithoutCorrection("01J8Z3")),
        ("delivery=abcd1234:2", CountedDelivery("abcd1234", 2)),
        ("delivery=abcd1234:01J8Z3/7", CountedDelivery("abcd1234", ("01J8Z3", 7))),
        ("conflicts=last", CountedConflict(Which.LAST, Criteria())),
        ("shift=-1h,type=paid", Shift(-HOUR, Criteria(event_type="paid"))),
        ("zone=Europe/Berlin:later,entity=a", LocalTime("Europe/Berlin", Which.LATER, Criteria(entity="a"))),
    ],
)
def test_each_kind_is_read_as_it_is_typed(text: str, expected: object) -> None:
    assert read_assumption(text, ids) == expected


@given(
    st.builds(
        With,
        st.text('a,"= ', min_size=1),
        st.lists(st.tuples(st.sampled_from(["entity_id", "payload"]), st.text('a,"= ', min_size=1))).map(tuple),
        st.builds(
            Times,
            st.none() | st.text('%d,"= ', min_size=1).filter(lambda text: text.strip() and not re.match("d+=", text)),
            st.none() | st.just("Europe/Berlin"),
            st.sampled_from([(), (("time-format", "event_time", "a=, b"), ("timezone", "received_time", "UTC"))]),
        ),
        st.integers(1, 1 << 40),
    )
)
def test_how_a_file_is_read_is_read_back_as_it_is_echoed(assumed: With) -> None:
    assert read_assumption(str(assumed), ids) == assumed


@pytest.mark.parametrize(
    "given", ["", ",within=30s", ',same="[a, b]",same=payload.n,type=paid', ",entity=a,where=x = 1"]
)
def test_suspects_are_echoed_as_they_are_typed(given: str) -> None:
    assert str(read_assumption(f"without=suspects{given}", ids)) == f"without=suspects{given}"


@pytest.mark.parametrize("text", ["shift=-90s,source=a", "shift=2h,source=a", "shift=-1d,source=a", "shift=1w,type=b"])
def test_a_shift_is_echoed_as_it_is_typed(text: str) -> None:
    assert str(read_assumption(text, ids)) == text


def test_the_condition_comes_last_and_takes_the_rest() -> None:
    assert read_criteria('from=2026-02-01,source="a,""b""",where=payload->>\'x\' IN (1, 2),to=1') == Criteria(
        source='a,"b"', window=Window(FEBRUARY), where="payload->>'x' IN (1, 2),to=1"
    )


@given(
    st.builds(
        Criteria,
        source=st.none() | st.text('a,"= ', min_size=1).filter(str.strip),
        entity=st.none() | st.text('b,"=', min_size=1),
        received=st.sampled_from([ALL_TIME, Window(FEBRUARY), Window(FEBRUARY, FEBRUARY + 1)]),
        where=st.none() | st.just("x = 1, y"),
    )
)
def test_criteria_read_back_what_they_print(criteria: Criteria) -> None:
    assert read_criteria(str(criteria)) == criteria


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected KIND=VALUE"),
        ("without", "expected KIND=VALUE"),
        ("forget=all", "unknown kind 'forget'"),
        ("without=xyz", "is not an event_id"),
        ("without=abcd1234,abcd1235", "expected one event_id"),
        ("without=selected", "a selection is required"),
        ("without=selected,colour=red", "is not a selection"),
        ("without=selected,source=", "source= is empty"),
        ("without=selected,source=a,source=b", "source= is given twice"),
        ("without=selected,from=2026-02-01,to=2026-02-01", "window is empty"),
        ("without=selected,from=yesterday", "yesterday"),
        ("without=suspects,colour=red", "is not a selection of suspects"),
        ("without=suspects,within=2h", "within=2h: more than 1h"),
        ("without=suspects,same=amount", "events have no field amount"),
        ("without=suspected", "is not an event_id"),
        ("shift=soon,source=a", "'soon' is not a duration"),
        ("shift=--1h,source=a", "'-1h' is not a duration"),
        ("shift=99999999w,source=a", "longer than all time there is"),
        ("shift=1h", "a selection is required"),
        ("zone=Berlin,source=a", "unknown time zone 'Berlin'"),
        ("zone=Europe/Berlin:both,source=a", "neither earlier nor later"),
        ("conflicts=all", "neither first nor last"),
        ("delivery=abcd1234", "expected EVENT_ID:N"),
        ("delivery=abcd1234:0", "'0' is not a positive number"),
        ("duplicates=ignored", "is not 'counted'"),
        ("corrections=all", "is not 'none'"),
        ("with=missing.jsonl", "is not @FILE"),
        ("with=@a,colour=red", "'colour=red' is not an option of how files are read"),
        ("with=@a,map=payload={a: x, b: y}", "' b: y}' is not an option of how files are read"),
        ("with=@a,with=@b", "with= is given twice"),
        ("with=@a,map=user", "map=user: expected FIELD=JMESPATH"),
        ("with=@a,timezone=UTC,timezone=UTC", "timezone is given twice"),
        ("with=@a,timezone=Berlin", "unknown time zone 'Berlin'"),
        ("with=@a,time-format=", "time-format= is empty"),
        ("with=@a,max-line=1k", "'1k' is not a positive number"),
        ("definition=@", "is not @FILE"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(PikError) as error:
        read_assumption(text, ids)
    assert isinstance(error.value, UsageError)
    assert reason in error.value.message
    assert error.value.hint
