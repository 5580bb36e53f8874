"""Times of foreign records: how options say that they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pik.errors import Invalid, UsageError
from pik.model.instant import Zone, load_zone

OPTIONS = ("time-format", "timezone")
"""The options that describe times."""


@dataclass(frozen=True, slots=True)
class Times:
    """How the times of records are written: in a `format` of that name (None: RFC 3339), and, where they have no
    offset, in the time zone of that IANA name."""

    format: str | None = None
    timezone: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """The options that say the same, by their names."""
        return {
            name: text for name, text in zip(OPTIONS, (self.format, self.timezone), strict=True) if text is not None
        }

    @property
    def need_mapping(self) -> bool:
        """Whether records with such times are not events as they stand, though all their fields may be."""
        return self.format not in (None, "rfc3339")

    def zone(self) -> Zone | None:
        """Return the time zone."""
        return None if self.timezone is None else load_zone(self.timezone)

    def over(self, usual: Times) -> Times:
        """Return these, with what is usual in the place of what they leave open."""
        return Times(self.format or usual.format, self.timezone or usual.timezone)


AS_EVENTS = Times()


def read_times(given: Mapping[str, str]) -> Times:
    """Return what options say of times. Raises Invalid, which begins with the option's name."""
    times = Times(given.get("time-format"), given.get("timezone"))
    try:
        times.zone()
    except UsageError as error:
        raise Invalid(f"timezone: {error.message}", hint=error.hint) from None
    return times
