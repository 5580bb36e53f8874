"""`pik republish`: send history on to consumers again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, CommandGroup
from pik.cli.commands.repair.republish_schema import (
    LIST,
    OUTCOME,
    PLANNED,
    SHOWN,
    deliveries_text,
    plan_text,
)
from pik.cli.context import Context
from pik.cli.options import argument, option
from pik.errors import Busy, PikError, UsageError, command
from pik.model.republish import Form, Republish, RepublishRequest, RepublishState

if TYPE_CHECKING:
    from pik.ports.store import Store
    from pik.ports.target import Target
    from pik.usecases.republish.send import Pace

republish = CommandGroup("Send events on to consumers again: resume, cancel, list, show.")

_Target = option(
    "--target TARGET", "Where to: FILE, https://…, sqs://QUEUE, sns://TOPIC, events://BUS or kafka://BROKERS/TOPIC."
)
_Rate = Annotated[str | None, option("--rate N/s", "At most so many messages per second, or N/m, N/h.")]
_StopAfter = Annotated[
    int | None,
    option("--stop-after-failures N", "Stop when so many were refused in one attempt (default 100).", min=1),
]
_STOP_AFTER = 100
_Id = Annotated[str, argument("ID", "The republish: id or its beginning, latest or -1, -2; `pik republish list`.")]


@republish.alone(
    examples="""
    # what would be sent, and how would it look?
    pik republish --entity customer-17 --since 2d --target https://billing.example/events --dry-run

    # a day of refunds into a queue, 100 a second
    pik republish --type refund --from 2026-01-31 --to 2026-02-01 --target sqs://refunds --rate 100/s \\
        --reason INC-1234

    # everything as it came, duplicates too, as the producers wrote it, into a file
    pik republish --all --as-received --as original --target arrived.ndjson --yes
    """
)
def send(
    cli: Context,
    entity: options.Entities = None,
    everything: Annotated[bool, option("--all", "Every event of the window.")] = False,
    *,
    period: options.WindowOptions,
    type_: options.Type = None,
    source: options.Source = None,
    where: Annotated[
        str | None, option("--where SQL", "Only those that meet a condition, as in a metric's where.")
    ] = None,
    target: Annotated[str | None, _Target] = None,
    form: Annotated[
        Form, option("--as FORM", "cloudevents: CloudEvents 1.0 in JSON; original: as the producer sent it.")
    ] = Form.CLOUDEVENTS,
    as_received: Annotated[
        bool, option("--as-received", "Every delivery, duplicates too, and not only what counts.")
    ] = False,
    rate: _Rate = None,
    stop_after: _StopAfter = None,
    reason: options.Reason = "",
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> int | None:
    """Send events to a queue, a topic, a service or a file again: what counts, in order of event time for each entity.

    Each is sent at least once. A message carries the id of the republish and the event_id, so that a consumer can drop
    what it has. What had no answer before an interruption or a crash is sent again, and what the target refused is kept
    with its reason. The same command goes on with an interrupted republish, and so does `pik republish resume`, which
    also sends what was refused again. Exit codes: 0 everything was taken, 2 nothing to send, 3 some was refused, 4 the
    target takes nothing at present.
    """
    from pik.usecases.republish.send import begin, plan_republish, unfinished

    if not (entity or everything or source or type_ or where or period.given):
        raise UsageError("nothing selected to send", hint="--entity ID, --from TIME, --type TYPE, …, or --all")
    if entity and everything:
        raise UsageError("--entity and --all exclude each other", hint="leave one of them out")
    if target is None:
        raise UsageError("no --target to send to", hint="--target FILE, https://HOST/PATH, sqs://QUEUE, …")
    if not dry_run:
        options.able_to_ask(yes)
    pace = _pace(rate, stop_after)
    window = period.window()
    opened = cli.target(target)
    request = RepublishRequest(
        start=window.start,
        end=window.end,
        target=opened.shown,
        form=form,
        entities=tuple(sorted(set(entity or ()))),
        source=source,
        event_type=type_,
        where=where,
        as_received=as_received,
        reason=reason,
    )
    store, engine = cli.open_store(), cli.engine()
    earlier = None if dry_run else unfinished(store, request)
    if earlier is not None:
        return _resume(cli, store, earlier, cli.target(target, taken=earlier.taken), _pace(rate, stop_after, earlier))
    opened.check()
    with plan_republish(store, engine, request, cli.progress, now=time.time_ns(), actor=cli.actor(store)) as plan:
        if dry_run:
            cli.show(PLANNED, plan, dry_run=True)
            return None
        options.confirm(plan_text(plan), yes, declined="nothing was sent")
        opened.check()  # the answer may have taken a while
        with _sending(cli, plan.republish, opened):
            cli.note(f"republish {plan.republish.republish_id}: {deliveries_text(plan.republish)}")
            ended = begin(store, plan, opened, pace, cli.progress)
    return _show(cli, ended)


@republish.add(
    "resume",
    examples="""
    # what was not sent yet, and what was refused, in its place
    pik republish resume 01J8Z3
    """,
)
def resume(
    cli: Context,
    republish_id: _Id,
    target: Annotated[
        str | None, option("--target TARGET", "The same target, where its URL has a secret: that is not stored.")
    ] = None,
    rate: _Rate = None,
    stop_after: _StopAfter = None,
) -> int | None:
    """Send what is left of a republish, and what was refused again, in the order of the whole.

    Without --rate and --stop-after-failures, those of the last attempt hold.
    """
    from pik.usecases.republish.send import expect_unfinished

    _pace(rate, stop_after)
    store = cli.open_store()
    found = store.republishes.get(cli.recent(store, "republish", republish_id))
    expect_unfinished(found)
    known = found.request.target
    if target is None and "://" in known and "…" in known:
        raise UsageError(
            f"republish {found.republish_id} goes to {known}, whose secret part is not stored",
            hint="--target with the whole URL",
        )
    opened = cli.target(target or known, taken=found.taken)
    if opened.shown != known:
        raise UsageError(
            f"republish {found.republish_id} goes to {known}, not to {opened.shown}",
            hint="another target needs another republish",
        )
    return _resume(cli, store, found, opened, _pace(rate, stop_after, found))


@republish.add(
    "cancel",
    examples="pik republish cancel 01J8Z3 --reason 'the consumer restored a backup'",
)
def cancel(cli: Context, republish_id: _Id, reason: options.Reason = "") -> None:
    """Give up what is left of a republish, and what was refused: it cannot be resumed. What was sent stays sent."""
    from pik.usecases.republish.send import cancel as give_up

    if not reason.strip():
        raise UsageError("giving up a republish needs a reason", hint="--reason 'the consumer restored a backup'")
    store = cli.open_store()
    found = store.republishes.get(cli.recent(store, "republish", republish_id))
    ended = give_up(store, found.republish_id, reason, now=time.time_ns(), actor=cli.actor(store))
    if found.state == RepublishState.CANCELLED:
        cli.note(f"republish {found.republish_id} was cancelled before; its reason stays")
    cli.show(OUTCOME, ended)


def _resume(cli: Context, store: Store, found: Republish, target: Target, pace: Pace) -> int | None:
    from pik.usecases.republish.send import resume as send_rest

    target.check()
    done = f"{found.taken:,} of {found.events:,} were taken already"
    cli.note(f"going on with republish {found.republish_id}: {done}")
    with _sending(cli, found, target):
        ended = send_rest(store, cli.engine(), found.republish_id, target, pace, cli.progress)
    return _show(cli, ended)


@contextmanager
def _sending(cli: Context, found: Republish, target: Target) -> Iterator[None]:
    """Close the target in the end, and say how to go on if something interrupts."""
    going_on = command("republish", "resume", found.republish_id)
    try:
        yield
    except KeyboardInterrupt:
        cli.note(f"what is left: {going_on}")
        raise
    except Busy:
        raise
    except PikError as error:
        error.hint = f"{error.hint}; then go on: {going_on}" if error.hint else f"to go on: {going_on}"
        raise
    finally:
        target.close()


def _show(cli: Context, ended: Republish) -> int | None:
    cli.show(OUTCOME, ended)
    return None if ended.state == RepublishState.COMPLETED else PARTLY


def _pace(rate: str | None, stop_after: int | None, earlier: Republish | None = None) -> Pace:
    """Return the pace that the options give; without them that of the last attempt. Raises UsageError."""
    from pik.usecases.republish.send import Pace

    same = Pace(earlier.rate, earlier.stop_after) if earlier else Pace(None, _STOP_AFTER)
    return Pace(same.rate if rate is None else read_rate(rate), stop_after or same.stop_after)


_RATE = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)(?:/([smh]))?", re.ASCII)


def read_rate(text: str) -> float:
    """Return messages per second of `100`, `100/s`, `30/m` or `600/h`. Raises UsageError."""
    match = _RATE.fullmatch(text)
    number = float(match[1]) if match else 0.0
    if match is None or not number:
        raise UsageError(f"--rate {text}: expected a number of messages per time", hint="--rate 100/s, 30/m or 600/h")
    return number / {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


@republish.add("list", examples="pik republish list --limit 10")
def list_(cli: Context, limit: options.Limit = None) -> None:
    """List what was sent again, newest first."""
    found, truncated = options.first_rows(cli.open_store().republishes.newest_first(), limit)
    cli.show(LIST, republishes=found, truncated=truncated)


@republish.add(
    "show",
    examples="""
    pik republish show 01J8Z3

    # which entities does the consumer lack something of?
    pik republish show 01J8Z3 --limit 100000 --format json | jq -r '.failures[].entity_id' | sort -u
    """,
)
def show(
    cli: Context,
    republish_id: _Id,
    limit: Annotated[int, option("--limit N", "Show at most N failures.", min=1)] = 100,
) -> None:
    """Show a republish: who sent what, when, why and where to, how far it is, and what was refused, with reasons."""
    from pik.usecases.republish.send import is_sending

    store = cli.open_store()
    found = store.republishes.get(cli.recent(store, "republish", republish_id))
    failures, truncated = options.first_rows(store.republishes.refusals(found.republish_id), limit)
    cli.show(SHOWN, found, sending=is_sending(store, found), failures=failures, truncated=truncated)
