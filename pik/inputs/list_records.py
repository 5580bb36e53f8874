"""Records that are lists: rows without names, as `JSONCompact` of ClickHouse and Redis write them, and what to type to
give their values names."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from pik.inputs.advice import Advice, piped
from pik.inputs.document_lists import DocumentList, lists_of
from pik.inputs.epochs import UNITS, evident_unit
from pik.model.record_path import EACH, RecordPath, path_text, read_path

_LOOKED_AT = 20
"""Records that are looked at, at most."""

_WITH_NAMES = "[$names, .] | transpose | map({(.[0]): .[1]}) | add"

_raw_decode = json.JSONDecoder().raw_decode


def rows(start: str, filled: Sequence[str]) -> tuple[str, Advice] | None:
    """Recognize a text that begins with a bracket, of which each line, or each element of the array, is a list of
    values: in a sentence, and with what to type."""
    lists = [_read(line) for line in filled[:_LOOKED_AT]]
    if len(lists) > 1 and all(map(_is_row, lists)):
        if _are_names(lists[0]) and len(lists[0]) == len(lists[-1]):
            return "lists of values, one on each line, and names on the first", _piped("-cn", _of_first())
        return "lists of values without names, one on each line", _piped("-c", _numbered(lists[-1]))
    elements = _elements(start)
    if elements and all(map(_is_row, elements)):
        return "an array of lists of values without names", _piped("-c", f".[] | {_numbered(elements[0])}")
    return None


def rows_of(lists: Sequence[DocumentList], *, as_dates: bool = False) -> tuple[str, Advice] | None:
    """Recognize a document with a list of lists of values, if that is its longest list, or another one has their names:
    in a sentence, and with what to type. `as_dates`: numbers that count time since 1970 become times."""
    listed = max(filter(_has_rows, lists), key=_length, default=None)
    if listed is None:
        return None
    what = f"a document whose records, in {path_text(listed.path)}, are lists of values, not objects"
    for one in lists:
        is_named = isinstance(one.first, dict) and isinstance(one.first.get("name"), str)
        if one.records == len(listed.first) and (is_named or isinstance(one.first, str)):
            names = f"[{jq_path(one.path)}{'.name' if is_named else ''}] as $names | {jq_path(listed.path)}"
            return what, _piped("-c", f"{names} | {_WITH_NAMES}")
    if max(map(_length, lists)) > listed.records:
        return None
    if _are_names(listed.first) and listed.path.count(EACH) == 1:
        return what, _piped("-c", f"{jq_path(listed.path[:-1])} | .[0] as $names | .[1:][] | {_WITH_NAMES}")
    of_series = listed.path.count(EACH) > 1
    row = _point([listed.first], as_dates=as_dates) if of_series else _numbered(listed.first)
    return what, _piped("-c", with_around(listed.path, row))


def rows_in_records(
    records: Sequence[Mapping[str, Any]], to_it: RecordPath, *, as_dates: bool = False
) -> tuple[str, Advice] | None:
    """Recognize records, which lie on a path, with a list of lists of values in nearly each, such as the points of a
    series: in a sentence, and with what to type. `as_dates` is that of `rows_of`."""
    for name in dict.fromkeys(name for record in records for name in record):
        lists = [record[name] for record in records if record.get(name)]
        rows = [one[0] for one in lists if isinstance(one, list) and _is_row(one[0])]
        if 10 * len(rows) < 9 * len(lists) or 2 * len(rows) <= len(records):
            continue
        what = f"records with a list of lists of values in each, {name}"
        return what, _piped("-c", with_around((*to_it, name, EACH), _point(rows, as_dates=as_dates), bool(to_it)))
    return None


def _point(rows: Sequence[Sequence[Any]], *, as_dates: bool) -> str:
    """Return the program that names values by their places, but for the one that counts time, if there is just one."""
    counts = list(_counting_time(rows))
    if len(counts) != 1:
        return _numbered(rows[0])
    place, unit = counts[0]
    seconds = "" if unit == "epoch" else f". / {UNITS['epoch'] // UNITS[unit]} | "
    time = f"(.c{place} | {seconds}floor | todate)" if as_dates else f".c{place}"
    return f"{_numbered(rows[0])} | .time = {time} | del(.c{place})"


def _counting_time(rows: Sequence[Sequence[Any]]) -> Iterator[tuple[int, str]]:
    """Yield the places of values that count time since 1970 in each row, from one on, with their unit."""
    for place, values in enumerate(zip(*rows, strict=False), start=1):
        numbers = [one for one in values if isinstance(one, int | Decimal | float) and not isinstance(one, bool)]
        units = {evident_unit(Decimal(str(one))) for one in numbers}
        if len(numbers) == len(values) and len(units) == 1 and (unit := units.pop()):
            yield place, unit


def with_around(path: RecordPath, row: str = "", is_inside: bool = True) -> str:
    """Return what makes of a document the rows on a path, in jq, each with the fields of what is around it, but for
    those of the outermost list's object; `is_inside` where the first list is not that of an object itself. A `row` that
    is a list becomes the object that a program makes of it."""
    outer = path.index(EACH) + 1 if is_inside and EACH in path else 0
    steps = [jq_path(path[:outer])] if outer else []
    while outer < len(path):
        end = path.index(EACH, outer)
        names = jq_path(path[outer:end])
        outer = end + 1
        inner = f"({names}[]? | {row})" if row and outer == len(path) else f"{names}[]?"
        steps.append(f"del({names}) + {inner}")
        row = "" if outer == len(path) else row
    return " | ".join([*steps, row] if row else steps) or "."


def _has_rows(one: DocumentList) -> bool:
    return _is_row(one.first)


def _length(one: DocumentList) -> int:
    return one.records


def rows_in(document: dict[str, object]) -> tuple[str, Advice] | None:
    """As `rows_of`, of the lists in a document."""
    return rows_of(lists_of(io.BytesIO(json.dumps(document).encode())))


def naming(records: str | None, row: Sequence[Any]) -> Advice:
    """Return what to type where the records on that path, or of an array, are lists such as this one."""
    path = (EACH,) if records is None else read_path(records)
    return _piped("-c", f"{jq_path(path)} | {_numbered(row)}")


def _of_first() -> str:
    return f"input as $names | inputs | {_WITH_NAMES}"


def _numbered(row: Sequence[Any]) -> str:
    """Return the program that names values by their places, and takes a list of names and values for a part."""
    if any(map(_are_pairs, row)):
        pairs = "reduce range(0; length; 2) as $n ({}; . + {($names[$n]): $names[$n + 1]})"
        return (
            f'to_entries | map(if .value | type == "array" then .value | . as $names | {pairs} else {_PLACE} end) | add'
        )
    return f"to_entries | map({_PLACE}) | add"


_PLACE = '{("c\\(.key + 1)"): .value}'


def _piped(option: str, program: str) -> Advice:
    return piped(f"jq {option} '{program}' {{file}}", "give the values names: ", guess=True)


def jq_path(path: RecordPath) -> str:
    """Return a path as jq reads it."""
    steps = ("[]" if step is EACH else f".{step}" if _plain(step) else f".{json.dumps(step)}" for step in path)
    return "".join(steps) if path[0] is not EACH else "." + "".join(steps)


def _plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) is not None


def _is_row(found: object) -> bool:
    """Return whether it is a list with values, none of them an object or a list of objects."""
    return (
        isinstance(found, list)
        and bool(found)
        and not any(isinstance(inner, dict) for one in found for inner in (one if isinstance(one, list) else [one]))
    )


def _are_names(row: Sequence[object]) -> bool:
    return len(set(map(str, row))) == len(row) and all(isinstance(one, str) and _NAME.fullmatch(one) for one in row)


_NAME = re.compile(r"[^\W\d][\w .-]*")


def _are_pairs(found: object) -> bool:
    return isinstance(found, list) and len(found) > 1 and len(found) % 2 == 0 and _are_names(found[::2])


def _elements(start: str) -> Sequence[Any]:
    """Return the first elements of the array that a text begins with, as far as they are whole."""
    text, found = start.removeprefix("["), list[Any]()
    with suppress(ValueError, RecursionError):
        while len(found) < _LOOKED_AT:
            one, end = _raw_decode(text.lstrip())
            found.append(one)
            text = text.lstrip()[end:].lstrip()
            if not text.startswith(","):
                break
            text = text[1:]
    return found


def _read(line: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(line)
    return None
