"""`pik explain`: why a value differs from what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, cli_command
from pik.cli.commands.numbers.assumed import for_good, not_recorded
from pik.cli.commands.numbers.disputed import commands_of, shown
from pik.cli.commands.numbers.explain_schema import EXPLANATION
from pik.cli.commands.numbers.passed_over import shown as shown_run
from pik.cli.commands.numbers.sides import (
    AgainstFile,
    Key,
    LeftSide,
    RightSide,
    RunSide,
    Value,
    recent_side,
    scenario_of,
    uncertain,
)
from pik.cli.commands.numbers.tried import (
    EXPECTED,
    TRIED,
    Expect,
    next_of,
    off_by,
    read_number,
    trials_notes,
    try_number,
)
from pik.cli.context import Context
from pik.cli.help import OPTIONS_FIRST
from pik.cli.options import argument, option
from pik.errors import Invalid, UsageError, command
from pik.model.instant import format_instant
from pik.model.metric import ALL_ENTITIES, entities_of
from pik.model.typed_times import WORDS, written_out
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.path import EventPath
    from pik.ports.store import Store
    from pik.usecases.metrics.explain_events import CauseEvent
    from pik.usecases.metrics.explanation import Explanation
    from pik.usecases.metrics.trials import Trials


@cli_command(
    "explain",
    examples="""
    # why does the current value differ from what raw says?
    pik explain revenue customer-17 2026-01-31

    # which events are behind each cause, and their amounts
    pik explain revenue customer-17 2026-01-31 --events --column payload.amount

    # a metric over all entities (per = "all") has one value for each bucket
    pik explain daily_users 2026-01-31

    # the bank has another number: which scenario gives that?
    pik explain revenue customer-17 2026-01-31 --expect 4469.45

    # who is right, the ledger or raw? and what did that promotion change?
    pik explain revenue customer-17 2026-01-31 --against ledger.csv --value revenue=net
    pik explain revenue customer-17 2026-01-31 --left current@2026-02-01 --right current

    # what would be left if a batch had never arrived?
    pik explain revenue customer-17 2026-01-31 --assume without-batch=01J8Z3
    """,
)
def explain(
    cli: Context,
    metric: Annotated[str, argument("METRIC", "The metric, or METRIC@VERSION for an earlier definition.")],
    place: Annotated[
        list[str],
        argument(
            "[ENTITY] BUCKET",
            "The entity, unless the metric is over all; a date or time, in the metric's timezone, yesterday, or the "
            "month or week that a bucket is (2026-01, 2026-W05).",
        ),
    ],
    expect: Expect = None,
    against: AgainstFile = None,
    key: Key = None,
    value: Value = None,
    left: LeftSide = None,
    right: RightSide = None,
    run: RunSide = None,
    tolerance: Annotated[
        list[str] | None,
        option("--tolerance ABS|REL%", "With a number to meet: a scenario that is so near to it meets it."),
    ] = None,
    as_of: options.AsOf = None,
    timezone: Annotated[
        str | None, option("--timezone ZONE", "The IANA zone of --as-of and current@TIME, typed without an offset.")
    ] = None,
    assume: options.Assume = None,
    events: Annotated[bool, option("--events", "Also list the events behind each cause.")] = False,
    column: Annotated[
        list[str] | None,
        option("--column PATH", "With --events: a JMESPath on the event, such as payload.amount (repeatable)."),
    ] = None,
) -> int | None:
    """Split the difference between the current value and the recomputed one by cause; write nothing.

    The causes are applied one after the other, from the left side to the right, and the share of each is by how much
    the value changes then: lost (the left side counted it, raw does not hold it any more), duplicates (one side counted
    them), definition (it was computed with another one), late (recorded after the left side was computed), verdict (a
    rebuild of the index changed which delivery of an event counts), corrected (`pik correct` or a revocation, one share
    for each), assumed (--assume), unexplained. The shares add up to the difference exactly. What was never computed, or
    came from a file, has one share before assumed. A cause is proven where the deliveries that the sides counted are
    exactly those that raw still holds of what they knew; otherwise its share is inferred. The sides are those of `pik
    diff aggregates`.

    Where raw that may count cannot be read, the value is recomputed without it, with exact copies elsewhere in its
    place. What was recorded is still proven if it follows from what was known then; the right value is not known, at
    best within bounds, unless nothing else is lost.

    Conflicts and suspects that would change the recomputed value are named as disputed, with what it would be.

    With --expect, or a file on the left, scenarios are tried as well: an earlier definition, duplicates counted, the
    last of conflicting deliveries, without suspects, the right times of sources whose clocks are off, several of these
    three together, each batch and each correction missing, as of each promotion of the value and what was current
    then, days of other zones, the buckets before and after, and another entity counted as well. Those that give the
    number exactly, or within --tolerance, are listed.

    Exit codes: 0 both sides are equal, 1 they or the expected number differ, 3 the right value is not
    known, 2 there is nothing to explain.
    """
    from pik.inputs.bucket_texts import expect_bucket
    from pik.model.path import EventPath
    from pik.usecases.metrics.chosen_sides import file_request, read_sides, refuse_scenario
    from pik.usecases.metrics.disputed import disputes
    from pik.usecases.metrics.explain import explain as explain_value
    from pik.usecases.metrics.explain import named_bucket
    from pik.usecases.metrics.explain_events import events_behind
    from pik.usecases.metrics.file_numbers import file_numbers
    from pik.usecases.metrics.passed_over import passed_over
    from pik.usecases.metrics.sides import LEFT, RIGHT, RecordedSide
    from pik.usecases.metrics.tolerance import read_tolerances

    if column and not events:
        raise UsageError("--column is for the events behind the causes", hint="add --events")
    if len(place) > 2:
        hint = OPTIONS_FIRST if place[2].startswith("-") else "pik explain METRIC [ENTITY] BUCKET"
        raise UsageError(f"unexpected argument {place[2]!r}", hint=hint)
    entity, bucket = place if len(place) == 2 else (ALL_ENTITIES, place[0])
    scenario = scenario_of(cli, as_of, assume, timezone)
    sides = read_sides(left, right, against, run, options.typed_zone(timezone), now=options.now())
    refuse_scenario(scenario, sides[1], run)
    request = file_request(sides[0], key or (), value or ())
    paths = [EventPath(path, "--column") for path in column or ()]
    if expect is not None and request is not None:
        raise UsageError("--expect and a file on the left exclude each other: both give the number to meet")
    expected = None if expect is None else read_number("--expect", expect)
    if tolerance and expected is None and request is None:
        raise UsageError("--tolerance is for a number to meet", hint="add --expect NUMBER or --against FILE")
    tolerances = read_tolerances(tolerance or ())
    try:
        plain = bucket[:10] if bucket[:1].isdigit() and bucket[10:11] in ("+", "-") else bucket
        expect_bucket(written_out(plain, 0, options.now()))
    except Invalid as error:
        hint = f"such as {WORDS}"
        if len(place) == 1 and not bucket[:1].isdigit():
            hint = f"after an entity: {command('explain', metric, bucket, '2026-01-31')}"
        raise UsageError(f"BUCKET: {error.message}", hint=hint) from None
    store, engine = cli.open_store(), cli.engine()
    sides = recent_side(cli, store, sides[0]), recent_side(cli, store, sides[1])
    try:
        instant = named_bucket(store, engine, metric, bucket, scenario, now=options.now())
    except Invalid as error:
        raise UsageError(f"BUCKET: {error.message}", hint=error.hint) from None
    with ExitStack() as stack:
        file = None
        if request is not None:
            within = Window(instant, instant + 1)
            numbers = file_numbers(store, engine, request, within, metrics=[metric], entities=entities_of(entity))
            file = stack.enter_context(numbers)
        before = RecordedSide(store, sides[0]) if file is None and sides[0] != LEFT else None
        after = RecordedSide(store, sides[1]) if sides[1] != RIGHT else None
        found = explain_value(
            *(store, engine, metric, entity, instant, scenario), left=file or before, right=after, events=events
        )
        number = expected if file is None or found.left.version is None else found.left.value
        trials = try_number(store, engine, found, number, tolerances, cli.progress)
        disputed = disputes(store, engine, found)
        better = passed_over(store, found)
    names = [] if expect is not None else [field.name for field in EXPECTED]
    names += [] if events else ["events"]
    names += [] if expect is not None or file is not None else [field.name for field in TRIED]
    behind = ((one, _values(one, paths)) for one in events_behind(store, found)) if events else ()
    cli.show(
        EXPLANATION.without(*names),
        found,
        expected_value=expected,
        off_by=off_by(found, expected),
        disputed=shown(disputed),
        passed_over=shown_run(better),
        events=behind,
        trials=None if trials is None else trials.met,
        **{name: getattr(trials, name, None) for name in ("tried", "failed", "not_tried")},
        next=_lines(_next(store, found, metric, trials, assume or ()), commands_of(found, disputed)),
    )
    for note in trials_notes(found, trials):
        cli.note(note)
    for missing in (*uncertain(before, after), *not_recorded(found.scenario.assumptions)):
        cli.note(missing)
    if not found.is_complete:
        return PARTLY
    return FOUND if trials is not None or found.delta or any(one.share for one in found.shares) else None


def _values(event: CauseEvent, paths: list[EventPath]) -> dict[str, Any]:
    return {} if event.delivery is None else {path.text: path.find(event.delivery) for path in paths}


def _next(store: Store, found: Explanation, metric: str, trials: Trials | None, assume: Sequence[str]) -> str | None:
    from pik.usecases.metrics.states import options_of

    if found.lost or any(one.cause == "lost" for one in found.shares):
        restore = [command("verify", "--restore", "SOURCE")] if found.lost else []
        return "\n".join([command("verify", "--full"), *restore])  # a replay would only make the loss current
    if trials is not None:
        return next_of(store, found, trials, assume)
    if found.delta and found.scenario:
        return for_good(store, found.scenario, assume)
    if not found.delta or found.right is not None or found.left.name != "current" or "@" in metric:
        return None  # a replay computes what is true, by the latest definition
    day, end = map(format_instant, (found.bucket, found.metric.buckets.end_of(found.bucket)))
    whose = options_of(found.entity_id) or ["--all"]
    return command("replay", *whose, "--metric", found.metric.name, "--from", day, "--to", end)


def _lines(first: str | None, others: Sequence[str]) -> str | None:
    return "\n".join([*([first] if first else []), *others]) or None
