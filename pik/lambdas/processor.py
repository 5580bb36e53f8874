"""The processor: executes tasks from the queue, each bucket from all of its events.

Lambda puts its records of runs that could not be planned there, too. The processor ends these runs, as the function
that was to plan them may have been killed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from pik import lambdas
from pik.errors import PikError, StoreError
from pik.lambdas import log_unexpected, logger, metrics
from pik.lambdas.planning import FailedCall
from pik.model.run import RunState, Task
from pik.ports.state import Message
from pik.usecases.replay.execute import MessageOutcome, enqueue_tasks, finish_message, finish_run, process_message
from pik.usecases.replay.planning import fail_planning

_FIRST_WAIT, _LONGEST_WAIT = 30.0, 900.0
"""Seconds until a task that failed because the store was unavailable is tried again: each time four times as long, so
that an outage of several minutes makes none a dead letter."""

_decode = msgspec.json.Decoder(Task).decode
_decode_failed = msgspec.json.Decoder(FailedCall).decode
_batch = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


class _NotFinished(Exception):
    """The message must come again; the reason is logged."""


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: Any) -> PartialItemFailureResponse:
    """Execute each message's task, and report those that must come again (partial batch response)."""
    response = process_partial_response(event=event, record_handler=_finish, processor=_batch, context=context)
    metrics.add_metric(name="ProcessorMessageCount", unit=MetricUnit.Count, value=len(event["Records"]))
    metrics.add_metric(name="ProcessorErrorCount", unit=MetricUnit.Count, value=len(response["batchItemFailures"]))
    return response


def _finish(record: SQSRecord) -> None:
    """Finish a message, so that it need not come again. Raises _NotFinished; then the queue still has it."""
    try:
        if (failed := _failed_call(record.body)) is not None:
            _fail(failed)
            return
        receives = int(record.attributes.approximate_receive_count)
        message = Message(_decode(record.body), record.receipt_handle, receives)
        with logger.append_context_keys(run_id=message.task.run_id, task=message.task.number):
            if _process_or_release(message):
                return
    except msgspec.MsgspecError as error:  # it comes again until the queue's redrive policy makes it a dead letter
        logger.error("not a task", extra={"message_id": record.message_id, "reason": str(error)})
    except PikError as error:
        logger.error("not finished", extra={"message_id": record.message_id, "reason": error.message})
    except Exception as error:  # noqa: BLE001 - its message may quote a payload
        log_unexpected("not finished", error, message_id=record.message_id)
    raise _NotFinished from None


def _failed_call(body: str) -> FailedCall | None:
    try:
        return _decode_failed(body)
    except msgspec.MsgspecError:
        return None


def _fail(failed: FailedCall) -> None:
    """End a run as FAILED that could not be planned; send the tasks of one that was, but whose tasks were not sent.
    Raises PikError: then the record comes again."""
    store, run = lambdas.store(), failed.request_payload.later
    if run is None:
        logger.error("not backed up", extra={"reason": failed.reason, "condition": failed.request_context.condition})
        return
    with logger.append_context_keys(run_id=run.run_id):
        if lambdas.dry_run():
            raise StoreError("dry run: the record stays on the queue")
        found = fail_planning(store, run, failed.reason)
        if found.is_active:
            enqueue_tasks(store, run.run_id)
        logger.error("not planned", extra={"state": found.state, "condition": failed.request_context.condition})


def _process_or_release(message: Message) -> bool:
    """Process a message. If the store is unavailable the message is released to come again after a while, which is
    sooner than its visibility timeout. Raises PikError."""
    try:
        return _process(message)
    except StoreError as error:
        wait = min(_FIRST_WAIT * 4 ** (message.receives - 1), _LONGEST_WAIT)
        with suppress(StoreError):  # then it waits for its visibility timeout
            lambdas.store().queue.release(message, wait, f"the store could not be used: {error.message}")
        raise


def _process(message: Message) -> bool:
    store, task = lambdas.store(), message.task
    if lambdas.dry_run():
        logger.info("dry run: the task stays on the queue")
        return False
    before, attempts = store.runs.get(task.run_id), lambdas.attempts()
    used_up = message.receives > attempts
    is_open = not used_up or any(each.number == task.number for each in store.runs.open_tasks(task.run_id))
    if before.state == RunState.CANCELLED or not is_open:
        finish_run(store, task.run_id)  # what finished the task may have been killed before this
        store.queue.acknowledge(message.receipt)
        return True
    outcome = MessageOutcome(message, "") if used_up else process_message(store, lambdas.engine(), message, before)
    finished = finish_message(store, outcome, attempts, last=True)
    metrics.add_metric(name="BucketsWritten", unit=MetricUnit.Count, value=outcome.written)
    # Why a task failed may quote a payload: the dead letter keeps it, the log does not.
    extra = {"entities": task.entities[:100], "finished": finished, "receives": message.receives}
    logger.info("executed" if outcome.failure is None else "failed", extra=extra)
    return finished
