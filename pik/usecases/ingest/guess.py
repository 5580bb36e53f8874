"""Guess: a mapping proposed from a sample of records, by the names of their fields and by what their values look like.

Nothing is read with it until a person has seen it. A zone, the order of day and month, a field that is not there are
never guessed: where values do not show them, they are undecided.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import itemgetter
from typing import Any

from pik.errors import InputError, Invalid, UsageError, number_of
from pik.inputs.mapping import RecordMapping
from pik.inputs.opened import OpenedInput, SampledRecord
from pik.inputs.shapes import lists_in, record_count
from pik.model.event import REQUIRED, read_event
from pik.model.layout import JSON_VALUES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.model.named_mapping import SHIPPED, NamedMapping
from pik.model.record_path import path_text
from pik.model.times import AS_EVENTS, FIELDS, Times
from pik.usecases.ingest.guess_fields import Column, FoundField, columns_of, described, encode
from pik.usecases.ingest.guess_sample import Samples
from pik.usecases.ingest.guess_times import FORMAT, ZONE, Written, as_options, read_by, written_as

MISSING = "FIELD"
"""Stands for an expression that a person has to put there."""

SURE, GOOD = 90, 70
"""Scores of names from which on a choice is certain, and likely."""

_NOT_OF_THE_EVENT = 50
"""How much less the name of a time counts whose values are hardly when each event happened."""

_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( [AP]M)?", re.ASCII | re.IGNORECASE)

_ALTERNATIVES = 4
"""Fields that may be the time, one or the other in each record."""


class Confidence(StrEnum):
    """How much speaks for a choice."""

    CERTAIN = "certain"
    LIKELY = "likely"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class FieldGuess:
    """What is proposed for a field of events, and why."""

    field: str
    expression: str
    confidence: Confidence
    reason: str


@dataclass(frozen=True, slots=True)
class Guess:
    """What is proposed for records. `mapping` has the fields, none where records are events as they stand; `times` says
    how their times are written. `named` is a mapping that reads all of them as it is. `undecided` says what is still to
    be put in the place of ZONE, FORMAT or FIELD; `accepted` is how many of the `records` become events then, and
    `problem` why the first other one does not. `found` has all fields, where one is missing."""

    layout: Layout
    records: int
    mapping: tuple[FieldGuess, ...] = ()
    times: Times = AS_EVENTS
    named: NamedMapping | None = None
    undecided: tuple[str, ...] = ()
    accepted: int = 0
    problem: str = ""
    found: tuple[FoundField, ...] = ()

    @property
    def expressions(self) -> dict[str, str]:
        """The expressions, by field."""
        return {one.field: one.expression for one in self.mapping}

    @property
    def missing(self) -> list[str]:
        """The fields for which there is no expression yet."""
        return [one.field for one in self.mapping if one.expression == MISSING]


def guess(
    opened: OpenedInput,
    layout: Layout,
    max_line: int,
    given: Mapping[str, str],
    times: Times = AS_EVENTS,
    named: Iterable[NamedMapping] = (),
) -> Guess:
    """Return what is proposed for an input, by some of its records. Raises InputError if it cannot be read.

    `given` are expressions that hold in any case, `layout` and `times` say what is known of these; where there are no
    expressions, `named` mappings are tried first.
    """
    samples = Samples(opened, max_line)
    shown = _with_dialect(opened, layout)
    if not given and (shown == layout or not opened.is_stream):  # a stream is read once, as it is proposed
        certain = None if opened.is_stream else opened.known_mapping(layout)
        if (found := _without_fields(samples, layout, times, named, certain)) is not None:
            return found
    sample = samples.of(shown, RecordMapping(given, times).parents)
    if sample.size and not sample.records and sample.layout == JSON_VALUES and not opened.is_stream:
        with suppress(InputError):
            lists = samples.of(replace(sample.layout, records=_LISTS))
            sample = lists if lists.records else sample
    if sample.layout.format in WRITTEN_AS_JSON and sample.layout.records is None and not opened.is_stream:
        path = _records_in(sample.records) if len(sample.records) == sample.size else None
        if path is not None:
            inside = replace(sample.layout, format=InputFormat.JSON, records=path)
            if not given and (found := _without_fields(samples, inside, times, named, None)) is not None:
                return found
            sample = samples.of(inside)
    found = Guess(sample.layout, sample.size if sample.records else 0, times=times, problem=sample.problem)
    return (
        found
        if not sample.records
        else _Guesser(sample.records, found, "" if opened.is_stream else opened.name, given).result()
    )


def _with_dialect(opened: OpenedInput, layout: Layout) -> Layout:
    """Return the layout with the quotes and the escape that its first rows show, if it is recognized as a table."""
    with suppress(InputError):
        recognized = opened.recognize(layout, mapped=True)
        shown = opened.with_dialect(recognized)
        return layout if shown == recognized else replace(layout, quote=shown.quote, escape=shown.escape)
    return layout


def _records_in(documents: Sequence[SampledRecord]) -> str | None:
    """Return where records lie in documents: in the list of objects of one, much longer than all others of it, or in
    that of several with nothing else."""
    found = [json.loads(one.line) for one in documents]
    if len(found) > 1 and any(len(one) > 1 for one in found):
        return None
    paths = Counter[str]()
    for one in found:
        for path in lists_in(one):
            paths[path_text(path)] += record_count(one, path)
    (most, count), *others = paths.most_common() or [("", 0)]
    return most if count > _MUCH_MORE * sum(number for _, number in others) else None


_MUCH_MORE = 4
"""How many times as long as all other lists the records' is."""


_LISTS = "[][]"
"""Where records lie in lists in a list, such as Zipkin's spans in traces."""


def _without_fields(
    samples: Samples, layout: Layout, times: Times, named: Iterable[NamedMapping], certain: str | None
) -> Guess | None:
    """Return the guess for records that are events, or that a named mapping reads: all of them, or some where it is
    `certain` that they are of that mapping. None if they are neither."""
    with suppress(InputError, UsageError):  # a named mapping may know how to read it
        sample = samples.of(layout)
        events, _ = _count(sample.records, lambda one: read_event(one.line, times.zones()))
        if sample.layout.format in WRITTEN_AS_JSON and 2 * events > sample.size:
            return Guess(sample.layout, sample.size, times=times, accepted=events, problem=sample.problem)
    patterns = {one.layout.pattern for one in samples.known}
    made: Guess | None = None
    for mapping in named:
        with suppress(InputError, UsageError, Invalid):
            is_general = mapping.origin == SHIPPED and not mapping.recognized_by
            if is_general and mapping.layout_under(layout).pattern not in patterns:
                continue  # it reads lines of others, too
            compiled = RecordMapping(mapping.fields, times.over(mapping.times))
            sample = samples.of(mapping.layout_under(layout), compiled.parents)
            accepted, problem = _count(sample.records, _reading(compiled))
            problem = problem or sample.problem
            found = Guess(sample.layout, sample.size, times=times, named=mapping, accepted=accepted, problem=problem)
            if accepted and accepted == sample.size:
                return found
            if accepted and mapping.name == certain:
                made = found
    return made


def _reading(mapping: RecordMapping) -> Callable[[SampledRecord], object]:
    return lambda one: mapping.read(one.line, one.place)


def _count(sample: Sequence[SampledRecord], read: Callable[[SampledRecord], object]) -> tuple[int, str]:
    """Return how many records can be read so, and why the first other one cannot."""
    count, problem = 0, ""
    for one in sample:
        try:
            read(one)
            count += 1
        except Invalid as error:
            problem = problem or error.message
    return count, problem


class _Guesser:
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
        accepted, problem = _count(self._sample, _reading(mapping))
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
            constant, whose = self._stem()
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
            constant, whose = self._stem()
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

    def _stem(self) -> tuple[str, str]:
        """Return the name of the file, or of the nearest folder or archive around it where a writer numbered the file,
        without its ending and without a date or a number at its end, and whose name it is."""
        file, *around = [part.split(".")[0] for part in reversed(re.split(r"[\\/:]", self._name))]
        own, *others = [_unnumbered(one) for one in (file, *around) if "=" not in one]
        for name, whose in ((own, "the file's name"), *((one, "the name of what it is in") for one in others)):
            if len(name) > _SHORT and name.lower() not in _NUMBERED:
                return name, whose
        return (own, "the file's name") if own else ("input", "there is no name to take it from")


def _by_rank(scored: tuple[int, Column]) -> int:
    return -scored[0] - scored[1].preferred


def _unnumbered(name: str) -> str:
    """Return a name without a date, a number or a random id at its end."""
    stem = re.sub(r"(?<![0-9])20\d\d-?[01]\d-?[0-3]\d.*|[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}.*", "", name)
    plain = re.sub(r"[-_ 0-9T]+$", "", stem)
    kept = stem if 0 < len(plain) <= _SHORT else plain
    return re.sub(r"[^A-Za-z0-9_-]+", "-", kept).strip("-_")


_SHORT = 2
"""So few characters name nothing."""

_NUMBERED = {"part", "data", "chunk", "shard", "file", "output", "batch"}
"""Names of files that writers number."""


def _confidence(score: int) -> Confidence:
    return Confidence.CERTAIN if score >= SURE else Confidence.LIKELY if score >= GOOD else Confidence.UNSURE


def _shown(value: Any) -> str:
    return encode(value).decode()[:60]
