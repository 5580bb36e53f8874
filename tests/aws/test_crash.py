"""Promise 1 in a deployed store: whoever writes dies behind any call of AWS, and another goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import pytest

from pik.exporters import exporter
from pik.inputs import blocks as blocks_module
from pik.model.batch import Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.exporter import Format, Layout
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Overrides, Selection
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.export.export import export
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
from pik.usecases.inspect.events import list_events
from tests.support.aws.calls import SESSION, hooked
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.faults import Crash
from tests.support.snapshot import assert_sound, damage, snapshot
from tests.support.stores import lines as lines_of
from tests.survival.conftest import EXTRA, ingest, whole


@dataclass
class DieAt:
    """The n-th call is the last one that is sent, and nobody hears its answer."""

    store: Store
    number: int
    calls: int = 0
    lock: Lock = field(default_factory=Lock)

    def __call__(self, request: Any, event_name: str, **_: Any) -> None:
        with self.lock:
            self.calls += 1
            mine = self.calls
        if mine < self.number:
            return
        if mine == self.number:
            SESSION.send(request)
        raise Crash


@contextmanager
def dying(store: Store, number: int) -> Iterator[DieAt]:
    """The process that works with the store dies behind this call, unless it ends before."""
    die = DieAt(store, number)
    with hooked(store, "before-send", die), suppress(Crash):
        yield die


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two blocks, with events of several days, rejects, duplicates and conflicts."""
    monkeypatch.setattr(blocks_module, "BLOCK", 1500)
    monkeypatch.setattr(blocks_module, "FIRST_READ", 100)
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(EXTRA[:4] + EXTRA[4:8] + EXTRA[34:38] + EXTRA[94:97] + PLAIN) + "\n")
    return path


PLAIN = [
    f'{{"source":"s","event_type":"t","entity_id":"e{n % 2}","event_time":"2026-01-0{1 + n % 3}T00:00:00Z",'
    f'"payload":{{"n":{n % 4}}}}}'
    for n in range(8)
]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("events", "step"), [(1, 2), pytest.param(1, 1, marks=SLOW), (5, 8), pytest.param(5, 4, marks=SLOW)]
)
def test_promise_1_a_request_that_dies_after_every_call(
    aws: Clients, events: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sent it sends it again: each event counts once, and is counted once."""
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    body = "\n".join(PLAIN[:events]).encode()
    for number in count(1, step):
        url = publish(aws, make_stack(aws))
        with dying(store := open_store(url), number) as die:
            record_request(store, body)
        store = open_store(url)
        results = record_request(store, body).results
        for result in results:
            kinds = [place.kind for place in store.index.deliveries(result.event_id)]
            assert kinds.count(Verdict.ACCEPTED) == 1, f"call {number}"
        assert store.index.totals().events == len({result.event_id for result in results}), f"call {number}"
        assert sum(1 for _ in list_events(store, Filter(ALL_TIME))) == store.index.totals().events
        if number in (3, 9, 17):
            rebuild_index(store, SILENT)
            assert_sound(store)
            assert store.index.totals().events == len({result.event_id for result in results})
        if die.calls < number:
            return


def test_promise_1_a_duplicate_that_dies_after_every_call(aws: Clients) -> None:
    """An exact one and a conflict: each is recorded as a whole or not at all, so whatever is there can be read. Of what
    need not be written together, DynamoDB writes one item before it throttles."""

    def throttle(params: Any, event_name: str, **_: Any) -> None:
        if event_name.endswith("BatchWriteItem"):
            params["RequestItems"] = {name: requests[-2:-1] for name, requests in params["RequestItems"].items()}

    url = publish(aws, make_stack(aws))
    first = PLAIN[0].replace("}}", '},"idempotency_key":"x"}')
    (event_id,) = (one.event_id for one in record_request(open_store(url), first.encode()).results)
    recorded = 1
    for body in (first, first.replace('"n":0', '"n":9')):
        for number in count(1):
            with dying(store := open_store(url), number) as die, hooked(store, "before-parameter-build", throttle):
                record_request(store, body.encode())
            store = open_store(url)
            there = store.index.deliveries(event_id)
            assert len(store.index.segments_of(there)) == len(there)
            assert {place.batch_id for place in there} == {batch.batch_id for batch in store.index.batches()}
            listed = list(list_duplicates(store, DuplicateFilter(Filter(ALL_TIME))))
            assert [(row.event_id, row.deliveries) for row in list_events(store, Filter(ALL_TIME))] == [
                (event_id, len(there))
            ]
            assert len(listed) == len(there) - 1 == store.index.totals().deliveries - 1
            assert len(there) - recorded in (0, 1)
            recorded = len(there)
            if die.calls < number:
                break
        assert number > 3
    assert damage(store) == []


@pytest.mark.parametrize("step", [pytest.param(1, marks=SLOW), 18])
def test_promise_1_a_death_after_every_call(
    aws: Clients, tmp_path: Path, path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = snapshot(whole(tmp_path, path))
    for number in count(2, step):
        url = publish(aws, make_stack(aws))
        with dying(store := open_store(url), number) as die:
            ingest(store, path)
        later(monkeypatch, number)
        store = open_store(url)
        assert damage(store) == [], f"call {number}, not gone on with"
        ingest(store, path)
        assert snapshot(store) == expected, f"call {number}"
        if number % 4 == 0:
            assert_sound(store)
            rebuild_index(store, SILENT)
            assert snapshot(store) == expected, f"call {number}, rebuilt"
        if die.calls < number:
            assert number > 40
            return


def test_promise_6_what_is_not_recorded_yet_counts_nowhere(
    aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer dies behind the first or the last claims of 30: these count, whoever asks, with what comes again of
    them; the others do not exist yet."""
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    path = tmp_path / "events.jsonl"
    lines = [PLAIN[0].replace('"n":0', f'"n":{n}') for n in range(30)]
    path.write_text("\n".join([*lines, lines[0]]) + "\n")
    url = publish(aws, make_stack(aws))
    store = open_store(url)
    die = DieAt(store, 2)

    def at_claims(event_name: str, **parameters: Any) -> None:
        if event_name.endswith("BatchExecuteStatement") or die.calls >= 2:
            die(event_name=event_name, **parameters)

    with hooked(store, "before-send", at_claims), pytest.raises(Crash):
        ingest(store, path)
    later(monkeypatch, 1)

    def seen() -> list[int]:
        reader = open_store(url)
        exported = []
        forms: tuple[Format, ...] = ("jsonl", "parquet")
        for form in forms:
            layout = Layout(Filter(ALL_TIME), form, "none", include_duplicates=True)
            target = tmp_path / f"{uuid4()}.{form}"
            exported.append(export(reader, exporter(layout), target, SILENT, directory=False).rows)
        inputs = []
        for with_duplicates in (False, True):
            with gather(Selection(reader, ALL_TIME, overrides=Overrides(duplicates=with_duplicates))) as gathered:
                inputs.append(sum(1 for _ in lines_of(gathered.inputs, ALL_TIME, ())))
        duplicates = list(list_duplicates(reader, DuplicateFilter(Filter(ALL_TIME))))
        counted = list(count_duplicates(reader, DuplicateFilter(Filter(ALL_TIME)), "source"))
        assert sum(group.duplicates for group in counted) == len(duplicates)
        return [
            sum(1 for _ in list_events(reader, Filter(ALL_TIME))),
            len(duplicates),
            *inputs,
            *exported,
        ]

    # The duplicate is none of `pik duplicates` yet: its event has one delivery, as far as is written down.
    assert seen() in ([25, 0, 25, 26, 26, 26], [5, 0, 5, 5, 5, 5])
    ingest(open_store(url), path)
    assert seen() == [30, 1, 30, 31, 31, 31]
