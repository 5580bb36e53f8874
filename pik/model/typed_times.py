"""Times as people type them: with an offset, or by the clocks of a time zone."""

from __future__ import annotations

import re

from pik.errors import Invalid
from pik.model.instant import SECOND, Zone, checked_instant, display_instant, displayed_in, parse_instant, parse_local
from pik.model.zone_changes import offset_changes

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def typed_instant(text: str, zone: Zone | None = None) -> int:
    """Return the instant of an RFC 3339 text, or the first one of a date; without an offset it is of `zone`, else UTC.

    Raises Invalid, with what to type instead, for a local time that clocks skipped or showed twice.
    """
    local, offset = parse_local(text, date_only=True)
    if zone is None or offset is not None:
        return parse_instant(text, date_only=True)
    before, after = zone.offsets_of(local)
    early = checked_instant(local - before, text)
    is_date = _DATE.fullmatch(text) is not None
    if before < after:
        _, (second, _) = offset_changes(zone.name, (local - after) // SECOND, early // SECOND + 1)
        change = second * SECOND
        if is_date and _shown(zone, change).startswith(text):
            return change  # the date begins where clocks skipped its midnight
        raise Invalid(
            f"{text!r} does not exist in {zone.name}: clocks were set forward past it",
            hint=f"{_shown(zone, change)} is when they were",
        )
    if before > after and not is_date:
        raise Invalid(
            f"{text!r} exists twice in {zone.name}: clocks were set back over it",
            hint=f"{_shown(zone, early)} or {_shown(zone, local - after)}",
        )
    return early


def _shown(zone: Zone, instant: int) -> str:
    with displayed_in(zone):
        return display_instant(instant)
