"""Deliveries as SQL tables: complete, with their verdicts, of the window only, and never from damaged raw."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.errors import Damaged, Invalid
from pik.model.delivery import Filter
from pik.model.instant import parse_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import DELIVERY_COLUMNS
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection
from pik.stores import open_store
from tests.support.stores import event, ingest, window

COLUMNS = tuple(DELIVERY_COLUMNS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Events of four days in four batches, many of them several times."""
    made = open_store(str(tmp_path / "store"), create=True)
    chance = random.Random(5)
    for _ in range(4):
        some = [
            event(
                chance.randrange(3), f"e{chance.randrange(5)}", f"0{chance.randrange(1, 5)}T0{chance.randrange(6)}:00"
            )
            for _ in range(200)
        ]
        ingest(made, tmp_path, some)
    return made


def test_every_delivery_has_its_verdict_its_time_and_its_moment_of_recording(store: Store) -> None:
    read = {(one.delivery.batch_id, one.delivery.seq): one for one in deliveries(store, Filter())}
    with gather_deliveries(Selection(store, ALL_TIME)) as files, DuckEngine().tables(files, COLUMNS, ALL_TIME) as db:
        rows = list(
            db.rows("SELECT batch_id, seq, event_id, verdict, event_ns, lag_ns, epoch_us(recorded_at) FROM deliveries")
        )
        assert [name for name, _ in db.columns("SELECT * FROM events")] == list(COLUMNS)
        accepted = list(db.rows("SELECT count(*), count(DISTINCT event_id) FROM events"))
    assert len(rows) == len(read) == 800
    for batch_id, seq, event_id, verdict, event_ns, lag, recorded in rows:
        one = read[batch_id, seq]
        assert (event_id, verdict) == (one.delivery.event_id, one.kind)
        assert (event_ns, lag) == (one.delivery.event_instant, one.delivery.lag)
        assert recorded == one.segment.recorded_at // 1000
    events = len({one.delivery.event_id for one in read.values()})
    assert accepted == [(events, events)]


def test_without_raw_the_tables_are_empty(tmp_path: Path) -> None:
    empty = open_store(str(tmp_path / "empty"), create=True)
    with gather_deliveries(Selection(empty, ALL_TIME)) as files, DuckEngine().tables(files, COLUMNS, ALL_TIME) as db:
        assert list(db.rows("SELECT * FROM deliveries")) == []
        with pytest.raises(Invalid, match="configuration has been locked"):
            list(db.rows("SET memory_limit = '100GB'"))
        assert [name for name, _ in db.columns("SELECT * FROM events")] == list(COLUMNS)


@pytest.mark.parametrize("entities", [(), ("e1", "e3")])
@pytest.mark.parametrize("within", [ALL_TIME, window("02T02:00", "03T04:00")])
def test_only_the_window_and_the_entities_are_in_them(store: Store, within: Window, entities: tuple[str, ...]) -> None:
    expected = sorted((one.delivery.batch_id, one.delivery.seq) for one in deliveries(store, Filter(within, entities)))
    selection = Selection(store, within, entities)
    with (
        gather_deliveries(selection) as files,
        DuckEngine().tables(files, ["batch_id", "seq"], within, entities) as db,
    ):
        assert list(db.rows("SELECT batch_id, seq FROM deliveries ORDER BY ALL")) == expected


def test_kept_rows_are_a_table_and_a_wrong_statement_is_invalid(store: Store) -> None:
    with gather_deliveries(Selection(store, ALL_TIME)) as files, DuckEngine().tables(files, COLUMNS, ALL_TIME) as db:
        db.keep("per_source", "SELECT source, count(*) AS n FROM deliveries WHERE entity_id <> ? GROUP BY ALL", ["e1"])
        assert next(db.rows("SELECT sum(n) FROM per_source"))[0] < 800
        with pytest.raises(Invalid, match="nowhere"):
            list(db.rows("SELECT nowhere FROM events"))
        with pytest.raises(Invalid, match=r"disabled|allowed"):
            list(db.rows("SELECT * FROM read_csv('/etc/passwd')"))


def test_times_keep_nine_digits_before_1970_too(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    texts = [
        "1969-12-31T23:59:59.999999999Z",
        "2026-01-01T00:00:00.000000001Z",
        "1677-09-22T00:00:00.5Z",
        "2262-04-10T23:59:59.999999999Z",
    ]
    ingest(store, tmp_path, [{**event(1, "e", "01T00:00"), "event_time": text} for text in texts])
    with (
        gather_deliveries(Selection(store, ALL_TIME)) as files,
        DuckEngine().tables(files, ["event_ns"], ALL_TIME) as db,
    ):
        assert list(db.rows("SELECT event_ns FROM events ORDER BY 1")) == [
            (instant,) for instant in sorted(map(parse_instant, texts))
        ]


def test_promise_2_a_damaged_object_is_never_a_smaller_table(store: Store) -> None:
    segment = next(store.index.segments(ALL_TIME))
    path = Path(store.url) / segment.key
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-10])
    with (
        pytest.raises(Damaged, match=segment.key),
        gather_deliveries(Selection(store, ALL_TIME)) as files,
        DuckEngine().tables(files, ["seq"], ALL_TIME),
    ):
        pytest.fail("it was read")
