"""Single assumptions, and what of them is refused. test_scenario_model.py has all of them, alone and together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.errors import InputError, NotFound, UsageError
from pik.model.assumption_text import read_scenario
from pik.model.event import MAX_LINE
from pik.model.instant import DAY, format_instant, parse_instant
from pik.model.metric import EVENT_COUNT, Definition, Metric
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import ALL_TIME, Window
from pik.model.zone import load_zone
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.stores import open_store
from pik.usecases.metrics.computation import recompute
from pik.usecases.metrics.offsets import zone_offsets
from pik.usecases.metrics.scenario import applied, definitions, resolved
from tests.support.stores import event, ingest, window

METRICS = [
    EVENT_COUNT,
    Metric(definition=Definition(name="total", value="sum((payload->>'v')::BIGINT)"), version=1, applied_at=0),
]

Event = dict[str, Any]
Values = dict[tuple[str, int, str], tuple[Decimal | None, int, str]]


@dataclass
class Built:
    """A store, the events of its batches in order, and the batches' ids."""

    store: Store
    batches: list[list[Event]]
    ids: list[str]
    recorded: list[int]


def build(directory: Path, batches: Sequence[Sequence[Event]]) -> Built:
    directory.mkdir(parents=True, exist_ok=True)
    store = open_store(str(directory / "store"), create=True)
    for events in batches:
        if events:
            ingest(store, directory, events, again=True)
    found = sorted(store.index.batches(), key=lambda batch: batch.started_at)
    return Built(
        store,
        [list(each) for each in batches if each],
        [one.batch_id for one in found],
        [one.recorded_at for one in found],
    )


def values(store: Store, scenario: Scenario = PLAIN, within: Window = ALL_TIME, entities: Sequence[str] = ()) -> Values:
    """Every value, with the number of its inputs and the XOR of their ids."""
    found: Values = {}
    with applied(store, DuckEngine(), resolved(store, scenario), within, entities) as overrides:
        for part in recompute(Selection(store, within, entities, overrides), DuckEngine(), METRICS):
            assert not isinstance(part.computed, Exception)
            for row in part.computed.rows():
                found[row.metric, row.bucket, row.entity_id] = row.value, row.inputs or 0, row.input_ids
    return found


def assume(*texts: str, as_of: int | None = None) -> Scenario:
    return replace(read_scenario(None, texts, lambda path: tuple(Path(path).read_text().split())), as_of=as_of)


def test_another_delivery_of_an_event_can_count(tmp_path: Path) -> None:
    keyed = [{**event(number, "a", "01T00:00"), "idempotency_key": "k"} for number in (1, 2, 4)]
    built = build(tmp_path, [keyed[:2], keyed[2:]])
    [event_id] = built.store.index.locate("")
    for number, total in ((1, 1), (2, 2), (3, 4)):
        found = values(built.store, assume(f"delivery={event_id}:{number}"))
        assert found["total", window("01").start, "a"][:2] == (Decimal(total), 1)
    found = values(built.store, assume(f"delivery={event_id}:{built.ids[1]}/1"))
    assert found["total", window("01").start, "a"][0] == 4
    with pytest.raises(NotFound, match="3 deliveries"):
        values(built.store, assume(f"delivery={event_id}:4"))
    with pytest.raises(UsageError, match="not known in this scenario"):
        values(built.store, assume(f"delivery={event_id}:3", as_of=built.recorded[0]))


def test_wall_clock_times_of_a_zone_move_by_its_offset_of_the_day(tmp_path: Path) -> None:
    texts = ["2026-03-28T23:30:00Z", "2026-03-29T03:30:00Z", "2026-10-25T02:30:00Z", "2026-07-01T01:59:59.5Z"]
    built = build(tmp_path, [[{**event(1, "a", "01T00:00"), "event_time": text} for text in texts]])
    days = lambda found: {key[1]: value[1] for key, value in found.items() if key[0] == "event_count"}  # noqa: E731
    with pytest.raises(UsageError, match="1 of the selected times exist twice in Europe/Berlin"):
        values(built.store, assume("zone=Europe/Berlin,source=web"))
    found = days(values(built.store, assume("zone=Europe/Berlin:later,source=web")))
    expected = ["2026-03-28T22:30:00Z", "2026-03-29T01:30:00Z", "2026-10-25T01:30:00Z", "2026-06-30T23:59:59.5Z"]
    by_day = [parse_instant(text) // DAY * DAY for text in expected]
    assert found == {day: by_day.count(day) for day in by_day}
    gap = build(tmp_path / "gap", [[{**event(1, "a", "01T00:00"), "event_time": "2026-03-29T02:30:00Z"}]])
    with pytest.raises(UsageError, match="1 of the selected times do not exist in Europe/Berlin"):
        values(gap.store, assume("zone=Europe/Berlin:earlier,source=web"))


def test_offsets_of_a_zone_cover_all_times() -> None:
    offsets = zone_offsets(load_zone("Asia/Kolkata"), None, window("01", "20"))
    assert [offset.seconds for offset in offsets] == [-19800]
    year = Window(parse_instant("2026-01-01T00:00:00Z"), parse_instant("2027-01-01T00:00:00Z"))
    offsets = zone_offsets(load_zone("Europe/Berlin"), None, year)
    assert [(one.start, one.seconds) for one in offsets] == [
        (None, -3600),
        ("2026-03-29T02:00:00", None),
        ("2026-03-29T03:00:00", -7200),
        ("2026-10-25T02:00:00", None),
        ("2026-10-25T03:00:00", -3600),
    ]


def test_what_a_scenario_names_must_be_there(tmp_path: Path) -> None:
    built = build(tmp_path, [[event(1, "a", "01T00:00")]])
    for text in ("without-batch=01J8Z3", "without=abcd1234", "delivery=abcd1234:1"):
        with pytest.raises(NotFound):
            values(built.store, assume(text))
    with pytest.raises(UsageError, match="no_such_column"):
        values(built.store, assume("without=selected,where=no_such_column = 1"))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"source": 1}\n')
    with pytest.raises(InputError, match=r"broken\.jsonl: record 1 is not an event.*1 of 1 records are not"):
        values(built.store, assume(f"with=@{broken}"))
    with pytest.raises(InputError, match="there is no file"):
        values(built.store, assume(f"with=@{tmp_path / 'absent'}"))


def keyed(number: float, at: str, key: str = "k") -> Event:
    return {**event(number, "a", at), "idempotency_key": key}


def totals(store: Store, *assumptions: str) -> Any:
    found = values(store, assume(*assumptions))
    return {format_instant(key[1])[8:10]: one[0] for key, one in found.items() if key[0] == "total"}


FAILING = "where=(payload->>'v')::DATE = DATE '2026-01-01'"


@pytest.mark.parametrize("kind", ["without=selected", "shift=1h", "zone=Europe/Berlin:later", "conflicts=last"])
def test_a_condition_that_fails_on_an_event_is_not_taken_for_damage(tmp_path: Path, kind: str) -> None:
    built = build(tmp_path, [[keyed(1, "01T00:00")], [keyed(2, "01T00:00")]])
    with pytest.raises(UsageError, match="invalid date field format") as error:
        values(built.store, assume(f"{kind},{FAILING}"))
    assert "TRY_CAST" in error.value.hint
    assert totals(built.store, f"{kind},source=app,{FAILING}") == {"01": 1}  # source= holds for none of them


@pytest.mark.parametrize("kind", ["without=selected", "conflicts=last"])
@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("true) OR (true", "invalid SQL expression"),
        ("verdict = 'exact'", "unknown column verdict"),
        ("event_id IN (SELECT event_id FROM events)", "a subquery would read other events"),
        ("count(*) > 1", "is an aggregate"),
        ("1", "it is INTEGER, not BOOLEAN"),
    ],
)
def test_a_selection_refuses_the_conditions_that_a_metric_refuses(
    tmp_path: Path, kind: str, where: str, reason: str
) -> None:
    built = build(tmp_path, [[keyed(1, "01T00:00")]])
    with pytest.raises(UsageError, match=reason):
        values(built.store, assume(f"{kind},where={where}"))
    assert totals(built.store, f"{kind},where=false -- a comment") == {"01": 1}


def test_of_two_choices_of_what_counts_the_last_one_holds(tmp_path: Path) -> None:
    built = build(tmp_path, [[keyed(1, "01T00:00"), event(8, "a", "02T00:00")], [keyed(2, "01T00:00")] * 2])
    ingest(built.store, tmp_path, [event(8, "a", "02T00:00")], again=True)
    [event_id] = [one for one in built.store.index.locate("") if len(built.store.index.deliveries(one)) == 3]
    counted = "duplicates=counted"
    assert totals(built.store, counted) == {"01": 5, "02": 16}
    for choice in ("conflicts=last", "conflicts=last,source=web", f"delivery={event_id}:2"):
        assert totals(built.store, counted, choice) == {"01": 2, "02": 16}
        assert totals(built.store, choice, counted) == {"01": 5, "02": 16}
    with pytest.raises(UsageError, match="not known in this scenario"):
        values(built.store, assume(counted, f"without-batch={built.ids[1]}", f"delivery={event_id}:2"))


@pytest.mark.parametrize(("by", "at"), [("1h", "2262-04-10T23:30:00Z"), ("-1h", "1677-09-22T00:30:00Z")])
def test_a_shift_out_of_all_time_is_an_error_that_counts_what_it_would_move(tmp_path: Path, by: str, at: str) -> None:
    built = build(
        tmp_path, [[{**event(1, "a", "01T00:00"), "event_time": at}, event(2, "a", "01T00:00", source="app")]]
    )
    with pytest.raises(UsageError, match="1 of the selected times would move out of the times"):
        values(built.store, assume(f"shift={by},source=web"))
    assert sum(totals(built.store, f"shift={by},source=app").values()) == 3
    assert sum(totals(built.store, f"shift={by},source=web,from=2026-01-01,to=2027-01-01").values()) == 3
    later = "1s" if by.startswith("-") else "-1s"
    assert sum(totals(built.store, f"shift={later},source=web").values()) == 3


def test_a_definition_of_another_metric_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    built = build(tmp_path, [[event(1, "a", "01T00:00")]])
    (tmp_path / "m.toml").write_text('name = "other"\nvalue = "count(*)"\n')
    scenario = assume(f"definition=@{tmp_path / 'm.toml'}")
    assert [one.name for one in definitions(built.store, DuckEngine(), scenario, [])] == ["event_count", "other"]
    with pytest.raises(UsageError, match="it defines other, not event_count"):
        definitions(built.store, DuckEngine(), scenario, ["event_count"])


def test_a_selection_does_not_hit_what_is_only_assumed(tmp_path: Path) -> None:
    built = build(tmp_path, [[event(1, "a", "01T00:00"), event(2, "a", "02T00:00", source="app")]])
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps(event(8, "a", "01T12:00")) + "\n")
    added = f"with=@{more}"
    for selection in ("source=web", "where=source = 'web' -- web"):
        assert totals(built.store, added, f"without=selected,{selection}") == {"01": 8, "02": 2}
        assert totals(built.store, f"shift=1d,{selection}", added) == {"01": 8, "02": 3}
    with pytest.raises(UsageError, match="where="):
        values(built.store, assume(added, "without=selected,where=true) OR (true"))


def test_a_line_of_a_file_to_add_is_as_long_as_an_ingested_one_may_be(tmp_path: Path) -> None:
    built = build(tmp_path, [[event(1, "a", "01T00:00")]])
    more = tmp_path / "more.jsonl"
    text = json.dumps(event(8, "a", "01T12:00"))
    padded = text[:-1] + " " * (MAX_LINE - len(text)) + text[-1]
    more.write_text(padded + "\n" + json.dumps(event(4, "a", "01T13:00")))
    assert totals(built.store, f"with=@{more}") == {"01": 13}
    more.write_text(padded[:-1] + " }\n")
    with pytest.raises(InputError, match="record 1 is not an event: the line is longer than"):
        values(built.store, assume(f"with=@{more}"))


@pytest.mark.parametrize("selection", ["entity=a", "batch={batch}", "where=entity_id = 'a'"])
def test_wall_clock_times_of_selected_entities_or_batches_move_in_the_window_of_an_entity(
    tmp_path: Path, selection: str
) -> None:
    """Duplicates are skipped there, and other entities left out, by joining tables that have columns of these names."""
    built = build(tmp_path, [[event(1, "a", "01T00:30"), event(1, "a", "01T00:30"), event(2, "b", "01T00:30")]])
    scenario = assume(f"zone=Europe/Berlin:later,{selection.format(batch=built.ids[0])}")
    found = values(built.store, scenario, window("01", "02"), ("a",))
    assert {key[1]: one[1] for key, one in found.items()} == {}
    found = values(built.store, scenario, ALL_TIME, ("a",))
    assert {key[1]: one[1] for key, one in found.items()} == {window("01").start - DAY: 1}


def test_an_event_of_two_files_is_added_once(tmp_path: Path) -> None:
    built = build(tmp_path, [[event(1, "a", "01T00:00")]])
    one, both = tmp_path / "one.jsonl", tmp_path / "both.jsonl"
    one.write_text(json.dumps(event(2, "a", "01T12:00")) + "\n")
    both.write_text(one.read_text() * 2 + json.dumps(event(4, "a", "01T13:00")) + "\n")
    assert totals(built.store, f"with=@{one}", f"with=@{both}") == {"01": 7}
    assert totals(built.store, f"with=@{both}", f"with=@{one}", f"with=@{one}") == {"01": 7}
