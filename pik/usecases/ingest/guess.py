"""Guess: a mapping proposed from a sample of records, by the names of their fields and by what their values look like.

Nothing is read with it until a person has seen it. A zone, the order of day and month, a field that is not there are
never guessed: where values do not show them, they are undecided.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pik.errors import InputError, Invalid, UsageError
from pik.inputs.mapping import RecordMapping
from pik.inputs.named_mappings import recognizes
from pik.inputs.opened import OpenedInput, SampledRecord
from pik.inputs.shapes import lists_in, record_count
from pik.model.event import read_event
from pik.model.layout import JSON_VALUES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.model.named_mapping import SHIPPED, NamedMapping
from pik.model.record_path import path_text
from pik.model.times import AS_EVENTS, Times
from pik.usecases.ingest.guess_mapping import MappingGuesser
from pik.usecases.ingest.guess_result import Guess
from pik.usecases.ingest.guess_sample import Samples, count_read, reading


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
            lists = samples.of(replace(sample.layout, records=_LISTS))
            sample = lists if lists.records else sample
    if sample.layout.format in WRITTEN_AS_JSON and sample.layout.records is None:
        path = _records_in(sample.records) if len(sample.records) == sample.size else None
        if path is not None:
            inside = replace(sample.layout, format=InputFormat.JSON, records=path)
            if not given and (found := _without_fields(samples, inside, times, named, None)) is not None:
                return found
            sample = samples.of(inside)
    found = Guess(sample.layout, sample.size if sample.records else 0, times=times, problem=sample.problem)
    if not sample.records:
        return found
    return MappingGuesser(sample.records, found, opened.name if opened.file else "", given).result()


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
            if accepted and accepted == sample.size and _recognizes_all(mapping, sample.records):
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
