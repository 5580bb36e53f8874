"""`pik history`: what changed numbers or could, and who did it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.options import option
from pik.cli.values import Count, Instant, Moment
from pik.errors import command, number_of
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.correction import Correction
    from pik.ports.store import Store
    from pik.usecases.metrics.history import HistoryEntry


@cli_command(
    "history",
    examples="""
    # who changed the March numbers, and which of the values are wrong now?
    pik history --metric revenue --check

    # what happened around the time at which the dashboard jumped
    pik history --from 2026-01-31T08:00:00Z --to 2026-01-31T12:00:00Z

    # what arrived for one customer, and what was computed of it
    pik history --entity customer-17 --since 30d
    """,
)
def history(
    cli: Context,
    entity: options.Entity = None,
    metric: Annotated[str | None, option("--metric NAME", "Only this metric.")] = None,
    *,
    period: options.WindowOptions,
    check: Annotated[bool, option("--check", "Recompute, and count the values that are right today.")] = False,
    limit: options.Limit = None,
) -> int | None:
    """List what changed numbers or could, newest first: when, who, what, why.

    These are batches, versions of metrics, runs, imports, promotions, rollbacks, corrections and their revocations,
    rebuilds of the index, and what was republished to consumers. The window is when they happened, not the days of the
    numbers. Requests to a stack's API that follow one another are one entry for each actor and day.
    --entity keeps the batches with its deliveries and the runs and republishes that include it, --metric the runs and
    versions of one metric; figures remain those of the whole run. On a terminal the first 50, without --limit.

    A run lacked the batches that were recorded after what it knew, with deliveries in its window. Its values are
    current or, after a rollback, as before; with --check those that are current are right if raw says the same today,
    by the latest definition, and each correction has how many of the current values that it changes were computed with
    it, and how many before it.
    """
    from pik.usecases.metrics.history import history as timeline
    from pik.usecases.metrics.history import scope_of

    window = period.window()
    store = cli.open_store()
    scope = scope_of(store, window, metric, entity)
    found = timeline(store, scope, cli.engine() if check else None)
    options.note_left_out(cli, scope.left_out)
    limit = limit or cli.default_limit
    rows, truncated = options.first_rows(found, limit)
    cli.show(
        HISTORY if check else HISTORY.without(*CHECKED),
        scope,
        history=rows,
        truncated=truncated,
        note=history_note(store),
    )
    if scope.unread is None:
        return None
    cli.note(f"batches of all entities are listed, since those of one cannot be told: {scope.unread}")
    return PARTLY


def history_note(store: Store) -> str | None:
    """Return the note on what is not in a copy; None: it is not one."""
    copy = store.copy
    if copy is None:
        return None
    if store.sealed:
        return "an evidence bundle: runs and promotions are in its rows/runs.jsonl and rows/promotions.jsonl"
    return f"a copy: runs and promotions of its source are not in it; {command('history', '--store', copy.source)}"


def _with_reason(entry: HistoryEntry) -> str:
    return f"{_subject(entry)} ({entry.reason})" if entry.reason else _subject(entry)


def _subject(entry: HistoryEntry) -> str:
    """Return what happened, in words."""
    from pik.cli.commands.repair.republish_schema import progress_text
    from pik.model.batch import Batch, BatchState
    from pik.model.correction import Correction
    from pik.model.metric import Metric
    from pik.model.republish import Republish
    from pik.model.run import Run
    from pik.ports.state import Promotion

    subject = entry.subject
    match subject:
        case Batch():
            source = subject.origin.name if entry.requests is None else number_of(entry.requests, "API request")
            state = "" if subject.state == BatchState.COMPLETE else f", {subject.state}"
            of_entity = "" if entry.deliveries is None else f"; {entry.deliveries:,} of the entity"
            return f"{source}{state}: {_counts(entry)}{of_entity}"
        case Metric():
            if entry.what != "metric":
                return f"{entry.id}: {'retired' if subject.retired else 'reinstated'}"
            where = f" where {subject.definition.where}" if subject.definition.where else ""
            return f"{entry.id}: {subject.definition.value}{where}"
        case Run():
            parts = (f"{getattr(subject, name):,} {name}" for name in _VALUES if getattr(subject, name))
            of_file = f"{subject.request.file.name}, " if subject.request.file else ""
            return f"{of_file}{subject.state} {subject.effective}: {', '.join(parts) or 'no value'}{_standing(entry)}"
        case Promotion():
            others = "left, since another promotion had changed them"
            conflicts = f", {subject.conflicts:,} {others}" if subject.conflicts else ""
            return f"run {subject.run_id}: {subject.moved:,} moved{conflicts}{_standing(entry)}"
        case Correction():
            return f"{_corrected(subject)}{_values_under(entry)}"
        case Republish():
            return progress_text(subject)
    raise AssertionError(subject)


def _corrected(correction: Correction) -> str:
    from pik.model.correction import CorrectionKind

    events = number_of(correction.events, "event")
    if correction.kind is CorrectionKind.VERDICT:
        return f"{events} got another accepted delivery" if correction.events else "no event changed"
    if correction.kind is CorrectionKind.REVOCATION:
        return f"revokes {correction.revokes}"
    return correction.statement if correction.statement.endswith(events) else f"{correction.statement}: {events}"


def _values_under(entry: HistoryEntry) -> str:
    """Return how many values a correction changes, with --check."""
    if entry.with_correction is None or entry.before_correction is None:
        return ""
    computed = number_of(entry.with_correction, "current value")
    return f"; {computed} computed with it, {entry.before_correction:,} before it"


def _standing(entry: HistoryEntry) -> str:
    """Return what became of a run's values, and what it did not know."""
    if entry.standing is None:
        return ""
    now = "as it was before" if entry.what == "rollback" else "current"
    right = "" if entry.right is None or not entry.standing else f", {entry.right:,} right"
    right += f", {entry.failed:,} cannot be computed" if entry.failed else ""
    right += f", {entry.of_retired:,} of retired metrics" if entry.of_retired else ""
    lacked = f"; lacked {entry.lacked:,} batch{'' if entry.lacked == 1 else 'es'}" if entry.lacked else ""
    return f"; {entry.standing:,} {now}{right}{lacked}"


_VALUES = ("new", "changed", "unchanged", "removed")


def _counts(entry: HistoryEntry) -> str:
    counts = entry.counts
    assert counts is not None
    parts = [f"{counts.read:,} read", f"{counts.accepted:,} accepted"]
    parts += [f"{count:,} {name}" for name in ("exact", "conflict", "rejected") if (count := getattr(counts, name))]
    return ", ".join(parts)


def _run_id(entry: HistoryEntry) -> str | None:
    return getattr(entry.subject, "run_id", None)


def _count_of(name: str) -> Column:
    return Column(
        name, Count | None, "of batches", get=lambda entry: entry.counts and getattr(entry.counts, name), detail=True
    )


CHECKED = [
    f"history.{name}" for name in ("right_today", "failed", "of_retired", "with_correction", "before_correction")
]
"""Columns of HISTORY that are only there with --check."""

HISTORY = Schema(
    "pik history",
    Field("window", Window, "in which it happened"),
    Field("entity", str | None),
    Field("metric", str | None),
    Rows(
        "history",
        "newest first",
        Column("at", Moment),
        Column(
            "what",
            str,
            "`batch`, `requests` (to the API, one after the other), `metric` (a version was applied), `retirement`,"
            " `reinstatement`, `run`, `import`,"
            " `promote`, `rollback`, `rebuild` (of the index), `correction`, `revocation` (of a correction),"
            " `republish`",
        ),
        Column("actor", str | None, "who did it; null: not known", cut=16),
        Column("subject", str, "in words, for people, with the reason", get=_with_reason, wrap=True),
        Column("reason", str | None, detail=True),
        Column(
            "id",
            str,
            "of the batch (of requests the last), run, promotion, rebuild, correction or republish, or NAME@VERSION",
            drop=1,
        ),
        Column("moved", Count | None, "aggregates that a promotion or rollback moved", detail=True),
        Column(
            "as_left",
            Count | None,
            "aggregates of the run that are now as the run's promotion, or this rollback, left them",
            get="standing",
            detail=True,
        ),
        Column(
            "right_today",
            Count | None,
            "those of them whose value is what raw says today; null: not a promotion or run, or raw has expired",
            get="right",
            only="with `--check`",
            detail=True,
        ),
        Column(
            "failed",
            Count | None,
            "those of them that cannot be computed: raw is damaged, or the definition fails; null: likewise",
            only="with `--check`",
            detail=True,
        ),
        Column(
            "of_retired",
            Count | None,
            "those of them whose metric is retired, which are not compared; null: likewise",
            only="with `--check`",
            detail=True,
        ),
        Column(
            "with_correction",
            Count | None,
            "current values in buckets that a correction or revocation changes, computed since; null: not one of these,"
            " or raw has expired or is damaged",
            only="with `--check`",
            detail=True,
        ),
        Column(
            "before_correction",
            Count | None,
            "those of them that were computed before it, or imported; null: likewise",
            only="with `--check`",
            detail=True,
        ),
        Column(
            "lacked",
            Count | None,
            "batches recorded after `known_until`, with deliveries in the run's window (and of its entities); null: not"
            " a run, or not known, because raw has expired or is damaged",
            detail=True,
        ),
        Column("run_id", str | None, "of a run, import, promotion or rollback", get=_run_id, detail=True),
        Column("known_until", Instant | None, "the last recording that the run knew", detail=True),
        Column("requests", Count | None, "how many requests", detail=True),
        Column("deliveries", Count | None, "of the entity, with `--entity`", detail=True),
        *map(_count_of, ("read", "accepted", "exact", "conflict", "rejected")),
        empty="nothing has happened then (not: to the numbers of then); all of it: pik history",
    ),
    options.LEFT_OUT,
    TRUNCATED,
    NOTE,
)
