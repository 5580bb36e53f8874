"""The two sides of a comparison, and the scenario of the right one, as they are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pik.errors import UsageError
from pik.inputs.source import file_source
from pik.model.assumption_text import read_scenario
from pik.model.named_mapping import IngestDefaults
from pik.model.scenario import Scenario, With
from pik.model.zone import Zone
from pik.rawlog.reading import Reading
from pik.usecases.ingest.reading import resolve_reading
from pik.usecases.metrics.assumed_events import reading_for_all, refused
from pik.usecases.metrics.event_ids import read_event_ids
from pik.usecases.metrics.file_numbers import FileRequest, read_names
from pik.usecases.metrics.sides import LEFT, RIGHT, Side, SideKind, read_side


def read_sides(
    left: str | None, right: str | None, against: str | None, run: str | None, zone: Zone | None, *, now: int
) -> tuple[Side, Side]:
    """Return both sides of a comparison, as they are named; their times are as in `typed_instant`. Raises UsageError
    where one is named twice, or wrongly."""
    if left is not None and against is not None:
        raise UsageError("--against and --left exclude each other: both are the left side")
    if right is not None and run is not None:
        raise UsageError("--run and --right exclude each other: both are the right side")
    one, two = LEFT, RIGHT
    if left is not None:
        one = read_side("--left", left, (SideKind.CURRENT, SideKind.RUN, SideKind.FILE), zone, now=now)
    elif against is not None:
        one = Side(SideKind.FILE, against)
    if right is not None:
        two = read_side("--right", right, (SideKind.RECOMPUTED, SideKind.CURRENT, SideKind.RUN), zone, now=now)
    elif run is not None:
        two = Side(SideKind.RUN, run)
    if one == two:
        raise UsageError("both sides are the same", hint="--left and --right name them")
    return one, two


def file_request(left: Side, key: Sequence[str], value: Sequence[str]) -> FileRequest | None:
    """Return what is asked of the file on the left side, with the columns that are named; None where it is not a file.
    Raises UsageError."""
    if left.kind != SideKind.FILE:
        if key or value:
            raise UsageError("--key and --value name columns of a file", hint="add --against FILE")
        return None
    columns = read_names("--key", key, ("bucket", "entity"))
    return FileRequest(file_source(left.name), columns, read_names("--value", value))


def refuse_scenario(scenario: Scenario, right: Side, run: str | None) -> None:
    """Raise UsageError for a scenario where the right side is recorded."""
    if scenario and right != RIGHT:
        given = "--run" if run else "--right"
        raise UsageError(f"{given} recomputes nothing", hint="leave --as-of and --assume out")


def scenario_of(
    known: int | None, assume: Sequence[str], defaults: Callable[[], IngestDefaults], note: Callable[[str], None]
) -> Scenario:
    """Return the scenario of what was known at an instant (None: today) and of assumptions, as they are typed. Files of
    events are read by the options in the assumption, else as pik.toml says; `note` is told of a mapping that is taken.
    Raises UsageError and InputError."""
    scenario = read_scenario(known, assume, read_event_ids)
    assumptions = tuple(
        _read_as(one, defaults(), note) if isinstance(one, With) else one for one in scenario.assumptions
    )
    return replace(scenario, assumptions=assumptions)


def _read_as(assumed: With, defaults: IngestDefaults, note: Callable[[str], None]) -> With:
    """Return the assumption with all that options, mappings and pik.toml say of how its file is read. Raises UsageError
    and InputError."""
    given = Reading(assumed.max_line, mapping=dict(assumed.mapping), times=assumed.times, layout=assumed.layout)
    try:
        reading = reading_for_all(assumed, resolve_reading(defaults, given, assumed.named, note))
    except UsageError as error:
        raise refused(assumed, error.message, error.hint) from None
    named = reading.named.partition(" ")[0] or assumed.named
    mapping = tuple(reading.mapping.items())
    return replace(assumed, mapping=mapping, times=reading.times, layout=reading.layout, named=named)
