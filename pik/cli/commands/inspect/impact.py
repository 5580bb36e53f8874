"""What an assumption does to the metrics: the tables of `pik duplicates --impact` and `pik diff events`."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from pik.cli import options
from pik.cli.buckets import bucket_column, local_column
from pik.cli.document import Column, Field, Rows
from pik.cli.values import Count, Entity
from pik.errors import number_of

if TYPE_CHECKING:
    from pik.usecases.metrics.impact import Impact


def impact_parts(assumed: str, only: str = "") -> tuple[Rows, Rows, Field]:
    """Return the parts of a schema that show an impact, the field `impact` of a result. `assumed` completes the
    descriptions: `under the assumption`."""
    return (
        Rows(
            "metrics",
            "by name",
            Column("metric", str, "NAME@VERSION"),
            Column("differing", Count, f"values that differ {assumed}"),
            Column("total", Decimal | None, "the sum of all values now; null: they do not add up, or one failed"),
            Column("total_assumed", Decimal | None, f"the sum {assumed}", get="assumed"),
            Column("delta", Decimal | None, "total_assumed - total"),
            Column("failed", Count, "values that cannot be computed", drop=1),
            get=lambda found: found.impact.metrics,
            empty="no metrics",
            only=only,
        ),
        Rows(
            "differing_values",
            "those that differ, of metrics that do not add up, by metric, bucket, entity",
            Column("metric", str),
            bucket_column(),
            Column("entity_id", Entity | None, "null: over all entities", cut=24),
            Column("value", Decimal | None, "now; null: no value"),
            Column("value_assumed", Decimal | None, f"{assumed}; null: no value", get="assumed"),
            Column("delta", Decimal | None, "value_assumed - value; no value counts as 0"),
            local_column(),
            get=lambda found: found.impact.values,
            empty="none; values of metrics that add up are not listed, see their totals",
            only=only,
        ),
        msgspec.structs.replace(options.LEFT_OUT, get="impact.left_out", only=only),
    )


def failed_note(impact: Impact) -> str | None:
    """Return the note on values that cannot be computed, if there are any."""
    if not impact.failed:
        return None
    return f"{number_of(impact.failed, 'value')} cannot be computed; why: pik diff aggregates"


def summed_note(impact: Impact) -> str | None:
    """Return the note that a list of differing values is not one of all metrics, if that may be thought."""
    summed = [one.metric.partition("@")[0] for one in impact.metrics if one.adds_up and one.differing]
    if not impact.listed or not summed:
        return None
    return f"not listed, since they add up: the differing values of {', '.join(summed)}"
