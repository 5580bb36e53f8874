"""DRY_RUN=true: everything is checked and counted, nothing is written or sent."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest

from pik import lambdas
from pik.lambdas import ingest, processor
from pik.lambdas import replay as replaying
from pik.lambdas.planning import Call
from pik.model.run import RunRequest
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.usecases.replay.planning import accepted
from tests.support.lambdas.calls import asked, event, get, messages, post, some_days, wire
from tests.support.lambdas.gateway import CONTEXT

READING = {
    *(
        "read",
        "size",
        "objects",
        "files",
        "scratch",
        "find",
        "segments",
        "skipped",
        "locate",
        "deliveries",
        "segments_of",
    ),
    *(
        "batches",
        "rejects",
        "totals",
        "summary",
        "differing",
        "rows",
        "damage",
        "knows",
        "recorded",
        "expect_ready",
        "latest",
        "versions",
        "get",
        "newest_first",
        "unfinished",
        "batch_of",
    ),
    *("open_tasks", "letters", "current", "digests", "changes", "tally", "promotions"),
}
"""Methods of ports that change nothing. Any other one, receiving too, is noted and refused."""


class _ReadOnly:
    def __init__(self, port: Any, noted: list[str]) -> None:
        self._port, self._noted = port, noted

    def __getattr__(self, name: str) -> Any:
        if name in READING or name.startswith("_"):
            return getattr(self._port, name)
        self._noted.append(name)
        raise AssertionError(name)


@pytest.fixture
def written(store: Store, monkeypatch) -> list[str]:
    """What a dry run tried to write, of a store with some events and a run."""
    some_days(store)
    noted: list[str] = []
    ports = {one.name: getattr(store, one.name) for one in fields(store)}
    guarded: dict[str, Any] = {
        name: _ReadOnly(port, noted) for name, port in ports.items() if hasattr(port, "__module__")
    }
    assert len(guarded) == 20
    monkeypatch.setenv("DRY_RUN", "true")
    wire(monkeypatch, replace(store, **guarded))
    monkeypatch.setattr(lambdas, "call_again", lambda _event: noted.append("call_again"))
    return noted


def test_the_guard_notices_what_is_written(store, written, monkeypatch) -> None:
    monkeypatch.delenv("DRY_RUN")
    assert post(ingest.handler, event(payload=[0]))[0] == 500
    assert post(replaying.handler, asked())[0] == 500
    assert written == ["create_all", "create"]


@pytest.mark.parametrize("body", [event(), [event(), event(), {}, event(idempotency_key="k")], {"events": [event()]}])
def test_ingest_checks_and_writes_nothing(store, written, body) -> None:
    status, answer = post(ingest.handler, body)
    assert (status, written) == (200, [])
    results = answer.get("results", [answer])
    assert {one["status"] for one in results} <= {"VALID", "REJECTED"}
    assert all(one["s3_key"] is None for one in results if one["status"] == "VALID")
    assert post(ingest.handler, {})[0] == 400
    assert (written, store.index.totals().deliveries) == ([], 6)


def test_replay_counts_and_sends_nothing(store, written, monkeypatch) -> None:
    status, answer = post(replaying.handler, asked())
    assert (status, answer["scanned"], answer["tasks"], answer["sent"], answer["dry_run"]) == (200, 6, 1, 0, True)
    assert answer["run_id"] is None
    assert post(replaying.handler, asked(limit=1))[1]["truncated"]
    assert post(replaying.handler, asked(limit=0))[0] == 400
    monkeypatch.setattr(replaying, "COUNTED_AT_MOST", 1)
    status, answer = post(replaying.handler, asked())
    assert (status, answer["scanned"], answer["sent"], answer["run_id"], written) == (200, None, None, None, [])
    assert list(store.runs.newest_first()) == []


def test_replay_plans_no_run_that_was_put_off(store, written) -> None:
    run = accepted(store, RunRequest(start=0, end=ALL_TIME.end, entities=("e",)))
    assert replaying.handler(msgspec.to_builtins(Call(run)), CONTEXT) is None
    assert written == []


def test_the_processor_leaves_tasks_where_they_are(store, written, monkeypatch) -> None:
    with monkeypatch.context() as before:
        before.delenv("DRY_RUN")
        wire(before, store)
        run_id = post(replaying.handler, asked())[1]["run_id"]
    records = list(messages(store, run_id))
    failed = [{"itemIdentifier": record["messageId"]} for record in records]
    assert records
    assert processor.handler({"Records": records}, CONTEXT) == {"batchItemFailures": failed}
    assert (written, get(run_id)[1]["done"], list(store.aggregates.changes(run_id))) == ([], 0, [])
