"""Scenarios: what a number is computed from, where that is not what counts today. Read from --as-of and --assume.

The order in which assumptions take effect is fixed (docs/investigating.md); within a step they add up as given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from pik.errors import Invalid, UsageError
from pik.model.event import MAX_LINE
from pik.model.ids import is_recent
from pik.model.instant import (
    ALL_TIME,
    DAY,
    HOUR,
    MAX_INSTANT,
    MIN_INSTANT,
    MINUTE,
    SECOND,
    Window,
    format_duration,
    format_instant,
    load_zone,
    parse_duration,
    parse_instant,
)
from pik.model.layout import AUTO, Layout, read_layout
from pik.model.layout import OPTIONS as LAYOUT
from pik.model.path import EventPath
from pik.model.times import AS_EVENTS, Times, read_times
from pik.model.times import OPTIONS as TIMES

HINT = (
    "kinds: without, without-batch, with, delivery, conflicts, shift, zone, duplicates, corrections, definition; see"
    " --help"
)


@dataclass(frozen=True, slots=True)
class Criteria:
    """Selects deliveries by the time and content that `events` and `show` print; None: no restriction. `batch` is a
    batch's id or its beginning, `received` a window of arrival (received time, else ingest time), `where` a SQL
    condition on an event."""

    source: str | None = None
    event_type: str | None = None
    entity: str | None = None
    batch: str | None = None
    window: Window = ALL_TIME
    received: Window = ALL_TIME
    where: str | None = None

    @property
    def condition(self) -> str | None:
        """The SQL condition on an event of `received` and `where` together."""
        arrival = "epoch_ns(coalesce(received_time, ingest_time))"
        # SQL sees these times in whole microseconds: an arrival within that of the start is in.
        bounds = [f"{arrival} >= {self.received.start // 1000 * 1000}"] if self.received.from_text else []
        bounds += [f"{arrival} < {self.received.end}"] if self.received.to_text else []
        if not bounds:
            return self.where
        arrived = " AND ".join(bounds)  # the condition may fail for deliveries of which this does not hold
        return arrived if self.where is None else f"CASE WHEN {arrived} THEN ({self.where}\n) END"

    def __str__(self) -> str:
        """Return them as they are typed, times resolved."""
        pairs = {
            "source": self.source,
            "type": self.event_type,
            "entity": self.entity,
            "batch": self.batch,
            "from": self.window.from_text,
            "to": self.window.to_text,
            "received-from": self.received.from_text,
            "received-to": self.received.to_text,
        }
        typed = typed_pairs((name, text) for name, text in pairs.items() if text is not None)
        return ",".join(typed + ([f"where={self.where}"] if self.where is not None else []))


@dataclass(frozen=True, slots=True)
class Without:
    """These events are out."""

    event_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"without={self.event_ids[0]}" if len(self.event_ids) == 1 else f"without {len(self.event_ids):,} events"


@dataclass(frozen=True, slots=True)
class WithoutSelected:
    """The events whose counting delivery is selected are out."""

    criteria: Criteria

    def __str__(self) -> str:
        return f"without=selected,{self.criteria}"


RETRIED_WITHIN = 5 * SECOND
"""How long after an event one that looks like it is taken for a retry, where nothing else is said (nanoseconds)."""

MOST_WITHIN = HOUR
"""The longest that can be said."""


@dataclass(frozen=True, slots=True)
class WithoutSuspects:
    """The selected events that look like an earlier one, at most `within` nanoseconds before or at the same time, are
    out: it has the same source, type and entity, and the same payload or, where there are paths, the same values
    there."""

    criteria: Criteria
    within: int = RETRIED_WITHIN
    same: tuple[str, ...] = ()

    def __str__(self) -> str:
        within = [] if self.within == RETRIED_WITHIN else [("within", format_duration(self.within))]
        rule = typed_pairs([*within, *(("same", path) for path in self.same)])
        return ",".join([WITHOUT_SUSPECTS, *rule, *([str(self.criteria)] if self.criteria != Criteria() else [])])


WITHOUT_SUSPECTS = "without=suspects"


@dataclass(frozen=True, slots=True)
class WithoutBatch:
    """The batch never arrived."""

    batch_id: str

    def __str__(self) -> str:
        return f"without-batch={self.batch_id}"


ASSUMED_BATCH = "00000000000000000000000000"
"""The batch_id of events that are only assumed."""


@dataclass(frozen=True, slots=True)
class With:
    """The events of a file, which are not in the store, are added. The others are options of `ingest`, by which it is
    read; `mapping` has fields and their expressions, `named` is the name of a mapping."""

    path: str
    mapping: tuple[tuple[str, str], ...] = ()
    times: Times = AS_EVENTS
    max_line: int = MAX_LINE
    layout: Layout = AUTO
    named: str | None = None
    max_window: int | None = None

    def __str__(self) -> str:
        return ",".join(typed_pairs([("with", f"@{self.path}"), *self.options]))

    @property
    def options(self) -> list[tuple[str, str]]:
        """The options as they are typed, without dashes, and their values."""
        longest = [] if self.max_line == MAX_LINE else [("max-line", str(self.max_line))]
        longest += [] if self.max_window is None else [("max-window", str(self.max_window))]
        maps = [("map", "=".join(pair)) for pair in self.mapping]
        times = [(name, text) for name, texts in self.times.given.items() for text in texts]
        named = [] if self.named is None else [("mapping", self.named)]
        return named + maps + list(self.layout.given.items()) + times + longest


@dataclass(frozen=True, slots=True)
class CountedDelivery:
    """This delivery of the event counts: (batch_id, seq), or its number, from 1, in recording order."""

    event_id: str
    delivery: tuple[str, int] | int

    def __str__(self) -> str:
        place = self.delivery if isinstance(self.delivery, int) else "/".join(map(str, self.delivery))
        return f"delivery={self.event_id}:{place}"


class Which(StrEnum):
    """One of several deliveries, in recording order; or one of two instants with the same local time."""

    FIRST = "first"
    LAST = "last"
    EARLIER = "earlier"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class CountedConflict:
    """Of events with conflicts, whose counting delivery is selected, the first or the last delivery counts."""

    which: Which
    criteria: Criteria

    def __str__(self) -> str:
        return f"conflicts={self.which}" + (f",{self.criteria}" if self.criteria != Criteria() else "")


_UNITS = (("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND))


@dataclass(frozen=True, slots=True)
class Shift:
    """Selected deliveries happened this much later (nanoseconds, whole seconds; negative: earlier)."""

    by: int
    criteria: Criteria

    def __str__(self) -> str:
        size, unit = next((size, unit) for unit, size in _UNITS if self.by % size == 0)
        return f"shift={self.by // size}{unit},{self.criteria}"


@dataclass(frozen=True, slots=True)
class LocalTime:
    """The digits of selected deliveries' times are the wall clock of a time zone, not UTC. `fold` chooses where clocks
    showed a time twice; None: such a time is an error."""

    zone: str
    fold: Which | None
    criteria: Criteria

    def __str__(self) -> str:
        return f"zone={self.zone}{f':{self.fold}' if self.fold else ''},{self.criteria}"


COUNTED_DUPLICATES = "duplicates=counted"


@dataclass(frozen=True, slots=True)
class CountedDuplicates:
    """Every delivery counts, not only the accepted ones."""

    def __str__(self) -> str:
        return COUNTED_DUPLICATES


@dataclass(frozen=True, slots=True)
class WithoutCorrections:
    """No recorded correction holds; what rebuilds of the index changed stays."""

    def __str__(self) -> str:
        return "corrections=none"


@dataclass(frozen=True, slots=True)
class OtherDefinition:
    """The metric of a definition file is computed with that file."""

    path: str

    def __str__(self) -> str:
        return f"definition=@{self.path}"


Assumption = (
    Without
    | WithoutSelected
    | WithoutSuspects
    | WithoutBatch
    | With
    | CountedDelivery
    | CountedConflict
    | Shift
    | LocalTime
    | CountedDuplicates
    | WithoutCorrections
    | OtherDefinition
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a number is computed from: the deliveries recorded until `as_of` (nanoseconds; None: all), under
    assumptions, in the order given. Which delivery of each event counts is as rebuilds of the index had left it at
    `corrected`, other corrections hold as they did at `corrections_until` (None, both: at `as_of`)."""

    as_of: int | None = None
    assumptions: tuple[Assumption, ...] = ()
    corrected: int | None = None
    corrections_until: int | None = None

    def __bool__(self) -> bool:
        """Return whether it assumes anything."""
        moments = self.as_of, self.corrected, self.corrections_until
        return any(moment is not None for moment in moments) or bool(self.assumptions)

    @property
    def corrections_at(self) -> int | None:
        """The moment whose corrections hold (nanoseconds; None: now, 0: none does)."""
        if any(isinstance(one, WithoutCorrections) for one in self.assumptions):
            return 0
        return self.as_of if self.corrections_until is None else self.corrections_until

    @property
    def texts(self) -> list[str]:
        """The assumptions as they are typed, resolved."""
        as_of = [] if self.as_of is None else [f"as-of={format_instant(self.as_of)}"]
        return as_of + [str(one) for one in self.assumptions]


PLAIN = Scenario()


def read_scenario(as_of: int | None, assume: Sequence[str], read_ids: Callable[[str], tuple[str, ...]]) -> Scenario:
    """Return the scenario that the options describe; `read_ids` returns the event_ids that a file lists. Raises
    UsageError naming the assumption that is wrong."""
    return Scenario(as_of, tuple(read_assumption(text, read_ids) for text in assume))


def replay_assumptions(assume: Sequence[str]) -> tuple[str, ...]:
    """Return the assumptions of a replay, which can only be that duplicates count. Raises UsageError for another."""
    for text in assume:
        if not isinstance(read_assumption(text, lambda path: (path,)), CountedDuplicates):
            raise _wrong(
                text,
                f"a replay writes only what is true, so it takes only {COUNTED_DUPLICATES}",
                "to compute under this assumption without writing: pik diff aggregates, or pik explain",
            )
    return (COUNTED_DUPLICATES,) if assume else ()


def read_assumption(text: str, read_ids: Callable[[str], tuple[str, ...]]) -> Assumption:
    """Return the assumption that `KIND=VALUE[,KEY=VALUE…]` describes. Raises UsageError."""
    kind, equals, value = text.partition("=")
    if not equals or not value:
        raise _wrong(text, "expected KIND=VALUE", HINT)
    reader = _READERS.get(kind)
    if reader is None:
        raise _wrong(text, f"unknown kind {kind!r}", HINT)
    try:
        return reader(value, read_ids)
    except Invalid as error:
        raise _wrong(text, error.message, error.hint or f"such as --assume {_EXAMPLES[kind]}") from None


def read_criteria(text: str) -> Criteria:
    """Return the criteria that `KEY=VALUE[,KEY=VALUE…]` describes: source, type, entity, batch, from, to and, as the
    last one, where. A value with a comma is quoted as in CSV. Raises Invalid."""
    return _criteria(dict(_pairs(text, _SELECTION, "a selection", _SELECTION_HINT)))


def _criteria(given: Mapping[str, str]) -> Criteria:
    _batch(given.get("batch", ""))
    texts = {name: given.get(_KEYS.get(name, name)) for name in _TEXTS}
    return Criteria(**texts, window=_window(given, ""), received=_window(given, "received-"))


def _window(given: Mapping[str, str], prefix: str) -> Window:
    """Return the window of `from` and `to`, each with this prefix. Raises Invalid."""
    start, end = (
        _written(name, given[name]) if name in given else default
        for name, default in ((f"{prefix}from", ALL_TIME.start), (f"{prefix}to", ALL_TIME.end))
    )
    if start >= end:
        raise Invalid(f"its window is empty: {prefix}from is included, {prefix}to is not, and must be later")
    return Window(start, end)


def _batch(text: str) -> str:
    """Return the id of a batch, or its beginning. Raises Invalid for a word such as `latest`."""
    if is_recent(text):
        raise Invalid("a batch is named by its id, since assumptions are recorded as typed", hint="pik batches")
    return text


def _written(name: str, text: str) -> int:
    """Return the instant of a time. Words such as `yesterday` are refused: a selection is recorded as it is typed."""
    try:
        return parse_instant(text, date_only=True)
    except Invalid as error:
        raise Invalid(f"{name}: {error.message}", hint=f"written out, in UTC: {name}=2026-01-31T10:00:00Z") from None


_TEXTS = tuple(field.name for field in fields(Criteria) if field.name not in ("window", "received"))
_KEYS = {"event_type": "type"}
_SELECTION = ("source", "type", "entity", "batch", "from", "to", "received-from", "received-to", "where")
_SELECTION_HINT = "source=, type=, entity=, batch=, from=, to=, received-from=, received-to= and last where=SQL"
_SUSPECTS = ("within", "same", *_SELECTION)
WITH_OPTIONS = ("with", "mapping", *LAYOUT, "map", *TIMES, "max-line", "max-window")
_REPEATABLE = ("map", "same", *TIMES)
_MAY_BE_BLANK = ("null", "delimiter")
_PAIR = re.compile(r'(?P<key>[a-z-]+)=(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^,]*))(?:,|$)')
_COMMA = 'a value with a comma: "a,b"'


def _pairs(text: str, keys: Sequence[str], what: str, hint: str) -> list[tuple[str, str]]:
    """Return the pairs of a text, in order; a key comes once unless it is in _REPEATABLE. Raises Invalid."""
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if "where" in keys and text.startswith("where=", at):
            pairs.append(("where", text[at + len("where=") :]))
            break
        found = _PAIR.match(text, at)
        if found is None or found["key"] not in keys:
            raise Invalid(f"{text[at:]!r} is not {what}", hint=f"{hint}; {_COMMA}")
        quoted, plain = found["quoted"], found["plain"]
        pairs.append((found["key"], plain if quoted is None else quoted.replace('""', '"')))
        at = found.end()
    given = [key for key, _ in pairs if key not in _REPEATABLE]
    if twice := next((key for key in given if given.count(key) > 1), None):
        raise Invalid(f"{twice}= is given twice")
    if empty := next((key for key, value in pairs if not value.strip() and key not in _MAY_BE_BLANK), None):
        raise Invalid(f"{empty}= is empty")
    return pairs


def typed_pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return pairs as they are typed."""
    return [f"{key}={_quoted(value)}" for key, value in pairs]


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if re.search('[,"]', value) else value


ReadIds = Callable[[str], tuple[str, ...]]


def _without(value: str, read_ids: ReadIds) -> Assumption:
    first, comma, rest = value.partition(",")
    if first == "selected":
        return WithoutSelected(_needed(rest))
    if first == "suspects":
        return _suspects(rest)
    if comma:
        what = "expected one event_id, @FILE, selected,SELECTION, or suspects,SELECTION"
        raise Invalid(what, hint="give --assume once for each event")
    if re.fullmatch("[0-9a-z]{26}", first.lower()):
        raise Invalid(f"{first} is not an event_id", hint=f"if it is a batch: --assume without-batch={first.upper()}")
    return Without(read_ids(first[1:]) if first.startswith("@") else (_event_id(first),))


def _suspects(text: str) -> Assumption:
    pairs = _pairs(text, _SUSPECTS, "a selection of suspects", f"within=, same=PATH (repeatable), {_SELECTION_HINT}")
    given = dict(pairs)
    within = parse_duration(given["within"]) if "within" in given else RETRIED_WITHIN
    if within > MOST_WITHIN:
        raise Invalid(f"within={given['within']}: more than {format_duration(MOST_WITHIN)}", hint="such as within=30s")
    same = tuple(EventPath(path, "same").text for key, path in pairs if key == "same")
    return WithoutSuspects(_criteria(given), within, same)


def _without_batch(value: str, _: ReadIds) -> Assumption:
    return WithoutBatch(_batch(value).upper())


def _with(value: str, _: ReadIds) -> Assumption:
    hint = "mapping=NAME, map=FIELD=JMESPATH (repeatable), input=, records=, delimiter=, columns=, null=, quote=,"
    hint += " escape=, encoding=, time-format=, timezone=, ambiguous=, max-line=, max-window=, as in `pik ingest`"
    pairs = _pairs(f"with={value}", WITH_OPTIONS, "an option of how files are read", hint)
    given = dict(pairs)
    longest, window = given.get("max-line", str(MAX_LINE)), given.get("max-window")
    return With(
        _file(given["with"]),
        mapping=tuple(_mapped(text) for key, text in pairs if key == "map"),
        times=read_times({name: [text for key, text in pairs if key == name] for name in TIMES}),
        max_line=_positive(longest),
        layout=read_layout(given),
        named=given.get("mapping"),
        max_window=None if window is None else _positive(window),
    )


def _mapped(text: str) -> tuple[str, str]:
    name, equals, expression = text.partition("=")
    if not equals or not expression:
        raise Invalid(f"map={text}: expected FIELD=JMESPATH", hint="map=entity_id=body.user.id")
    return name.strip(), expression


def _positive(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise Invalid(f"{text!r} is not a positive number")
    return int(text)


def _delivery(value: str, _: ReadIds) -> Assumption:
    event_id, colon, place = value.partition(":")
    if not colon or not place:
        raise Invalid("expected EVENT_ID:N or EVENT_ID:BATCH/SEQ")
    batch, slash, number = place.rpartition("/")
    count = _positive(number)
    return CountedDelivery(_event_id(event_id), (batch.upper(), count) if slash else count)


def _conflicts(value: str, _: ReadIds) -> Assumption:
    which, _comma, rest = value.partition(",")
    if which not in (Which.FIRST, Which.LAST):
        raise Invalid(f"{which!r} is neither first nor last")
    return CountedConflict(Which(which), read_criteria(rest))


def _shift(value: str, _: ReadIds) -> Assumption:
    duration, _comma, rest = value.partition(",")
    by = parse_duration(duration[1:] if duration[:1] in ("-", "+") else duration)
    if by > MAX_INSTANT - MIN_INSTANT:
        raise Invalid(f"{duration} is longer than all time there is", hint="events are of 1677-09-22 to 2262-04-10")
    return Shift(-by if duration.startswith("-") else by, _needed(rest))


def _zone(value: str, _: ReadIds) -> Assumption:
    name, _comma, rest = value.partition(",")
    zone, colon, fold = name.partition(":")
    if colon and fold not in (Which.EARLIER, Which.LATER):
        raise Invalid(f"{fold!r} is neither earlier nor later")
    return LocalTime(load_zone(zone).name, Which(fold) if colon else None, _needed(rest))


def _duplicates(value: str, _: ReadIds) -> Assumption:
    if value != "counted":
        raise Invalid(f"{value!r} is not 'counted'")
    return CountedDuplicates()


def _corrections(value: str, _: ReadIds) -> Assumption:
    if value != "none":
        raise Invalid(f"{value!r} is not 'none'")
    return WithoutCorrections()


def _definition(value: str, _: ReadIds) -> Assumption:
    return OtherDefinition(_file(value))


def _needed(text: str) -> Criteria:
    if not text:
        raise Invalid("a selection is required")
    return read_criteria(text)


def _file(value: str) -> str:
    if not value.startswith("@") or len(value) == 1:
        raise Invalid(f"{value!r} is not @FILE")
    return value[1:]


def _event_id(text: str) -> str:
    lowered = text.strip().lower()
    if not re.fullmatch("[0-9a-f]{4,32}", lowered):
        raise Invalid(f"{text!r} is not an event_id or its beginning (4 to 32 hex digits)")
    return lowered


def _wrong(text: str, what: str, hint: str) -> UsageError:
    return UsageError(f"--assume {text}: {what}", hint=hint)


_READERS: Mapping[str, Callable[[str, ReadIds], Assumption]] = {
    "without": _without,
    "without-batch": _without_batch,
    "with": _with,
    "delivery": _delivery,
    "conflicts": _conflicts,
    "shift": _shift,
    "zone": _zone,
    "duplicates": _duplicates,
    "corrections": _corrections,
    "definition": _definition,
}
_EXAMPLES = {
    "without": "without=selected,source=web",
    "without-batch": "without-batch=01J8Z3",
    "with": "with=@missing.jsonl",
    "delivery": "delivery=9f3c2a7be0d14c55:2",
    "conflicts": "conflicts=last",
    "shift": "shift=-1h,source=web,from=2026-01-31",
    "zone": "zone=Europe/Berlin:earlier,source=web",
    "duplicates": "duplicates=counted",
    "corrections": "corrections=none",
    "definition": "definition=@metric.toml",
}
