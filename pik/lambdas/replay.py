"""`POST /replay` plans a run and hands it to the processor; `GET /replay/{run_id}` tells how far it is."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aws_lambda_powertools.metrics import MetricUnit
from msgspec import structs

from pik.errors import Invalid
from pik.lambdas import wiring
from pik.lambdas.http import Answer, Event, answer, answering, body_of
from pik.lambdas.wiring import logger, metrics
from pik.model.event import check_name
from pik.model.instant import format_instant, parse_instant
from pik.model.run import Run, RunRequest
from pik.usecases.plan import Plan, limited, lines_to_read, plan_replay, start
from pik.usecases.replay import hand_over

COUNTED_AT_MOST = 200_000
"""Raw lines that are read to count what a request chooses. More would take longer than API Gateway waits."""


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /replay`."""

    entity_id: str
    start_time: str
    end_time: str
    limit: int | None = None
    include_duplicates: bool = False
    metrics: tuple[str, ...] = ()
    reason: str = ""
    dry_run: bool = False


_decode = msgspec.json.Decoder(Asked).decode


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
@answering
def handler(event: Event, _context: Any) -> Answer:
    """Answers 200 with a planned run, 202 with one too large to count first, 400, or 404."""
    parameters = event.get("pathParameters") or {}
    if event.get("httpMethod") == "GET":
        return answer(200, run_fields(wiring.store().runs.get(str(parameters.get("run_id", "")))))
    return _replay(_asked(body_of(event)))


def _asked(body: bytes) -> Asked:
    try:
        return _decode(body)
    except msgspec.ValidationError as problem:
        raise Invalid(str(problem), field=_field(str(problem))) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise Invalid(f"the body is no JSON object: {problem}") from None


def _field(message: str) -> str:
    """The field that msgspec's message is about: it names a missing or unknown one in quotes, any other by its path."""
    if "field `" in message:
        return message.partition("field `")[2].partition("`")[0]
    return message.partition("`$.")[2].partition("`")[0].partition("[")[0]


def _request(asked: Asked) -> RunRequest:
    check_name("entity_id", asked.entity_id)
    start_at, end_at = _instant("start_time", asked.start_time), _instant("end_time", asked.end_time)
    if start_at >= end_at:
        raise Invalid("end_time is not after start_time", field="end_time")
    if asked.limit is not None and asked.limit < 1:
        raise Invalid("limit is not positive", field="limit")
    return RunRequest(
        start=start_at,
        end=end_at,
        entities=(asked.entity_id,),
        metrics=tuple(sorted(set(asked.metrics))),
        include_duplicates=asked.include_duplicates,
        reason=asked.reason,
    )


def _instant(name: str, text: str) -> int:
    try:
        return parse_instant(text, date_only=True)
    except Invalid as problem:
        raise Invalid(f"{name} {problem.message}", field=name) from None


def _replay(asked: Asked) -> Answer:
    store, engine, request = wiring.store(), wiring.engine(), _request(asked)
    counting = lines_to_read(store, request) <= COUNTED_AT_MOST
    whole = request
    if asked.limit is not None:
        if not counting:
            raise Invalid(
                f"a limit needs a window with at most {COUNTED_AT_MOST} deliveries beside this entity's", field="limit"
            )
        request = limited(store, engine, request, asked.limit)
    plan = plan_replay(store, engine, request, time.time_ns(), count=counting)
    sent = 0
    if not asked.dry_run and not wiring.dry_run():
        start(store, plan)
        sent = hand_over(store, plan.run.run_id)
    _tell(plan, sent)
    document = {
        "run_id": plan.run.run_id,
        "entity_id": asked.entity_id,
        "start_time": format_instant(request.start),
        "end_time": format_instant(request.end),
        "effective_start_time": format_instant(plan.run.effective_start),
        "effective_end_time": format_instant(plan.run.effective_end),
        "scanned": plan.run.events_matched,
        "tasks": plan.run.tasks,
        "sent": sent,
        "truncated": request != whole,
        "dry_run": asked.dry_run or wiring.dry_run(),
    }
    return answer(200 if counting else 202, document)


def _tell(plan: Plan, sent: int) -> None:
    metrics.add_metric(name="ReplayRequestedCount", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="ReplayMessageCount", unit=MetricUnit.Count, value=sent)
    run = plan.run
    logger.info("replay", extra={"run_id": run.run_id, "entity_id": run.request.entities[0], "sent": sent})


def run_fields(run: Run) -> dict[str, Any]:
    """A run as JSON: what was asked for, and how far it is."""
    fields = structs.asdict(run)
    request = run.request
    times = {
        "start_time": request.start,
        "end_time": request.end,
        "effective_start_time": fields.pop("effective_start"),
        "effective_end_time": fields.pop("effective_end"),
        "created_at": fields.pop("created_at"),
        "finished_at": fields.pop("finished_at"),
    }
    del fields["request"]
    return {
        **fields,
        **{name: None if time is None else format_instant(time) for name, time in times.items()},
        "entities": request.entities,
        "metrics": request.metrics,
        "include_duplicates": request.include_duplicates,
        "reason": request.reason or None,
    }
