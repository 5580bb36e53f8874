"""`pik show` names the aggregates that counted an event, also those of an earlier definition with other buckets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.model.delivery import Filter
from pik.model.instant import DAY, HOUR
from pik.model.metric import Definition
from pik.stores import open_store
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.events import list_events
from pik.usecases.metrics.definitions import add_version
from tests.support.stores import FIRST, event, ingest, replayed

HOURLY, DAILY = ("1h", FIRST + 5 * HOUR), ("1d", FIRST)


@pytest.mark.parametrize("where", [None, "event_type = 'paid'"])
@pytest.mark.parametrize(("made", "now"), [(HOURLY, DAILY), (DAILY, HOURLY)], ids=["grew", "shrank"])
def test_the_bucket_that_counted_an_event_is_that_of_its_definition(
    tmp_path: Path, made: tuple[str, int], now: tuple[str, int], where: str | None
) -> None:
    store, engine = open_store(str(tmp_path / "store"), create=True), DuckEngine(threads=1)
    add_version(store.metrics, Definition(name="n", value="count(*)", where=where, bucket=made[0]), 1)
    ingest(store, tmp_path, [event(hour, "a", f"01T{hour:02}:30") for hour in (0, 5, 7, 23)])
    replayed(store, engine)
    add_version(store.metrics, Definition(name="n", value="count(*)", where=where, bucket=now[0]), 2)
    (found,) = (row for row in list_events(store, Filter()) if (row.event_time - FIRST) % DAY // HOUR == 5)
    counted = show_event(store, engine, found.event_id).aggregates
    assert counted is not None
    assert [(one.computed.metric, one.computed.bucket) for one in counted] == [("event_count", FIRST), ("n", made[1])]
