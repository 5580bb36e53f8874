"""`pik correct`: record that what arrived is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import cli_command
from pik.cli.commands.inspect.impact import failed_note, impact_parts
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.options import first_rows, option
from pik.cli.text import number_of
from pik.cli.values import Count, Instant
from pik.errors import UsageError, command
from pik.model.instant import Window

if TYPE_CHECKING:
    from pik.model.correction import Correction
    from pik.model.scenario import Assumption
    from pik.usecases.correct.plan import CorrectionPlan, Facet


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
            "without=selected,SELECTION, without-batch=BATCH, "
            "delivery=EVENT_ID:N, conflicts=first|last, shift=DURATION,SELECTION, zone=ZONE,SELECTION.",
        ),
    ] = None,
    like: Annotated[
        str | None, option("--like CORRECTION", "Record this one again, for what its selection hits since.")
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

    if not reason.strip():
        raise UsageError("a correction needs a reason", hint="--reason 'INC-42: local time sent as UTC'")
    if assume and like is not None:
        raise UsageError("--assume and --like exclude each other", hint="leave one of them out")
    if not assume and like is None:
        raise UsageError("nothing to correct", hint="--assume, as `pik diff aggregates` takes it, or --like CORRECTION")
    if not dry_run:
        options.able_to_ask(yes)
    store, engine = cli.open_store(), cli.engine()
    texts, before = (list(assume), None) if assume else repeated(store, like or "")
    assumptions = _read(texts)
    if before is None and not dry_run:
        refuse_repeated(store, assumptions, reason, cli.settings.actor)
    plan = plan_correction(store, engine, assumptions, like=before)
    recorded: list[Correction] = []
    if not dry_run:
        options.confirm(_text(plan), yes)
        recorded = record_correction(plan, texts, reason, cli.settings.actor)
    _show(cli, plan, recorded, reason, limit)


def _read(texts: list[str]) -> list[Assumption]:
    from pik.model.scenario import read_scenario
    from pik.usecases.metrics.scenario import read_event_ids

    return list(read_scenario(None, texts, read_event_ids).assumptions)


def _show(cli: Context, plan: CorrectionPlan, recorded: list[Correction], reason: str, limit: int | None) -> None:
    values, is_truncated = first_rows(iter(plan.impact.values), limit)
    ids: list[str | None] = [one.correction_id for one in recorded] or [None] * len(plan.corrections)
    cli.show(
        CORRECT,
        plan,
        dry_run=not recorded,
        recorded_at=recorded[0].recorded_at if recorded else None,
        reason=reason,
        actor=cli.settings.actor,
        corrections=zip(plan.corrections, ids, strict=True),
        differing_values=values,
        truncated=is_truncated,
        note=_note(plan),
        next=_next(plan, recorded),
    )


def _note(plan: CorrectionPlan) -> str | None:
    if plan.changes_nothing:
        return "no value of any metric changes"
    return failed_note(plan.impact)


def _next(plan: CorrectionPlan, recorded: list[Correction]) -> str | None:
    if not recorded or plan.changes_nothing:
        return None
    return "\n".join(command("replay", "--correction", one.correction_id, "--promote") for one in recorded)


def _text(plan: CorrectionPlan) -> str:
    """What is about to be recorded, in some lines."""
    lines: list[str] = []
    for one in plan.corrections:
        lines.append(f"record {one.assumption}")
        lines.append(f"for {_deliveries(one.deliveries)} of {number_of(one.events, 'event')}")
        lines += [f"{facet.by}: {_facet_text(facet)}" for facet in one.facets]
        lines += [
            f"in place of correction {each.correction.correction_id} for {_deliveries(each.deliveries)}"
            for each in one.overridden
        ]
        if one.collisions:
            lines.append(f"{number_of(one.collisions, 'moved event')} will equal another event; both count")
        if one.partial:
            lines.append(f"{number_of(one.partial, 'event')} hit in some deliveries only")
    for metric in plan.impact.metrics:
        total = "" if metric.delta is None else f", their total by {metric.delta:+,f}"
        lines.append(f"{metric.metric}: {number_of(metric.differing, 'value')} will differ{total}")
    return "\n".join(lines)


def _deliveries(count: int) -> str:
    return "1 delivery" if count == 1 else f"{count:,} deliveries"


def _facet_text(facet: Facet) -> str:
    shown = [f"{one.name} ({one.deliveries:,})" for one in facet.top[:_SHOWN]]
    left = facet.distinct - len(shown)
    return ", ".join([*shown, *([f"{left:,} more"] if left else [])])


_SHOWN = 5


def _hit(plan: CorrectionPlan) -> Iterator[dict[str, object]]:
    """Yield the rows of the table of what the deliveries are."""
    for number, one in enumerate(plan.corrections, start=1):
        for facet in one.facets:
            for named in facet.top:
                yield {"number": number, "by": facet.by, "name": named.name, "deliveries": named.deliveries}
            rest = one.deliveries - sum(named.deliveries for named in facet.top)
            if rest:
                yield {"number": number, "by": facet.by, "name": None, "deliveries": rest}


CORRECT = Schema(
    "pik correct",
    Field("dry_run", bool, "whether nothing was recorded"),
    Field("recorded_at", Instant | None, "null: nothing was recorded"),
    Field("reason", str),
    Field("actor", str | None, "who corrects"),
    Rows(
        "corrections",
        "in the order in which they are recorded",
        Column("correction_id", str | None, "null: nothing was recorded", get=lambda row: row[1]),
        Column("kind", str, "that of the assumption", get=lambda row: row[0].kind, drop=2),
        Column("statement", str, "the assumption, resolved", get=lambda row: str(row[0].assumption), wrap=True),
        Column("deliveries", Count, "that it is about", get=lambda row: row[0].deliveries),
        Column("events", Count, "of which these are", get=lambda row: row[0].events),
        Column(
            "collisions",
            Count | None,
            "moved events that equal another one then, by source, type, entity, time and payload; null: none",
            get=lambda row: row[0].collisions or None,
            rare=True,
        ),
        Column(
            "partial",
            Count | None,
            "events that are hit in some of their deliveries only; null: none",
            get=lambda row: row[0].partial or None,
            rare=True,
        ),
        Column(
            "overridden",
            list[str] | None,
            "corrections of the same step that do not hold for some of the deliveries any more; null: none",
            get=lambda row: [one.correction.correction_id for one in row[0].overridden],
            rare=True,
        ),
    ),
    Rows(
        "hit",
        "what the deliveries are: the sources, types and entities with the most of them, and all days",
        Column("number", int, "of the correction, from 1"),
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
