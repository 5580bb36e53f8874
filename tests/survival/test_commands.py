"""Promise 1 for every command that writes: killed at any durable step, or with a full disk from there on, the same
command again ends as if nothing had happened."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pik.__main__ import main
from pik.engine import DuckEngine
from pik.model.window import ALL_TIME
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.verify import verify
from pik.usecases.replay.execute import Pace
from pik.usecases.replay.plan import plan_replay, start
from tests.support.snapshot import snapshot
from tests.support.stores import Faulty, broken, event, replay, request
from tests.support.survival import commands
from tests.support.survival.commands import COMMANDS, COULD_NOT, KILLED, WINDOW

FEW = ("ingest --one-batch", "aggregates import", "dlq redrive", "restore")
"""Commands of which two steps are tried each time; the slow tests try many steps of all commands."""

STATEMENTS = {"metrics retire", "metrics reinstate", "correct", "corrections revoke", "restore", "runs cancel"}
STATEMENTS |= {"republish resume", "republish cancel"}
"""Commands that are refused where the first one had its effect before it ended: it says so. So are those whose file is
there."""

REFUSED = 2


def pik(line: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pik", *shlex.split(line)])
        return main()


def jsonl(path: str, numbers: range, hour: int, *others: str) -> None:
    lines = [json.dumps(event(n, "abc"[n % 3], f"0{n % 4 + 1}T{hour + n % 5:02}:00")) for n in numbers]
    Path(path).write_text("\n".join([*lines, *others]) + "\n")


def live() -> None:
    """Files, and a store with a life behind it: the newest run waits to be promoted."""
    jsonl("events.jsonl", range(24), 1, "no event")
    jsonl("later.jsonl", range(20, 32), 10)
    jsonl("more.jsonl", range(40, 52), 15, "{")
    Path("folder").mkdir()
    for number in range(3):
        jsonl(f"folder/{number}.jsonl", range(60 + number, 66), 18)
    with tarfile.open("archive.tar.gz", "w:gz") as archive:
        archive.add("folder")
    Path("document.json").write_text(json.dumps({"Records": [event(n, "d", f"02T0{n}:30") for n in range(6)]}))
    Path("table.csv").write_text("who,at\n" + "".join(f"c{n % 2},2026-01-02T0{n}:50:00Z\n" for n in range(6)))
    Path("metrics.toml").write_text('name = "hourly"\nvalue = "count(*)"\nbucket = "1h"\n')
    Path("redact.key").write_bytes(bytes(32))
    Path("ledger.csv").write_text("day,customer,event_count\n2026-01-01,a,30\n2026-01-02,b,20\n")
    for line, code in (
        ("init --store .pik", 0),
        ("ingest events.jsonl", 3),
        ("replay --all --reason first --promote --yes", 0),
        ("ingest later.jsonl", 0),
        ("replay --all --reason second", 0),
        ("backup the.backup", 0),
    ):
        assert pik(line) == code, line


def fail() -> None:
    """The tasks of the newest run are dead letters."""
    replay(open_store(".pik"), Faulty(broken), pace=Pace(workers=0, attempts=1))


def plan() -> None:
    store = open_store(".pik")
    start(store, plan_replay(store, DuckEngine(threads=1), request(), 3))


def lose_state() -> None:
    Path(".pik/state.db").unlink()


def stop_sending() -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pik.targets.file.sync", full)
        assert pik("republish --all --target sent --reason x --yes") == COULD_NOT


PLACES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: shutil.rmtree(".pik"),
    "retired": lambda: pik("metrics retire event_count --reason x --yes"),
    "corrected": lambda: pik("correct --assume shift=1h,entity=a --reason INC --yes"),
    "failed": fail,
    "planned": plan,
    "without state": lose_state,
    "sending": stop_sending,
    "bundled": lambda: pik(f"bundle --incident INC {WINDOW} --out the.bundle"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Makes a new directory as a command needs it."""
    directory = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PIK_")]:
            patch.delenv(name)

        def made(name: str) -> Path:
            path = directory / name
            if not path.exists():
                if name == "lived":
                    path.mkdir()
                    patch.chdir(path)
                    live()
                else:
                    shutil.copytree(made("lived"), path)
                    patch.chdir(path)
                    PLACES[name]()
            patch.chdir(directory)
            return path

        def copied(name: str) -> Path:
            target = directory / "tried"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(made(name), target)
            return target

        yield copied


@pytest.fixture(scope="module")
def pik_with() -> Callable[..., tuple[int, int]]:
    """Runs a command that is killed at a step (0: at none), or whose disk is full; exit code and number of steps."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([commands.__name__, "pik.cli.app", "pik.engine", "duckdb"])

    def run(line: str, directory: Path, end_at: int = 0, is_full: bool = False) -> tuple[int, int]:
        count = directory.parent / "steps"
        count.unlink(missing_ok=True)
        given = (shlex.split(line), str(directory), end_at, is_full, str(count))
        process = context.Process(target=commands.run, args=given)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode, int(count.read_text()) if count.exists() else 0

    return run


def state(directory: Path) -> dict[str, Any]:
    """What the store and the files beside it hold, without ids and the clock. Nothing of it is damaged."""
    store = open_store(str(directory / ".pik"))
    assert list(verify(store, DuckEngine(threads=1), ALL_TIME, SILENT)) == []
    metrics = store.metrics.latest()
    return {
        **snapshot(store),
        "metrics": [(one.name, one.version, one.retired) for one in metrics],
        "current": [
            (one.computed, one.metric_version)
            for name in sorted({one.name for one in metrics} | {"event_count"})
            for one in store.aggregates.current(name, ALL_TIME)
        ],
        "runs": [
            (one.kind, one.state, one.promoted, one.rolled_back, one.new, one.changed, one.failed)
            for one in store.runs.newest_first()
        ],
        "promotions": [(one.kind, one.moved, one.conflicts) for one in store.promotions.newest_first()],
        "corrections": [(one.statement, one.deliveries) for one in store.corrections.recorded() if one.statement],
        "republishes": [(one.state, one.taken) for one in store.republishes.newest_first()],
        "letters": len(store.dead_letters.letters()),
        "files": sorted(path.name for path in directory.iterdir() if not path.name.startswith(".")),
    }


CASES = [pytest.param(name, 2, is_full) for name, is_full in zip(FEW, (False, True, False, True), strict=True)]
CASES += [pytest.param(name, 40, how, marks=pytest.mark.slow) for name in COMMANDS for how in (False, True)]


@pytest.mark.parametrize(("name", "tries", "is_full"), CASES)
def test_promise_1_a_command_that_could_not_end_is_continued_by_the_same_command(
    place: Callable[[str], Path],
    pik_with: Callable[..., tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tries: int,
    is_full: bool,
) -> None:
    monkeypatch.setattr("pik.usecases.care.verify_corrections.RECENT", 0)
    line, of_place = COMMANDS[name]
    directory = place(of_place)
    code, steps = pik_with(line, directory)
    assert code in (0, 1, 3)
    expected = state(directory)
    step, tried = max(1, steps // tries), 0
    for number in range(1 + step // 2, steps + 1, step):
        directory, where = place(of_place), f"step {number} of {steps}"
        ended, _ = pik_with(line, directory, number, is_full)
        if ended == code:  # it makes fewer steps each time, or the last ones need no room
            continue
        assert ended == (COULD_NOT if is_full else KILLED), where
        tried += 1
        shown = {path.name for path in directory.iterdir() if path.name.startswith("out")}
        assert not (shown and is_full) or name == "republish", where
        again, _ = pik_with(line, directory)
        is_refused = again in (REFUSED, COULD_NOT)
        assert again == code or (is_refused and (shown or name in STATEMENTS)), where
        assert state(directory) == expected, where
    assert tried
