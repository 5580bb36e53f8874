"""The options that name the two sides of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pik.cli.context import Context
from pik.cli.options import moment, option
from pik.config import ingest_defaults

if TYPE_CHECKING:
    from pik.model.scenario import Scenario
    from pik.ports.store import Store
    from pik.usecases.metrics.sides import RecordedSide, Side


AgainstFile = Annotated[
    str | None,
    option("--against FILE", "Compare with the numbers of this file (CSV, TSV, Parquet, JSON; - is stdin)."),
]
Key = Annotated[
    list[str] | None,
    option("--key bucket=COLUMN,entity=COLUMN", "With --against: its columns, if they have unusual names."),
]
Value = Annotated[
    list[str] | None, option("--value METRIC=COLUMN", "With --against: the column of a metric (repeatable).")
]
LeftSide = Annotated[
    str | None,
    option("--left SIDE", "current (default), current@TIME, run:ID or run:latest, file:PATH (as --against)."),
]
RightSide = Annotated[
    str | None, option("--right SIDE", "recomputed (default), current, current@TIME, run:ID (as --run).")
]
RunSide = Annotated[
    str | None, option("--run RUN", "Compare what this run wrote (id, latest, -2); nothing is recomputed.")
]


def recent_side(cli: Context, store: Store, side: Side) -> Side:
    """Return the side, with the id of the run if it names one by a word such as `latest`. Raises NotFound."""
    from pik.usecases.metrics.sides import SideKind

    return replace(side, name=cli.recent(store, "run", side.name)) if side.kind == SideKind.RUN else side


def scenario_of(cli: Context, as_of: str | None, assume: Sequence[str] | None, timezone: str | None) -> Scenario:
    """Return the scenario that the options describe. Files of events are read as `pik ingest` reads them: by the
    options given, else by pik.toml. Raises UsageError and InputError."""
    from pik.usecases.metrics.chosen_sides import scenario_of as named

    known = None if as_of is None else moment("--as-of", as_of, timezone)
    return named(known, assume or (), lambda: ingest_defaults(cli.settings), cli.note)


def uncertain(*sides: RecordedSide | None) -> Iterator[str]:
    """Yield a note on each run of which more may have been written after the moment of a side."""
    for side in sides:
        for run_id in sorted(side.uncertain) if side is not None else ():
            yield f"run {run_id} was promoted again after {side}: what it computed in between may be among its values"
