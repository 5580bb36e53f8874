"""The fields that say when something happened, and when it was received."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pik.errors import Invalid, number_of
from pik.inputs.mapping import RecordMapping
from pik.inputs.opened import SampledRecord
from pik.model.duration import format_about
from pik.model.instant import SECOND
from pik.model.times import FIELDS, Times
from pik.model.zone_names import places_of
from pik.usecases.ingest.guess_evidence import GOOD, Basis, basis, confidence, missing, question
from pik.usecases.ingest.guess_fields import Column, encode
from pik.usecases.ingest.guess_result import Confidence, FieldGuess
from pik.usecases.ingest.guess_time_parts import in_parts, joined
from pik.usecases.ingest.guess_times import (
    FORMAT,
    ZONE,
    Written,
    abbreviation_in,
    as_options,
    instants,
    needs_zone,
    parts_written_as,
    read_by,
    written_as,
)

EVENT, RECEIVED = FIELDS

_NOT_OF_THE_EVENT = 50
"""How much less the name of a time counts whose values are hardly when each event happened."""

_AS_GOOD = 15
"""How much less the name of a time may count that is as plausible as another one."""

_PLAIN = 90
"""How much the name of a time counts that says only that it is one: `timestamp`, `at`."""

_NEARLY_ALL, _SAME = 0.9, SECOND
"""Two times are one that are so near to each other in nearly all records."""

_SOON = 60 * SECOND
"""How long after something it is received, mostly."""

_FUTURE = 24 * 3600 * SECOND
"""How much later than now a time is of the future, in any time zone."""

_ALTERNATIVES = 4
"""Fields that may be the time, one or the other in each record."""


@dataclass(frozen=True)
class _Candidate:
    """A field that can be read as times: how, how much its name speaks for it, what its values have against it."""

    column: Column
    ways: Sequence[Written]
    instants: Mapping[int, int]
    score: int
    against: str

    @property
    def rank(self) -> int:
        score = max(1, self.score - _NOT_OF_THE_EVENT) if self.against else self.score
        return score + self.column.preferred

    @property
    def expression(self) -> str:
        return self.column.expression


class TimeGuesser:
    """Chooses the fields of times, notes how they are written, and what is to be asked about that."""

    def __init__(self, sample: Sequence[SampledRecord], times: Times) -> None:
        self._size, self._times, self._sample = len(sample), times, sample
        self._written: dict[str, Written] = {}  # with FORMAT where several fit, of which _read_as has the first
        self._read_as: dict[str, Written] = {}
        self._known: dict[tuple[str, str], list[Written]] = {}
        self._now = int(datetime.now(UTC).timestamp()) * SECOND
        self._event: _Candidate | None = None
        self.questions: list[str] = []

    @property
    def times(self) -> Times:
        """The options for times, with FORMAT where several fit."""
        return as_options(self._times, self._written)

    @property
    def tried(self) -> Times:
        """The options by which times can be read: a zone that is not known is UTC."""
        in_utc = {name: replace(one, zone="UTC") for name, one in self._read_as.items() if one.zone == ZONE}
        return as_options(self._times, self._read_as | in_utc)

    def of(self, sample: Sequence[SampledRecord]) -> TimeGuesser:
        """Return one for other records, which knows as much of times."""
        return TimeGuesser(sample, self._times)

    def is_time(self, one: Column) -> bool:
        """Return whether a field of texts can be read as times."""
        return isinstance(one.first, str) and bool(self._ways(EVENT, one))

    def chosen(self, name: str, columns: Sequence[Column]) -> FieldGuess | None:
        """Return what is proposed for a field of events that is a time."""
        found = [self._candidate(name, one) for one in columns if self._ways(name, one)]
        found.sort(key=lambda one: -one.rank)
        named = [one for one in found if one.score > 0]
        whole = [one for one in named if len(one.column.values) == self._size]
        day = whole[0].column if whole and whole[0].ways[0].is_day and isinstance(whole[0].column.first, str) else None
        texts = [one for one in found if isinstance(one.column.first, str) and len(one.column.values) == self._size]
        has_none = not whole and all(one.ways[0].is_day for one in texts)
        if (day or (name == EVENT and has_none)) and (both := self._joined(name, day, columns)):
            return both
        if name == RECEIVED:
            return self._one(name, whole[0], basis(whole[0].score)) if whole and self._is_received(whole[0]) else None
        if whole:
            equal = self._as_good(whole[0], found)
            if len(equal) > 1:
                return self._asked(name, equal)
            return self._but_for_some(self._one(name, whole[0], basis(whole[0].score)), whole[0], named)
        if not named and (equal := self._different(texts)):
            return self._one(name, equal[0], Basis.VALUES) if len(equal) == 1 else self._asked(name, equal)
        return self._either(name, self._one_or_the_other(named))

    def _but_for_some(self, guess: FieldGuess, chosen: _Candidate, named: Sequence[_Candidate]) -> FieldGuess:
        """Return the guess; not sure where other fields, of names that say as much, have another time in some of the
        records, as an object for each kind of event has."""
        some = [
            f"{one.expression} in {number_of(len(one.column.values), 'record')}{_distance(chosen, one)}"
            for one in named
            if one.score >= chosen.score and len(one.column.values) < self._size and _apart(chosen, one)
        ]
        if not some:
            return guess
        others = f"{guess.reason}; there is also {' and '.join(some[:_ALTERNATIVES])}"
        return replace(guess, confidence=Confidence.UNSURE, reason=others)

    def given(self, name: str, mapping: Mapping[str, str]) -> FieldGuess:
        """Return the time that is given, and note how it is written."""
        compiled, values = RecordMapping(mapping, self._times), list[Any]()
        for one in self._sample:
            with suppress(Invalid):
                values.append(compiled.found(one.line, one.place)[name])
        values = [value for value in values if value is not None]
        ways = written_as(values, self._times, name)
        reason = f"; {self._read_times(name, values, ways)[0]}" if ways else ""
        return FieldGuess(name, mapping[name], Confidence.CERTAIN, "given" + reason)

    def _ways(self, name: str, one: Column) -> list[Written]:
        if (name, one.expression) not in self._known:
            self._known[name, one.expression] = written_as(list(one.values.values()), self._times, name)
        return self._known[name, one.expression]

    def _candidate(self, name: str, one: Column) -> _Candidate:
        ways = self._ways(name, one)
        read = instants(ways[0], one.values)
        future = sum(at > self._now + _FUTURE for at in read.values())
        against = ""
        if 10 * future > len(read):
            against = f"{future:,} of them lie in the future"
        elif ways[0].is_day:
            against = "days"
        elif one.is_shared:
            against = f"{number_of(one.distinct, 'value')}, which many records have"
        return _Candidate(one, ways, read, one.score(name), against)

    def _as_good(self, best: _Candidate, found: Sequence[_Candidate]) -> list[_Candidate]:
        """Return those that could be the time of the event as well as the best one."""

        def is_plausible(one: _Candidate) -> bool:
            if not one.score and not isinstance(one.column.first, str):
                return False
            if len(one.column.path) > len(best.column.path):
                if one.score >= GOOD and one.column.path[-2] == "fields":  # of a table of people: Airtable, SharePoint
                    return _is_later(best, one)
                if (
                    one.score + 3 * (len(one.column.path) - 1) >= _PLAIN and not one.column.repeats
                ):  # of what is reported
                    return _is_later(best, one)
                return (not one.score or one.score >= GOOD) and _is_shortly_before(one, best)
            if not one.score:  # a name that says little is not better than none
                return best.rank < GOOD - _AS_GOOD or _is_shortly_before(one, best)
            return one.rank >= best.rank - _AS_GOOD and not (one.score < best.score and _is_later(one, best))

        others = [
            one
            for one in found
            if one is not best
            and len(one.column.values) == self._size
            and (best.against or not one.against)
            and is_plausible(one)
        ]
        return self._different([best, *others])

    def _different(self, found: Sequence[_Candidate]) -> list[_Candidate]:
        """Return these without those that have the same times as one before."""
        kept = list[_Candidate]()
        for one in found:
            if all(_apart(one, other) for other in kept):
                kept.append(one)
        return kept

    def _is_received(self, one: _Candidate) -> bool:
        """Return whether the times are not before those of the events."""
        event = self._event
        if event is None or event.ways[0].zone != one.ways[0].zone:
            return True
        both = event.instants.keys() & one.instants.keys()
        return sum(one.instants[n] + _SAME >= event.instants[n] for n in both) >= _NEARLY_ALL * len(both)

    def _one(self, name: str, found: _Candidate, rests_on: Basis) -> FieldGuess:
        if name == EVENT:
            self._event = found
        reason, is_sure = self._read_times(name, list(found.column.values.values()), found.ways)
        score = found.score if is_sure and rests_on == Basis.BOTH and not found.against else 0
        but = f"; {found.against}" if found.against and not found.ways[0].is_day else ""
        return FieldGuess(name, found.expression, confidence(score), f"{rests_on}: {reason}{but}")

    def _asked(self, name: str, equal: Sequence[_Candidate]) -> FieldGuess:
        """Return the question which of several fields it is, and note how the first is written."""
        by_expression = {one.expression: one for one in equal}
        first = equal[0]
        self._read_times(name, list(first.column.values.values()), first.ways)
        if any(one.ways != first.ways for one in equal):
            self._written[name] = replace(self._written[name], format=FORMAT)
            self.questions.append(f"{name}: put the format of the field that it is in the place of {FORMAT}")

        def says(one: Column) -> str:
            found = by_expression[one.expression]
            return f"{found.ways[0].meaning}{_distance(first, found)}"

        return question(name, [one.column for one in equal], says)

    def _either(self, name: str, columns: Sequence[Column]) -> FieldGuess | None:
        covered = {number for one in columns for number in one.values}
        if 2 * len(covered) <= self._size:
            return None
        values = [value for one in columns for value in one.values.values()]
        reason, _ = self._read_times(name, values, self._ways(name, columns[0]))
        expression = " || ".join(one.expression for one in columns)
        why = f"{Basis.BOTH}: {reason}{missing(len(covered), self._size)}"
        return FieldGuess(name, expression, Confidence.UNSURE, why)

    def _one_or_the_other(self, named: Sequence[_Candidate]) -> list[Column]:
        """Return fields, written alike, of which as many records as possible have one or the other."""
        best: list[Column] = []
        covered: set[int] = set()
        while len(best) < _ALTERNATIVES and len(covered) < self._size:
            fits = [one for one in named if not best or one.ways == self._ways(EVENT, best[0])]
            more = [(one.rank * len(one.column.values.keys() - covered), -number) for number, one in enumerate(fits)]
            most, number = max(more, default=(0, 0))
            if not most:
                break
            best.append(fits[-number].column)
            covered |= best[-1].values.keys()
        return best

    def _joined(self, name: str, day: Column | None, columns: Sequence[Column]) -> FieldGuess | None:
        """Return the time whose parts are in several fields, of the day in one field if there is one."""
        for parts in in_parts(day, columns, self._size):
            expression, values = joined(parts)
            if ways := written_as(values, self._times, name) or parts_written_as(values, self._times, name):
                reason, is_sure = self._read_times(name, values, ways)
                what = "a day and a time of day" if day else "parts of a time"
                why = f"{Basis.BOTH}: {what}: {reason}"
                uses = tuple(one.expression for one in parts)
                shown = is_sure and not ways[0].is_day
                return FieldGuess(name, expression, confidence(GOOD if shown else 0), why, uses=uses)
        return None

    def _read_times(self, name: str, values: Sequence[Any], ways: Sequence[Written]) -> tuple[str, bool]:
        """Note how the values of a time are written; return what they are, and whether all of them show it."""
        chosen = ways[0]
        read = read_by(chosen, values)
        example = next(encode(value).decode()[:60] for value in values if read_by(chosen, [value]))
        how_many = f"all {read:,} values" if read == len(values) else f"{read:,} of {len(values):,} values"
        reason = f"{how_many} are {chosen.meaning}"
        if len(ways) > 1:
            reason = f"{how_many} are times, in one of {number_of(len(ways), 'format')}"
            formats = " and ".join(one.format for one in ways)
            self.questions.append(f"{name}: {example} is read by {formats}: put one in the place of {FORMAT}")
        if chosen.zone == ZONE:
            if (lacking := [one for one in values if needs_zone(chosen, one)]) and len(lacking) < read:
                meaning = replace(chosen, zone=None).meaning
                reason = f"{how_many} are {meaning}, {len(lacking):,} of them without an offset"
                example = encode(lacking[0]).decode()[:60]
            short = abbreviation_in(example)
            place = (places_of(short) if short else None) or "Europe/Berlin or UTC"
            lacks = f"{short} is an abbreviation, not an offset" if short else "has no offset"
            zone = f"put its time zone, such as {place}, in the place of {ZONE}"
            self.questions.append(f"{name}: {example}{':' if short else ''} {lacks}: {zone}")
        self._read_as[name] = chosen
        self._written[name] = replace(chosen, format=FORMAT) if len(ways) > 1 else chosen
        return reason, len(ways) == 1 and read == len(values)


def _apart(one: _Candidate, other: _Candidate) -> bool:
    both: Collection[int] = one.instants.keys() & other.instants.keys()
    near = sum(abs(one.instants[number] - other.instants[number]) <= _SAME for number in both)
    return near < _NEARLY_ALL * len(both) or not both


def _is_later(one: _Candidate, other: _Candidate) -> bool:
    """Return whether a time is hardly ever before another one: so it may be when that was written down."""
    both = one.instants.keys() & other.instants.keys()
    return sum(one.instants[number] >= other.instants[number] for number in both) >= _NEARLY_ALL * len(both)


def _is_shortly_before(one: _Candidate, other: _Candidate) -> bool:
    """Return whether another time may be when that one was received: hardly ever before it, and mostly soon after."""
    apart = sorted(other.instants[number] - at for number, at in one.instants.items() if number in other.instants)
    return bool(apart) and _is_later(other, one) and apart[len(apart) // 2] <= _SOON


def _distance(first: _Candidate, other: _Candidate) -> str:
    """Return how much later or earlier the times of another field are, in the middle, as the end of a sentence."""
    apart = sorted(at - first.instants[number] for number, at in other.instants.items() if number in first.instants)
    if first is other or not apart or not (middle := apart[len(apart) // 2]):
        return ""
    return f", {format_about(abs(middle))} {'later' if middle > 0 else 'earlier'}"
