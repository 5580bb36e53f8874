"""Times of records: how options say that they are written, for all fields or for one of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pik.errors import Invalid, UsageError, command, number_of
from pik.model.instant import SECOND, format_instant, parse_instant
from pik.model.zone import NO_ZONES, TimeNotes, Zone, Zones, load_zone

TIME_FORMAT, TIMEZONE, AMBIGUOUS = "time-format", "timezone", "ambiguous"
OPTIONS = (TIME_FORMAT, TIMEZONE, AMBIGUOUS)
"""The options that describe times."""

FIELDS = ("event_time", "received_time")
"""The fields that are times."""


@dataclass(frozen=True, slots=True)
class Times:
    """How the times of records are written: in a `format` of that name (None: RFC 3339), and, where they have no
    offset, in the time zone of that IANA name. `special` has what holds for one field instead, as (option, field,
    text). Of a local time that clocks showed twice, `ambiguous` is the instant that is meant (None: it is invalid)."""

    format: str | None = None
    timezone: str | None = None
    special: tuple[tuple[str, str, str], ...] = ()
    ambiguous: str | None = None

    def _of(self, option: str, field: str) -> str | None:
        special = {(option, field): text for option, field, text in self.special}
        return special.get((option, field), self.format if option == TIME_FORMAT else self.timezone)

    def format_given(self, field: str) -> str | None:
        """Return the name of the format that is given for this field."""
        return self._of(TIME_FORMAT, field)

    def format_of(self, field: str) -> str:
        """Return the name of the format in which this field is written."""
        return self._of(TIME_FORMAT, field) or "rfc3339"

    @property
    def given(self) -> dict[str, list[str]]:
        """The options that say the same, by their names; those of one field as FIELD=TEXT."""
        every = zip(OPTIONS, (self.format, self.timezone, self.ambiguous), strict=True)
        texts = {name: [] if text is None else [text] for name, text in every}
        for option, field, text in self.special:
            texts[option].append(f"{field}={text}")
        return {name: every for name, every in texts.items() if every}

    @property
    def recorded(self) -> dict[str, str]:
        """The options of a batch that say the same, equal wherever records are read alike. RFC 3339 goes without
        saying."""
        found = {} if self.ambiguous is None else {AMBIGUOUS: self.ambiguous}
        for option in (TIME_FORMAT, TIMEZONE):
            name = option.replace("-", "_")
            texts = {field: text for field in FIELDS if (text := self._of(option, field)) not in (None, "rfc3339")}
            alike = len(texts) == len(FIELDS) and len(set(texts.values())) == 1
            found |= {name: texts[FIELDS[0]]} if alike else {f"{name}.{field}": text for field, text in texts.items()}
        return found

    @property
    def need_mapping(self) -> bool:
        """Whether records with such times are not events as they stand, though all their fields may be."""
        return any(self.format_of(field) != "rfc3339" for field in FIELDS)

    def notes(self, field: str, noted: list[str]) -> TimeNotes:
        """Return what notes in `noted` how times of a field are read."""
        return TimeNotes(field, noted, self.ambiguous)

    def zone(self, field: str, notes: TimeNotes | None = None) -> Zone | None:
        """Return the time zone of a field, where `notes` say what becomes of local times that clocks showed twice."""
        name = self._of(TIMEZONE, field)
        return None if name is None else load_zone(name)._replace(notes=notes)

    def zones(self, noted: list[str] | None = None) -> Zones:
        """Return the time zones of all fields, which note in `noted` how times were read."""
        if not (self.timezone or self.special):
            return NO_ZONES
        noted = [] if noted is None else noted
        return Zones(*(self.zone(field, self.notes(field, noted)) for field in FIELDS))

    def over(self, defaults: Times) -> Times:
        """Return these, with the defaults in the place of what they leave open."""
        special = [one for one in defaults.special if self._of(*one[:2]) is None]
        special = [*self.special, *special]
        return Times(
            self.format or defaults.format,
            self.timezone or defaults.timezone,
            tuple(sorted(special, key=lambda one: OPTIONS.index(one[0]))),
            self.ambiguous or defaults.ambiguous,
        )


AS_EVENTS = Times()

_ONE_FIELD = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def read_times(given: Mapping[str, str | Sequence[str]]) -> Times:
    """Return what options, by their names, say of times: TEXT or FIELD=TEXT, each at most once. Raises Invalid, which
    begins with the option's name."""
    texts: dict[tuple[str, str], str] = {}
    for option, text in [(name, text) for name in OPTIONS for text in _texts(given.get(name, ()))]:
        one_field = _ONE_FIELD.fullmatch(text) if option != AMBIGUOUS else None
        field, value = one_field.groups() if one_field else ("", text)
        if one_field and field not in FIELDS:
            raise Invalid(f"{option} {text}: {field!r} is not a time of events", hint=f"fields: {', '.join(FIELDS)}")
        if (option, field) in texts:
            whose = f" for {field}" if field else ""
            raise Invalid(f"{option} is given twice{whose}", hint=f"FIELD=… is for one field: {', '.join(FIELDS)}")
        if field and not value:
            raise Invalid(f"{option} {text}: it is empty", hint=f"such as {field}={_EXAMPLES[option]}")
        texts[option, field] = value
    special = tuple((option, field, text) for (option, field), text in texts.items() if field)
    times = Times(texts.get((TIME_FORMAT, "")), texts.get((TIMEZONE, "")), special, texts.get((AMBIGUOUS, "")))
    if times.ambiguous not in (None, "earlier", "later"):
        raise Invalid(f"{AMBIGUOUS} {times.ambiguous!r} is neither earlier nor later")
    try:
        times.zones()
    except UsageError as error:
        raise Invalid(f"{TIMEZONE}: {error.message}", hint=error.hint) from None
    return times


def _texts(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


_EXAMPLES: Mapping[str, str] = {TIME_FORMAT: "epoch_ms", TIMEZONE: "Europe/Berlin"}


def recorded_times(options: Mapping[str, str]) -> Times:
    """Return what `recorded` options of a batch say of times."""
    special = [
        (option, field, text)
        for option in (TIME_FORMAT, TIMEZONE)
        for field in FIELDS
        if (text := options.get(f"{option.replace('-', '_')}.{field}")) is not None
    ]
    return Times(options.get("time_format"), options.get(TIMEZONE), tuple(special), options.get(AMBIGUOUS))


def described(counts: Mapping[str, int]) -> list[str]:
    """Return sentences about how times were read, as TimeNotes count them."""
    twice: Counter[tuple[str, str]] = Counter()
    for name, count in counts.items():
        _, kind, *zone = name.split(" ")
        if zone:
            twice[kind, zone[0]] += count
    found = [f"{number_of(n, 'time')} existed twice in {zone}, read as the {kind}" for (kind, zone), n in twice.items()]
    one_unit = [f"{field}: {_units(units)}" for field, units in _by_field(counts).items() if len(units) == 1]
    return found + one_unit + mixed_units(counts)


def time_notes(
    times: Times,
    counts: Sequence[tuple[str, Mapping[str, int]]],
    events: int,
    first_event: int | None,
    batch: str | None = None,
) -> list[str]:
    """Return what else to know of how times were read, where they may not be what is meant. `counts` has for each input
    how many times were read in which way, `events` is how many they have, of which one is at `first_event`, and `batch`
    the id of their batch, if it is known."""
    mixed = [f"{source}: {text}" for source, of in counts for text in mixed_units(of)]
    numbers = sum(sum(_by_field(of).get(FIELDS[0], {}).values()) for _, of in counts)
    are_numbers = times.format_of(FIELDS[0]).startswith("epoch") or numbers == events > 0
    return mixed + unknown_time(first_event) + (_zone_without_effect(times, batch or "BATCH") if are_numbers else [])


def _zone_without_effect(times: Times, batch: str) -> list[str]:
    """Return a note where a zone is given for times of the events, which are numbers since 1970."""
    zone = times.zone(FIELDS[0])
    if zone is None:
        return []
    local = f"{command('correct', '--assume')} zone={zone.name},batch={batch}"
    return [f"numbers since 1970 are in UTC: {zone.name} changes none; if they are of its clocks, `{local}` moves them"]


def unknown_time(first_event: int | None) -> list[str]:
    """Return a note where the first event is at an instant that many programs write for a time that they do not know:
    zero of Unix, of SQL Server and of spreadsheets."""
    if first_event is None or first_event not in _ZEROS:
        return []
    shown = format_instant(first_event)
    end = format_instant(first_event + SECOND)
    return [f"events at {shown}, which many programs write for an unknown time: `{command('events', '--to', end)}`"]


_ZEROS = frozenset(map(parse_instant, ("1970-01-01T00:00:00Z", "1900-01-01T00:00:00Z", "1899-12-30T00:00:00Z")))


def mixed_units(counts: Mapping[str, int]) -> list[str]:
    """Return sentences about fields of which numbers were read in several units."""
    fields = _by_field(counts).items()
    return [f"{field} has numbers of several units: {_units(units)}" for field, units in fields if len(units) > 1]


def _by_field(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the counts of units of each field."""
    units: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, count in counts.items():
        field, kind, *zone = name.split(" ")
        if not zone:
            units[field][kind] = count
    return units


def _units(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} read as {unit}" for unit, count in counts.items())
