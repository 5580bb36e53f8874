"""A mapping proposed for records, by the names of their fields and by what their values look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter
from typing import Any

from pik.errors import Invalid, number_of
from pik.inputs.mapping import RecordMapping
from pik.inputs.opened import SampledRecord
from pik.model.event import REQUIRED
from pik.model.times import FIELDS, Times
from pik.usecases.ingest.guess_fields import Column, columns_of, described, encode
from pik.usecases.ingest.guess_result import MISSING, Confidence, FieldGuess, Guess
from pik.usecases.ingest.guess_sample import count_read, reading
from pik.usecases.ingest.guess_source import source_named
from pik.usecases.ingest.guess_times import FORMAT, ZONE, Written, as_options, read_by, written_as

SURE, GOOD = 90, 70
"""Scores of names from which on a choice is certain, and likely."""

_NOT_OF_THE_EVENT = 50
"""How much less the name of a time counts whose values are hardly when each event happened."""

_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( [AP]M)?", re.ASCII | re.IGNORECASE)

_ALTERNATIVES = 4
"""Fields that may be the time, one or the other in each record."""


class MappingGuesser:
    """Chooses a field of the records for each field of events, one after the other."""

    def __init__(self, sample: Sequence[SampledRecord], begin: Guess, name: str, given: Mapping[str, str]) -> None:
        self._sample, self._begin, self._name, self._given = sample, begin, name, given
        self._columns = columns_of(one.line for one in sample)
        self._written: dict[str, Written] = {}  # with FORMAT where several fit, of which _read_as has the first
        self._read_as: dict[str, Written] = {}
        self._undecided: list[str] = []

    def result(self) -> Guess:
        """Return what is proposed."""
        steps: dict[str, Callable[[str], FieldGuess | None]] = {
            **dict.fromkeys(FIELDS, self._time),
            "event_type": self._event_type,
            "entity_id": self._entity_id,
            "idempotency_key": self._key,
            "source": self._source,
            "payload": self._payload,
        }
        chosen = {one: FieldGuess(one, text, Confidence.CERTAIN, "given") for one, text in self._given.items()}
        chosen |= {one: self._given_time(one) for one in FIELDS if one in chosen}
        self._leave_out(self._given.values())
        for name, step in steps.items():
            if name not in chosen and (found := step(name)) is not None:
                chosen[name] = found
                self._leave_out(found.expression.split(" || "))
        order = (*REQUIRED, *(name for name in chosen if name not in REQUIRED))
        made = replace(
            self._begin,
            mapping=tuple(chosen[one] for one in order if one in chosen),
            times=self._times(),
            undecided=tuple(self._undecided),
        )
        if missing := [one for one in REQUIRED if one not in chosen]:
            fields = tuple(
                described(one)
                for one in columns_of(one.line for one in self._sample)
                if not isinstance(one.first, dict)
            )
            undecided = [
                *made.undecided,
                *(f"{one}: no field looks like it: put one in the place of {MISSING}" for one in missing),
            ]
            holes = [FieldGuess(one, MISSING, Confidence.UNSURE, "not found") for one in missing]
            return replace(made, mapping=(*made.mapping, *holes), undecided=tuple(undecided), found=fields)
        return self._tried(made)

    def _leave_out(self, expressions: Collection[str]) -> None:
        """Choose these fields for nothing else."""
        self._columns = [one for one in self._columns if one.expression not in expressions]

    def _tried(self, made: Guess) -> Guess:
        """Return the guess with how many records become events. Times whose zone is not known are read in UTC."""
        fitting = {
            name: replace(one, zone="UTC" if one.zone == ZONE else one.zone) for name, one in self._read_as.items()
        }
        mapping = RecordMapping(made.expressions, as_options(self._begin.times, fitting))
        accepted, problem = count_read(self._sample, reading(mapping))
        problem = made.problem or problem
        return replace(made, accepted=accepted, problem=problem)

    def _times(self) -> Times:
        """Return the options for times, with FORMAT where several fit."""
        return as_options(self._begin.times, self._written)

    def _ranked(self, name: str, fits: Callable[[Column], object]) -> list[tuple[int, Column]]:
        """Return the fields whose name speaks for it and whose values fit, the best first."""
        scored = [(score, one) for one in self._columns if (score := one.score(name)) > 0 and fits(one)]
        return sorted(scored, key=_by_rank)

    def _everywhere(self, name: str, fits: Callable[[Column], object]) -> tuple[int, Column] | None:
        """Return the best of those that all records have."""
        return next((pair for pair in self._ranked(name, fits) if len(pair[1].values) == len(self._sample)), None)

    def _time(self, name: str) -> FieldGuess | None:
        known: dict[str, list[Written]] = {}

        def written(one: Column) -> list[Written]:
            if one.expression not in known:
                known[one.expression] = written_as(list(one.values.values()), self._begin.times, name)
            return known[one.expression]

        ranked = self._ranked_times(name, written)
        best = next((pair for pair in ranked if len(pair[1].values) == len(self._sample)), None)
        if best is not None and written(best[1])[0].is_day and (both := self._day_and_clock(name, best[1])):
            return both
        others = [one for one in self._columns if isinstance(one.first, str) and written(one)]
        if best is not None:
            score, columns = best[0], [best[1]]
        elif name == FIELDS[0] and not ranked and len(others) == 1:
            score, columns = 0, others
        else:
            score, columns = 0, self._one_or_the_other(ranked, written)
        covered = {number for one in columns for number in one.values}
        if 2 * len(covered) <= len(self._sample):
            return None
        values = [value for one in columns for value in one.values.values()]
        reason, is_sure = self._read_times(name, values, written(columns[0]))
        expression = " || ".join(one.expression for one in columns)
        return FieldGuess(name, expression, _confidence(score if is_sure else 0), reason + self._missing(covered))

    def _ranked_times(self, name: str, written: Callable[[Column], list[Written]]) -> list[tuple[int, Column]]:
        """As `_ranked`. A day alone, and a time that many records have, are hardly when each event happened."""
        scored = [
            (max(1, score - _NOT_OF_THE_EVENT) if written(one)[0].is_day or one.is_shared else score, one)
            for score, one in self._ranked(name, written)
        ]
        return sorted(scored, key=_by_rank)

    def _day_and_clock(self, name: str, day: Column) -> FieldGuess | None:
        """Return the time whose day is in one field and whose time of day in another, if there is just one of these."""
        clocks = [
            one
            for one in self._columns
            if len(one.values) == len(self._sample) and one.texts and all(map(_CLOCK.fullmatch, one.texts))
        ]
        if len(clocks) != 1 or not isinstance(day.first, str):
            return None
        values = [f"{day.values[number]} {clocks[0].values[number]}" for number in day.values]
        if not (ways := written_as(values, self._begin.times, name)):
            return None
        self._leave_out([day.expression, clocks[0].expression])
        reason, is_sure = self._read_times(name, values, ways)
        expression = f"join(' ', [{day.expression}, {clocks[0].expression}])"
        return FieldGuess(name, expression, _confidence(GOOD if is_sure else 0), f"a day and a time of day: {reason}")

    def _given_time(self, name: str) -> FieldGuess:
        """Return the time that is given, and note how it is written."""
        mapping, values = RecordMapping(self._given, self._begin.times), list[Any]()
        for one in self._sample:
            with suppress(Invalid):
                values.append(mapping.found(one.line, one.place)[name])
        values = [value for value in values if value is not None]
        ways = written_as(values, self._begin.times, name)
        reason = f"; {self._read_times(name, values, ways)[0]}" if ways else ""
        return FieldGuess(name, self._given[name], Confidence.CERTAIN, "given" + reason)

    def _read_times(self, name: str, values: Sequence[Any], ways: Sequence[Written]) -> tuple[str, bool]:
        """Note how the values of a time are written; return what they are, and whether all of them show it."""
        chosen = ways[0]
        read = read_by(chosen, values)
        example = next(_shown(value) for value in values if read_by(chosen, [value]))
        how_many = f"all {read:,} values" if read == len(values) else f"{read:,} of {len(values):,} values"
        reason = f"{how_many} are {chosen.meaning}"
        if len(ways) > 1:
            reason = f"{how_many} are times, in one of {number_of(len(ways), 'format')}"
            formats = " and ".join(one.format for one in ways)
            self._undecided.append(f"{name}: {example} is read by {formats}: put one in the place of {FORMAT}")
        if chosen.zone == ZONE:
            zone = "its time zone, such as Europe/Berlin or UTC, in the place of"
            self._undecided.append(f"{name}: {example} has no offset: put {zone} {ZONE}")
        self._read_as[name] = chosen
        self._written[name] = replace(chosen, format=FORMAT) if len(ways) > 1 else chosen
        return reason, len(ways) == 1 and read == len(values)

    def _missing(self, covered: Collection[int]) -> str:
        """Return that some records do not have a field, as the end of a sentence."""
        without = len(self._sample) - len(covered)
        return f"; {number_of(without, 'record')} without one will be rejected" if without else ""

    def _one_or_the_other(
        self, ranked: list[tuple[int, Column]], written: Callable[[Column], list[Written]]
    ) -> list[Column]:
        """Return fields, written alike, of which as many records as possible have one or the other."""
        best: list[Column] = []
        covered: set[int] = set()
        while len(best) < _ALTERNATIVES and len(covered) < len(self._sample):
            fits = [pair for pair in ranked if not best or written(pair[1]) == written(best[0])]
            more = [(score * len(one.values.keys() - covered), number) for number, (score, one) in enumerate(fits)]
            most, number = max(more, key=lambda pair: (pair[0], -pair[1]), default=(0, 0))
            if not most:
                break
            best.append(fits[number][1])
            covered |= best[-1].values.keys()
        return best

    def _event_type(self, name: str) -> FieldGuess:
        def few(one: Column) -> bool:
            most = len(self._sample) // (2 if one.score(name) >= SURE else 4)
            return 0 < len(set(one.texts)) <= max(20, most) and not all(map(str.isdigit, one.texts))

        if (best := self._everywhere(name, few)) is None:
            constant, whose = source_named(self._name)
            why = f"a constant, as no field looks like it: {whose}"
            return FieldGuess(name, f"'{constant}'", Confidence.UNSURE, why)
        score, one = best
        return FieldGuess(
            name, one.expression, _confidence(score), f"{number_of(len(set(one.texts)), 'different text')}"
        )

    def _entity_id(self, name: str) -> FieldGuess | None:
        def many(one: Column) -> bool:
            return len(set(one.texts)) > 1 and 10 * one.texts.count("-") < len(one.texts)

        ranked = [((score + one.preferred) * len(one.values), score, one) for score, one in self._ranked(name, many)]
        best = self._everywhere(name, lambda one: one.texts)
        if ranked:
            _, score, one = max(ranked, key=itemgetter(0))
            whole, half = len(one.values) == len(self._sample), 2 * len(one.values) > len(self._sample)
            best = (score if whole else min(score, GOOD), one) if half else best
        if best is None:
            return None
        score, one = best
        distinct = len(set(one.texts))
        alone = distinct == len(self._sample) > 1 and score < SURE
        reason = f"{number_of(distinct, 'different value')} in {number_of(len(one.texts), 'record')}"
        return FieldGuess(
            name, one.expression, _confidence(0 if alone else score), reason + self._missing(one.values.keys())
        )

    def _key(self, name: str) -> FieldGuess | None:
        different = len({one.line for one in self._sample})

        def unique(one: Column) -> bool:
            return 1 < len(set(one.texts)) == different

        best = self._everywhere(name, unique)
        if best is None:
            return None
        reason = f"all {different:,} values differ"
        if different < len(self._sample):
            reason = "all values differ, but those of records that are alike"
        return FieldGuess(name, best[1].expression, _confidence(best[0] - 10), reason)

    def _source(self, name: str) -> FieldGuess:
        best = self._everywhere(name, lambda one: 0 < len(set(one.texts)) <= 10)
        if best is None:
            constant, whose = source_named(self._name)
            return FieldGuess(name, f"'{constant}'", Confidence.LIKELY, f"a constant: {whose}")
        return FieldGuess(
            name, best[1].expression, _confidence(best[0]), number_of(len(set(best[1].texts)), "different text")
        )

    def _payload(self, name: str) -> FieldGuess:
        leaves = [one.path for one in self._columns if not isinstance(one.first, dict)]

        def is_most(one: Column) -> bool:
            if not all(isinstance(value, dict) for value in one.values.values()):
                return False
            inside = sum(path[: len(one.path)] == one.path for path in leaves)
            return len(one.path) == 1 or one.enveloped > 0 or 2 * inside >= len(leaves)

        best = self._everywhere(name, is_most)
        if best is None:
            return FieldGuess(name, "@", Confidence.CERTAIN, "the whole record")
        return FieldGuess(name, best[1].expression, Confidence.LIKELY, "an object in each record")


def _by_rank(scored: tuple[int, Column]) -> int:
    return -scored[0] - scored[1].preferred


def _confidence(score: int) -> Confidence:
    return Confidence.CERTAIN if score >= SURE else Confidence.LIKELY if score >= GOOD else Confidence.UNSURE


def _shown(value: Any) -> str:
    return encode(value).decode()[:60]
