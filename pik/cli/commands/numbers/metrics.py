"""`pik metrics`: definitions of what is computed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pik.cli import completion, options
from pik.cli.command import CommandGroup
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Column, Field, Rows, Schema, or_null
from pik.cli.options import argument
from pik.cli.values import Moment
from pik.errors import UsageError, command

if TYPE_CHECKING:
    from pik.model.metric import Metric
    from pik.ports.store import Store
    from pik.usecases.metrics.definitions import AppliedMetric


metrics = CommandGroup("Define metrics: apply, list, show, retire, reinstate.")


@metrics.add(
    "apply",
    examples="""
    # metrics.toml:
    #   [[metric]]
    #   name = "revenue"
    #   where = "event_type = 'payment_captured'"
    #   value = "sum(CAST(payload->>'$.amount' AS DECIMAL(18, 2)))"
    #   bucket = "1d"
    #
    #   [[metric]]
    #   name = "daily_users"
    #   value = "count(DISTINCT entity_id)"
    #   per = "all"                           # one value per bucket, over all entities
    pik metrics apply metrics.toml --reason 'refunds count since March'

    # are they valid, and which would change?
    pik metrics apply metrics.toml --dry-run
    """,
)
def apply(
    cli: Context,
    file: Annotated[Path, argument("FILE", "TOML: one definition, or several as [[metric]] tables.")],
    reason: options.Reason = "",
    dry_run: options.DryRun = False,
) -> None:
    """Store definitions, each as the next version of its name. One that has not changed keeps its version.

    All of them are checked before any is stored. An expression whose result could depend on order or floating point is
    refused, with the exact alternative. Current values do not change: replay computes the new version, promote makes it
    current. Another definition of a retired metric is refused: `pik metrics reinstate NAME` comes first.
    """
    from pik.usecases.metrics.definition_file import read_definitions
    from pik.usecases.metrics.definitions import apply as keep

    definitions = read_definitions(file)
    store = cli.open_store()
    why = {"actor": cli.actor(store), "reason": reason}
    applied = keep(store.metrics, cli.engine(), definitions, time.time_ns(), dry_run=dry_run, **why)
    cli.show(APPLIED, dry_run=dry_run, metrics=applied)


def _what(applied: AppliedMetric) -> str:
    if not applied.changed:
        return "retired" if applied.metric.retired else "unchanged"
    return "new" if applied.before is None else "changed"


@metrics.add("list", examples="pik metrics list")
def list_(cli: Context) -> None:
    """List the latest version of each metric."""
    cli.show(METRICS, metrics=cli.open_store().metrics.latest())


@metrics.add("show", examples="pik metrics show event_count")
def show(
    cli: Context,
    name: Annotated[
        str, argument("NAME", "The metric, or NAME@VERSION for one of its versions.", autocompletion=completion.metrics)
    ],
) -> None:
    """Show every version of a metric, the oldest first."""
    from pik.usecases.metrics.definitions import pinned, versions

    metrics = cli.open_store().metrics
    found = [pinned(metrics, name)] if "@" in name else versions(metrics, name)
    cli.show(VERSIONS, name=found[0].name, versions=found)


@metrics.add(
    "retire",
    examples="""
    pik metrics retire daily_users --reason 'replaced by weekly_users' --dry-run
    pik metrics retire daily_users --reason 'replaced by weekly_users' --yes
    """,
)
def retire(
    cli: Context,
    name: Annotated[
        str,
        argument(
            "NAME",
            "The metric; event_count, which is built in, can be retired, too.",
            autocompletion=completion.metrics,
        ),
    ],
    reason: options.Reason = "",
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> None:
    """Retire a metric: nothing computes or compares it any more, in any command.

    Its values stay as they are, and `pik aggregates`, `sql`, `show` and `history` show them, with the time since which
    the metric is retired. A run that was planned before goes on, and can be promoted. Reinstate takes it back.
    """
    from pik.usecases.metrics.retire import retirable
    from pik.usecases.metrics.retire import retire as record

    if not reason.strip():
        raise UsageError("retiring a metric needs a reason", hint="--reason 'replaced by weekly_users'")
    if not dry_run:
        options.able_to_ask(yes)
    store = cli.open_store()
    plan = f"retire {_pin(retirable(store.metrics, name))}: {_RETIRED}"
    _change(cli, store, name, reason, record, plan, dry_run=dry_run, yes=yes)


@metrics.add("reinstate", examples="pik metrics reinstate daily_users --reason 'still on the dashboard' --yes")
def reinstate(
    cli: Context,
    name: Annotated[str, argument("NAME", "The metric that was retired.")],
    reason: options.Reason = "",
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> None:
    """Reinstate a retired metric, with the definition that it had: commands compute and compare it again.

    Its values are as they were; `pik diff aggregates --metric NAME` shows how they differ from what raw says.
    """
    from pik.usecases.metrics.retire import reinstate as record
    from pik.usecases.metrics.retire import retired

    if not dry_run:
        options.able_to_ask(yes)
    store = cli.open_store()
    plan = f"reinstate {_pin(retired(store.metrics, name))}: {_REINSTATED}"
    _change(cli, store, name, reason, record, plan, dry_run=dry_run, yes=yes)


_RETIRED = "its values stay, and nothing computes or compares it any more"
_REINSTATED = "its values are as they were, and commands compute and compare it again"

_Record = Callable[..., "Metric"]


def _pin(metric: Metric) -> str:
    return f"{metric.name}@{metric.version}"


def _change(
    cli: Context, store: Store, name: str, reason: str, record: _Record, plan: str, *, dry_run: bool, yes: bool
) -> None:
    """Show the plan and ask, record the change, and show it."""
    latest, actor, done = store.metrics.versions(name)[-1], cli.actor(store), None
    if not dry_run:
        options.confirm(plan, yes)
        done = record(store.metrics, name, time.time_ns(), actor=actor, reason=reason)
    back, compare = command("metrics", "reinstate", name), command("diff", "aggregates", "--metric", name)
    cli.show(
        RETIREMENT,
        dry_run=dry_run,
        what="reinstated" if latest.retired else "retired",
        name=name,
        version=done.version if done else latest.version + 1,
        recorded_at=done.applied_at if done else None,
        actor=actor,
        reason=reason or None,
        note=_REINSTATED if latest.retired else f"{_RETIRED}; to take it back: `{back}`",
        next=compare if latest.retired and done else None,
    )


RETIREMENT = Schema(
    "pik metrics retire, pik metrics reinstate",
    Field("dry_run", bool),
    Field("what", str, "`retired` or `reinstated`"),
    Field("name", str),
    Field("version", int, "with which it is, or would be, recorded: it has the definition of the one before"),
    Field("recorded_at", Moment | None, "null in a dry run"),
    Field("actor", str),
    Field("reason", str | None),
    NOTE,
    NEXT,
)

_DEFINITION = (
    Column("bucket", str, "`1h`, `1d`, …", get="definition.bucket"),
    Column("timezone", str | None, "null: UTC", get="definition.timezone", rare=True),
    Column("where", str | None, get="definition.where", wrap=True),
    Column("value", str, get="definition.value", wrap=True),
    Column("per", str, "`entity`, or `all`: one value per bucket over all entities", get="definition.per", drop=2),
    Column("description", str | None, get="definition.description", wrap=True, drop=1),
)

APPLIED = Schema(
    "pik metrics apply",
    Field("dry_run", bool),
    Rows(
        "metrics",
        "in the order of the file",
        Column("name", str, get="metric.name"),
        Column("version", int, "the version that it has now, or would have", get="metric.version"),
        Column("what", str, "`new`, `changed`, `unchanged`, `retired` (not changed, either)", get=_what),
    ),
)

RETIRED_AT = Column(
    "retired_at",
    Moment | None,
    "since when the metric is retired; null: it is not",
    get=lambda metric: metric.applied_at if metric.retired else None,
    rare=True,
)

METRICS = Schema(
    "pik metrics list",
    Rows(
        "metrics",
        "by name",
        Column("name", str),
        Column("version", int, "the latest one"),
        RETIRED_AT,
        *_DEFINITION,
    ),
)

VERSIONS = Schema(
    "pik metrics show",
    Field("name", str),
    Rows(
        "versions",
        "the oldest first",
        Column("version", int),
        Column("applied_at", Moment | None, "null: it is built in", get=or_null("applied_at"), drop=2),
        Column("actor", str | None, "who applied it; null: not known, or it is built in", drop=3),
        Column("reason", str | None, wrap=True),
        RETIRED_AT,
        *_DEFINITION,
    ),
)
