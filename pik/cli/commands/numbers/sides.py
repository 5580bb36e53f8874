"""The options that name the two sides of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pik.cli.context import Context
from pik.cli.options import moment, now, option, typed_zone
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.model.scenario import Scenario, With
    from pik.ports.store import Store
    from pik.usecases.metrics.file_numbers import FileRequest
    from pik.usecases.metrics.sides import Recorded, Side


AgainstFile = Annotated[
    str | None,
    option("--against FILE", "Compare with the numbers of this file (CSV, TSV, Parquet, JSON lines; - is stdin)."),
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


def read_sides(
    left: str | None, right: str | None, against: str | None, run: str | None, timezone: str | None
) -> tuple[Side, Side]:
    """Return both sides; times are typed in that zone. Raises UsageError where one is named twice, or wrongly."""
    from pik.usecases.metrics.sides import LEFT, RIGHT, Side, SideKind, read_side

    if left is not None and against is not None:
        raise UsageError("--against and --left exclude each other: both are the left side")
    if right is not None and run is not None:
        raise UsageError("--run and --right exclude each other: both are the right side")
    one, two, zone = LEFT, RIGHT, typed_zone(timezone)
    if left is not None:
        one = read_side("--left", left, (SideKind.CURRENT, SideKind.RUN, SideKind.FILE), zone, now=now())
    elif against is not None:
        one = Side(SideKind.FILE, against)
    if right is not None:
        two = read_side("--right", right, (SideKind.RECOMPUTED, SideKind.CURRENT, SideKind.RUN), zone, now=now())
    elif run is not None:
        two = Side(SideKind.RUN, run)
    if one == two:
        raise UsageError("both sides are the same", hint="--left and --right name them")
    return one, two


def recent_side(cli: Context, store: Store, side: Side) -> Side:
    """Return the side, with the id of the run if it names one by a word such as `latest`. Raises NotFound."""
    from pik.usecases.metrics.sides import SideKind

    return replace(side, name=cli.recent(store, "run", side.name)) if side.kind == SideKind.RUN else side


def file_request(left: Side, key: Sequence[str], value: Sequence[str]) -> FileRequest | None:
    from pik.usecases.metrics.sides import SideKind

    if left.kind != SideKind.FILE:
        if key or value:
            raise UsageError("--key and --value name columns of a file", hint="add --against FILE")
        return None
    from pik.inputs.source import file_source
    from pik.usecases.metrics.file_numbers import FileRequest, read_names

    columns = read_names("--key", key, ("bucket", "entity"))
    return FileRequest(file_source(left.name), columns, read_names("--value", value))


def scenario_of(cli: Context, as_of: str | None, assume: Sequence[str] | None, timezone: str | None) -> Scenario:
    """Return the scenario that the options describe. Files of events are read as `pik ingest` reads them: by the
    options given, else by pik.toml. Raises UsageError and InputError."""
    from pik.model.scenario import With, read_scenario
    from pik.usecases.metrics.scenario import read_event_ids

    known = None if as_of is None else moment("--as-of", as_of, timezone)
    scenario = read_scenario(known, assume or (), read_event_ids)
    assumptions = tuple(_read_as(cli, one) if isinstance(one, With) else one for one in scenario.assumptions)
    return replace(scenario, assumptions=assumptions)


def _read_as(cli: Context, assumed: With) -> With:
    """Return the assumption with all that options, mappings and pik.toml say of how its file is read. Raises UsageError
    and InputError."""
    from pik.cli.reading import with_mapping
    from pik.rawlog.segment_writer import Reading
    from pik.usecases.metrics.assumed_events import reading_for_all, refused

    given = Reading(assumed.max_line, mapping=dict(assumed.mapping), times=assumed.times, layout=assumed.layout)
    try:
        reading = reading_for_all(assumed, with_mapping(cli, given, assumed.named, cli.note))
    except UsageError as error:
        raise refused(assumed, error.message, error.hint) from None
    named = reading.named.partition(" ")[0] or assumed.named
    mapping = tuple(reading.mapping.items())
    return replace(assumed, mapping=mapping, times=reading.times, layout=reading.layout, named=named)


def refuse_scenario(scenario: Scenario, right: Side, run: str | None) -> None:
    """Raise UsageError for a scenario where the right side is recorded."""
    from pik.usecases.metrics.sides import RIGHT

    if scenario and right != RIGHT:
        given = "--run" if run else "--right"
        raise UsageError(f"{given} recomputes nothing", hint="leave --as-of and --assume out")


def uncertain(*sides: Recorded | None) -> Iterator[str]:
    """Yield a note on each run of which more may have been written after the moment of a side."""
    for side in sides:
        for run_id in sorted(side.uncertain) if side is not None else ():
            yield f"run {run_id} was promoted again after {side}: what it computed in between may be among its values"
