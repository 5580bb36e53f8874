"""`POST /ingest`: events in a body are recorded, each exactly once."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from pik.lambdas import wiring
from pik.lambdas.http import Answer, Event, answer, answering, body_of, content_type, error
from pik.lambdas.wiring import logger, metrics
from pik.ports.remote import RecordStatus
from pik.usecases.ingest.api_request import Result, Taken, take

_LOGGED = 100
"""Events of one request that the log names; it counts them all."""


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
@answering
def handler(event: Event, _context: Any) -> Answer:
    """Answers 200 with what became of each event, 400 if none was valid, 413 for too large a body."""
    as_lines = content_type(event) == "application/x-ndjson"
    taken = take(
        wiring.store(), body_of(event), as_lines=as_lines, dry_run=wiring.dry_run(), timezone=wiring.timezone()
    )
    _tell(taken)
    return _single(taken.batch_id, taken.results[0]) if taken.single else _several(taken)


def _single(batch_id: str, result: Result) -> Answer:
    if result.status == RecordStatus.REJECTED:
        return error(400, result.error, result.field)
    return answer(200, {**_fields(result), "batch_id": batch_id})


def _several(taken: Taken) -> Answer:
    rejected = taken.count(RecordStatus.REJECTED)
    document = {
        "batch_id": taken.batch_id,
        "read": len(taken.results),
        "accepted": taken.count(RecordStatus.ACCEPTED),
        "duplicates": taken.count(RecordStatus.DUPLICATE),
        "conflicts": sum(result.conflict for result in taken.results),
        "rejected": rejected,
        "results": [{"seq": result.seq, **_fields(result)} for result in taken.results],
    }
    if rejected == len(taken.results):
        return answer(400, {"error": "no event of the body is valid", **document})
    return answer(200, document)


def _fields(result: Result) -> dict[str, Any]:
    if result.status == RecordStatus.REJECTED:
        field = {"field": result.field} if result.field else {}
        return {"status": result.status, "error": result.error, **field}
    conflict = {"conflict": True} if result.conflict else {}
    return {
        "event_id": result.event_id,
        "status": result.status,
        "ingest_lag_ms": _milliseconds(result),
        "s3_key": result.key or None,
        **conflict,
    }


def _milliseconds(result: Result) -> int:
    return result.lag // 1_000_000


def _tell(taken: Taken) -> None:
    """Metrics and one line of log: ids, never payloads."""
    counts = {
        "IngestCount": taken.count(RecordStatus.ACCEPTED),
        "DuplicateCount": taken.count(RecordStatus.DUPLICATE),
        "ConflictCount": sum(result.conflict for result in taken.results),
        "RejectedCount": taken.count(RecordStatus.REJECTED),
    }
    for name, count in counts.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=count)
    valid = [result for result in taken.results if result.status != RecordStatus.REJECTED]
    for result in valid:
        metrics.add_metric(name="IngestLagMs", unit=MetricUnit.Milliseconds, value=_milliseconds(result))
    logger.info(
        "ingested",
        extra={
            "batch_id": taken.batch_id,
            "read": len(taken.results),
            **counts,
            "events": [
                {"event_id": one.event_id, "entity_id": one.entity_id, "status": one.status} for one in valid[:_LOGGED]
            ],
        },
    )
