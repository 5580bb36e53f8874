"""Times that are not among the fields of records: in the objects around them, or in their lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pik.errors import InputError, UsageError
from pik.inputs.opened import SampledRecord
from pik.model.jmes import quoted
from pik.model.layout import Layout
from pik.model.place import NOWHERE
from pik.model.record_path import EACH, RecordPath, path_text, read_path
from pik.usecases.ingest.guess_event_time import EVENT, TimeGuesser
from pik.usecases.ingest.guess_evidence import WEAK
from pik.usecases.ingest.guess_fields import Column, columns_of, encode
from pik.usecases.ingest.guess_result import FieldGuess
from pik.usecases.ingest.guess_sample import Sample, Samples
from pik.usecases.ingest.guess_times import formats_of

_LOOKED_AT = 20
"""Objects around records that are looked at, at most."""


def times_around(samples: Samples, layout: Layout) -> tuple[Sample, list[Column]] | None:
    """Return the sample of an input that lies so, with the fields of the objects around its records that have the name
    of a time, and these fields; None where there is none."""
    if layout.records is None:
        return None
    with suppress(InputError, UsageError):
        names = set(_names_of_times(samples, layout, read_path(layout.records)))
        if names:
            known = samples.of(replace(layout, parents=frozenset()), layout.parents | names)
            lines = [encode({name: one.place.parent(name) for name in names}) for one in known.records]
            return known, [
                replace(one, expression=f"parent('{one.path[0]}')" + one.expression.removeprefix(quoted(one.path[0])))
                for one in columns_of(lines)
                if _is_named(one) and one.expression.startswith(quoted(one.path[0]))
            ]
    return None


def _names_of_times(samples: Samples, layout: Layout, path: RecordPath) -> Iterator[str]:
    """Yield the names of fields around records that have the name of a time, or a field in them has."""
    for begin in range(len(path)):
        if begin and path[begin - 1] is not EACH:
            continue
        outside = replace(layout, records=path_text(path[:begin]) or None, parents=frozenset())
        for one in samples.of(outside).records[:_LOOKED_AT] if path[begin] is not EACH else ():
            found: Any = json.loads(one.line)
            for step in path[begin:]:
                if not isinstance(found, dict):
                    break
                beside = {name: value for name, value in found.items() if name != step}
                yield from (column.path[0] for column in columns_of([encode(beside)]) if _is_named(column))
                found = found.get(step or "")


def _is_named(one: Column) -> bool:
    return one.score(EVENT) >= WEAK and "'" not in one.path[0]


def times_in_lists(columns: Sequence[Column], path: RecordPath | None, guesser: TimeGuesser) -> Iterator[str]:
    """Yield of each list that most records have, and whose elements have a time, what it is and how it is read; `path`
    leads to the records in JSON."""
    for one in columns:
        lists = [value for value in one.values.values() if isinstance(value, list) and value]
        elements = [encode(element) for value in lists for element in value if isinstance(element, dict)]
        if 2 * len(lists) <= len(one.values) or len(elements) < sum(map(len, lists)):
            continue
        if (found := _time_of(elements, guesser)) is not None:
            which = " or ".join(found.fields)
            first = f"{one.expression}[0].{found.tried}"
            each = ""
            if path is not None and one.expression.startswith(quoted(one.path[0])):
                inside = path_text((*path, *one.path, EACH))
                each = f", --records '{inside}' makes a record of each element"
            yield f"the elements of its list {one.expression} have {which}: {first} is that of the first one{each}"


def _time_of(elements: Sequence[bytes], guesser: TimeGuesser) -> FieldGuess | None:
    """Return the time of elements, if its fields can be named."""
    inner = guesser.of([SampledRecord(one, NOWHERE) for one in elements])
    found = inner.chosen(EVENT, [one for one in columns_of(elements) if "(" not in one.expression])
    return found if found is not None and "(" not in found.tried else None


def has_rows_of_times(records: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a list in each of most records has rows with a time in the same place."""
    lists = [value for record in records for value in record.values() if isinstance(value, list) and value]
    rows = [row for one in lists for row in one if isinstance(row, list)]
    return any(map(formats_of, zip(*rows, strict=False)))
