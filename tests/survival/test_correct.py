"""Corrections that are killed, given at once, or recorded while others write: all of one holds, or nothing of it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.model.correction import ListedDelivery
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.corrections import read_list, with_frames
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from tests.survival.conftest import EXTRA, PATIENCE, pik, started, whole
from tests.survival.test_disk import COULD_NOT, is_one_sentence_and_a_hint, limited

WRONG = 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(EXTRA[4:]) + "\n")
    return whole(tmp_path, path)


def correcting(store: Store, *assumed: str, **settings: object) -> subprocess.Popen[str]:
    options = [option for assume in assumed for option in ("--assume", assume)]
    command = ("correct", *options, "--reason", "INC-1", "--actor", "ana", "--yes", "--format", "json")
    return pik(*command, "--store", store.url, **settings)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it said of errors."""
    _, errors = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors, errors
    return process.returncode, errors


def statements(store: Store) -> list[str]:
    return [one.statement for one in open_store(store.url).corrections.recorded()]


def sound(store: Store, monkeypatch: pytest.MonkeyPatch, expected: list[str]) -> None:
    """These corrections are recorded, nothing is damaged, and a rebuild finds the same."""
    monkeypatch.setattr("pik.usecases.care.verify_corrections.RECENT", 0)
    store = open_store(store.url)
    assert sorted(statements(store)) == sorted(expected)
    assert list(verify(store, DuckEngine(), ALL_TIME, SILENT)) == []
    log = list(store.corrections.recorded())
    assert rebuild_index(store, SILENT).damaged == ()
    assert list(store.corrections.recorded())[: len(log)] == log


def listed(store: Store, number: int = 0) -> set[ListedDelivery]:
    made = list(store.corrections.recorded())[number]
    return {line for one in with_frames(store.raw, made).lists for line in read_list(store.raw, one)}


@pytest.mark.parametrize("wanted", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_promise_1_a_correction_killed_at_random_instants(
    store: Store, monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    began = time.monotonic()
    assert ended(correcting(store, "shift=1h,entity=e0"))[0] == 0
    lasts, draw, expected = time.monotonic() - began, random.Random(wanted), ["shift=1h,entity=e0"]
    for number in range(wanted):
        # no number of whole hours, which would be written so
        together = [f"shift={number + minutes}m,entity=e{number % 3}" for minutes in (61, 121)]
        process = correcting(store, *together, start_new_session=True)
        time.sleep(draw.uniform(0.3, 1) * lasts)
        process.send_signal(signal.SIGKILL)
        ended(process)
        assert statements(store) in (expected, [*expected, *together])
        for _ in range(2):
            code, errors = ended(correcting(store, *together))
            assert code == 0 or "recorded already for this reason" in errors, errors
        assert code == WRONG
        expected += together
        assert statements(store) == expected
    sound(store, monkeypatch, expected)


def test_of_corrections_at_once_each_is_recorded_or_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [f"shift={number}h,entity=e{number % 3}" for number in range(1, 4)]
    running = [correcting(store, statement) for statement in given]
    ends = [ended(process) for process in running]
    for code, errors in ends:
        assert code == 0 or (code == COULD_NOT and is_one_sentence_and_a_hint(errors)), errors
        assert code == 0 or "recording a correction" in errors or "recorded meanwhile" in errors, errors
    recorded = [statement for statement, (code, _) in zip(given, ends, strict=True) if code == 0]
    assert recorded
    sound(store, monkeypatch, recorded)


def test_a_correction_during_an_ingest_lists_what_was_recorded_when_it_was_planned(
    store: Store, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = started(Path(store.url), events, block=60_000, workers=0)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    code, errors = ended(correcting(store, "shift=1h,from=2020-01-01T00:00:00Z"))
    assert code == 0 or "deliveries were recorded meanwhile" in errors, errors
    assert writer.communicate(timeout=PATIENCE)[1] == ""
    if code:
        assert ended(correcting(store, "shift=1h,from=2020-01-01T00:00:00Z"))[0] == 0
    store = open_store(store.url)
    [made] = store.corrections.recorded()
    known = {
        (found.delivery.batch_id, found.delivery.seq): json.loads(found.line)["event_time"]
        for found in deliveries(store, Filter(ALL_TIME))
        if found.segment.recorded_at <= made.selected_until
    }
    assert {(one.batch_id, one.seq): one.event_time for one in listed(store)} == known
    sound(store, monkeypatch, ["shift=1h,from=2020-01-01T00:00:00Z"])


def test_a_correction_beside_a_rebuild_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild = pik("verify", "--rebuild-index", "--store", store.url, "--format", "json")
    code, errors = ended(correcting(store, "shift=1h,entity=e0"))
    assert code == 0 or is_one_sentence_and_a_hint(errors), errors
    assert ended(rebuild)[0] in (0, COULD_NOT)
    found = [one for one in statements(store) if one]
    assert found == ["shift=1h,entity=e0"] * (code == 0)
    if code:
        assert ended(correcting(store, "shift=1h,entity=e0"))[0] == 0
    assert [one.statement for one in open_store(store.url).corrections.recorded() if one.statement] == [
        "shift=1h,entity=e0"
    ]


@pytest.mark.parametrize("size", [500, pytest.param(5000, marks=pytest.mark.slow)])
def test_promise_1_a_correction_on_a_full_disk_is_not_recorded_and_the_next_one_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    code, errors = ended(correcting(store, "shift=1h,entity=e0", preexec_fn=limited(size)))
    assert code == COULD_NOT
    assert is_one_sentence_and_a_hint(errors), errors
    assert statements(store) == []
    assert ended(correcting(store, "shift=1h,entity=e0"))[0] == 0
    sound(store, monkeypatch, ["shift=1h,entity=e0"])
