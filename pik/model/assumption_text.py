"""Reading scenarios: assumptions as they are typed after --assume."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from pik.errors import Invalid, UsageError
from pik.model.criteria import KEYS, KEYS_HINT, Criteria, criteria_of, read_batch, read_criteria
from pik.model.duration import format_duration, parse_duration
from pik.model.event import MAX_LINE
from pik.model.instant import MAX_INSTANT, MIN_INSTANT
from pik.model.layout import OPTIONS as LAYOUT
from pik.model.layout import read_layout
from pik.model.pairs import read_pairs
from pik.model.path import EventPath
from pik.model.scenario import (
    COUNTED_DUPLICATES,
    MOST_WITHIN,
    RETRIED_WITHIN,
    Assumption,
    CountedConflict,
    CountedDelivery,
    CountedDuplicates,
    LocalTime,
    OtherDefinition,
    Scenario,
    Shift,
    Which,
    With,
    Without,
    WithoutBatch,
    WithoutCorrection,
    WithoutCorrections,
    WithoutSelected,
    WithoutSuspects,
)
from pik.model.times import OPTIONS as TIMES
from pik.model.times import read_times
from pik.model.zone import load_zone

HINT = (
    "kinds: without, without-batch, with, delivery, conflicts, shift, zone, duplicates, corrections,"
    " without-correction, definition; see --help"
)
WITH_OPTIONS = ("with", "mapping", *LAYOUT, "map", *TIMES, "max-line", "max-window")
_SUSPECTS = ("within", "same", *KEYS)

ReadIds = Callable[[str], tuple[str, ...]]
"""Returns the event_ids that a file lists."""


def read_scenario(as_of: int | None, assume: Sequence[str], read_ids: ReadIds) -> Scenario:
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


def read_assumption(text: str, read_ids: ReadIds) -> Assumption:
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
    pairs = read_pairs(text, _SUSPECTS, "a selection of suspects", f"within=, same=PATH (repeatable), {KEYS_HINT}")
    given = dict(pairs)
    within = parse_duration(given["within"]) if "within" in given else RETRIED_WITHIN
    if within > MOST_WITHIN:
        raise Invalid(f"within={given['within']}: more than {format_duration(MOST_WITHIN)}", hint="such as within=30s")
    same = tuple(EventPath(path, "same").text for key, path in pairs if key == "same")
    return WithoutSuspects(criteria_of(given), within, same)


def _without_batch(value: str, _: ReadIds) -> Assumption:
    return WithoutBatch(read_batch(value).upper())


def _with(value: str, _: ReadIds) -> Assumption:
    hint = "mapping=NAME, map=FIELD=JMESPATH (repeatable), input=, records=, delimiter=, columns=, null=, quote=,"
    hint += " escape=, encoding=, time-format=, timezone=, ambiguous=, max-line=, max-window=, as in `pik ingest`"
    pairs = read_pairs(f"with={value}", WITH_OPTIONS, "an option of how files are read", hint)
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


def _without_correction(value: str, _: ReadIds) -> Assumption:
    if not value.isalnum():
        raise Invalid(f"{value!r} is not the id of a correction", hint="pik corrections list")
    return WithoutCorrection(value.upper())


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
    "without-correction": _without_correction,
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
    "without-correction": "without-correction=01J8Z3",
    "definition": "definition=@metric.toml",
}
