"""Time zones, and the offset of a local time in them.

They go by their IANA names and come from the tzdata package: the same on every machine.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from pik.errors import Invalid, UsageError
from pik.model.instant import SECOND

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of local time


class TimeNotes:
    """Notes how the times of one field were read where they do not say it themselves: `noted` has an entry, the field
    and a kind, for each. `ambiguous` is which of two instants a local time is that clocks showed twice, `earlier` or
    `later`; None: such times are invalid."""

    def __init__(self, field: str, noted: list[str], ambiguous: str | None = None) -> None:
        self.ambiguous, self._field, self._noted = ambiguous, field, noted

    def add(self, kind: str) -> None:
        """Note a time of this kind."""
        self._noted.append(f"{self._field} {kind}")


class Zone(NamedTuple):
    """A time zone, which knows the offset of a local time, if there is exactly one, or `notes` say which one counts."""

    name: str
    info: ZoneInfo
    notes: TimeNotes | None = None

    def offset(self, local: int) -> int:
        """Return nanoseconds to subtract from a local time (nanoseconds since 1970-01-01T00:00:00 there) for its
        instant.

        Raises Invalid for a local time that clocks skipped or showed twice.
        """
        first, second = self.offsets_of(local)
        if first < second:
            raise Invalid(f"does not exist in {self.name}: clocks were set forward past it; send times with an offset")
        if first > second:
            if self.notes is None or self.notes.ambiguous is None:
                raise Invalid(
                    f"exists twice in {self.name}: clocks were set back over it; send times with an offset, or"
                    " tell by --ambiguous earlier or --ambiguous later which one is meant",
                    option="ambiguous",
                )
            self.notes.add(f"{self.notes.ambiguous} {self.name}")
            return first if self.notes.ambiguous == "earlier" else second
        return first

    def offsets_of(self, local: int) -> tuple[int, int]:
        """Return nanoseconds to subtract from a local time; where clocks change, by those before and those after it."""
        moment = (_LOCAL_EPOCH + timedelta(seconds=local // SECOND)).replace(tzinfo=self.info)
        return _offset_nanos(moment), _offset_nanos(moment.replace(fold=1))

    def offset_at(self, instant: int) -> int:
        """Return nanoseconds by which local time is ahead of UTC at an instant."""
        return _offset_nanos(self.local_at(instant))

    def local_at(self, instant: int) -> datetime:
        """Return what the clocks show at an instant, without the fraction of its second."""
        return (_EPOCH + timedelta(seconds=instant // SECOND)).astimezone(self.info)


def _offset_nanos(moment: datetime) -> int:
    offset = moment.utcoffset()
    assert offset is not None
    return (offset.days * 86400 + offset.seconds) * SECOND


class Zones(NamedTuple):
    """The time zones of an event's times without an offset."""

    event_time: Zone | None = None
    received_time: Zone | None = None


NO_ZONES = Zones()


@lru_cache(maxsize=8)
def load_zone(name: str) -> Zone:
    """Return the zone of this IANA name. Raises UsageError."""
    from importlib.resources import files
    from zoneinfo import ZoneInfo

    names = (files("tzdata") / "zones").read_text(encoding="ascii").split()
    if name not in names:
        from pik.model.zone_names import name_hint

        raise UsageError(f"unknown time zone {name!r}", hint=name_hint(name, names))
    return Zone(name, ZoneInfo.from_file(BytesIO(zone_data(name)), key=name))


def zone_data(name: str) -> bytes:
    """Return the compiled data (RFC 9636) of the zone of this IANA name."""
    from importlib.resources import files

    return files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def zones_version() -> str:
    """Return the program that zones come from, and its version."""
    from importlib.metadata import version

    return f"tzdata {version('tzdata')}"
