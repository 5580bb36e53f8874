"""The processor: tasks from the queue are performed, each bucket from all of its events."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from aws_lambda_powertools.metrics import MetricUnit

from pik.errors import PikError, StoreError
from pik.lambdas import wiring
from pik.lambdas.wiring import log_unforeseen, logger, metrics
from pik.model.run import RunState, Task
from pik.ports.state import Message
from pik.ports.store import Store
from pik.usecases.replay.execute import Outcome, end_if_settled, settle, work

_FIRST_WAIT, _LONGEST_WAIT = 30.0, 900.0
"""Seconds until a task comes again that failed because the store could not be used: each time four times as long, so
that an outage of several minutes buries none."""

_decode = msgspec.json.Decoder(Task).decode


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Perform each message's task. What is not settled is reported back and comes again (partial batch response)."""
    failed = [record["messageId"] for record in event["Records"] if not _settled(record)]
    metrics.add_metric(name="ProcessorMessageCount", unit=MetricUnit.Count, value=len(event["Records"]))
    metrics.add_metric(name="ProcessorErrorCount", unit=MetricUnit.Count, value=len(failed))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _settled(record: dict[str, Any]) -> bool:
    """Whether the message need not come again. Whatever goes wrong, it is not lost: the queue keeps it."""
    try:
        message = _message(record)
        with logger.append_context_keys(run_id=message.task.run_id, task=message.task.number):
            return _process_or_put_off(message)
    except msgspec.MsgspecError as problem:
        # Nobody's task: it comes again until the queue's own redrive takes it to the dead letters.
        logger.error("no task", extra={"message_id": record["messageId"], "reason": str(problem)})
    except PikError as problem:
        logger.error("not settled", extra={"message_id": record["messageId"], "reason": problem.message})
    except Exception as problem:  # noqa: BLE001 - the other messages of the batch are to be performed all the same
        log_unforeseen("not settled", problem, message_id=record["messageId"])
    return False


def _process_or_put_off(message: Message) -> bool:
    """Process a message. If the store cannot be used, the message comes again after a while, not only when its time
    with this processor would have been over. Raises PikError."""
    try:
        return _process(message)
    except StoreError as problem:
        wait = min(_FIRST_WAIT * 4 ** (message.receives - 1), _LONGEST_WAIT)
        with suppress(StoreError):  # then it waits for longer
            wiring.store().queue.release(message, wait, f"the store could not be used: {problem.message}")
        raise


def _message(record: dict[str, Any]) -> Message:
    receives = int(record["attributes"]["ApproximateReceiveCount"])
    return Message(_decode(record["body"]), record["receiptHandle"], receives)


def _process(message: Message) -> bool:
    store, task = wiring.store(), message.task
    if wiring.dry_run():
        logger.info("dry run: the task stays on the queue")
        return False
    before, attempts = store.runs.get(task.run_id), wiring.attempts()
    used_up = message.receives > attempts
    if before.state == RunState.CANCELLED or (used_up and not _is_open(store, task)):
        end_if_settled(store, task.run_id)  # whoever settled it may have been killed before this
        store.queue.acknowledge(message.receipt)
        return True
    outcome = Outcome(message, "") if used_up else work(store, wiring.engine(), message, before.request)
    settled = settle(store, outcome, attempts, last=True)
    metrics.add_metric(name="BucketsWritten", unit=MetricUnit.Count, value=outcome.written)
    # Why a task failed may quote a payload: the dead letter keeps it, the log does not.
    extra = {"entities": task.entities[:100], "settled": settled, "receives": message.receives}
    logger.info("performed" if outcome.failure is None else "failed", extra=extra)
    return settled


def _is_open(store: Store, task: Task) -> bool:
    return any(each.number == task.number for each in store.runs.open_tasks(task.run_id))
