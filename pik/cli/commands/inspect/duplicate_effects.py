"""`pik duplicates --changes, --impact`: what duplicates and suspects change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pik.cli import options
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of, notes
from pik.cli.commands.inspect.impact import failed_note, impact_parts, summed_note
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.options import first_rows
from pik.cli.values import Count, Json
from pik.errors import UsageError
from pik.model.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from pik.cli.context import Context
    from pik.model.delivery import Filter
    from pik.model.path import EventPath
    from pik.ports.store import Store
    from pik.usecases.inspect.duplicates import DuplicateFilter
    from pik.usecases.inspect.effects import Effects
    from pik.usecases.inspect.suspects import SuspectRule


def show_effects(
    cli: Context,
    selected: Filter,
    what: DuplicateFilter | SuspectRule,
    path: EventPath | None,
    limit: int | None,
    *,
    as_received: bool = False,
) -> tuple[bool, bool]:
    """Show the changes at the path, or without one the impact on metrics, of duplicates or suspects. Return whether
    there are any of those, and whether all could be computed."""
    from pik.usecases.inspect.suspects import SuspectRule

    rule = str(what) if isinstance(what, SuspectRule) else None
    store = cli.open_store()
    effects = effects_finder(cli, store, selected, as_received=as_received)
    head = {"window": selected.window, "entity": next(iter(selected.entities), None), "rule": rule}
    if path is not None:
        return _show_changes(cli, store, selected, what, path, limit, head, effects, as_received), True
    from pik.usecases.inspect.duplicate_effects import duplicate_impact, suspect_impact

    engine = cli.engine()
    if isinstance(what, SuspectRule):
        found = suspect_impact(store, engine, selected, what)
    else:
        found = duplicate_impact(store, engine, what, cli.progress)
    options.note_left_out(cli, found.impact.left_out)
    values, is_truncated = first_rows(iter(found.impact.values), limit)
    cli.show(
        IMPACT,
        found,
        **head,
        differing_values=values,
        truncated=is_truncated,
        corrected=lambda: effects_of(effects()),
        note=lambda: notes(
            failed_note(found.impact),
            summed_note(found.impact),
            effects_note(effects(), shown="they hold on both sides"),
        ),
    )
    return found.deliveries > 0, not found.impact.failed


def _show_changes(
    cli: Context,
    store: Store,
    selected: Filter,
    what: DuplicateFilter | SuspectRule,
    path: EventPath,
    limit: int | None,
    head: dict[str, Any],
    effects: Callable[[], Effects | None],
    as_received: bool,
) -> bool:
    from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
    from pik.usecases.inspect.duplicate_effects import conflict_changes, suspect_changes
    from pik.usecases.inspect.suspects import SuspectRule

    overrides = AS_RECEIVED if as_received else NO_OVERRIDES
    if not isinstance(what, SuspectRule):
        found = conflict_changes(store, what, path, limit=limit, progress=cli.progress)
    elif what.same:
        found = suspect_changes(store, cli.engine(), selected, what, path, limit=limit, overrides=overrides)
    else:
        raise UsageError("suspects have equal payloads, so nothing changes in them", hint="add --same PATH")
    cli.show(
        CHANGES,
        {**head, "path": path.text},
        changes=found,
        pairs=lambda: found.summary.pairs,
        unchanged=lambda: found.summary.unchanged,
        truncated=lambda: found.summary.truncated,
        corrected=lambda: effects_of(effects()),
        note=lambda: effects_note(effects()),
    )
    return found.summary.pairs > 0


_RULE = Field("rule", str | None, "with `--class suspect`: what makes an event a suspect")

CHANGES = Schema(
    "pik duplicates --changes",
    Field("window", Window),
    Field("entity", str | None),
    _RULE,
    Field("path", str, "where values are compared"),
    Rows(
        "changes",
        "most frequent first",
        Column(
            "old_value", Json, "in the accepted delivery, or in the earlier event; null: nothing there", "old", cut=40
        ),
        Column("new_value", Json, "in the conflict, or in the suspect", "new", cut=40),
        Column("count", Count),
        empty="no value changed there",
    ),
    Field("pairs", Count, "conflicts or suspects that were compared"),
    Field("unchanged", Count, "of these, those with equal values"),
    TRUNCATED,
    EFFECTS,
    NOTE,
)

IMPACT = Schema(
    "pik duplicates --impact",
    Field("window", Window),
    Field("entity", str | None),
    _RULE,
    Field("assumption", str, "what is assumed"),
    Field("deliveries", Count, "duplicates or suspects of which it is assumed, or events with conflicts"),
    Field("effective", Window, "what the whole buckets cover that are computed", get="impact.effective"),
    *impact_parts("under the assumption"),
    TRUNCATED,
    EFFECTS,
    NOTE,
)
