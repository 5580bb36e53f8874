"""Lags, skew, gaps and late events on a stack: those of a local store with the same events, in as many calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pik.engine import DuckEngine
from pik.model.assumption_text import read_scenario
from pik.model.delivery import Filter
from pik.model.instant import DAY
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.correct.plan import plan_correction, record_correction
from pik.usecases.timing.gaps import Question, find_gaps
from pik.usecases.timing.grouping import payload_text, read_grouping
from pik.usecases.timing.lag import measure_lag
from pik.usecases.timing.late import find_late
from pik.usecases.timing.skew import find_skew
from tests.support.aws.emulator import make_stack, publish
from tests.support.regular import START, irregular, made
from tests.support.stores import ingest, replayed

ENGINE = DuckEngine(threads=1)
SOURCE = read_grouping("source", ("source",))


@pytest.fixture
def new_store(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """Makes empty stores of stacks."""
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    return lambda: open_store(publish(aws, make_stack(aws)))


def answers(store: Store, directory: Path) -> list[Any]:
    """Return what is found in a store with irregular and with late events."""
    ingest(store, directory, irregular())
    day = Window(START + DAY, START + 2 * DAY)
    replayed(store, ENGINE, day)
    ingest(store, directory, [made("web", day.start + number, day.start, 0, "e1") for number in range(1, 4)])
    lag = measure_lag(store, ENGINE, Filter(), SOURCE)
    skew = find_skew(store, ENGINE, Filter(), SOURCE)
    gaps = find_gaps(store, ENGINE, Question(Filter(), SOURCE, sequence=payload_text("payload.n", "--sequence-field")))
    late = [replace(one, known_until=0, run_id="") for one in find_late(store, ENGINE, ALL_TIME).buckets]
    assert skew.shifts
    assert gaps.found
    assert late
    found = [
        (lag.total, list(lag.groups), lag.histogram),
        (skew.shifts, list(skew.negative), list(skew.groups)),
        *(list(rows) for rows in (gaps.silences, gaps.changes, gaps.groups, gaps.missing_ranges, gaps.sequences)),
        late,
    ]
    text = "shift=-1h,entity=e1"
    plan = plan_correction(store, ENGINE, read_scenario(None, [text], lambda _: ()).assumptions)
    record_correction(plan, [text], "INC-1", "ana")
    corrected, received = (
        measure_lag(store, ENGINE, Filter(), SOURCE, overrides=by) for by in (NO_OVERRIDES, AS_RECEIVED)
    )
    assert corrected.total != received.total == lag.total
    return [*found, corrected.total, list(corrected.groups), corrected.histogram, received.histogram]


def test_promise_10_what_is_found_is_the_same_on_every_store(new_store: Callable[[], Store], tmp_path: Path) -> None:
    assert answers(new_store(), tmp_path) == answers(open_store(str(tmp_path / "home"), create=True), tmp_path)
