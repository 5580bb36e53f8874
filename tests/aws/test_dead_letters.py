"""Dead letters of a stack: those of others, which anybody who may send to the queue can put there; redriven ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.errors import UsageError
from pik.model.run import Run, RunState
from pik.ports.store import Store
from pik.runtime import SILENT, Progress
from pik.stores.aws.clients import Clients
from pik.stores.aws.queue import AwsQueue
from pik.usecases.replay import dead_letters as dlq
from pik.usecases.replay.execute import Pace, finish_message, process_message
from tests.contracts.conftest import aws_state, aws_store
from tests.support.faults import Crash, FailAt, wrapped
from tests.support.stores import Faulty, PlainEngine, broken, ingest, replay


def test_a_letter_that_is_not_a_task_is_shown_not_redriven_and_can_be_purged(aws: Clients) -> None:
    state = aws_state(aws)
    assert isinstance(state.queue, AwsQueue)
    aws.client("sqs").send_message(QueueUrl=state.queue.stack.dead_letter_queue_url, MessageBody="hello")
    store = state  # what dead letters need of a store
    (letter,) = dlq.letters(store)  # type: ignore[arg-type]
    assert letter.reason.startswith("this is not a pik task")
    with pytest.raises(UsageError, match=f"{letter.letter_id} is not a pik task") as refused:
        dlq.redrive(store, PlainEngine(), [letter], Pace(), SILENT)  # type: ignore[arg-type]
    assert refused.value.hint == f"pik dlq purge {letter.letter_id} --reason 'no task'"
    dlq.purge(store, [letter], 1, "no task")  # type: ignore[arg-type]
    assert dlq.letters(store) == []  # type: ignore[arg-type]


def test_promise_1_letters_go_when_the_stack_has_their_tasks(
    aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, engine = aws_store(aws), PlainEngine()
    ingest(store, tmp_path)
    run = replay(store, Faulty(broken), pace=Pace(workers=0, attempts=1))
    assert len(dlq.letters(store)) == run.tasks > 0

    def processed(_store: Store, run_id: str, _progress: Progress) -> Run:
        """What the stack's processors do while the command waits."""
        assert dlq.letters(store) == []
        while message := store.queue.receive(run_id, 300):
            finish_message(store, process_message(store, engine, message), 1, last=True)
        return store.runs.get(run_id)

    monkeypatch.setattr(dlq, "wait", processed)
    with pytest.raises(Crash):
        dlq.redrive(wrapped(store, FailAt(1), "queue"), engine, dlq.letters(store), Pace(), SILENT)
    (ended,) = dlq.redrive(store, engine, dlq.letters(store), Pace(), SILENT)
    assert (ended.run_id, ended.state, ended.failed) == (run.run_id, RunState.COMPLETED, 0)
    assert dlq.letters(store) == []
