"""What people type for a time zone that is not a name of IANA, and the names that they may mean."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OFFSET = re.compile(r"(?:UTC|GMT|Z)?\s?(?P<sign>[+\-\u2212])(?P<hours>\d{1,2})(?::?(?P<minutes>\d\d))?", re.ASCII)
_ABBREVIATION = re.compile(r"[A-Za-z]{2,5}", re.ASCII)
_PLACES = {
    **dict.fromkeys(("ET", "EST", "EDT"), "America/New_York"),
    **dict.fromkeys(("MT", "MST", "MDT"), "America/Denver"),
    **dict.fromkeys(("PT", "PST", "PDT"), "America/Los_Angeles"),
    **dict.fromkeys(("CET", "CEST", "MEZ", "MESZ"), "Europe/Berlin"),
    **dict.fromkeys(("EET", "EEST"), "Europe/Athens"),
    **dict.fromkeys(("WET", "WEST"), "Europe/Lisbon"),
    **dict.fromkeys(("CT", "CDT"), "America/Chicago"),
    **dict.fromkeys(("AEST", "AEDT"), "Australia/Sydney"),
    **dict.fromkeys(("NZST", "NZDT"), "Pacific/Auckland"),
    "CST": "America/Chicago, Asia/Shanghai, America/Havana",
    "IST": "Asia/Kolkata, Europe/Dublin, Asia/Jerusalem",
    "BST": "Europe/London, Asia/Dhaka",
    "ADT": "America/Halifax",
    "AKST": "America/Anchorage",
    "BRT": "America/Sao_Paulo",
    "HKT": "Asia/Hong_Kong",
    "JST": "Asia/Tokyo",
    "KST": "Asia/Seoul",
    "MSK": "Europe/Moscow",
    "SAST": "Africa/Johannesburg",
    "SGT": "Asia/Singapore",
}
_ANY = "an IANA name such as Europe/Berlin, America/New_York or UTC"


def places_of(abbreviation: str) -> str | None:
    """Return the zones that may have an abbreviation, as a text; None if it is not known."""
    return _PLACES.get(abbreviation.upper())


def name_hint(typed: str, known: Sequence[str]) -> str:
    """Return what to type in the place of a name that is not one of those known.

    Most people type an offset, an abbreviation, a city, or the right name in the wrong case. Names that look like an
    abbreviation are no help: EST is seven hours from CEST. Nor is Etc/GMT+1 one for GMT+1: it is an hour behind UTC.
    """
    if offset := _OFFSET.fullmatch(typed.strip().upper()):
        hours = int(offset["hours"]) * (1 if offset["sign"] == "+" else -1)
        fixed = f"Etc/GMT{-hours:+d}"
        if hours and not int(offset["minutes"] or 0) and fixed in known:
            ahead = f"{abs(hours)} hour{'s' if abs(hours) > 1 else ''} {'ahead of' if hours > 0 else 'behind'} UTC"
            return f"{fixed} is {ahead} all year (its sign is turned round); or a place such as Europe/Berlin"
        return _ANY if offset["hours"].strip("0") or (offset["minutes"] or "").strip("0") else "UTC"
    by_city = [one for one in known if one.rpartition("/")[2].lower() == typed.lower().replace(" ", "_")]
    if not by_city and _ABBREVIATION.fullmatch(typed):
        place = places_of(typed)
        return f"abbreviations are not zones; {f'perhaps {place}' if place else 'a place is, such as Europe/Berlin'}"
    from difflib import get_close_matches

    near = by_city or get_close_matches(typed, known, 3)
    return f"perhaps {', '.join(near[:3])}" if near else _ANY
