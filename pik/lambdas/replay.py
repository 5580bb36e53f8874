"""`POST /replay` plans a run and hands it to the processor; `GET /replay/{run_id}` tells how far it is."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
from aws_lambda_powertools.metrics import MetricUnit
from msgspec import structs
from ulid import ULID

from pik.errors import Invalid, NotFound
from pik.lambdas import wiring
from pik.lambdas.http import Answer, Event, answer, answering, body_of
from pik.lambdas.wiring import logger, metrics
from pik.model.event import check_name
from pik.model.instant import format_instant, parse_instant
from pik.model.run import Run, RunRequest, RunState, Task
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.selection import TooMuch
from pik.usecases.metrics.computation import widest
from pik.usecases.replay.execute import hand_over
from pik.usecases.replay.plan import expect_events, limited, plan_replay, replayable, start

COUNTED_AT_MOST = 200_000
"""Raw lines that are read to count what a request chooses. More would take longer than API Gateway waits."""

DAYS_AT_MOST = 366
"""Days of a window that are looked at while API Gateway waits."""

_ID = re.compile("[0-9A-Za-z]{1,26}", re.ASCII)

LATER = "later"
"""What a call of this function has that it made itself."""


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
def handler(event: Event, context: Any) -> Answer | None:
    """Answers 200 with a planned run, 202 with one that is planned later, by another call of this; 400, or 404."""
    if LATER in event:
        _go_on(msgspec.convert(event[LATER], Later))
        return None
    return _answered(event, context)


@answering
def _answered(event: Event, _context: Any) -> Answer:
    if event.get("httpMethod") == "GET":
        return answer(200, run_fields(wiring.store().runs.get(_run_id(event))))
    return _replay(_asked(body_of(event)))


def _run_id(event: Event) -> str:
    """The run that the path names. Raises NotFound for what is the beginning of no id."""
    run_id = str((event.get("pathParameters") or {}).get("run_id", ""))
    if not _ID.fullmatch(run_id):
        raise NotFound("there is no such run: an id has 26 digits and capital letters")
    return run_id


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
    store, request = wiring.store(), _request(asked)
    dry_run = asked.dry_run or wiring.dry_run()
    metrics.add_metric(name="ReplayRequestedCount", unit=MetricUnit.Count, value=1)
    first, last = request.window.days
    if last - first < DAYS_AT_MOST:
        with suppress(TooMuch):
            return _now(store, asked, request, dry_run)
    return _later(store, asked, request, dry_run)


def _now(store: Store, asked: Asked, request: RunRequest, dry_run: bool) -> Answer:
    engine, whole = wiring.engine(), request
    if asked.limit is not None:
        request = limited(store, engine, request, asked.limit, COUNTED_AT_MOST)
    plan = plan_replay(store, engine, request, time.time_ns(), at_most=COUNTED_AT_MOST)
    sent = 0
    if not dry_run:
        start(store, plan)
        sent = _hand_over(store, plan.run.run_id, plan.tasks)
    logger.info("replay", extra={"run_id": plan.run.run_id, "entity_id": asked.entity_id, "sent": sent})
    return answer(
        200,
        {
            **_requested(plan.run.run_id, request, Window(plan.run.effective_start, plan.run.effective_end)),
            "scanned": plan.run.events_matched,
            "buckets": plan.run.buckets,
            "tasks": plan.run.tasks,
            "sent": sent,
            "truncated": request != whole,
            "dry_run": dry_run,
        },
    )


def _later(store: Store, asked: Asked, request: RunRequest, dry_run: bool) -> Answer:
    """Leave the planning to a call of this function that nobody waits for."""
    if asked.limit is not None:
        raise Invalid(
            f"a limit needs a window of at most {DAYS_AT_MOST} days, with at most {COUNTED_AT_MOST} deliveries "
            "in the parts of raw that hold the entity",
            field="limit",
        )
    effective = widest(request.window, replayable(store, request))
    expect_events(store)
    run_id = str(ULID())
    if not dry_run:
        wiring.call_again(msgspec.to_builtins({LATER: {"run_id": run_id, "request": request}}))
    logger.info("replay later", extra={"run_id": run_id, "entity_id": asked.entity_id})
    counts = dict.fromkeys(("scanned", "buckets", "tasks", "sent"))
    return answer(
        200 if dry_run else 202,
        {**_requested(run_id, request, effective), **counts, "truncated": False, "dry_run": dry_run},
    )


class Later(msgspec.Struct, forbid_unknown_fields=True):
    """A run that was answered with 202."""

    run_id: str
    request: RunRequest


def _go_on(later: Later) -> None:
    """Plan the run and hand it over, from wherever an earlier call was interrupted: Lambda repeats one that fails."""
    store = wiring.store()
    with logger.append_context_keys(run_id=later.run_id, entity_id=later.request.entities[0]):
        if wiring.dry_run():
            logger.info("dry run: the run is not planned")
            return
        try:
            state = store.runs.get(later.run_id).state
        except NotFound:
            plan = plan_replay(store, wiring.engine(), later.request, time.time_ns(), run_id=later.run_id, count=False)
            state = start(store, plan).state
        if state in (RunState.PLANNED, RunState.RUNNING):
            logger.info("replay", extra={"sent": _hand_over(store, later.run_id)})


def _hand_over(store: Store, run_id: str, tasks: Iterable[Task] | None = None) -> int:
    sent = hand_over(store, run_id, tasks)
    metrics.add_metric(name="ReplayMessageCount", unit=MetricUnit.Count, value=sent)
    return sent


def _requested(run_id: str, request: RunRequest, effective: Window) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "entity_id": request.entities[0],
        "start_time": format_instant(request.start),
        "end_time": format_instant(request.end),
        "effective_start_time": format_instant(effective.start),
        "effective_end_time": format_instant(effective.end),
    }


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
    fields["failures"] = [
        {**structs.asdict(each), "bucket": format_instant(each.bucket)} for each in fields.pop("failures")
    ]
    return {
        **fields,
        **{name: None if time is None else format_instant(time) for name, time in times.items()},
        "entities": request.entities,
        "source": request.source,
        "event_type": request.event_type,
        "metrics": request.metrics,
        "include_duplicates": request.include_duplicates,
        "reason": request.reason or None,
    }
