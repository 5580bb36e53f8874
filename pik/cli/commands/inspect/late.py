"""`pik lag --late`: current values that lack events which came later."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from pik.cli import options
from pik.cli.buckets import bucket_column, local_column
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, TRUNCATED, Column, Field, Rows, Schema
from pik.cli.values import Count, Entity, Moment
from pik.errors import command
from pik.model.window import Window


def show_late(
    cli: Context, window: Window, entities: Sequence[str], metrics: Sequence[str], limit: int | None
) -> int | None:
    """Show the current values with late events, and how these move them."""
    from pik.model.delivery import Filter
    from pik.usecases.timing.late import find_late

    store = cli.open_store()
    found = find_late(store, cli.engine(), window, entities, metrics)
    effects = effects_finder(cli, store, Filter(found.effective, tuple(entities)))
    options.note_left_out(cli, found.left_out)
    rows, truncated = options.first_rows(iter(found.buckets), limit or cli.default_limit)
    ends = [("--from", window.from_text), ("--to", window.to_text), *(("--entity", one) for one in entities)]
    ends += [("--metric", one) for one in metrics]
    chosen = [word for name, text in ends if text for word in (name, text)]
    cli.show(
        LATE,
        {
            "window": window,
            "effective": found.effective,
            "entity": entities[0] if entities else None,
            "metrics": found.versions,
            "values_checked": found.values,
            "imported_values": found.imported or None,
            "values_with_late_events": found.late,
        },
        late_values=rows,
        metrics_left_out=found.left_out,
        truncated=truncated,
        corrected=lambda: effects_of(effects()),
        note=lambda: effects_note(effects(), shown="late events are those that count with these"),
        next=command("diff", "aggregates", *chosen, "--explain") if found.late else None,
    )
    return None


LATE = Schema(
    "pik lag --late",
    Field("window", Window),
    Field("effective", Window, "the whole buckets that the window touches"),
    Field("entity", str | None),
    Field("metrics", list[str], "NAME@VERSION of the latest definitions, under which values are computed"),
    Field("values_checked", Count, "current values"),
    Field("imported_values", Count | None, "current values that were imported: what they count is not known"),
    Field("values_with_late_events", Count),
    Rows(
        "late_values",
        "by metric, bucket and entity",
        Column("metric", str),
        bucket_column(),
        Column("entity_id", Entity | None, "null: over all entities", cut=16),
        Column("late_events", Count, "recorded after `known_until`, and counted by the definition", get="late"),
        Column("delta", Decimal | None, "by how much they move the value; null: it cannot be computed"),
        Column("before", Decimal | None, "the value without them; null: none", drop=3),
        Column("after", Decimal | None, "with them", drop=2),
        Column("current", Decimal | None, "as it was recorded", drop=4),
        Column("proven", bool, "whether `before` is of exactly what the current value counted", drop=1),
        Column("known_until", Moment, "of the current value", drop=5),
        Column("run_id", str, "that wrote it", detail=True),
        local_column(),
        empty=lambda found: (
            "no late events" if found["values_checked"] else f"no current values {found['window'].within}"
        ),
    ),
    options.LEFT_OUT,
    TRUNCATED,
    NEXT,
    EFFECTS,
    NOTE,
)
