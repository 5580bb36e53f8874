"""The contract of pik.ports.state: what one store's state is becomes another's, whichever the two are."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import zstandard
from msgspec import structs

from pik.errors import Busy, Damaged, InputError, StoreError, UsageError
from pik.model.metric import Definition
from pik.model.run import FailedAggregate, Failures, RunState, TaskState
from pik.model.window import ALL_TIME
from pik.ports.backup import PointerRow, VersionRow
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.backup import backup, restore
from pik.usecases.metrics.definitions import add_version
from pik.usecases.metrics.retire import retire
from tests.support.faults import Crash

from .conftest import STORES, aws_store, local_store
from .test_republishes import refusal, republish_of
from .test_state_audit import RUNS, row, run_of, task

QUIET = SILENT

PAIRS: list[Any] = [("local", "aws"), ("aws", "local")]
PAIRS += [
    pytest.param(*one, marks=pytest.mark.slow) for one in product([*STORES, "compacted"], STORES) if one not in PAIRS
]
"""Stores, and those that their state is restored into."""


@pytest.fixture
def other_store(request: pytest.FixtureRequest, other: str, tmp_path: Path) -> Store:
    return local_store(tmp_path / "other") if other == "local" else aws_store(request.getfixturevalue("aws"))


def live(store: Store) -> None:
    """Let something of every kind happen."""
    add_version(store.metrics, Definition(name="a", value="count(*)"), 1)
    add_version(store.metrics, Definition(name="a", value="count(*)", description="again"), 2)
    for number, run_id in enumerate(RUNS, 1):
        store.runs.create(run_of(run_id), [task(run_id, 0), task(run_id, 1)])
        store.runs.set_state(run_id, RunState.RUNNING)
        imported = structs.replace(row("f", number), inputs=None)
        for at, rows in enumerate(([row("e", number), imported], [row("é", number, 50)])):
            store.aggregates.write(
                task(run_id, at),
                iter(rows),
                versions={"a": 2},
                known_until=5,
                reason="why",
                computed_by=["pik 1", "DuckDB 2"],
            )
            failed = FailedAggregate(
                metric="a", metric_version=1, inputs=1, bucket=0, entity_id="z", reason="no number", events=1
            )
            store.runs.mark(task(run_id, at), TaskState.DONE, Failures(count=at, kept=(failed,) * at))
        if number < 3:
            store.runs.set_state(run_id, RunState.COMPLETED, 9)
            store.promotions.promote(run_id, number, "because")
    store.promotions.rollback(RUNS[1], 7, "")
    store.runs.create(run_of("01J00000000000000000000009"), [task("01J00000000000000000000009", at) for at in (0, 1)])
    planning = structs.replace(run_of("01J00000000000000000000010"), state=RunState.PLANNING, tasks=0)
    store.runs.create(planning, ())
    store.runs.create(structs.replace(planning, run_id="01J00000000000000000000011"), ())
    store.runs.set_state("01J00000000000000000000011", RunState.FAILED, 9, "too large")
    store.runs.mark(task("01J00000000000000000000009", 0), TaskState.FAILED)
    bury(store, task("01J00000000000000000000009", 0))
    bury(store, task("01J00000000000000000000009", 1))
    letter = next(one for one in store.dead_letters.letters() if one.task.number == 1)
    store.dead_letters.purge([structs.replace(letter, purged_at=3, purge_reason="no more")])
    for number in (1, 2):
        store.republishes.create(republish_of(number))
    retire(store.metrics, "a", 3, actor="ana", reason="not used")
    refused = [refusal(seq) for seq in (1, 2, 3)]
    store.republishes.record(structs.replace(republish_of(2), refused=3, cursor=refused[-1].place), refused)


def bury(store: Store, buried: Any) -> None:
    store.queue.send([buried])
    message = None
    while message is None:
        message = store.queue.receive(buried.run_id, 60)
    store.dead_letters.bury(message, "no luck", 5)
    store.queue.acknowledge(message.receipt)


def answers(store: Store) -> dict[str, Any]:
    """All that the state says; letters without their ids, which SQS makes."""
    runs = list(store.runs.newest_first())
    letters = [*store.dead_letters.letters(), *store.dead_letters.purged()]
    return {
        "metrics": store.metrics.latest(),
        "versions": store.metrics.versions("a"),
        "runs": [store.runs.get(run.run_id) for run in runs],
        "open": {run.run_id: list(store.runs.open_tasks(run.run_id)) for run in runs},
        "current": list(store.aggregates.current("a", ALL_TIME)),
        "history": list(store.aggregates.versions("a", ALL_TIME)),
        "changes": {run.run_id: list(store.aggregates.changes(run.run_id)) for run in runs},
        "promotions": list(store.promotions.newest_first()),
        "republishes": list(store.republishes.newest_first()),
        "refusals": [list(store.republishes.refusals(one.republish_id)) for one in store.republishes.newest_first()],
        "letters": sorted((one.task.number, one.reason, one.purged_at, one.purge_reason) for one in letters),
    }


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_a_restored_state_answers_as_the_one_that_was_backed_up(
    store: Store, other_store: Store, tmp_path: Path
) -> None:
    live(store)
    before, file = answers(store), tmp_path / "state.backup"
    made = backup(store, file, QUIET)
    assert made.rows == {"metric": 3, "run": 6, "task": 8, "version": 9, "promotion": 3, "current": 3, "letter": 2} | {
        "republish": 2,
        "refusal": 3,
    }
    assert restore(other_store, file, QUIET, dry_run=True).rows == made.rows
    assert not other_store.backup.has_state()
    assert restore(other_store, file, QUIET).digest == made.digest
    assert answers(other_store) == before
    assert list(other_store.state_audit.problems()) == []
    again = tmp_path / "again.backup"
    assert backup(other_store, again, QUIET).rows == made.rows
    other_store.promotions.promote(RUNS[1], 11, "goes on")
    assert list(other_store.state_audit.problems()) == []
    with pytest.raises(StoreError, match="already has state"):
        restore(other_store, file, QUIET)
    read = restore(other_store, file, QUIET, dry_run=True)
    assert (read.rows, read.digest, read.refused) == (made.rows, made.digest, True)
    with pytest.raises(UsageError, match="exists already"):
        backup(store, file, QUIET)


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_a_restore_that_was_interrupted_resumes(store: Store, other_store: Store) -> None:
    live(store)
    before = answers(store)

    def some(rows: Iterator[Any], count: int) -> Iterator[Any]:
        for number, one in enumerate(rows):
            if number == count:
                raise KeyboardInterrupt
            yield one

    for count in (1, 15):
        with store.backup.rows() as rows, pytest.raises(KeyboardInterrupt):
            other_store.backup.restore(some(rows, count), "one")
    assert list(other_store.runs.newest_first()) == []
    if other_store.deployed:
        assert other_store.backup.has_state("another")
    with store.backup.rows() as rows:
        other_store.backup.restore(some(rows, -1), "one")
    assert answers(other_store) == before


def test_a_pointer_to_a_version_that_the_backup_lacks_is_not_restored(store: Store) -> None:
    pointer = PointerRow("a", 0, "e", RUNS[0])
    with pytest.raises(Damaged, match="lacks the current version"):
        store.backup.restore(iter([pointer]), "name")


@pytest.mark.parametrize("other", ["local"])
def test_a_version_that_was_changed_is_not_restored(store: Store, other_store: Store) -> None:
    live(store)

    def altered(rows: Iterator[Any]) -> Iterator[Any]:
        for one in rows:
            yield structs.replace(one, value="77") if isinstance(one, VersionRow) and one.entity == "é" else one

    with store.backup.rows() as rows, pytest.raises(Damaged, match="digest does not match"):
        other_store.backup.restore(altered(rows), "one")


def mangled(data: bytes) -> Iterator[bytes]:
    """The file cut, with a flipped bit, longer, empty, or another kind of file."""
    for size in (0, 1, 39, 40, len(data) // 2, len(data) - 1):
        yield data[:size]
    for place in random.Random(1).sample(range(len(data)), 20):
        yield data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
    yield data + b"x"
    yield data + data
    yield zstandard.compress(b'{"type":"backup"}\n')
    yield b'{"source":"web"}\n' * 100


def test_a_file_that_is_not_a_whole_backup_is_refused(tmp_path: Path) -> None:
    store = local_store(tmp_path / "one")
    live(store)
    file, bad = tmp_path / "state.backup", tmp_path / "bad"
    backup(store, file, QUIET)
    other = local_store(tmp_path / "other")
    for data in mangled(file.read_bytes()):
        bad.write_bytes(data)
        with pytest.raises(InputError, match=r"backup|cut or changed|is empty") as refused:
            restore(other, bad, QUIET)
        assert refused.value.hint
    assert not other.backup.has_state()
    with pytest.raises(InputError, match="cannot read"):
        restore(other, tmp_path / "none", QUIET)


def test_a_lost_state_db_is_restored_in_its_place(tmp_path: Path) -> None:
    store = local_store(tmp_path / "one")
    live(store)
    before, file = answers(store), tmp_path / "state.backup"
    backup(store, file, QUIET)
    database = store.aggregates.database  # type: ignore[attr-defined]
    database.close()
    database.path.unlink()
    restore(store, file, QUIET)
    assert answers(store) == before
    assert list(store.state_audit.problems()) == []


def test_a_backup_is_of_one_moment_in_a_local_store(tmp_path: Path) -> None:
    """While others write: what came after the first row was read is not in it."""
    store, other = local_store(tmp_path / "one"), local_store(tmp_path / "other")
    live(store)
    before = answers(store)
    with store.backup.rows() as rows:
        first = next(rows)
        store.promotions.promote(RUNS[2], 99, "meanwhile")
        add_version(store.metrics, Definition(name="b", value="count(*)"), 1)

        def all_rows() -> Iterator[Any]:
            yield first
            yield from rows

        other.backup.restore(all_rows(), "one")
    assert answers(other) == before
    assert answers(store) != before


def by_hand(store: Store, statement: str, *values: Any) -> None:
    """As a hand or a disk would, behind pik's back."""
    database = store.aggregates.database  # type: ignore[attr-defined]
    database.close()
    with closing(sqlite3.connect(database.path)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def drop_state(store: Store) -> None:
    database = store.aggregates.database  # type: ignore[attr-defined]
    database.close()
    database.path.unlink()


@pytest.mark.parametrize("column", ["value = '8'", "inputs = inputs + 1", "digest = zeroblob(16)"])
def test_a_damaged_version_that_is_not_current_is_left_out_and_that_heals(tmp_path: Path, column: str) -> None:
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    before = answers(store)
    where = "entity = 'e' AND writer = (SELECT number FROM writer WHERE run_id = ?)"
    by_hand(store, f"UPDATE version SET {column} WHERE {where}", RUNS[1])
    (problem,) = store.state_audit.problems()
    assert (problem.entity, problem.is_past) == ("e", True)
    made = backup(store, file, QUIET)
    assert [(one.entity, one.run_id) for one in made.omitted] == [("e", RUNS[1])]
    assert made.rows["version"] == 8
    drop_state(store)
    assert restore(store, file, QUIET).lacking == ()
    assert list(store.state_audit.problems()) == []
    assert answers(store)["current"] == before["current"]
    assert backup(store, tmp_path / "again.backup", QUIET).omitted == ()


def test_a_damaged_version_that_is_current_is_not_left_out(tmp_path: Path) -> None:
    store = local_store(tmp_path / "one")
    live(store)
    where = "entity = 'e' AND writer = (SELECT number FROM writer WHERE run_id = ?)"
    by_hand(store, f"UPDATE version SET value = '8' WHERE {where}", RUNS[0])
    assert not any(problem.is_past for problem in store.state_audit.problems())
    with pytest.raises(Damaged):
        backup(store, tmp_path / "state.backup", QUIET)


def test_a_damaged_row_without_a_copy_is_named_whatever_damage_made_of_it(tmp_path: Path) -> None:
    store = local_store(tmp_path / "one")
    live(store)
    by_hand(store, "UPDATE metric SET version = 'x' WHERE version = 2")
    with pytest.raises(Damaged, match="metric a"):
        backup(store, tmp_path / "state.backup", QUIET)


def test_a_rollback_to_a_version_that_was_left_out_is_refused(tmp_path: Path) -> None:
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    store.promotions.promote(RUNS[1], 11, "again")
    where = "entity = 'e' AND writer = (SELECT number FROM writer WHERE run_id = ?)"
    by_hand(store, f"UPDATE version SET value = '8' WHERE {where}", RUNS[0])
    backup(store, file, QUIET)
    drop_state(store)
    restore(store, file, QUIET)
    with pytest.raises(Damaged, match="current before run"):
        store.promotions.rollback(RUNS[1], 12, "")
    assert list(store.state_audit.problems()) == []


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *[("promotion", f"{name} = {name} || 'x'") for name in ("run_id", "reason")],
        *[("promotion", f"{name} = {name} + 1") for name in ("moved", "pointers")],
        ("promotion", "pointers_xor = zeroblob(16)"),
        ("metric", "applied_at = applied_at + 1"),
    ],
)
def test_a_damaged_row_whose_copy_is_whole_comes_from_the_copy(tmp_path: Path, table: str, column: str) -> None:
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    before = answers(store)
    first = "number = 1" if table == "promotion" else "version = 1"
    by_hand(store, f"UPDATE {table} SET {column} WHERE {first}")
    (problem,) = store.state_audit.problems()
    assert re.search("its copy .* is whole", problem.detail)
    assert "`pik backup FILE` takes the copy" in problem.remedy
    backup(store, file, QUIET)
    drop_state(store)
    restore(store, file, QUIET)
    assert list(store.state_audit.problems()) == []
    assert answers(store) == before


def test_an_altered_copy_of_a_row_is_written_again(tmp_path: Path) -> None:
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    copy = next((Path(store.url) / "state" / "promotion").iterdir())
    copy.chmod(0o644)
    copy.write_text("{}")
    assert len(list(store.state_audit.problems())) == 1
    backup(store, file, QUIET)
    drop_state(store)
    assert restore(store, file, QUIET).lacking == ()
    assert list(store.state_audit.problems()) == []


def test_an_older_backup_lists_what_it_lacks_and_that_ends_it(tmp_path: Path) -> None:
    """The files of definitions and promotions were left in their place, and tell what came after it."""
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    backup(store, file, QUIET)
    add_version(store.metrics, Definition(name="b", value="count(*)"), 3)
    store.promotions.promote(RUNS[2], 11, "later")
    drop_state(store)
    done = restore(store, file, QUIET)
    assert [name.split()[0] for name in done.lacking] == ["metric", "promote"]
    assert list(store.state_audit.problems()) == []
    add_version(store.metrics, Definition(name="b", value="count(*)"), 4)
    store.promotions.promote(RUNS[2], 12, "once more")
    assert list(store.state_audit.problems()) == []


@pytest.mark.parametrize(("call", "step"), [("fsync", 4), ("link", 3), ("replace", 1), ("unlink", 3)])
def test_promise_1_a_restore_that_dies_at_any_call_of_the_system_is_resumed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, step: int
) -> None:
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    before = answers(store)
    digest = backup(store, file, QUIET).digest
    add_version(store.metrics, Definition(name="b", value="count(*)"), 3)
    drop_state(store)
    died = 0
    for number in range(1, 100, step):
        root = tmp_path / f"store{number}"
        shutil.copytree(store.url, root)
        (root / "state.db").unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            made = dying_at(patch, call, number)
            with suppress(Crash):
                restore(open_store(str(root)), file, QUIET)
        again = open_store(str(root))
        if len(made) < number:
            break
        died += 1
        if not again.backup.has_state(digest):  # else it died after the last thing that it had to do
            assert [name.split()[0] for name in restore(again, file, QUIET).lacking] == ["metric"], number
        assert list(again.state_audit.problems()) == [], number
        assert answers(again) == before
        with pytest.raises(StoreError, match="already has state"):
            restore(again, file, QUIET)
    assert died > (call == "fsync")


def dying_at(patch: pytest.MonkeyPatch, name: str, number: int) -> list[str]:
    """The process ends at the n-th call; the calls that were made."""
    real, made = getattr(os, name), list[str]()

    def call(*arguments: Any, **options: Any) -> Any:
        made.append(name)
        if len(made) == number:
            raise Crash
        return real(*arguments, **options)

    patch.setattr(os, name, call)
    return made


def test_a_state_that_went_on_is_not_taken_for_an_interrupted_restore(tmp_path: Path) -> None:
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    digest = backup(store, file, QUIET).digest
    drop_state(store)
    restore(store, file, QUIET)
    (Path(store.url) / "state" / "restoring.json").write_text(f'{{"name":"{digest}","lacking":[]}}')
    store.promotions.promote(RUNS[1], 11, "goes on")
    for said in ("holds state already", "already has state"):
        with pytest.raises(StoreError, match=said):
            restore(store, file, QUIET)


def test_of_two_restores_at_once_one_is_told_of_the_other(tmp_path: Path) -> None:
    store, file = local_store(tmp_path / "one"), tmp_path / "state.backup"
    live(store)
    before = answers(store)
    backup(store, file, QUIET)
    with store.backup.rows() as rows:
        taken = list(rows)
    drop_state(store)

    def while_another(rows: Iterator[Any]) -> Iterator[Any]:
        yield next(rows)
        with pytest.raises(Busy, match="another pik process is working on a restore"):
            restore(store, file, QUIET)
        yield from rows

    store.backup.restore(while_another(iter(taken)), "one")
    assert answers(store) == before
