"""`pik correct`: record that what arrived is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pik.cli import options
from pik.cli.command import cli_command
from pik.cli.commands.inspect.impact import failed_note, impact_parts, summed_note
from pik.cli.commands.repair.plan_words import impact_lines, planned_lines, remarks
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, TRUNCATED, Column, Field, Object, Rows, Schema, or_null
from pik.cli.options import first_rows, option
from pik.cli.values import Count, Instant
from pik.errors import UsageError, command
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.correction import Correction
    from pik.model.scenario import Assumption
    from pik.usecases.correct.consequences import Overlap, PlannedCorrection
    from pik.usecases.correct.plan import CorrectionPlan


@cli_command(
    "correct",
    examples="""
    # what would it come to? then record it
    pik correct --assume shift=-1h,source=till-3,from=2026-03-01 --reason 'INC-42: local time' --dry-run
    pik correct --assume shift=-1h,source=till-3,from=2026-03-01 --reason 'INC-42: local time'

    # the same for what has come since
    pik correct --like 01J8Z3 --reason 'INC-42: still local time'

    # a test batch, in a runbook
    pik correct --assume without-batch=01J8Z3 --reason 'test data' --yes
    """,
)
def correct(
    cli: Context,
    assume: Annotated[
        list[str] | None,
        option(
            "--assume KIND=VALUE",
            "What is right (repeatable): without=EVENT_ID|@FILE (event_ids, or the JSON of `pik duplicates`), "
            "without=selected,SELECTION, without=suspects,SELECTION, without-batch=BATCH, "
            "delivery=EVENT_ID:N, conflicts=first|last, shift=DURATION,SELECTION, zone=ZONE,SELECTION.",
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        option("--like CORRECTION", "Record this one again, for what its selection hits since (repeatable)."),
    ] = None,
    reason: options.Reason = "",
    limit: options.Limit = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> None:
    """Record a correction: that certain deliveries do not count, that others do, or when they happened.

    It takes the options with which `pik diff aggregates` and `pik explain` try it out. Raw stays as it is; from now on
    every command reads what counts with the correction, and `pik corrections revoke` takes it back. Current values stay
    as they are until a replay is promoted.

    A correction is about the deliveries that its selection hits now, and lists them; what comes later is not touched,
    except later deliveries of events that are out. A second shift or zone moves a delivery once more: to replace a
    correction, revoke it first.
    """
    from pik.usecases.correct.plan import plan_correction, record_correction, refuse_repeated, repeated

    if not reason.strip() and not dry_run:
        raise UsageError("a correction needs a reason", hint="--reason 'INC-42: local time sent as UTC'")
    if assume and like:
        raise UsageError("--assume and --like exclude each other", hint="leave one of them out")
    if not assume and not like:
        raise UsageError("nothing to correct", hint="--assume, as `pik diff aggregates` takes it, or --like CORRECTION")
    if not dry_run:
        options.able_to_ask(yes)
    store, engine = cli.open_store(), cli.engine()
    before = [repeated(store, one) for one in like or ()]
    texts = list(assume) if assume else [text for text, _ in before]
    assumptions = _read(texts)
    if not before and not dry_run:
        refuse_repeated(store, assumptions, reason)
    plan = plan_correction(store, engine, assumptions, likes=[one for _, one in before], dry_run=dry_run)
    recorded: list[Correction] = []
    if not dry_run:
        options.confirm(_text(plan), yes)
        recorded = record_correction(plan, texts, reason, cli.actor(store))
    given = [("--assume", text) for text in assume or ()] + [("--like", one) for one in like or ()]
    words = [word for pair in given for word in pair]
    _show(cli, plan, recorded, command("correct", *words, "--reason", reason.strip() or "REASON"), reason, limit)


def _read(texts: list[str]) -> list[Assumption]:
    from pik.model.assumption_text import read_scenario
    from pik.usecases.metrics.event_ids import read_event_ids

    return list(read_scenario(None, texts, read_event_ids).assumptions)


def _show(
    cli: Context, plan: CorrectionPlan, recorded: list[Correction], record: str, reason: str, limit: int | None
) -> None:
    """Show the plan, and what was recorded; without that, `record` is the command that does it."""
    values, is_truncated = first_rows(iter(plan.impact.values), limit)
    ids: list[str | None] = [one.correction_id for one in recorded] or [None] * len(plan.corrections)
    schema = CORRECT
    for name in ("corrections.number", "hit.number") if len(ids) == 1 else ():
        schema = schema.replaced(name, _number(detail=True))
    cli.show(
        schema,
        plan,
        dry_run=not recorded,
        recorded_at=recorded[0].recorded_at if recorded else None,
        reason=reason.strip(),
        actor=cli.actor(plan.store),
        corrections=[_Row(number, *row) for number, row in enumerate(zip(plan.corrections, ids, strict=True), start=1)],
        differing_values=values,
        truncated=is_truncated,
        note=_note(plan, recorded),
        next=_next(plan, recorded, record),
    )


def _note(plan: CorrectionPlan, recorded: list[Correction]) -> str | None:
    """Return what may surprise, a line each."""
    several = len(plan.corrections) > 1
    lines = [
        f"number {number}: {remark}" if several else remark
        for number, one in enumerate(plan.corrections, start=1)
        for remark in remarks(one)
    ]
    if plan.changes_nothing:
        lines.append("no value of any metric changes")
    elif len(recorded) > 1:
        lines.append(f"one replay of {plan.impact.effective} computes what the {len(recorded)} corrections change")
    lines += filter(None, (failed_note(plan.impact), summed_note(plan.impact)))
    return "\n".join(lines) or None


def _next(plan: CorrectionPlan, recorded: list[Correction], record: str) -> str | None:
    if plan.changes_nothing:
        return None
    if not recorded:
        return record
    if len(recorded) == 1:
        return command("replay", "--correction", recorded[0].correction_id, "--promote")
    window = plan.impact.effective
    times = {"--from": window.from_text, "--to": window.to_text}
    words = [word for option, text in times.items() if text for word in (option, text)]
    return command("replay", "--all", *words, "--promote")


def _text(plan: CorrectionPlan) -> str:
    """Return what is about to be recorded, in some lines."""
    several = len(plan.corrections) > 1
    lines = [f"record {len(plan.corrections)} corrections, in this order" if several else "record this correction"]
    for number, one in enumerate(plan.corrections, start=1):
        lines += planned_lines(number if several else None, one)
    return "\n".join([*lines, *impact_lines(plan.impact)])


def _hit(plan: CorrectionPlan) -> Iterator[dict[str, object]]:
    """Yield the rows of the table of what the deliveries are."""
    for number, one in enumerate(plan.corrections, start=1):
        for facet in one.facets:
            for named in facet.top:
                yield {"number": number, "by": facet.by, "name": named.name, "deliveries": named.deliveries}
            rest = one.deliveries - sum(named.deliveries for named in facet.top)
            if rest:
                yield {"number": number, "by": facet.by, "name": None, "deliveries": rest}


class _Row(NamedTuple):
    """A planned correction, and its id once it is recorded."""

    number: int
    planned: PlannedCorrection
    correction_id: str | None


def _number(*, detail: bool = False) -> Column:
    return Column("number", int, "of the correction, from 1", label="#", detail=detail)


def _of(name: str) -> Callable[[_Row], object]:
    """Return what finds this of a planned correction, null where it is 0 or empty."""
    return or_null(f"planned.{name}")


def _overlapping(overlap: Overlap) -> str | None:
    return None if overlap.correction is None else overlap.correction.correction_id


CORRECT = Schema(
    "pik correct",
    Field("dry_run", bool, "whether nothing was recorded"),
    Field("recorded_at", Instant | None, "null: nothing was recorded"),
    Field("reason", str | None, "null: a dry run without one"),
    Field("actor", str | None, "who corrects"),
    Rows(
        "corrections",
        "in the order in which they are recorded",
        _number(),
        Column(
            "correction_id",
            str | None,
            "null: nothing was recorded",
        ),
        Column("kind", str, "that of the assumption", get=_of("kind"), drop=2),
        Column("statement", str, "the assumption, resolved", get=lambda row: str(row.planned.assumption), wrap=True),
        Column("deliveries", Count, "that it is about", get=_of("deliveries"), drop=1),
        Column("events", Count, "of which these are", get=_of("events"), detail=True),
        Column("taken_out", Count | None, "events that no longer count; null: none", get=_of("taken_out"), rare=True),
        Column("moved", Count | None, "events that count at another time; null: none", get=_of("moved"), rare=True),
        Column(
            "replaced",
            Count | None,
            "events that count by another delivery; null: none",
            get=_of("replaced"),
            rare=True,
        ),
        Column(
            "collisions",
            Count | None,
            "moved events that equal another one then, by source, type, entity, time and payload; null: none",
            get=_of("collisions"),
            detail=True,
        ),
        Column(
            "partial",
            Count | None,
            "events that are hit in some of their deliveries only; null: none",
            get=_of("partial"),
            detail=True,
        ),
        Column(
            "farther",
            Count | None,
            "deliveries moved away from when they were received, where others are moved towards it; null: none",
            get=_of("farther"),
            detail=True,
        ),
        Column(
            "overridden",
            list[str] | None,
            "corrections of the same step that do not hold for some of the deliveries any more; null: none",
            get=_of("overridden"),
            detail=True,
        ),
        Column(
            "overlaps",
            Object(
                Field("correction_id", str | None, "null: of the same command", get=_overlapping),
                Field("number", int | None, "of one of the same command that comes before it; null: a recorded one"),
                Field("kind", str),
                Field("deliveries", Count),
                Field("events", Count),
                many=True,
                null=True,
            ),
            "corrections of the same step, or that take events out, about so many of its deliveries and events; null:"
            " none",
            get=_of("overlaps"),
            detail=True,
        ),
        Column(
            "remarks",
            list[str] | None,
            "what may surprise, in words; null: nothing",
            get=lambda row: remarks(row.planned),
            detail=True,
        ),
    ),
    Rows(
        "hit",
        "what the deliveries are: the sources, types and entities with the most of them, and all days",
        _number(),
        Column("by", str, "`source`, `type`, `entity` or `day`"),
        Column("name", str | None, "null: all others"),
        Column("deliveries", Count),
        get=_hit,
    ),
    Field("effective", Window, "what the whole buckets cover that are computed", get="impact.effective"),
    *impact_parts("with the correction")[:2],
    TRUNCATED,
    NOTE,
    NEXT,
)
