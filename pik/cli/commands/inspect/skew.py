"""`pik lag --skew`: clocks that are off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pik.cli.command import FOUND
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of, notes
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Column, Field, Rows, Schema
from pik.cli.values import Count, EventId, Lag, Moment
from pik.errors import command, number_of
from pik.model.duration import format_duration
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.delivery import Filter
    from pik.ports.store import Store
    from pik.usecases.timing.grouping import Grouping
    from pik.usecases.timing.skew import LagShift


def show_skew(cli: Context, wanted: Filter, grouping: Grouping, *, as_received: bool = False) -> int | None:
    """Show the shifts and negative lags of the events that the filter selects. Return FOUND for a shift."""
    from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
    from pik.usecases.inspect.events import nothing_matches
    from pik.usecases.timing.skew import RULE, find_skew

    store = cli.open_store()
    overrides = AS_RECEIVED if as_received else NO_OVERRIDES
    found = find_skew(store, cli.engine(), wanted, grouping, overrides)
    effects = effects_finder(cli, store, wanted, as_received=as_received)
    groups = list(found.groups)
    without = _without_moves(store, wanted) if as_received and found.shifts else []
    suggested = dict.fromkeys(filter(None, (_suggestion(one, wanted, grouping, without) for one in found.shifts)))
    cli.show(
        SKEW,
        {
            "window": wanted.window,
            "entity": wanted.entities[0] if wanted.entities else None,
            "by": grouping.by,
            "rule": RULE,
        },
        shifts=found.shifts,
        negative_lags=found.negative,
        groups=groups,
        next="\n".join(suggested) or None,
        corrected=lambda: effects_of(effects()),
        note=lambda: notes(
            _note(sum(one.verdict == "unknown" for one in groups), has_next=bool(suggested)), effects_note(effects())
        ),
    )
    if not groups:
        cli.note(nothing_matches("events", store, wanted))
    return FOUND if found.shifts else None


def _note(unknown: int, *, has_next: bool) -> str | None:
    from pik.usecases.timing.skew import EVENTS, HOURS

    parts = []
    if has_next:
        parts.append("what the numbers would be with the right times: see next")
    if unknown:
        groups = number_of(unknown, "group")
        parts.append(
            f"cannot know of {groups} whether a shift is there: too few events, fewer than {HOURS} hours of arrival"
            f" with {EVENTS} events that agree"
        )
    return "; ".join(parts) or None


def _without_moves(store: Store, wanted: Filter) -> list[str]:
    """Return the options that leave out the recorded corrections which move events of the window: what is to be moved
    from where it was received must not be moved by them as well."""
    from pik.rawlog.corrected import concerning, corrected_until

    found = [
        one.correction_id for one in concerning(store, corrected_until(store).active, wanted.window) if one.kind.moves
    ]
    return [word for one in found for word in ("--assume", f"without-correction={one}")]


def _suggestion(one: LagShift, wanted: Filter, grouping: Grouping, without: Sequence[str]) -> str | None:
    """Return the command that computes with the right times of those events that were looked at, `without` recorded
    corrections."""
    from pik.usecases.timing.skew import righting

    shift = righting(one, wanted, grouping)
    return None if shift is None else command("diff", "aggregates", *without, "--assume", str(shift))


def _looks_like(one: LagShift) -> str | None:
    if one.zone is None:
        return None
    off = format_duration(abs(one.shift - one.zone))
    return f"zone {format_duration(one.zone)}, {off} off"


SKEW = Schema(
    "pik lag --skew",
    Field("window", Window),
    Field("entity", str | None),
    Field("by", str, "what is looked at separately"),
    Field("rule", str, "how shifts are found", text=lambda found: found["rule"]),
    Rows(
        "shifts",
        "by group and time",
        Column("group", str | None, cut=12),
        Column("shift", Lag, "by how much the lag is greater than it should be; negative: event times are too late"),
        Column("since", Moment, "the first arrival that has it"),
        Column("until", Moment | None, "the last one; null: it lasts until the last arrival", drop=1),
        Column("events", Count),
        Column("base", Lag | None, "the median lag without it; null: unknown, and taken for 0", drop=2),
        Column("spread", Lag, "the median over the shifted hours of their MAD", drop=3),
        Column("zone", Lag | None, "the multiple of half an hour that the shift is near", detail=True),
        Column("looks_like", str | None, get=_looks_like, wrap=True, rare=True),
        Column("event_id", EventId, "the first event that has it", drop=4),
        empty="no shifts",
    ),
    Rows(
        "negative_lags",
        "other events with a lag below 0, by group, the least lag first",
        Column("group", str | None, cut=12),
        Column("events", Count),
        Column("lag", Lag, "the least", get="least"),
        Column("event_time", Moment, "of the event that has it", drop=1),
        Column("event_id", EventId),
        empty="no other negative lags",
    ),
    Rows(
        "groups",
        "that were looked at",
        Column("group", str | None, cut=12),
        Column("events", Count),
        Column("hours", Count, "in which they arrived"),
        Column("lag", Lag, "the median of the hours' medians"),
        Column("spread", Lag),
        Column("limit", Lag, "a level whose lag differs by more is shifted", drop=1),
        Column("verdict", str, "`steady`, `shifted`, or `unknown`: too few hours or events"),
        empty="no such events",
    ),
    NEXT,
    EFFECTS,
    NOTE,
)
