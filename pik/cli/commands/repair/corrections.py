"""`pik corrections`: what was recorded to be wrong, and taking it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, CommandGroup
from pik.cli.commands.inspect.corrected import notes
from pik.cli.commands.inspect.impact import failed_note, impact_parts, summed_note
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.options import argument, first_rows
from pik.cli.values import Count, Instant, Moment
from pik.errors import Damaged, NotHeld, UsageError, command, number_of
from pik.model.instant import day_text
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.correction import Correction
    from pik.usecases.correct.revoke import RevocationPlan
    from pik.usecases.correct.standing import MetricStanding

corrections = CommandGroup("Corrections: list, show, revoke.")

CorrectionId = Annotated[
    str, argument("CORRECTION", "The correction: id or its beginning, latest or -1, -2; `pik corrections list`.")
]


@corrections.add(
    "list",
    examples="""
    # the last ten
    pik corrections list --limit 10
    """,
)
def list_(cli: Context, limit: options.Limit = None) -> None:
    """List corrections and revocations, newest first."""
    from pik.usecases.correct.standing import list_corrections

    found, truncated = first_rows(iter(list_corrections(cli.open_store())), limit)
    cli.show(CORRECTIONS, corrections=found, truncated=truncated)


@corrections.add("show", examples="pik corrections show 01J8Z3")
def show(cli: Context, correction: CorrectionId) -> int | None:
    """Show a correction: who, when, why, what; and which values have been computed with it since. Exit code 3 if raw is
    damaged, so that these are not known."""
    from pik.usecases.correct.standing import show_correction

    store = cli.open_store()
    found, standing = show_correction(store, cli.engine(), cli.recent(store, "correction", correction))
    values: list[MetricStanding] = []
    unknown = ""
    try:
        values.extend(standing)
    except Damaged as error:
        values, unknown = [], f"{error.message}; pik verify --full"
    except NotHeld as error:
        values, unknown = [], error.message
    # Of what was replayed some may be missing: a metric may not be about these events.
    outdated = any(one.outdated for one in values) or not any(one.computed for one in values)
    is_wrong = outdated and not found.revoked_by and not unknown
    given = {column.name: column.value(found) for column in _COLUMNS}
    cli.show(
        CORRECTION,
        found,
        **given,
        standing=values,
        next=command("replay", "--correction", found.correction.correction_id, "--promote") if is_wrong else None,
    )
    if found.revoked is not None and not found.revoked_by:
        back = command("corrections", "revoke", found.correction.correction_id, "--reason", "REASON")
        cli.note(f"if the revocation is wrong, take it back before a replay: {back}")
    if unknown:
        cli.note(f"which values were computed with it is not known: {unknown}")
        return PARTLY
    return None


@corrections.add(
    "revoke",
    examples="""
    # what would it come to? then take it back
    pik corrections revoke 01J8Z3 --reason 'the till was right' --dry-run
    pik corrections revoke 01J8Z3 --reason 'the till was right'
    """,
)
def revoke(
    cli: Context,
    correction: CorrectionId,
    reason: options.Reason = "",
    limit: options.Limit = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> None:
    """Take a correction back: what was recorded before holds again.

    A revocation is a separate record, and can itself be revoked. Current values stay as they are until a replay is
    promoted.
    """
    from pik.usecases.correct.revoke import plan_revocation, record_revocation

    if not reason.strip() and not dry_run:
        raise UsageError("a revocation needs a reason", hint="--reason 'the till was right'")
    if not dry_run:
        options.able_to_ask(yes)
    store = cli.open_store()
    plan = plan_revocation(store, cli.engine(), cli.recent(store, "correction", correction))
    made: Correction | None = None
    if not dry_run:
        options.confirm(_text(plan), yes)
        made = record_revocation(plan, reason, cli.actor(store))
    values, is_truncated = first_rows(iter(plan.impact.values), limit)
    cli.show(
        REVOKE,
        plan,
        dry_run=dry_run,
        correction_id=made and made.correction_id,
        recorded_at=made and made.recorded_at,
        reason=reason.strip(),
        actor=cli.actor(store),
        differing_values=values,
        truncated=is_truncated,
        note=notes(failed_note(plan.impact), summed_note(plan.impact)),
        next=made and command("replay", "--correction", made.correction_id, "--promote"),
    )


def _text(plan: RevocationPlan) -> str:
    """Return what is about to be revoked, in some lines."""
    one = plan.correction
    lines = [f"revoke correction {one.correction_id}: {one.statement}"]
    lines += [f"{each.correction_id} holds again: {each.statement}" for each in plan.restored]
    for metric in plan.impact.metrics:
        total = "" if metric.delta is None else f", their total by {metric.delta:+,f}"
        lines.append(f"{metric.metric}: {number_of(metric.differing, 'value')} will differ{total}")
    return "\n".join(lines)


_COLUMNS = (
    Column("correction_id", str, get="correction.correction_id"),
    Column(
        "kind", str, "that of the assumption, `verdict` (of a rebuild) or `revocation`", drop=6, get="correction.kind"
    ),
    Column("state", str, "`active` or `revoked`", get=lambda one: "revoked" if one.revoked_by else "active"),
    Column("recorded_at", Moment, drop=2, get="correction.recorded_at"),
    Column(
        "statement", str | None, "what was recorded, resolved; null: a rebuild", wrap=True, get="correction.statement"
    ),
    Column("deliveries", Count, "that it lists", drop=4, get="correction.deliveries"),
    Column("events", Count, "that it is about", drop=5, get="correction.events"),
    Column("actor", str | None, "who recorded it; null: not known", drop=3, get="correction.actor"),
    Column("reason", str, wrap=True, get="correction.reason"),
    Column("batch_id", str | None, "that was withdrawn", detail=True, get="correction.batch_id"),
    Column("revokes", str | None, "the correction that it revokes", detail=True, get="correction.revokes"),
    Column("revoked_by", str | None, "the revocation, if it is revoked", detail=True),
)

CORRECTIONS = Schema(
    "pik corrections list",
    Rows("corrections", "newest first", *_COLUMNS, empty="no correction was recorded yet"),
    TRUNCATED,
)

CORRECTION = Schema(
    "pik corrections show",
    *(Field(one.name, one.kind, one.about) for one in _COLUMNS),
    Field("typed", str | None, "the assumption as it was typed", get="correction.typed"),
    *(
        Field(f"revoked_{name}", str | None, f"{what} of the record that it revokes; null: it revokes none", get=get)
        for name, what, get in (
            ("statement", "the statement", lambda found: found.revoked and found.revoked.statement),
            ("reason", "the reason", lambda found: found.revoked and found.revoked.reason),
            ("actor", "the actor", lambda found: found.revoked and found.revoked.actor),
        )
    ),
    Field(
        "like",
        str | None,
        "the correction that it records again for what had come since; null: none",
        get=lambda found: found.correction.like or None,
    ),
    Field(
        "selected_until",
        Instant | None,
        "when its selection was frozen; null: it has none",
        get=lambda found: found.correction.selected_until or None,
    ),
    Rows(
        "lists",
        "the UTC days of raw whose deliveries it lists",
        Column("day", str, get=lambda one: day_text(one.day)),
        Column("deliveries", Count),
        Column("first", Instant, "the earliest time, with the correction", get="first_event"),
        Column("last", Instant, "the latest time", get="last_event"),
        Column("object", str, "in raw", get="key", drop=1),
        get=lambda found: found.correction.lists,
        empty="it lists no deliveries",
    ),
    Rows(
        "standing",
        "values in buckets that it left or entered, by metric",
        Column("metric", str),
        Column("computed", Count, "current values that were computed with it"),
        Column("outdated", Count, "current values from before it, or imported"),
        Column("missing", Count, "buckets in which its events count, without a current value"),
    ),
    NEXT,
)

REVOKE = Schema(
    "pik corrections revoke",
    Field("dry_run", bool, "whether nothing was recorded"),
    Field("correction_id", str | None, "that of the revocation; null: nothing was recorded"),
    Field("revokes", str, "the correction that it revokes", get="correction.correction_id"),
    Field("statement", str, "what does not hold any more", get="correction.statement"),
    Field(
        "holding_again",
        list[str] | None,
        "corrections that hold again; null: none",
        get=lambda plan: [one.correction_id for one in plan.restored],
    ),
    Field("recorded_at", Instant | None, "null: nothing was recorded"),
    Field("reason", str | None, "null: a dry run without one"),
    Field("actor", str | None, "who revokes"),
    Field("effective", Window, "what the whole buckets cover that are computed", get="impact.effective"),
    *impact_parts("with the revocation")[:2],
    TRUNCATED,
    NOTE,
    NEXT,
)
