"""Time zones by their IANA names, from the tzdata package: the same on every machine, whatever its own database is."""

from __future__ import annotations

from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

from pik.errors import Invalid, UsageError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of local time


class Zone:
    """A time zone: tells the offset of a local time, if there is exactly one."""

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name, self.info = name, info

    def offset(self, local: int) -> int:
        """Nanoseconds to subtract from a local time (nanoseconds since 1970-01-01T00:00:00 there) for its instant.

        Raises Invalid for a local time that clocks skipped or showed twice.
        """
        moment = _EPOCH + timedelta(seconds=local // _SECOND)
        first = moment.replace(tzinfo=self.info).utcoffset()
        second = moment.replace(tzinfo=self.info, fold=1).utcoffset()
        assert first is not None
        assert second is not None
        if first < second:
            raise Invalid(f"does not exist in {self.name}: clocks were set forward past it; send times with an offset")
        if first > second:
            raise Invalid(f"exists twice in {self.name}: clocks were set back over it; send times with an offset")
        return (first.days * 86400 + first.seconds) * _SECOND


@lru_cache(maxsize=8)
def load_zone(name: str) -> Zone:
    """The zone of this IANA name. Raises UsageError."""
    from importlib.resources import files
    from zoneinfo import ZoneInfo

    names = (files("tzdata") / "zones").read_text(encoding="ascii").split()
    if name not in names:
        # Most people type a city, an abbreviation, or the right name in the wrong case.
        by_city = [one for one in names if one.rpartition("/")[2].lower() == name.lower().replace(" ", "_")]
        near = by_city or get_close_matches(name, names, 3)
        hint = (
            f"perhaps {', '.join(near[:3])}" if near else "an IANA name such as Europe/Berlin, America/New_York or UTC"
        )
        raise UsageError(f"there is no time zone {name!r}", hint=hint)
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return Zone(name, ZoneInfo.from_file(file, key=name))
