"""Several processes at once on one store: promise 4 holds exactly, and nobody fails."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from pik.errors import NotFound
from pik.model.batch import BatchState
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.stores import open_store
from tests.support.snapshot import assert_sound, snapshot
from tests.survival.conftest import PATIENCE, ingest, pik, started, whole

PART = 2000


def parts(events: Path, directory: Path, count: int) -> list[Path]:
    """Files of which each has half of the one before it in common with it."""
    lines = events.read_text().splitlines(keepends=True)
    made = []
    for number in range(count):
        path = directory / f"part{number}.jsonl"
        begin = number * PART // 2
        path.write_text("".join(lines[begin : begin + PART]))
        made.append(path)
    return made


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_promise_4_overlapping_files_ingested_at_once_and_republished_with_a_reader_meanwhile(
    tmp_path: Path, events: Path, processes: int
) -> None:
    files = parts(events, tmp_path, processes + 1)
    url = tmp_path / "store"
    running = [started(url, files[number], files[number + 1], block=60_000, workers=0) for number in range(processes)]
    republishing = None
    while republishing is None or any(process.poll() is None for process in running):
        if look(url) and republishing is None and open_store(str(url)).index.totals().events:
            command = ("republish", "--all", "--target", str(tmp_path / "sent"), "--yes", "--store", str(url))
            republishing = pik(*command)
    ended = [(process.communicate(timeout=PATIENCE), process.returncode) for process in running]
    # Whoever comes to a file that another is just ingesting is told so; nothing else may go wrong.
    for (_, errors), code in ended:
        assert code == 0 or "Busy: another pik process is ingesting" in errors, errors
        assert "locked" not in errors
    store = open_store(str(url))
    assert (republishing.wait(PATIENCE), republishing.communicate()[0] != "") == (0, True)
    expect_sent(store, tmp_path / "sent")
    again = [started(url, file, block=60_000, workers=0).communicate(timeout=PATIENCE) for file in files]
    assert [json.loads(out.splitlines()[-1])[0] for out, _ in again] == ["already ingested"] * len(files)
    one_by_one = whole(tmp_path, files[0])
    for file in files[1:]:
        ingest(one_by_one, file)
    found, expected = snapshot(store), snapshot(one_by_one)
    assert_sound(store)
    assert identities(found) == identities(expected)
    assert sum(len(of_event) for of_event in found["events"].values()) == sum(
        len(of_event) for of_event in expected["events"].values()
    )


def expect_sent(store: Store, path: Path) -> None:
    """The file has each event once that was recorded when the republish was planned."""
    [republish] = store.republishes.newest_first()
    sent = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    counted = deliveries(store, Filter(ALL_TIME), only="accepted")
    known = [one.delivery.event_id for one in counted if one.segment.recorded_at <= republish.known_until]
    assert sorted(sent) == sorted(known)
    assert len(sent) == republish.taken > 0


def identities(found: dict[str, dict[str, list[tuple[str, int, str, bytes]]]]) -> dict[str, Counter[tuple[str, int]]]:
    """Each event's deliveries by file and line, whichever of them was the first."""
    return {event: Counter((name, seq) for name, seq, *_ in of_event) for event, of_event in found["events"].items()}


def look(url: Path) -> int:
    """Read everything while others write: each batch adds up, each event is there once."""
    try:
        store = open_store(str(url))
    except NotFound:
        time.sleep(0.02)
        return 0
    for batch in store.index.batches():
        counts = batch.counts
        assert counts.read == counts.accepted + counts.duplicates + counts.rejected
        if batch.state == BatchState.COMPLETE:
            assert counts.read > 0
    accepted = Counter(found.delivery.event_id for found in deliveries(store, Filter(ALL_TIME), only="accepted"))
    assert set(accepted.values()) <= {1}
    assert len(accepted) <= store.index.totals().events
    return 1
