"""Records that are the values of an object, under their keys, as Firebase and pandas write them: not in a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pik.inputs.advice import Advice, piped
from pik.inputs.list_records import jq_path
from pik.model.record_path import RecordPath, path_text

_SOME = 10
"""Objects in an object that are records, at least."""

_DEPTH = 3


def keyed_records(document: Mapping[str, Any]) -> tuple[str, Advice] | None:
    """Recognize a document with objects that are alike, each under a name of its own, or with a list of values for each
    column: in a sentence, and with what makes lines of them."""
    if (columns := next(_columns(document, ()), None)) is not None:
        where = f"{jq_path(columns)} | " if columns else ""
        rows = "map_values(arrays) | . as $of | range(map(length) | max) as $row | $of | map_values(.[$row])"
        made = piped(f"jq -c '{where}{rows}' {{file}}", "one on each line: ", guess=True)
        return "an object with a list of values for each column, not one of records", made
    found = max(_objects(document, ()), key=lambda one: one[1], default=None)
    if found is None:
        return None
    path, _ = found
    inside = f", in {path_text(path)}," if path else ""
    where = f"{jq_path(path)} | " if path else ""
    lines = piped(f"jq -c '{where}to_entries[] | {{key}} + .value' {{file}}", "one on each line: ", guess=True)
    return f"an object whose values{inside} are the records, not a list of them", lines


def _columns(found: Mapping[str, Any], path: RecordPath) -> Iterator[RecordPath]:
    """Yield the paths to objects with several lists of values, all of one length."""
    lists = [one for one in found.values() if isinstance(one, list)]
    are_of_values = not any(isinstance(value, dict | list) for one in lists for value in one)
    if are_of_values and len(lists) > 1 and len({*map(len, lists)}) == 1 and len(lists[0]) >= _SOME:
        yield path
    if len(path) < _DEPTH:
        for name, value in found.items():
            if isinstance(value, dict):
                yield from _columns(value, (*path, name))


def _objects(found: Mapping[str, Any], path: RecordPath) -> Iterator[tuple[RecordPath, int]]:
    if len(found) >= _SOME and _are_alike(list(found.values())):
        yield path, len(found)
    elif len(path) < _DEPTH:
        for name, value in found.items():
            if isinstance(value, dict):
                yield from _objects(value, (*path, name))


def _are_alike(values: list[Any]) -> bool:
    """Return whether the values are objects, nearly all with half of the names that the first one has, at least. Names
    that are numbers are those of rows, and the values then columns."""
    if not all(isinstance(one, dict) for one in values):
        return False
    names = set(values[0])
    alike = sum(2 * len(names & one.keys()) >= max(2, len(names)) for one in values)
    return len(names) > 1 and not all(name.isdigit() for name in names) and 10 * alike >= 9 * len(values)
