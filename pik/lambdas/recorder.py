"""The recorder: records the requests that `POST /ingest?mode=async` put into the queue, each exactly once, whatever is
delivered again; and compacts the index, if that is scheduled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse

from pik import lambdas
from pik.errors import Invalid, StoreError
from pik.lambdas import log_unexpected, logger, metrics
from pik.lambdas.compact import compact_index
from pik.lambdas.ingest import METRICS
from pik.model.batch import Batch
from pik.model.buffered import BufferedRequest, read_message
from pik.usecases.ingest.buffered import BufferedResult, record_buffered

_FIRST_WAIT, _LONGEST_WAIT = 10.0, 900.0
"""Seconds until a request that could not be recorded is tried again: each time three times as long."""

_TRIES = 5
"""Deliveries of a request from which on an unexpected error is the request's own fault."""

_LAGS = 1000
"""About how many lags of a batch the metric gets: of more lags, evenly spaced ones in the order of their sizes."""


@dataclass(frozen=True, slots=True)
class _Message:
    """A request as it was delivered. `receipt` is of this delivery, `receives` counts them."""

    name: str
    receipt: str
    receives: int
    request: BufferedRequest


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: Any) -> PartialItemFailureResponse | None:
    """Record the requests of the messages together, and report those that must come again (partial batch response). The
    schedule calls it without messages, to compact the index."""
    if event.get("compact"):
        compact_index(lambdas.store(), context, dry_run=lambdas.dry_run())
        return None
    failed: list[str] = []
    messages = list(_messages(event["Records"], failed))
    done: set[str] = set()
    try:
        done |= _record(messages)
    except Exception as error:  # noqa: BLE001 - its message may quote a payload
        log_unexpected("not recorded together", error)
        for message in messages:
            done |= _record_alone(message)
    failed += [message.name for message in messages if message.request.id not in done]
    for message in messages:
        if message.request.id not in done:
            with suppress(StoreError):  # then it waits for its visibility timeout
                wait = min(_FIRST_WAIT * 3 ** min(message.receives - 1, 10), _LONGEST_WAIT)
                lambdas.buffer().release(message.receipt, wait)
    metrics.add_metric(name="RecorderErrorCount", unit=MetricUnit.Count, value=len(failed))
    return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}


def _messages(records: Sequence[dict[str, Any]], failed: list[str]) -> Iterator[_Message]:
    """Yield the messages that are requests; the others fail, until the queue makes dead letters of them."""
    for record in records:
        name, receives = str(record["messageId"]), int(record["attributes"]["ApproximateReceiveCount"])
        try:
            yield _Message(name, str(record["receiptHandle"]), receives, read_message(record["body"]))
        except Invalid as error:
            logger.error("not a request", extra={"message_id": name, "reason": error.message})
            failed.append(name)


def _record(messages: Sequence[_Message], broken: Mapping[str, str] | None = None) -> frozenset[str]:
    """Record the requests; return the ids of those that are recorded, now or before. `broken` says why requests, by id,
    are kept as they are instead."""
    if lambdas.dry_run():
        logger.info("dry run: requests stay in the queue")
        return frozenset()
    try:
        result = record_buffered(lambdas.store(), [message.request for message in messages], broken or {})
    except StoreError as error:
        result = BufferedResult(frozenset(), (), error)
    if result.failure is not None:
        logger.error("not recorded", extra={"reason": result.failure.message})
    for one in result.recorded:
        _log(one.batch, len(one.requests))
    return result.done


def _record_alone(message: _Message) -> frozenset[str]:
    """Record a request that may have broken the recording of others; keep it as it is if it breaks its own, too."""
    try:
        return _record([message])
    except Exception as error:  # noqa: BLE001 - as above
        log_unexpected("not recorded", error, buffered_id=message.request.id)
        if message.receives < _TRIES:
            return frozenset()
        with suppress(Exception):  # the log has why it failed, and the queue keeps it
            return _record([message], {message.request.id: f"it could not be recorded: {type(error).__name__}"})
    return frozenset()


def _log(batch: Batch, requests: int) -> None:
    """Emit the metrics of a batch and one line of log, which has ids, never payloads."""
    counts = {
        "accepted": batch.counts.accepted,
        "duplicates": batch.counts.duplicates,
        "conflicts": batch.counts.conflict,
        "rejected": batch.counts.rejected,
    }
    by_metric = {METRICS[name]: count for name, count in counts.items()}
    for metric, count in by_metric.items():
        metrics.add_metric(name=metric, unit=MetricUnit.Count, value=count)
    every = max(1, sum(batch.lags.values()) // _LAGS)
    lags = chain.from_iterable(repeat(lag, count) for lag, count in sorted(batch.lags.items()))
    for lag in islice(lags, every // 2, None, every):
        metrics.add_metric(name="IngestLagMs", unit=MetricUnit.Milliseconds, value=lag // 1_000_000)
    extra = {"batch_id": batch.batch_id, "requests": requests, "read": batch.counts.read, **by_metric}
    logger.info("recorded", extra=extra)
