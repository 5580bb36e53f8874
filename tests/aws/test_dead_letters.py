"""Dead letters that pik did not write: anybody who may send to the queue can put one there."""

from __future__ import annotations

import pytest

from pik.errors import UsageError
from pik.runtime import SILENT
from pik.stores.aws.clients import Clients
from pik.stores.aws.queue import AwsQueue
from pik.usecases.replay import dead_letters as dlq
from pik.usecases.replay.execute import Pace
from tests.contracts.conftest import aws_state
from tests.support.stores import PlainEngine


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
