"""`POST /ingest`: records the events of a body, each exactly once."""

from __future__ import annotations

import zlib
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from pik import lambdas
from pik.errors import Invalid
from pik.lambdas import (
    BY_REQUEST,
    Event,
    Response,
    body_of,
    caller,
    content_type,
    http_handler,
    logger,
    metrics,
    parameter,
    received_at,
    request_id,
    respond,
)
from pik.model.buffered import MAX_MESSAGE, BufferedRequest
from pik.ports.remote import GZIP, ApiError, BufferedView, RecordStatus
from pik.usecases.ingest.api_request import MAX_BODY, EventResult, RequestReport, TooLarge, expect_size, record_request

_LOGGED = 100
"""Events of one request that the log names; it counts all of them."""

ASYNC = "async"
_MODES = ("sync", ASYNC)

METRICS = {
    "accepted": "IngestCount",
    "duplicates": "DuplicateCount",
    "conflicts": "ConflictCount",
    "rejected": "RejectedCount",
}


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True, correlation_id_path=BY_REQUEST)
@http_handler
def handler(event: Event, context: Any) -> Response:
    """Return 200 with what became of each event, 400 if none was valid, 413 for a body that is too large; with
    `mode=async` 202 once the queue has the body."""
    named = request_id(event, context)
    body, as_lines = body_of(event), content_type(event) in ("application/x-ndjson", GZIP)
    mode = parameter(event, "mode") or lambdas.ingest_mode()
    if mode not in _MODES:
        raise Invalid(f"unknown mode {mode!r}: it is {' or '.join(_MODES)}")
    try:
        if content_type(event) == GZIP:
            body = _uncompressed(body)
        if mode == ASYNC and not lambdas.dry_run():
            return _buffer(event, named, body, as_lines=as_lines)
        recorded = record_request(
            lambdas.store(),
            body,
            as_lines=as_lines,
            dry_run=lambdas.dry_run(),
            timezone=lambdas.timezone(),
            actor=caller(event),
        )
    except TooLarge as error:
        return respond(413, ApiError(error.message, named))
    rejected, counts = recorded.count(RecordStatus.REJECTED), _counts(recorded)
    _log(recorded, counts)
    if recorded.single:
        (result,) = recorded.results
        if rejected:
            return respond(400, ApiError(result.error, named, result.field))
        return respond(200, {**_fields(result), "batch_id": recorded.batch_id})
    document = {
        "batch_id": recorded.batch_id,
        "read": len(recorded.results),
        **counts,
        "results": [{"seq": result.seq, **_fields(result)} for result in recorded.results],
    }
    if rejected == len(recorded.results):
        return respond(400, {"error": "the body has no valid event", "request_id": named, **document})
    return respond(200, document)


def _uncompressed(body: bytes) -> bytes:
    """Return what gzip made the body of. Raises Invalid, TooLarge."""
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = reader.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise Invalid(f"the body is not gzip: {error}") from None
    expect_size(text)
    if not reader.eof or reader.unused_data:
        raise Invalid("the body is not one whole gzip member")
    return text


def _buffer(event: Event, named: str, body: bytes, *, as_lines: bool) -> Response:
    """Put the body into the queue, as it is. Raises Invalid, TooLarge, StoreError."""
    expect_size(body)
    if not body.strip():
        raise Invalid("the body holds no event")
    request = BufferedRequest(
        request_id=named,
        received_at=received_at(event),
        body=body,
        as_lines=as_lines,
        timezone=lambdas.timezone(),
        actor=caller(event),
    )
    message = request.message()
    if len(message) > MAX_MESSAGE:
        raise TooLarge(
            f"compressed, in base64, the body makes a message of {len(message)} bytes; {MAX_MESSAGE} is the most with"
            " mode=async:"
            " send several requests, or use mode=sync"
        )
    lambdas.buffer().put(message)
    logger.info("buffered", extra={"buffered_id": request.id, "bytes": len(body)})
    return respond(202, BufferedView(request.id, named))


def _counts(recorded: RequestReport) -> dict[str, int]:
    """Return how many events became what, by the names of the response."""
    return {
        "accepted": recorded.count(RecordStatus.ACCEPTED),
        "duplicates": recorded.count(RecordStatus.DUPLICATE),
        "conflicts": sum(result.conflict for result in recorded.results),
        "rejected": recorded.count(RecordStatus.REJECTED),
    }


def _fields(result: EventResult) -> dict[str, Any]:
    if result.status == RecordStatus.REJECTED:
        field = {"field": result.field} if result.field else {}
        return {"status": result.status, "error": result.error, **field}
    conflict = {"conflict": True} if result.conflict else {}
    return {
        "event_id": result.event_id,
        "status": result.status,
        "ingest_lag_ms": result.lag // 1_000_000,
        "s3_key": result.key or None,
        **conflict,
    }


def _log(recorded: RequestReport, counts: dict[str, int]) -> None:
    """Emit the metrics and one line of log, which has ids, never payloads."""
    by_metric = {METRICS[name]: count for name, count in counts.items()}
    for metric, count in by_metric.items():
        metrics.add_metric(name=metric, unit=MetricUnit.Count, value=count)
    valid = [result for result in recorded.results if result.status != RecordStatus.REJECTED]
    for result in valid:
        metrics.add_metric(name="IngestLagMs", unit=MetricUnit.Milliseconds, value=result.lag // 1_000_000)
    logger.info(
        "ingested",
        extra={
            "batch_id": recorded.batch_id,
            "read": len(recorded.results),
            **by_metric,
            "events": [
                {"event_id": one.event_id, "entity_id": one.entity_id, "status": one.status} for one in valid[:_LOGGED]
            ],
        },
    )
