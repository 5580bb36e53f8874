"""A mapping proposed for records, by the names of their fields and by what their values look like."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from pik.errors import number_of
from pik.inputs.mapping import RecordMapping
from pik.inputs.opened import SampledRecord
from pik.model.event import REQUIRED
from pik.model.record_path import RecordPath
from pik.model.times import FIELDS
from pik.usecases.ingest.guess_elsewhere import times_in_lists
from pik.usecases.ingest.guess_event_time import TimeGuesser
from pik.usecases.ingest.guess_evidence import GOOD
from pik.usecases.ingest.guess_fields import Column, FoundField, columns_of, described
from pik.usecases.ingest.guess_ids import ENTITY, KEY, entity_of, key_of
from pik.usecases.ingest.guess_kinds import SOURCE, TYPE, source_of, type_of
from pik.usecases.ingest.guess_payload import PAYLOAD, payload_of
from pik.usecases.ingest.guess_result import MISSING, Confidence, FieldGuess, Guess
from pik.usecases.ingest.guess_sample import count_read, reading

_SHOWN = 3
"""Fields of some of the records that are named."""


class MappingGuesser:
    """Chooses a field of the records for each field of events, one after the other. `around` are fields of the objects
    around them that may be the time, where no field of theirs is; `path` leads to the records in JSON."""

    def __init__(
        self,
        sample: Sequence[SampledRecord],
        begin: Guess,
        name: str,
        given: Mapping[str, str],
        around: Sequence[Column] = (),
        path: RecordPath | None = None,
    ) -> None:
        self._sample, self._begin, self._name, self._given, self._around = sample, begin, name, given, around
        self._path = path
        self._columns = columns_of(one.line for one in sample)
        self._time = TimeGuesser(sample, begin.times)

    def result(self) -> Guess:
        """Return what is proposed."""
        chosen = {one: FieldGuess(one, text, Confidence.CERTAIN, "given") for one, text in self._given.items()}
        chosen |= {one: self._time.given(one, self._given) for one in FIELDS if one in chosen}
        chosen = {one: self._as_often(found) for one, found in chosen.items()}
        self._leave_out(self._given.values())
        for name, step in self._steps().items():
            if name not in chosen and (found := step()) is not None:
                chosen[name] = found
                self._leave_out(found.fields)
        order = (*REQUIRED, *(name for name in chosen if name not in REQUIRED))
        proposed = [chosen[one] for one in order if one in chosen]
        questions = [one.question for one in proposed if one.question]
        absent = [one for one in REQUIRED if one not in chosen]
        holes = [FieldGuess(one, MISSING, Confidence.UNSURE, "not found") for one in absent]
        unseen = [f"{one}: no field looks like it{self._but(one)}: put one in the place of {MISSING}" for one in absent]
        made = replace(
            self._begin,
            mapping=(*proposed, *holes),
            times=self._time.times,
            undecided=(*self._time.questions, *questions, *unseen),
        )
        return replace(made, found=self._fields()) if absent else self._tried(made)

    def _as_often(self, given: FieldGuess) -> FieldGuess:
        """Return a given field, which is not certain where it is not in all records."""
        there = next((len(one.values) for one in self._columns if one.expression == given.expression), None)
        size = len(self._sample)
        if there is None or there == size:
            return given
        sure = Confidence.LIKELY if 2 * there > size else Confidence.UNSURE
        return replace(
            given, confidence=sure, reason=f"{given.reason}; {there:,} of {number_of(size, 'record')} have it"
        )

    def _steps(self) -> dict[str, Callable[[], FieldGuess | None]]:
        """Return what chooses each field of events, in the order in which they choose."""
        size, different = len(self._sample), len({one.line for one in self._sample})
        return {
            FIELDS[0]: lambda: self._time.chosen(FIELDS[0], self._columns) or self._time_around(),
            FIELDS[1]: lambda: self._time.chosen(FIELDS[1], self._columns),
            ENTITY: lambda: entity_of(self._columns, size, self._time.is_time),
            TYPE: lambda: type_of(self._columns, size, self._name),
            KEY: lambda: key_of(self._columns, size, different),
            SOURCE: lambda: source_of(self._columns, size, self._name),
            PAYLOAD: lambda: payload_of(self._columns, size),
        }

    def _time_around(self) -> FieldGuess | None:
        """Return the time that the objects around the records have."""
        found = self._time.chosen(FIELDS[0], self._around)
        if found is None:
            return None
        return replace(found, confidence=Confidence.UNSURE, reason=f"{found.reason}; of the object around the record")

    def _but(self, name: str) -> str:
        """Return what looks like a field of events in some of the records, or in their lists."""
        size = len(self._sample)
        named = [one for one in self._columns if len(one.values) < size and one.texts and one.score(name) >= GOOD]
        some = [f"{one.expression} is in {len(one.values):,} of {number_of(size, 'record')}" for one in named[:_SHOWN]]
        lists = times_in_lists(self._columns, self._path, self._time) if name == FIELDS[0] else iter(())
        return "".join(f"; {one}" for one in (*some, *lists))

    def _leave_out(self, expressions: Collection[str]) -> None:
        """Choose these fields for nothing else."""
        self._columns = [one for one in self._columns if one.expression not in expressions]

    def _fields(self) -> tuple[FoundField, ...]:
        columns: list[Column] = columns_of(one.line for one in self._sample)
        return tuple(described(one) for one in columns if not isinstance(one.first, dict))

    def _tried(self, made: Guess) -> Guess:
        """Return the guess with how many records become events."""
        mapping = RecordMapping({one.field: one.tried for one in made.mapping}, self._time.tried)
        accepted, problem = count_read(self._sample, reading(mapping))
        return replace(made, accepted=accepted, problem=made.problem or problem)
