"""Guess: a mapping proposed from a sample of records, by the names of their fields and by what their values look like.

Nothing is read with it until a person has seen it. A zone, the order of day and month, a field that is not there are
never guessed: where values do not show them, they are undecided.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from pik.errors import InputError, Invalid, UsageError
from pik.inputs.advice import Shape
from pik.inputs.document_lists import DocumentList, lists_in, record_count
from pik.inputs.keyed_records import keyed_records
from pik.inputs.list_records import rows_in_records, rows_of
from pik.inputs.mapping import RecordMapping
from pik.inputs.named_mappings import recognizes
from pik.inputs.opened import OpenedInput, SampledRecord
from pik.model.event import read_event
from pik.model.layout import JSON_VALUES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.model.named_mapping import SHIPPED, NamedMapping
from pik.model.record_path import EACH, RecordPath, path_text
from pik.model.times import AS_EVENTS, Times
from pik.usecases.ingest.guess_elsewhere import has_rows_of_times, times_around
from pik.usecases.ingest.guess_event_time import EVENT
from pik.usecases.ingest.guess_fields import Column
from pik.usecases.ingest.guess_ids import ENTITY
from pik.usecases.ingest.guess_mapping import MappingGuesser
from pik.usecases.ingest.guess_result import Guess
from pik.usecases.ingest.guess_sample import HALF_OF_A_PAIR, Sample, Samples, count_read, reading


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
    expressions, `named` mappings are tried first. The input is read several times: `OpenedFile.repeatable`.
    """
    samples = Samples(opened, max_line)
    shown = _with_dialect(opened, layout)
    if not given and (found := _without_fields(samples, layout, times, named, opened.known_mapping(layout))):
        return found
    sample = samples.of(shown, RecordMapping(given, times).parents)
    if sample.size and not sample.records and sample.layout == JSON_VALUES:
        with suppress(InputError):
            elements = samples.of(replace(sample.layout, records=_LISTS))
            sample = elements if elements.records else sample
    guesser = partial(_guessed, samples=samples, opened=opened, given=given, times=times)
    if sample.layout.format in WRITTEN_AS_JSON and sample.layout.records is None:
        lists = _lists_of(opened, samples, sample)
        around = None
        if _are_around_more(sample):
            around = guesser(sample)
            if EVENT not in around.missing:
                longer = [one for one in _likely(lists) if one.records > sample.size]
                if ENTITY in around.missing and (found := _with_entities(sample, longer, samples, guesser)) is not None:
                    return replace(found, lists=tuple(lists))
                timed = [one for one in longer if EVENT not in guesser(samples.of(_inside(sample, one))).missing]
                return replace(around, lists=tuple(timed))
        elif sample.records and max((one.records for one in lists), default=0) < _SOME:
            around = guesser(sample)
        tried = [around] if around is not None else []
        for one in _likely(lists):
            inside = _inside(sample, one)
            if not given and (found := _without_fields(samples, inside, times, named, None)) is not None:
                return replace(found, lists=tuple(lists))
            tried.append(guesser(samples.of(inside)))
        if tried:
            best = _with_time_around(min(tried, key=lambda made: len(made.missing)), samples, guesser)
            _expect_no_rows(best, samples, opened.name)
            return replace(best, lists=tuple(lists))
    return _with_time_around(guesser(sample), samples, guesser)


def _with_entities(
    sample: Sample, lists: Sequence[DocumentList], samples: Samples, guesser: Callable[..., Guess]
) -> Guess | None:
    """Return the guess for the first of the lists whose elements say to whom something happened, while the time is
    theirs or around them, as of days with rows; None where there is none."""
    tried = (_with_time_around(guesser(samples.of(_inside(sample, one))), samples, guesser) for one in lists)
    return next((made for made in tried if not made.missing), None)


def _with_time_around(made: Guess, samples: Samples, guesser: Callable[..., Guess]) -> Guess:
    """Return the guess with the time that the objects around the records have, if they have none themselves."""
    if EVENT in made.missing and (found := times_around(samples, made.layout)) is not None:
        sample, around = found
        return guesser(sample, around=around)
    return made


def _expect_no_rows(made: Guess, samples: Samples, name: str) -> None:
    """Raise InputError where no field of the records is a time, and the lists in them have rows with times."""
    if EVENT in made.missing:
        sample = samples.of(made.layout, made.layout.parents)
        records, path = [json.loads(one.line) for one in sample.records], samples.path_to(sample)
        has_times = path is not None and has_rows_of_times(records)
        if has_times and (listed := rows_in_records(records, path or ())) is not None:
            raise Shape(*listed).error(name)


def _are_around_more(sample: Sample) -> bool:
    """Return whether there are several records with more than lists in them, so that they may be events themselves."""
    return sample.size > 1 and any(_has_a_value(json.loads(one.line)) for one in sample.records)


def _has_a_value(found: object) -> bool:
    if isinstance(found, dict):
        return any(map(_has_a_value, found.values()))
    return found is not None and not isinstance(found, list)


def _inside(sample: Sample, one: DocumentList) -> Layout:
    return replace(sample.layout, format=InputFormat.JSON, records=path_text(one.path))


def _guessed(
    sample: Sample,
    samples: Samples,
    opened: OpenedInput,
    given: Mapping[str, str],
    times: Times,
    around: Sequence[Column] = (),
) -> Guess:
    """Return what is proposed for the records of a sample. Raises UsageError where they are lists."""
    found = Guess(sample.layout, sample.size if sample.records else 0, times=times, problem=sample.problem)
    if not sample.records:
        if sample.layout.records is None:  # a document may be longer than a record
            opened.recognize(replace(sample.layout, format=None), mapped=False)
        if sample.problem != HALF_OF_A_PAIR:
            opened.expect_events(sample.layout)
        return found
    name = opened.name if opened.file else ""
    return MappingGuesser(sample.records, found, name, given, around, samples.path_to(sample)).result()


def _with_dialect(opened: OpenedInput, layout: Layout) -> Layout:
    """Return the layout with the quotes and the escape that its first rows show, if it is recognized as a table."""
    with suppress(InputError, UsageError):
        recognized = opened.recognize(layout, mapped=True)
        shown = opened.with_dialect(recognized)
        return layout if shown == recognized else replace(layout, quote=shown.quote, escape=shown.escape)
    return layout


def _lists_of(opened: OpenedInput, samples: Samples, sample: Sample) -> Sequence[DocumentList]:
    """Return the lists of objects in a document, or in several, the longest first. Raises InputError for a document
    whose records are lists."""
    around: RecordPath = (EACH,) if sample.records and samples.are_of_array(sample) else ()
    if not around and (sample.size == 1 or not sample.records):
        lists = opened.lists(sample.layout)
        keyed = [keyed_records(json.loads(one.line)) for one in sample.records]
        if (listed := rows_of(lists) or next(iter(keyed), None)) is not None:
            raise Shape(*listed).error(opened.name)
        return [one for one in lists if one.has_objects]
    if sample.unread:
        return []
    counts = Counter[RecordPath]()
    for one in sample.records:
        found = json.loads(one.line)
        counts.update({path: record_count(found, path) for path in lists_in(found)})
    return [DocumentList((*around, *path), count, {}) for path, count in counts.most_common()]


def _likely(lists: Sequence[DocumentList]) -> Sequence[DocumentList]:
    """Return those of the lists that may have the records: the longest one, and others that are not much shorter."""
    return [one for one in lists[:_TRIED] if _MUCH_MORE * one.records >= lists[0].records]


_SOME = 10
"""Records from which on a list of a document has these, and the document is not one."""

_MUCH_MORE, _TRIED = 4, 5
"""How many times as long as another one a list of records is, at least, and how many lists are tried."""


_LISTS = "[][]"
"""Where records lie in lists in a list, such as Zipkin's spans in traces."""


def _without_fields(
    samples: Samples, layout: Layout, times: Times, named: Iterable[NamedMapping], certain: str | None
) -> Guess | None:
    """Return the guess for records that are events, or that a named mapping reads: all of them, or some where it is
    `certain` that they are of that mapping. None if they are neither. A shipped mapping must recognize them, too."""
    with suppress(InputError, UsageError):  # a named mapping may know how to read it
        sample = samples.of(layout)
        events, _ = count_read(sample.records, lambda one: read_event(one.line, times.zones()))
        if sample.layout.format in WRITTEN_AS_JSON and 2 * events > sample.size:
            return Guess(sample.layout, sample.size, times=times, accepted=events, problem=sample.problem)
    patterns = {one.layout.pattern for one in samples.known}
    made: Guess | None = None
    for mapping in named:
        with suppress(InputError, UsageError, Invalid):
            if mapping.name != certain and not _is_tried(mapping, layout, patterns):
                continue
            compiled = RecordMapping(mapping.fields, times.over(mapping.times))
            sample = samples.of(mapping.layout_under(layout), compiled.parents)
            accepted, problem = count_read(sample.records, reading(compiled))
            problem = problem or sample.problem
            found = Guess(sample.layout, sample.size, times=times, named=mapping, accepted=accepted, problem=problem)
            if accepted and mapping.name == certain:
                made = found
            tells = mapping.origin == SHIPPED and mapping.recognized_by  # so what else the sample has does not matter
            all_of_them = len(sample.records) if tells else sample.size
            if accepted and accepted == all_of_them and _recognizes_all(mapping, sample.records):
                return found
    return made


def _is_tried(mapping: NamedMapping, layout: Layout, patterns: Collection[str | None]) -> bool:
    """Return whether a mapping may be for an input that lies so: one's own is. A shipped one is for lines of its
    pattern, or for records that need no other layout than they have."""
    if mapping.origin != SHIPPED:
        return True
    if mapping.recognized_by:
        return mapping.layout_under(layout) == layout
    return any(pattern in patterns for pattern in mapping.given.get("pattern", ()))


def _recognizes_all(mapping: NamedMapping, records: Sequence[SampledRecord]) -> bool:
    """Return whether the records are certainly those that a shipped mapping is for; one's own need not say it."""
    return (
        mapping.origin != SHIPPED
        or not mapping.recognized_by
        or all(recognizes(mapping, json.loads(one.line)) for one in records)
    )
