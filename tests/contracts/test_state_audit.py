"""The contract of pik.ports.state: each row of state that is lost or changed is found, and nothing else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.errors import Damaged
from pik.model.aggregate import Computed
from pik.model.metric import Definition
from pik.model.run import NO_FAILURES, FailedAggregate, Failures, Run, RunRequest, RunState, Task, TaskState
from pik.model.window import ALL_TIME
from pik.ports.state import Message
from pik.stores.aws.state.aggregates import listed_buckets
from pik.stores.aws.state.audit import AwsStateAudit
from pik.stores.aws.state.layout import current_key, current_pk, entity_shard, version_key
from pik.stores.local.state.audit import LocalStateAudit
from pik.stores.state_rows import AggregatePlace
from pik.usecases.metrics.definitions import add_version

from .conftest import State

ON_LOCAL = pytest.mark.parametrize("state", ["local"], indirect=True)
ON_STACK = pytest.mark.parametrize("state", ["aws"], indirect=True)
"""Which store a test of its files, or of its items, is for; the others run on both."""

RUNS = ("01J00000000000000000000001", "01J00000000000000000000002", "01J00000000000000000000003")


def row(entity: str, value: int, bucket: int = 0) -> Computed:
    return Computed("a", bucket, entity, Decimal(value), value, f"{value:032x}", f"{value:032x}")


def run_of(run_id: str) -> Run:
    request = RunRequest(start=0, end=100, reason="why")
    return Run(
        run_id=run_id,
        request=request,
        state=RunState.PLANNED,
        created_at=1,
        finished_at=None,
        effective_start=0,
        effective_end=100,
        events_matched=1,
        buckets=1,
        corrections_until=3,
        tasks=2,
    )


def task(run_id: str, number: int) -> Task:
    return Task(run_id=run_id, number=number, metrics=("a@1",), start=0, end=100)


def write(state: State, run_id: str, number: int, rows: list[Computed], failures: Failures = NO_FAILURES) -> None:
    state.aggregates.write(
        task(run_id, number),
        iter(rows),
        versions={"a": 1},
        known_until=5,
        reason="why",
        computed_by=["pik 1", "DuckDB 2"][: number + 1],
    )
    state.runs.mark(task(run_id, number), TaskState.DONE, failures)


@pytest.fixture
def lived(state: State) -> State:
    """A state in which something of every kind has happened."""
    add_version(state.metrics, Definition(name="a", value="count(*)"), 1)
    add_version(state.metrics, Definition(name="a", value="count(*)", description="again"), 2)
    for number, run_id in enumerate(RUNS, 1):
        state.runs.create(run_of(run_id), [task(run_id, 0), task(run_id, 1)])
        state.runs.set_state(run_id, RunState.RUNNING)
        write(state, run_id, 0, [row("e", number), row("f", number)])
        failed = FailedAggregate(
            metric="a", metric_version=1, inputs=1, bucket=0, entity_id="z", reason="no number", events=1
        )
        write(state, run_id, 1, [row("e", number, 50)], Failures(count=1, kept=(failed,)))
        state.runs.set_state(run_id, RunState.COMPLETED, 9)
        if number < 3:
            state.promotions.promote(run_id, number, "")
    state.promotions.rollback(RUNS[1], 7, "")
    state.promotions.promote(RUNS[1], 8, "")
    return state


def test_a_sound_state_has_no_problem(lived: State) -> None:
    assert list(lived.audit.problems()) == []
    assert lived.runs.get(RUNS[0]).computed_by == ("DuckDB 2", "pik 1")


def test_what_is_under_way_is_no_problem(lived: State) -> None:
    run_id = "01J00000000000000000000009"
    lived.runs.create(run_of(run_id), [task(run_id, 0), task(run_id, 1)])
    lived.runs.set_state(run_id, RunState.RUNNING)
    lived.queue.send([task(run_id, 0), task(run_id, 1)])
    write(lived, run_id, 0, [row("e", 9), row("g", 9)])
    assert list(lived.audit.problems()) == []


def test_a_mended_pointer_is_no_problem(lived: State) -> None:
    """A lost pointer is found; replaying and promoting puts another one there, and that ends it."""
    delete_pointer(lived, "e")
    assert [(one.what, one.entity) for one in lived.audit.problems()] == [("current a", "e")]
    run_id = "01J00000000000000000000009"
    lived.runs.create(run_of(run_id), [task(run_id, 0), task(run_id, 1)])
    write(lived, run_id, 0, [row("e", 9)])
    lived.promotions.promote(run_id, 9, "")
    assert list(lived.audit.problems()) == []


def delete_pointer(state: State, entity: str) -> None:
    if isinstance(state.audit, LocalStateAudit):
        execute(state.audit, "DELETE FROM current WHERE bucket = 0 AND entity = ?", entity)
    else:
        assert isinstance(state.audit, AwsStateAudit)
        items = state.audit.table.scan()
        keys = [
            (item["pk"], item["sk"]) for item in items if item["pk"].startswith("current/") and item["sk"] == entity
        ]
        state.audit.table.delete(sorted(keys)[0])


def execute(audit: LocalStateAudit, statement: str, *values: Any) -> None:
    """As a hand would, behind pik's back."""
    audit.database.close()
    connection = sqlite3.connect(audit.database.path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def changes_of_tables(audit: LocalStateAudit) -> Iterator[tuple[str, str]]:
    """For every table, the deletion of a row and a change of each column: what it is, and the statement."""
    connection = sqlite3.connect(audit.database.path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for table in tables:
        info = connection.execute(f"PRAGMA table_info({table})").fetchall()
        key = [column[1] for column in info if column[5]]
        first = f"({', '.join(key)}) = (SELECT {', '.join(key)} FROM {table} LIMIT 1)"
        if connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0:
            continue
        yield f"{table} deleted", f"DELETE FROM {table} WHERE {first}"
        for _, name, kind, *_ in info:
            other = {"INTEGER": f"coalesce({name}, 0) + 1000", "BLOB": "randomblob(16)"}.get(kind, f"{name} || 'x'")
            yield f"{table}.{name}", f"UPDATE {table} SET {name} = {other} WHERE {first}"
    connection.close()


def is_harmless(what: str) -> bool:
    """What says only that a file is there, and the queue: open tasks are sent again by whoever goes on with a run."""
    return what in ("metric.sealed", "promotion.sealed") or (what.startswith("message") and what != "message.body")


@ON_LOCAL
def test_each_row_that_a_hand_deletes_or_changes_is_found_in_a_local_store(lived: State) -> None:
    assert isinstance(lived.audit, LocalStateAudit)
    state, path = lived, lived.audit.database.path
    state.queue.send([task(RUNS[0], 0)])
    state.dead_letters.bury(Message(task(RUNS[0], 0), "", 1), "", 1)
    lived.audit.database.close()
    whole = path.read_bytes()
    unseen = []
    for what, statement in list(changes_of_tables(lived.audit)):
        try:
            execute(lived.audit, statement)
        except sqlite3.IntegrityError:
            continue
        if not is_harmless(what) and not list(state.audit.problems()):
            unseen.append(what)
        lived.audit.database.close()
        for beside in path.parent.glob("state.db*"):
            beside.unlink()
        path.write_bytes(whole)
    assert unseen == []


@ON_LOCAL
def test_each_file_of_a_definition_or_promotion_is_found_lost_or_changed(lived: State, tmp_path: Path) -> None:
    files = sorted(tmp_path.glob("state/*/*"))
    assert len(files) == 6
    for file in files:
        data = file.read_bytes()
        file.chmod(0o644)
        for change in (None, data[:-3], bytes([data[0] ^ 1]) + data[1:], data.replace(b'":', b'":1', 1)):
            file.unlink() if change is None else file.write_bytes(change)
            (problem,) = lived.audit.problems()
            assert file.name in problem.detail + problem.what
            file.write_bytes(data)
    assert list(lived.audit.problems()) == []


@ON_LOCAL
def test_a_promotion_that_the_database_has_lost_is_named_by_its_file(lived: State) -> None:
    """E3: a log that is cut takes committed promotions along."""
    assert isinstance(lived.audit, LocalStateAudit)
    database = lived.audit.database
    database.close()
    before = database.path.read_bytes()
    lived.promotions.promote(RUNS[2], 99, "last")
    database.close()
    for beside in database.path.parent.glob("state.db*"):
        beside.unlink()
    database.path.write_bytes(before)
    (problem,) = lived.audit.problems()
    assert problem.what.startswith("promote ")
    assert problem.what.endswith(f"of run {RUNS[2]}")


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value + (b"x" if isinstance(value, bytes) else "x")


@ON_STACK
def test_each_item_that_a_hand_deletes_or_changes_is_found_in_a_stack(lived: State) -> None:
    assert isinstance(lived.audit, AwsStateAudit)
    table = lived.audit.table
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for item in table.scan():
        parts = item["pk"].split("/")
        kinds.setdefault((parts[0], {"run": item["sk"].partition("/")[0], "sealed": parts[-1]}.get(parts[0], "")), item)
    kinds = {key: item for key, item in kinds.items() if key[0] not in ("lease", "request")}
    assert len(kinds) == 13
    unseen = []
    for (pk, sk), item in kinds.items():
        table.delete((item["pk"], item["sk"]))
        if not list(lived.audit.problems()):
            unseen.append(f"{pk} {sk} deleted")
        for name in item.keys() - {"pk", "sk"}:
            table.put({**item, name: _other(item[name])})
            if not list(lived.audit.problems()):
                unseen.append(f"{pk} {sk} {name}")
        table.put(item)
    assert not unseen, unseen
    assert list(lived.audit.problems()) == []


@pytest.mark.parametrize("what", ["version", "pointer"])
def test_a_damaged_row_is_not_promoted_nor_shown_as_sound(lived: State, what: str) -> None:
    damage(lived, what)
    with pytest.raises(Damaged, match="digest does not match"):
        lived.promotions.promote(RUNS[2] if what == "version" else RUNS[1], 1, "")
    with pytest.raises(Damaged, match="digest does not match"):
        lived.promotions.rollback(RUNS[2] if what == "version" else RUNS[1], 1, "", dry_run=True)
    read = lived.aggregates.versions if what == "version" else lived.aggregates.current
    history = read("a", ALL_TIME, ["e"])
    assert not all(one.sound for one in history)


@pytest.mark.parametrize(("what", "history"), [("version", True), ("pointer", False), ("pointer", True)])
def test_a_reader_who_asks_for_checked_rows_is_reported_a_damaged_one_without_naming_entities(
    lived: State, what: str, history: bool
) -> None:
    damage(lived, what, RUNS[1])
    read = lived.aggregates.versions if history else lived.aggregates.current
    rows = read("a", ALL_TIME, checked=True)
    assert {(one.computed.entity_id, one.computed.bucket) for one in rows if not one.sound} == {("e", 0)}


@ON_LOCAL
def test_a_pointer_that_was_moved_to_another_bucket_is_refused(lived: State) -> None:
    assert isinstance(lived.audit, LocalStateAudit)
    execute(lived.audit, "UPDATE current SET bucket = 1 WHERE bucket = 0 AND entity = 'e'")
    for entities in ([], ["e"]):
        with pytest.raises(Damaged, match="pointer to the current a of e"):
            list(lived.aggregates.current("a", ALL_TIME, entities, checked=True))


@ON_STACK
def test_a_value_that_is_not_a_number_is_damage(lived: State) -> None:
    assert isinstance(lived.audit, AwsStateAudit)
    table = lived.audit.table
    item = next(one for one in table.scan() if one["pk"].startswith("current/a/"))
    table.put({**item, "value": "x"})
    for checked in (False, True):
        with pytest.raises(Damaged, match="digest does not match"):
            list(lived.aggregates.current("a", ALL_TIME, checked=checked))


@ON_STACK
def test_a_pointer_item_under_the_key_of_another_bucket_is_refused(lived: State) -> None:
    assert isinstance(lived.audit, AwsStateAudit)
    table = lived.audit.table
    item = table.get(current_key(AggregatePlace("a", 0, "e")))
    assert item is not None
    other = next(one.start for one in listed_buckets(table, "a", ALL_TIME) if one.start)
    table.put({**item, "pk": current_pk("a", other, entity_shard("e"))})
    assert not all(one.sound for one in lived.aggregates.current("a", ALL_TIME, checked=True))


def damage(state: State, what: str, run_id: str = RUNS[2]) -> None:
    """Change the version of `e` in bucket 0 that a run wrote, or the pointer to the current one."""
    if isinstance(state.audit, LocalStateAudit):
        name = {"version": "version", "pointer": "current"}[what]
        column = {"version": "value = value + 1", "pointer": "digest = randomblob(16)"}[what]
        of_run = f"writer = (SELECT number FROM writer WHERE run_id = '{run_id}') AND" if what == "version" else ""
        execute(state.audit, f"UPDATE {name} SET {column} WHERE {of_run} bucket = 0 AND entity = 'e'")
    else:
        assert isinstance(state.audit, AwsStateAudit)
        table = state.audit.table
        wanted = f"version/{run_id}" if what == "version" else "current/a/"
        item = next(
            one for one in table.scan() if one["pk"].startswith(wanted) and one["sk"].rpartition("\x1f")[2] == "e"
        )
        table.put({**item, "value": item["value"] + "1"})


def test_a_run_that_has_lost_a_version_is_not_promoted(lived: State) -> None:
    if isinstance(lived.audit, LocalStateAudit):
        execute(lived.audit, "DELETE FROM version WHERE writer = 3 AND entity = 'f'")
    else:
        assert isinstance(lived.audit, AwsStateAudit)
        table = lived.audit.table
        table.delete(version_key(RUNS[2], AggregatePlace("a", 0, "f")))
    with pytest.raises(Damaged, match="wrote 3 versions, and 2"):
        lived.promotions.promote(RUNS[2], 1, "")
