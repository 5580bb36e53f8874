"""`POST /replay` plans a run and enqueues its tasks for the processor; `GET /replay/{run_id}` shows its progress."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from time import sleep, time, time_ns
from typing import Any

import msgspec
from aws_lambda_powertools.metrics import MetricUnit

from pik import lambdas
from pik.errors import Busy, Invalid, NotFound, PikError, StoreError
from pik.lambdas import (
    BY_REQUEST,
    Event,
    KeyReused,
    Response,
    body_of,
    caller,
    header,
    http_handler,
    log_unexpected,
    logger,
    metrics,
    respond,
)
from pik.lambdas.backup import back_up
from pik.lambdas.planning import Call
from pik.lambdas.replay_request import ReplayRequest
from pik.model.ids import new_id
from pik.model.instant import format_instant
from pik.model.run import Run, RunRequest, RunState, Task
from pik.model.window import Window
from pik.ports.remote import PlannedRun, RunView
from pik.ports.state import KeyClaim
from pik.ports.store import Store
from pik.rawlog.gathering import TooMuch
from pik.usecases.replay.execute import enqueue_tasks
from pik.usecases.replay.plan import expect_work, left_out_of, limited, plan_replay, start
from pik.usecases.replay.planning import accepted, fail_planning, finish_planning

COUNTED_AT_MOST = 200_000
"""Raw lines that are read to count what a request selects. More would take longer than API Gateway waits."""

DAYS_AT_MOST = 366
"""Days of a window that are planned while API Gateway waits."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header of a request that may be sent again: it makes one run for all requests with the same key."""

KEY_AT_MOST = 255
"""Characters of such a key."""

KEY_KEPT = 24 * 3600
"""Seconds for which it is kept."""

PLANNED_ELSEWHERE = 1.0
"""Seconds between two looks at a run that another call is planning."""

_KEY = re.compile(f"[!-~]{{1,{KEY_AT_MOST}}}")
_RUN_ID = re.compile("[0-9A-Za-z]{1,26}", re.ASCII)


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True, correlation_id_path=BY_REQUEST)
def handler(event: Event, context: Any) -> Response | None:
    """Return 200 with a planned run, 202 with one that another call of this function plans, or 400, 404 or 410."""
    if not event.keys() & {"later", "backup"}:
        return _respond(event, context)
    call = msgspec.convert(event, Call)
    if call.later is not None:
        _plan(call.later)
    if call.backup:
        back_up(lambdas.store(), dry_run=lambdas.dry_run())
    return None


@http_handler
def _respond(event: Event, _context: Any) -> Response:
    if event.get("httpMethod") == "GET":
        run_id = str((event.get("pathParameters") or {}).get("run_id", ""))
        if not _RUN_ID.fullmatch(run_id):
            raise NotFound(f"invalid run id {run_id[:40]!r}: an id has 26 digits and capital letters")
        return respond(200, RunView.of(lambdas.store().runs.get(run_id)))
    asked = ReplayRequest.parse(body_of(event))
    store, request = lambdas.store(), asked.run_request()
    dry_run = asked.dry_run or lambdas.dry_run()
    metrics.add_metric(name="ReplayRequestedCount", unit=MetricUnit.Count, value=1)
    key, actor = _idempotency_key(event), caller(event)
    if not key or dry_run:
        return _begin(store, request, asked.limit, actor, dry_run=dry_run)
    run_id = _claimed(store, key, request, asked.limit, actor)
    try:
        with store.runs.driving(run_id):
            if run := _found(store, run_id):
                if run.state in (RunState.PLANNED, RunState.RUNNING):
                    _enqueue(store, run_id)  # whoever planned it may have been killed before
                return _again(store, run, request)
            if (response := _planned_now(store, request, asked.limit, actor, run_id)) is not None:
                return response
    except Busy:  # another call with this key is planning it, or sends its tasks
        if run := _found(store, run_id):
            return _again(store, run, request)
        if asked.limit is not None:
            raise
    return _plan_later(store, request, asked.limit, actor, run_id)


def _idempotency_key(event: Event) -> str:
    """Return the key by which the caller marks a request that it may send again, empty without one; the quotes, which
    the header has as a structured field, are left out. Raises Invalid."""
    key = header(event, IDEMPOTENCY_KEY)
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if key and not _KEY.fullmatch(key):
        problem = f"{IDEMPOTENCY_KEY} has more than {KEY_AT_MOST} characters, or others than visible ones of ASCII"
        raise Invalid(problem, field=IDEMPOTENCY_KEY)
    return key


def _claimed(store: Store, key: str, request: RunRequest, limit: int | None, actor: str) -> str:
    """Return the id of the run that this caller's requests with this key make. Raises KeyReused."""
    at, digest = int(time()), _digest([request, limit])
    kept = store.idempotency_keys.claim(_digest([actor, key]), KeyClaim(digest, new_id()), at, at + KEY_KEPT)
    if kept.request != digest:
        raise KeyReused(f"{IDEMPOTENCY_KEY} {key!r} came with another request before", field=IDEMPOTENCY_KEY)
    return kept.run_id


def _digest(document: Any) -> str:
    return sha256(msgspec.json.encode(document)).hexdigest()


def _found(store: Store, run_id: str) -> Run | None:
    try:
        return store.runs.get(run_id)
    except NotFound:
        return None


def _again(store: Store, run: Run, asked: RunRequest) -> Response:
    """Return the response for a run that an earlier request with the same key made, as it is now."""
    is_planned = run.state != RunState.PLANNING
    return respond(
        200 if is_planned else 202,
        _planned(
            run.run_id,
            run.request,
            run.effective,
            left_out=left_out_of(store, run.request),
            counts=(run.events_matched, run.buckets, *((run.tasks,) * 2 if is_planned else (None,) * 2)),
            truncated=run.request != asked,
            dry_run=False,
        ),
    )


def _begin(store: Store, request: RunRequest, limit: int | None, actor: str, *, dry_run: bool) -> Response:
    planned = _planned_now(store, request, limit, actor, dry_run=dry_run)
    return _plan_later(store, request, limit, actor, dry_run=dry_run) if planned is None else planned


def _planned_now(
    store: Store, request: RunRequest, limit: int | None, actor: str, run_id: str = "", *, dry_run: bool = False
) -> Response | None:
    """Return the response for a run that is planned at once; None: that would take longer than the caller waits."""
    first, last = request.window.days
    if last - first < DAYS_AT_MOST:
        with suppress(TooMuch):
            return _plan_now(store, request, limit, actor, run_id, dry_run=dry_run)
    return None


def _plan_now(
    store: Store, request: RunRequest, limit: int | None, actor: str, given_id: str, *, dry_run: bool
) -> Response:
    engine, whole = lambdas.engine(), request
    if limit is not None:
        request = limited(store, engine, request, limit, COUNTED_AT_MOST)
    now = time_ns()
    plan = plan_replay(store, engine, request, now, actor=actor, run_id=given_id, at_most=COUNTED_AT_MOST)
    run, sent = plan.run, 0
    run_id = None if dry_run else run.run_id
    expect_work(store, run)
    if not dry_run:
        start(store, plan)
        sent = _enqueue(store, run.run_id, plan.tasks)
    logger.info("replay", extra={"run_id": run_id, "entity_id": request.entities[0], "sent": sent})
    return respond(
        200,
        _planned(
            run_id,
            request,
            run.effective,
            left_out=left_out_of(store, request),
            counts=(run.events_matched, run.buckets, run.tasks, sent),
            truncated=request != whole,
            dry_run=dry_run,
        ),
    )


def _plan_later(
    store: Store, request: RunRequest, limit: int | None, actor: str, run_id: str = "", *, dry_run: bool = False
) -> Response:
    """Leave the planning to another call of this function, which no caller waits for."""
    if limit is not None:
        raise Invalid(
            f"a limit needs a window of at most {DAYS_AT_MOST} days, with at most {COUNTED_AT_MOST} deliveries "
            "in the parts of raw that hold the entity",
            field="limit",
        )
    run = accepted(store, request, actor, run_id)
    if not dry_run:
        lambdas.call_again(msgspec.to_builtins(Call(run)))
        store.runs.create(run, ())  # after that: whatever is PLANNING, a call is going to plan
    begun = None if dry_run else run.run_id
    logger.info("replay later", extra={"run_id": begun, "entity_id": request.entities[0]})
    return respond(
        200 if dry_run else 202,
        _planned(begun, request, run.effective, left_out=left_out_of(store, request), dry_run=dry_run),
    )


def _plan(run: Run) -> None:
    """Plan the run and enqueue its tasks, from wherever an earlier call was interrupted: Lambda repeats failed ones."""
    store = lambdas.store()
    with logger.append_context_keys(run_id=run.run_id, entity_id=run.request.entities[0]):
        if lambdas.dry_run():
            logger.info("dry run: the run is not planned")
            return
        store.runs.create(run, ())  # the call that accepted it may not have come so far
        try:
            planned = _planned_once(store, run.run_id)
        except PikError as error:
            if not _is_final(error):
                raise
            logger.error("not planned", extra={"error": type(error).__name__})
            fail_planning(store, run, error.message)
            return
        except Exception as error:  # noqa: BLE001 - Lambda logs the message of what is raised
            log_unexpected("not planned", error)
            raise _Unexpected(type(error).__name__) from None
        if planned.is_active:
            logger.info("replay", extra={"sent": _enqueue(store, run.run_id)})


class _Unexpected(Exception):
    """An error, by its type: its message may quote a payload."""


def _is_final(error: PikError) -> bool:
    """Return whether planning again would fail in the same way: the store could be used, and holds no such thing."""
    return not isinstance(error, StoreError) or isinstance(error, NotFound)


def _planned_once(store: Store, run_id: str) -> Run:
    """Return the run when it is planned, by this call or by another one, whose right to do so ends when it dies."""
    while True:
        try:
            return finish_planning(store, lambdas.engine(), run_id)
        except Busy:
            sleep(PLANNED_ELSEWHERE)


def _enqueue(store: Store, run_id: str, tasks: Iterable[Task] | None = None) -> int:
    sent = enqueue_tasks(store, run_id, tasks)
    metrics.add_metric(name="ReplayMessageCount", unit=MetricUnit.Count, value=sent)
    return sent


def _planned(
    run_id: str | None,
    request: RunRequest,
    effective: Window,
    *,
    left_out: tuple[str, ...],
    counts: tuple[int | None, ...] = (None,) * 4,
    truncated: bool = False,
    dry_run: bool,
) -> PlannedRun:
    scanned, buckets, tasks, sent = counts
    return PlannedRun(
        run_id=run_id,
        entity_id=request.entities[0],
        start_time=format_instant(request.start),
        end_time=format_instant(request.end),
        effective_start_time=format_instant(effective.start),
        effective_end_time=format_instant(effective.end),
        scanned=scanned,
        buckets=buckets,
        tasks=tasks,
        sent=sent,
        truncated=truncated,
        metrics_left_out=left_out,
        dry_run=dry_run,
    )
