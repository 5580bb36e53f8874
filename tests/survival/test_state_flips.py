"""One bit of state.db, flipped anywhere: each answer stays, or is refused, or `verify` finds the damage. A log of the
database does not stay behind, where a bad byte would drop what was committed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pik.errors import PikError
from pik.model.metric import Definition
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.replay.promote import promote
from tests.contracts.test_republishes import refusal, republish_of
from tests.support.stores import PlainEngine, event, ingest, replay

ENGINE = PlainEngine()


def answers(store: Store) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What commands ask of the state."""
    runs = store.runs.newest_first
    yield "runs", lambda: list(runs())
    yield "tasks", lambda: [list(store.runs.open_tasks(run.run_id)) for run in runs()]
    yield "metrics", store.metrics.latest
    yield "versions of a metric", lambda: store.metrics.versions("total")
    yield "promotions", lambda: list(store.promotions.newest_first())
    yield "letters", store.dead_letters.letters
    sent = store.republishes.newest_first
    yield "republishes", lambda: list(sent())
    yield "refusals", lambda: [list(store.republishes.refusals(one.republish_id)) for one in sent()]
    for name in ("event_count", "total"):
        yield f"current {name}", partial(_listed, store.aggregates.current, name, ALL_TIME)
        yield f"history {name}", partial(_listed, store.aggregates.versions, name, ALL_TIME)
        yield f"entity {name}", partial(_listed, store.aggregates.current, name, ALL_TIME, ["b"])
    yield "changes", lambda: [list(store.aggregates.changes(run.run_id)) for run in runs()]
    yield "diff", lambda: list(diff_aggregates(store, ENGINE, ALL_TIME).rows)


def _listed(ask: Callable[..., Iterator[Any]], *arguments: Any, **options: Any) -> list[Any]:
    return list(ask(*arguments, **options))


def said(store: Store) -> dict[str, Any]:
    """Each answer, or None where it is refused. Anything but a refusal is a bug."""
    found: dict[str, Any] = {}
    for name, ask in answers(store):
        try:
            found[name] = ask()
        except PikError:
            found[name] = None
    return found


@pytest.fixture
def lived(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A store with a life behind it, and its answers."""
    store = open_store(str(tmp_path / "store"), create=True)
    add_version(store.metrics, Definition(name="total", value="sum(x)", where="event_type = 'paid'", bucket="12h"), 1)
    ingest(store, tmp_path, [event(n, "abc"[n % 3], f"0{n % 4 + 1}T0{n % 9}:00") for n in range(40)])
    first = replay(store, ENGINE)
    promote(store, first.run_id, 1, "first")
    ingest(store, tmp_path, [event(n, "b", "02T11:00") for n in range(40, 50)])
    second = replay(store, ENGINE)
    promote(store, second.run_id, 2, "second")
    third = replay(store, ENGINE, entities=("a",))
    assert third.state == "COMPLETED"
    store.republishes.create(republish_of(1))
    store.republishes.record(republish_of(1, refused=20), [refusal(seq) for seq in range(20)])
    before = said(store)
    assert None not in before.values()
    assert list(store.state_audit.problems()) == []
    close(store)
    return tmp_path / "store", before


def close(store: Store) -> None:
    store.aggregates.database.close()  # type: ignore[attr-defined]


def flipped(root: Path, bits: list[int], before: dict[str, Any]) -> list[int]:
    """The bits after whose flip some answer is another one, and `verify` finds nothing."""
    file = root / "state.db"
    whole = file.read_bytes()
    wrong = []
    for bit in bits:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        store = open_store(str(root))
        now = said(store)
        if any(now[name] is not None and now[name] != before[name] for name in before):
            try:
                found = any(True for _ in store.state_audit.problems())
            except PikError:
                found = True
            if not found:
                wrong.append(bit)
        close(store)
        for beside in root.glob("state.db-*"):
            beside.unlink()
    file.write_bytes(whole)
    return wrong


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 42))])
def test_a_flipped_bit_of_the_state_is_harmless_or_refused_or_found(
    lived: tuple[Path, dict[str, Any]], seed: int
) -> None:
    root, before = lived
    bits = (root / "state.db").stat().st_size * 8
    assert flipped(root, random.Random(seed).sample(range(bits), 30), before) == []


def test_the_last_process_leaves_no_log(tmp_path: Path) -> None:
    """Neither after it wrote, nor where it finds the log of one that was killed."""
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(event(n, "a", "01T00:00")) + "\n" for n in range(20)))
    environment = {**os.environ, "PIK_STORE": str(tmp_path / "store")}

    def pik(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pik", *arguments], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    pik("init")
    pik("ingest", str(file))
    run = json.loads(pik("replay", "--all", "--format", "json"))["run_id"]
    assert list((tmp_path / "store").glob("*.db-*")) == []
    change = "c = sqlite3.connect('state.db'); c.execute('UPDATE writer SET new = new'); c.commit()"
    killed = f"import os, sqlite3; {change}; os._exit(0)"
    subprocess.run([sys.executable, "-c", killed], cwd=tmp_path / "store", check=True)
    assert list((tmp_path / "store").glob("state.db-wal"))
    pik("promote", run, "--yes")
    assert list((tmp_path / "store").glob("*.db-*")) == []
