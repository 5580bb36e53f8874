"""Commands on a cluster of which a process is killed, with -9, at some instant.

An executor's death, or that of its Python, changes nothing. After the driver's, nothing runs on, nothing is taken for
complete, and the same command ends as if there had been no death.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from random import Random
from typing import Any

import pytest

from pik.stores import open_store
from tests.support.exports import rows_of
from tests.support.snapshot import snapshot
from tests.support.spark_deaths import DRIVER, EXECUTOR, JAVA, PYTHON, Death, Ended, Machine, machine
from tests.usecases.test_bulk import event

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark_faults")]

ON = ("--on", "local-cluster[2,1,1024]", "--format", "json", "--quiet")
BLANKED = re.compile(r'--store [\w-]+|"(?:started_at|finished_at|seconds)": ?(?:"[^"]*"|[\d.]+)')


@pytest.fixture(scope="module")
def of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With an archive: duplicates and conflicts within files and across them, rejects, a file that is not cut."""
    with machine(tmp_path_factory.mktemp("deaths")) as found:
        archive = found.directory / "archive"
        archive.mkdir()
        for first, name in enumerate(("a.jsonl", "b.jsonl", "c.jsonl")):
            numbers = range(first * 10_000, first * 10_000 + 14_000)
            lines = [
                event(number, number % 6 + 1, f"k{number % 5000}" if number % 7 == 0 else None) for number in numbers
            ]
            (archive / name).write_bytes(b"\n".join([*lines, b"{", b""]))
        lines = [event(number, number % 6 + 1) for number in range(9000, 17_000)]
        (archive / "d.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines), mtime=0))
        yield found


@pytest.fixture(scope="module")
def reference(of_all: Machine) -> tuple[Ended, dict[str, Any], int]:
    """What an ingest that nothing disturbs says and leaves, and its segments."""
    of_all.here("--store", "reference", "init")
    done = of_all.here("ingest", "archive", "--store", "reference", *ON)
    assert done.code == 3, done.err
    return done, snapshot(open_store(str(of_all.directory / "reference"))), len(segments(of_all, "reference"))


def segments(of: Machine, store: str) -> dict[str, str]:
    """The segments' keys, and the digests of their bytes."""
    top = of.directory / store / "raw"
    return {str(path.relative_to(top)): sha256(path.read_bytes()).hexdigest() for path in top.glob("event_date=*/*")}


def ingest(of: Machine, store: str, *deaths: Death, draw: Random) -> Ended:
    raw = of.directory / store / "raw"
    made = lambda: sum(1 for _ in raw.glob("event_date=*/*"))  # noqa: E731
    return of.run("ingest", "archive", "--store", store, *ON, deaths=deaths, made=made, draw=draw)


def expect_as_undisturbed(of: Machine, store: str, reference: tuple[Ended, dict[str, Any], int]) -> Ended:
    """Return what an ingest by the same plan, which nothing disturbs, says; it leaves the same bytes."""
    again = f"{store}-undisturbed"
    of.here("--store", again, "init")
    shutil.copytree(of.directory / store / "raw/plans", of.directory / again / "raw/plans")
    done = of.here("ingest", "archive", "--store", again, *ON)
    assert segments(of, store) == segments(of, again)
    assert snapshot(open_store(str(of.directory / store))) == reference[1]
    expect_sound(of, store)
    return done


def expect_sound(of: Machine, store: str) -> None:
    verified = of.here("--store", store, "verify", "--full", "--format", "json")
    assert (verified.code, json.loads(verified.out)["problems"]) == (0, []), verified.out


@pytest.mark.parametrize("seed", [1, 2])
def test_promise_6_executors_are_killed_in_a_bulk_ingest(
    of_all: Machine, reference: tuple[Ended, dict[str, Any], int], seed: int
) -> None:
    draw, store = Random(seed), f"executors{seed}"
    of_all.here("--store", store, "init")
    made = sorted(draw.sample(range(reference[2] * 3 // 4), 3))
    kinds = draw.sample([EXECUTOR, PYTHON, draw.choice([EXECUTOR, PYTHON])], 3)
    done = ingest(of_all, store, *map(Death, kinds, made), draw=draw)
    assert done.kills >= 2
    expected = expect_as_undisturbed(of_all, store, reference)
    assert BLANKED.sub("", done.out) == BLANKED.sub("", expected.out)
    assert (done.code, done.err) == (expected.code, expected.err)


@pytest.mark.parametrize(("seed", "victim", "times"), [(1, DRIVER, 2), (2, DRIVER, 1), (3, JAVA, 1)])
def test_promise_1_the_driver_of_a_bulk_ingest_is_killed(
    of_all: Machine, reference: tuple[Ended, dict[str, Any], int], seed: int, victim: str, times: int
) -> None:
    """Each time at another instant; then the same command goes on."""
    draw, store = Random(seed), f"driver{seed}"
    of_all.here("--store", store, "init")
    for _ in range(times):
        killed = ingest(of_all, store, Death(victim, draw.randrange(reference[2] * 3 // 4)), draw=draw)
        assert killed.kills == 1
        expect_killed(killed, victim)
        expect_sound(of_all, store)
    done = ingest(of_all, store, draw=draw)
    assert done.code == 3
    expect_as_undisturbed(of_all, store, reference)


def expect_killed(ended: Ended, victim: str) -> None:
    """pik itself, without a word; or its Java: that is an error of the cluster, in words."""
    if victim == DRIVER:
        assert (ended.code, ended.out, ended.err) == (-9, "", "")
    else:
        (error,) = ended.err.splitlines()
        said = json.loads(error)
        assert (ended.code, said["exit_code"]) == (4, 4)
        assert "local-cluster[2,1,1024]" in said["error"]
        assert said["hint"]


PARTITIONS = [(), ("--partition-by", "event_date")]


def export(of: Machine, out: str, options: tuple[str, ...], *deaths: Death, draw: Random) -> Ended:
    made = lambda: sum(1 for _ in of.directory.glob(f".{out}.pik-*/*/*"))  # noqa: E731
    words = ("export", "--store", "reference", "--out", out, *options, *ON)
    return of.run(*words, deaths=deaths, made=made, draw=draw)


def undisturbed(of: Machine, options: tuple[str, ...]) -> dict[str, Any]:
    """What an export says; its rows are in `expected`."""
    shutil.rmtree(of.directory / "expected", ignore_errors=True)
    done = of.here("export", "--store", "reference", "--out", "expected", *options, *ON)
    return without_place(done)


def without_place(done: Ended) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(done.out)
    del said["out"], said["manifest"]
    return said


def expect_exported(of: Machine, out: str, expected: dict[str, Any], done: Ended) -> None:
    assert (done.code, done.err) == (0, "")
    assert without_place(done) == expected
    assert rows_of(of.directory / out, "parquet") == rows_of(of.directory / "expected", "parquet")
    manifest = json.loads((of.directory / out / "_manifest.json").read_text())
    written = {str(path.relative_to(of.directory / out)) for path in (of.directory / out).rglob("*.parquet")}
    assert {file["path"] for file in manifest["files"]} == written
    assert list(of.directory.glob(f".{out}.*")) == []


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize(("options", "seed"), [(PARTITIONS[0], 1), (PARTITIONS[0], 2), (PARTITIONS[1], 1)])
def test_promise_6_executors_are_killed_in_an_export(of_all: Machine, options: tuple[str, ...], seed: int) -> None:
    draw, out = Random(seed), f"export{len(options)}-executors{seed}"
    expected = undisturbed(of_all, options)
    made = sorted(draw.sample(range(len(expected["files"]) * 3 // 4), 2))
    done = export(of_all, out, options, *map(Death, draw.sample([EXECUTOR, PYTHON], 2), made), draw=draw)
    assert done.kills >= 1
    expect_exported(of_all, out, expected, done)


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize(("seed", "victim", "options"), [(1, DRIVER, ()), (2, DRIVER, PARTITIONS[1]), (3, JAVA, ())])
def test_the_driver_of_an_export_is_killed(of_all: Machine, seed: int, victim: str, options: tuple[str, ...]) -> None:
    """Nothing is there then that could be taken for an export, and the same command makes one."""
    draw, out = Random(seed), f"export{len(options)}-driver{seed}"
    expected = undisturbed(of_all, options)
    killed = export(of_all, out, options, Death(victim, draw.randrange(len(expected["files"]) // 2)), draw=draw)
    assert killed.kills == 1
    expect_killed(killed, victim)
    assert not (of_all.directory / out).exists()
    expect_exported(of_all, out, expected, export(of_all, out, options, draw=draw))
