"""Arrow's values as JSON, whole columns at a time, without rounding any.

Decimals are numbers as they are, timestamps and times have nine digits, those that are instants end with Z, dates are
texts, binary is base64; a float is the shortest number that reads back as the same float. Lists and structs are arrays
and objects; a map is an object, its keys as texts.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from pik.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_YEARS = tuple(day - date(1970, 1, 1).toordinal() for day in (1, date(9999, 12, 31).toordinal() + 1))
_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DIGITS = {"s": ".000000000", "ms": "000000", "us": "000", "ns": ""}
_SPECIAL = bytes(range(32)) + b'"\\'
_encode = msgspec.json.Encoder().encode


def expect_readable(kind: pa.DataType, what: str) -> None:
    """Raise InputError for a type that has no exact form in JSON."""
    import pyarrow as pa
    import pyarrow.types as types

    if isinstance(kind, pa.BaseExtensionType):
        expect_readable(kind.storage_type, what)
    elif types.is_map(kind):
        if types.is_nested(kind.key_type):
            raise InputError(f"{what} is {kind}, whose keys cannot be those of a JSON object")
        expect_readable(kind.key_type, what)
        expect_readable(kind.item_type, what)
    elif types.is_nested(kind):
        for number in range(kind.num_fields):
            expect_readable(kind.field(number).type, what)
    elif types.is_duration(kind) or types.is_interval(kind):
        raise InputError(
            f"{what} is {kind}, which has no form in JSON", hint="cast it to a number where the file is written"
        )


def json_texts(cells: pa.Array) -> pa.Array:
    """Return the JSON text of each cell, null where JSON cannot say it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _of_values(cells)
    return pc.if_else(cells.is_null(), pa.scalar("null"), texts) if cells.null_count else texts


def _of_values(cells: pa.Array) -> pa.Array:
    """Return the JSON text of each cell that is not null; what it returns of the others means nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind = cells.type
    if types.is_null(kind):
        return pa.array(["null"] * len(cells))
    if isinstance(kind, pa.BaseExtensionType):
        return _uuids(cells.storage) if kind.extension_name == "arrow.uuid" else _of_values(cells.storage)
    if types.is_dictionary(kind):
        return _of_values(cells.dictionary_decode())
    if types.is_map(kind):
        keys, items = _keys(_members(cells, cells.keys)), json_texts(_members(cells, cells.items))
        pairs = pc.binary_join_element_wise(keys, items, ":")
        return pc.binary_join_element_wise("{", _joined(cells, pairs), "}", "")
    if types.is_struct(kind):
        return _objects(cells)
    if types.is_fixed_size_list(kind):
        cells = cells.cast(pa.list_(kind.value_field))
    if types.is_nested(kind):
        return pc.binary_join_element_wise("[", _joined(cells, json_texts(_members(cells, cells.values))), "]", "")
    if types.is_floating(kind):
        texts = cells.cast(pa.string())
        return pc.if_else(pc.is_finite(cells), texts, None) if pc.all(pc.is_finite(cells)).as_py() is False else texts
    if types.is_temporal(kind):
        return _quoted(_moments(cells))
    if types.is_integer(kind) or types.is_decimal(kind) or types.is_boolean(kind):
        return cells.cast(pa.string())
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _strings(cells)
    found = [value and b64encode(value).decode() for value in cells.to_pylist()]
    return _quoted(pa.array(found, pa.string()))


def _quoted(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise('"', texts, '"', "")


def _joined(lists: pa.Array, texts: pa.Array) -> pa.Array:
    """Return the texts of the members of each list, with commas."""
    import pyarrow as pa
    import pyarrow.compute as pc

    offsets = pc.subtract(lists.offsets, lists.offsets[0]).cast(pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ",")


def _members(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Return those of the values that are members of the lists, which may be a slice."""
    first, end = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return values.slice(first, end - first)


def _objects(structs: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[Any] = []
    for field, cells in zip(structs.type, structs.flatten(), strict=True):
        parts += [(",%s:" if parts else "{%s:") % _encode(field.name).decode(), json_texts(cells)]
    return pc.binary_join_element_wise(*parts, "}", "") if parts else pa.array(["{}"] * len(structs))


def _keys(keys: pa.Array) -> pa.Array:
    """Return the texts of the keys of maps, which are strings in JSON."""
    import pyarrow.compute as pc

    texts = json_texts(keys)
    return pc.if_else(pc.starts_with(texts, '"'), texts, _quoted(texts))


def _strings(cells: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = cells.cast(pa.string(), safe=False)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        found = [None if value is None else _utf8(value) for value in texts.cast(pa.binary()).to_pylist()]
        return pa.array(found, pa.string())
    quoted = _quoted(texts)
    if not _has_special(texts):
        return quoted
    special = pc.fill_null(pc.match_substring_regex(texts, r'[\x00-\x1f"\\]'), False)
    escaped = [_encode(text).decode() for text in texts.filter(special).to_pylist()]
    return pc.replace_with_mask(quoted, special, pa.array(escaped, pa.string()))


def _has_special(texts: pa.Array) -> bool:
    """Whether any text has a character that JSON escapes: one look at all of them is much faster than one at each."""
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return False
    places = (texts.offset, texts.offset + len(texts))
    first, end = (int.from_bytes(offsets.slice(4 * place, 4).to_pybytes(), "little") for place in places)
    bare = data.slice(first, end - first).to_pybytes()
    return len(bare.translate(None, _SPECIAL)) < len(bare)


def _utf8(value: bytes) -> str | None:
    try:
        return _encode(value.decode()).decode()
    except UnicodeDecodeError:
        return None


def _uuids(cells: pa.Array) -> pa.Array:
    import pyarrow as pa

    return pa.array([value and f'"{UUID(bytes=value)}"' for value in cells.to_pylist()], pa.string())


def _moments(cells: pa.Array) -> pa.Array:
    """Return dates, times and timestamps as texts, null outside of the years 1 to 9999."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind = cells.type
    if types.is_date64(kind):
        cells = cells.cast(pa.date32())
    if types.is_date(kind):
        days = cells.view(pa.int32())
        return pc.if_else(_between(days, 1), cells.cast(pa.string()), None)
    if types.is_time(kind):
        return pc.binary_join_element_wise(cells.cast(pa.string()), _DIGITS[kind.unit], "")
    texts = pc.replace_substring(cells.view(pa.timestamp(kind.unit)).cast(pa.string()), " ", "T", max_replacements=1)
    texts = pc.binary_join_element_wise(texts, _DIGITS[kind.unit] + ("" if kind.tz is None else "Z"), "")
    if kind.unit == "ns":
        return texts  # they do not reach further
    return pc.if_else(_between(cells.view(pa.int64()), 86_400 * _SECOND[kind.unit]), texts, None)


def _between(numbers: pa.Array, day: int) -> pa.Array:
    """Whether times are in the years that texts can have; `day` is the length of one."""
    import pyarrow.compute as pc

    first, end = (number * day for number in _YEARS)
    return pc.and_(pc.greater_equal(numbers, first), pc.less(numbers, end))


def shown(cell: pa.Scalar) -> str:
    """Return a text of a value that JSON cannot say."""
    try:
        return json.dumps(cell.as_py(), default=str, ensure_ascii=False)
    except (ValueError, OverflowError):
        return f'"{cell.type}"'


def reason(cell: pa.Scalar) -> str:
    """Return why JSON cannot say a value."""
    try:
        value = cell.as_py()
    except UnicodeDecodeError:
        return "is not valid UTF-8"
    except (ValueError, OverflowError):
        value = None
    odd = next((number for number in _floats(value) if not math.isfinite(number)), None)
    if odd is not None:
        return f"has {json.dumps(odd)}, which JSON does not"
    return "has a time before the year 1, after 9999, or that nanoseconds do not reach"


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _floats(inner)
