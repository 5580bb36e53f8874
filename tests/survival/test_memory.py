"""Promise 8: memory is bounded, also where nothing of an input is as it should be."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import md5
from itertools import chain, repeat
from pathlib import Path

import pytest

from bench.measure import run
from pik.model.window import ALL_TIME
from pik.runtime.parallel import Pool, Tell, WorkerDied
from pik.stores import open_store
from tests.support.strange_stores import STRANGE
from tests.support.strange_stores import lines as strange_lines
from tests.survival.conftest import ENVIRONMENT, pik

MIB = 1 << 20
LIMIT = 400  # MiB, of all processes together
EVENT = '{"source":"%s","event_type":"%s","entity_id":"e%d","event_time":"2026-01-01T00:00:00Z","payload":{"n":%d}}\n'


def rejected(count: int) -> Iterator[str]:
    return (f'{{"source":"web","event_type":"t","n":{number}}}\n' for number in range(count))


def empty(count: int) -> Iterator[str]:
    return repeat("\n" * 100, count // 100)


def sources(count: int) -> Iterator[str]:
    return (EVENT % (f"s{number}", "t", number % 1000, number) for number in range(count))


def types(count: int) -> Iterator[str]:
    return (EVENT % ("s", f"t{number}", number % 1000, number) for number in range(count))


def giant(count: int) -> Iterator[str]:
    return chain(['{"source":"'], repeat("x" * 1000, count // 1000), ['"}\n'])


INPUTS = {"rejected": rejected, "empty": empty, "sources": sources, "types": types, "giant": giant}


def written(directory: Path, lines: Iterator[str]) -> Path:
    path = directory / "input.jsonl"
    with path.open("w") as file:
        file.writelines(lines)
    return path


def limited(mib: int, what: int = resource.RLIMIT_AS) -> Callable[[], None]:
    """Lets no process have more of this (address space) than so much."""
    return partial(resource.setrlimit, what, (mib * MIB, mib * MIB))


@pytest.mark.parametrize(
    "name", ["rejected", *(pytest.param(name, marks=pytest.mark.slow) for name in ("empty", "sources"))]
)
def test_promise_8_bad_lines_and_many_names_fit_a_hard_limit(tmp_path: Path, name: str) -> None:
    """Kept until the end, 300,000 rejected lines need more than this."""
    path = written(tmp_path, INPUTS[name](300_000))
    open_store(str(tmp_path / "store"), create=True)
    process = pik("--store", str(tmp_path / "store"), "ingest", str(path), "-q", preexec_fn=limited(300))
    _, errors = process.communicate()
    assert process.returncode == (3 if name == "rejected" else 0), errors


@pytest.mark.slow
@pytest.mark.parametrize("mapped", [False, True], ids=["native", "mapped"])
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("rejected", 600_000),
        ("empty", 8_400_000),
        ("sources", 1_000_000),
        ("types", 1_000_000),
        ("giant", 2_000_000_000),
    ],
)
def test_promise_8_memory_does_not_grow_with_what_is_wrong(tmp_path: Path, name: str, count: int, mapped: bool) -> None:
    path = written(tmp_path, INPUTS[name](count))
    fields = ("source", "event_type", "entity_id", "event_time", "payload")
    options = [part for field in fields for part in ("--map", f"{field}={field}")] if mapped else []
    open_store(str(tmp_path / "store"), create=True)
    store = ("-q", "--store", str(tmp_path / "store"))
    # Without `reject` a mapping that suits none of the first records is refused before anything is read.
    for command in (["ingest", str(path), "--on-invalid", "reject", *options], ["status"]):
        argv = [sys.executable, "-m", "pik", *store, *command]
        partly = (3,) if name in ("rejected", "giant") and command[0] == "ingest" else ()
        done = run(argv, env=ENVIRONMENT, sample=True, codes=(0, *partly))
        assert done.peak_mib is not None
        assert done.peak_mib <= LIMIT


METRICS = """
[[metric]]
name = "total"
value = "sum((payload->>'$.n')::DECIMAL(18, 2))"
[[metric]]
name = "largest"
value = "max((payload->>'$.n')::DECIMAL(18, 2))"
[[metric]]
name = "smallest"
value = "min((payload->>'$.n')::DECIMAL(18, 2))"
"""
AFTER_A_REPLAY = (
    ["replay", "--all", "--reason", "memory", "--promote", "--yes"],
    ["diff", "aggregates"],
    ["status"],
    ["batches"],
    ["events", "--limit", "5"],
    ["duplicates", "--limit", "5"],
    ["duplicates", "--by", "entity", "--limit", "5"],
    ["aggregates", "--limit", "5"],
    ["verify", "--full"],
)
"""Commands that look at all of a store; the first of them makes its aggregates."""


def into(directory: Path) -> list[list[str]]:
    """Commands that write all events into a file."""
    return [
        ["export", "--out", str(directory / "events.parquet")],
        ["republish", "--all", "--target", str(directory / "sent.ndjson"), "--yes"],
    ]


def entities(count: int, days: int) -> Iterator[str]:
    """As many events as entities, on so many days."""
    return (
        EVENT.replace("01-01T", f"01-{1 + number % days:02}T") % ("s", "t", number, number) for number in range(count)
    )


def with_metrics(tmp_path: Path, lines: Iterator[str]) -> Path:
    """A store with these events and four metrics."""
    store, definitions = tmp_path / "store", tmp_path / "metrics.toml"
    definitions.write_text(METRICS)
    open_store(str(store), create=True)
    for command in (["ingest", str(written(tmp_path, lines))], ["metrics", "apply", str(definitions)]):
        run([sys.executable, "-m", "pik", "-q", "--store", str(store), *command], env=ENVIRONMENT, sample=False)
    return store


def peaks(store: Path, commands: Sequence[Sequence[str]], longest: int) -> dict[str, float]:
    """The memory of each command, in MiB. None of them prints more lines than `longest`."""
    found = {}
    for command in commands:
        done = run([sys.executable, "-m", "pik", "-q", "--store", str(store), *command], env=ENVIRONMENT, sample=True)
        assert done.stdout.count("\n") <= longest, command
        assert done.peak_mib is not None
        found[" ".join(command)] = done.peak_mib
    return found


def test_promise_8_metrics_of_many_entities_fit_a_hard_limit(tmp_path: Path) -> None:
    """The slow test below has the number of entities that memory is not to grow with; this one shows that nothing takes
    more than its share from the start. Data, not address space: threads reserve much of that and use little."""
    store = with_metrics(tmp_path, entities(20_000, days=1))
    for command in AFTER_A_REPLAY[:2]:
        process = pik("--store", str(store), "-q", *command, preexec_fn=limited(LIMIT, resource.RLIMIT_DATA))
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, 4])
def test_promise_8_a_million_entities_with_four_metrics_fit(tmp_path: Path, days: int) -> None:
    store = with_metrics(tmp_path, entities(1_000_000, days))
    found = peaks(store, [*AFTER_A_REPLAY, *into(tmp_path)], longest=60)
    assert max(found.values()) <= LIMIT, found


@pytest.mark.slow
@pytest.mark.parametrize("name", STRANGE)
def test_promise_8_memory_does_not_grow_with_what_is_strange(tmp_path: Path, name: str) -> None:
    store = with_metrics(tmp_path, strange_lines(name, 100_000))
    found = peaks(store, [*AFTER_A_REPLAY, *into(tmp_path)], longest=60)
    assert max(found.values()) <= LIMIT, found


DISTINCT = """
[[metric]]
name = "sessions"
value = "count(DISTINCT payload->>'$.session')"
[[metric]]
name = "revenue"
value = "sum((payload->>'$.amount')::DECIMAL(38, 6))"
"""


def hot(count: int) -> Iterator[str]:
    """Events of one entity and day, each with its own session."""
    payload = '{"session":"%s","amount":"123456789012345678.%06d"}'
    return (
        '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":'
        + payload % (md5(b"%d" % number).hexdigest(), number % 10**6)
        + "}\n"
        for number in range(count)
    )


@pytest.mark.parametrize(("count", "piece"), [(60_000, MIB), pytest.param(5_000_000, 64 * MIB, marks=pytest.mark.slow)])
def test_promise_8_a_bucket_of_millions_of_events_is_computed_in_pieces(tmp_path: Path, count: int, piece: int) -> None:
    store, definitions = tmp_path / "store", tmp_path / "metrics.toml"
    definitions.write_text(DISTINCT)
    open_store(str(store), create=True)
    for command in (["ingest", str(written(tmp_path, hot(count)))], ["metrics", "apply", str(definitions)]):
        run([sys.executable, "-m", "pik", "-q", "--store", str(store), *command], env=ENVIRONMENT, sample=False)
    assert sum(one.size for one in open_store(str(store)).index.segments(ALL_TIME)) > 2 * piece
    program = (
        f"from pik.usecases.metrics import computation; computation.PIECE_BYTES = {piece}\n"
        "from pik.__main__ import program; raise SystemExit(program())"
    )
    command = ["-q", "--store", str(store), "diff", "aggregates", "--format", "csv"]
    done = run([sys.executable, "-c", program, *command], env=ENVIRONMENT, sample=True, codes=(1,))
    total = 123456789012345678 * 10**6 * count + sum(number % 10**6 for number in range(count))
    assert f",{count}," in done.stdout
    assert f",{total // 10**6}.{total % 10**6:06}," in done.stdout
    assert done.peak_mib is not None
    assert done.peak_mib <= LIMIT


def _greedy(_tell: Tell) -> Callable[[int], int]:
    def take(mib: int) -> int:
        limited(300)()
        return len(bytearray(mib * MIB))

    return take


def _ending(number: int, _tell: Tell) -> Callable[[int], int]:
    def end(_argument: int) -> int:
        os.kill(os.getpid(), number)
        return 0

    return end


def test_a_worker_that_runs_out_of_memory_is_reported_as_such(capfd: pytest.CaptureFixture[str]) -> None:
    with Pool[int, int](_greedy, 1) as pool, pytest.raises(WorkerDied, match="it ran out of memory") as raised:
        list(pool.map([1000]))
    assert "free some memory" in raised.value.hint
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGABRT, "SIGABRT.*memory is short"),
        (signal.SIGKILL, "SIGKILL.*memory is short"),
        (signal.SIGSEGV, "died"),
    ],
)
def test_how_a_worker_ended_is_reported(number: int, said: str) -> None:
    with Pool[int, int](partial(_ending, number), 1) as pool, pytest.raises(WorkerDied, match=said) as raised:
        list(pool.map([1]))
    assert signal.Signals(number).name in raised.value.message
