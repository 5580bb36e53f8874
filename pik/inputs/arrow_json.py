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
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from pik.errors import InputError
from pik.inputs.arrow_values import number, text, truth
from pik.inputs.arrow_values import texts as texts_of

if TYPE_CHECKING:
    import pyarrow as pa

_YEARS = tuple(day - date(1970, 1, 1).toordinal() for day in (1, date(9999, 12, 31).toordinal() + 1))
_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DIGITS = {"s": ".000000000", "ms": "000000", "us": "000", "ns": ""}
_ESCAPED = (b'"', b"\\")  # besides control characters
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


class Texts(NamedTuple):
    """Texts of cells, all within the same `quote`: joining that with others at once is faster than one by one. A text
    is null where JSON cannot say the cell."""

    cells: pa.Array
    quote: str = ""

    def at(self, place: int) -> str | None:
        """Return the JSON text of one cell."""
        text = self.cells[place].as_py()
        return None if text is None else f"{self.quote}{text}{self.quote}"


def within_quotes(cells: pa.Array) -> Texts:
    """Return the JSON texts of the cells, without quotes that all of them have."""
    import pyarrow.types as types

    kind = cells.type
    if not cells.null_count and (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        return Texts(_escaped(cells), '"')
    if not cells.null_count and types.is_temporal(kind):
        return Texts(_moments(cells), '"')
    return Texts(json_texts(cells))


def json_texts(cells: pa.Array) -> pa.Array:
    """Return the JSON text of each cell, null where JSON cannot say it."""
    import pyarrow.compute as pc

    texts = _of_values(cells)
    return pc.if_else(cells.is_null(), text("null"), texts) if cells.null_count else texts


def _of_values(cells: pa.Array) -> pa.Array:
    """Return the JSON text of each cell that is not null; what it returns of the others means nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind = cells.type
    if types.is_null(kind):
        return pa.repeat(text("null"), len(cells))
    if isinstance(kind, pa.BaseExtensionType):
        return _uuids(cells.storage) if kind.extension_name == "arrow.uuid" else _of_values(cells.storage)
    if types.is_dictionary(kind):
        return _of_values(cells.dictionary_decode())
    if types.is_map(kind):
        keys, items = _keys(_members(cells, cells.keys)), json_texts(_members(cells, cells.items))
        return joined("{", _joined(cells, joined(keys, ":", items)), "}")
    if types.is_struct(kind):
        return _objects(cells)
    if types.is_fixed_size_list(kind):
        cells = cells.cast(pa.list_(kind.value_field))
    if types.is_nested(kind):
        return joined("[", _joined(cells, json_texts(_members(cells, cells.values))), "]")
    if types.is_floating(kind):
        texts = cells.cast(pa.string())
        finite = pc.is_finite(cells)
        return pc.if_else(finite, texts, text(None)) if pc.all(finite).as_py() is False else texts
    if types.is_temporal(kind):
        return _quoted(_moments(cells))
    if types.is_integer(kind) or types.is_decimal(kind) or types.is_boolean(kind):
        return cells.cast(pa.string())
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _quoted(_escaped(cells))
    found = [None if value is None else b64encode(value).decode() for value in cells.to_pylist()]
    return _quoted(texts_of(found))


def _quoted(texts: pa.Array) -> pa.Array:
    return joined('"', texts, '"')


def joined(*parts: pa.Array | str) -> pa.Array:
    """Return what each row's parts make, one after the other; a text is a part of every row."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(*(text(part) if isinstance(part, str) else part for part in parts), text(""))


def _joined(lists: pa.Array, texts: pa.Array) -> pa.Array:
    """Return the texts of the members of each list, with commas."""
    import pyarrow as pa
    import pyarrow.compute as pc

    offsets = pc.subtract(lists.offsets, lists.offsets[0]).cast(pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), text(","))


def _members(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Return those of the values that are members of the lists, which may be a slice."""
    first, end = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return values.slice(first, end - first)


def _objects(structs: pa.Array) -> pa.Array:
    import pyarrow as pa

    parts: list[Any] = []
    for field, cells in zip(structs.type, structs.flatten(), strict=True):
        parts += [(",%s:" if parts else "{%s:") % _encode(field.name).decode(), json_texts(cells)]
    return joined(*parts, "}") if parts else pa.repeat(text("{}"), len(structs))


def _keys(keys: pa.Array) -> pa.Array:
    """Return the texts of the keys of maps, which are strings in JSON."""
    import pyarrow.compute as pc

    texts = json_texts(keys)
    return pc.if_else(pc.starts_with(texts, '"'), texts, _quoted(texts))


def _escaped(cells: pa.Array) -> pa.Array:
    """Return texts as they stand within quotes, null where they are not UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = cells.cast(pa.string(), safe=False)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        found = [None if value is None else _utf8(value) for value in texts.cast(pa.binary()).to_pylist()]
        return texts_of(found)
    if not _has_special(texts):
        return texts
    special = pc.fill_null(pc.match_substring_regex(texts, r'[\x00-\x1f"\\]'), truth(False))
    escaped = [_encode(one).decode()[1:-1] for one in texts.filter(special).to_pylist()]
    return pc.replace_with_mask(texts, special, texts_of(escaped))


def _has_special(texts: pa.Array) -> bool:
    """Return whether any text has a character that JSON escapes: one look at all of them is much faster than one at
    each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return False
    places = (texts.offset, texts.offset + len(texts))
    first, end = (int.from_bytes(offsets.slice(4 * place, 4).to_pybytes(), "little") for place in places)
    bare = data.slice(first, end - first)
    if not bare.size:
        return False
    least = pc.min(pa.UInt8Array.from_buffers(pa.uint8(), bare.size, [None, bare])).as_py()
    read = bare.to_pybytes()
    return least < 32 or any(one in read for one in _ESCAPED)


def _utf8(value: bytes) -> str | None:
    try:
        return _encode(value.decode()).decode()[1:-1]
    except UnicodeDecodeError:
        return None


def _uuids(cells: pa.Array) -> pa.Array:
    return texts_of([None if value is None else f'"{UUID(bytes=value)}"' for value in cells.to_pylist()])


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
        return pc.if_else(_between(days, 1), cells.cast(pa.string()), text(None))
    if types.is_time(kind):
        return joined(cells.cast(pa.string()), _DIGITS[kind.unit])
    texts = pc.replace_substring(cells.view(pa.timestamp(kind.unit)).cast(pa.string()), " ", "T", max_replacements=1)
    texts = joined(texts, _DIGITS[kind.unit] + ("" if kind.tz is None else "Z"))
    if kind.unit == "ns":
        return texts  # they do not reach further
    return pc.if_else(_between(cells.view(pa.int64()), 86_400 * _SECOND[kind.unit]), texts, text(None))


def _between(numbers: pa.Array, day: int) -> pa.Array:
    """Return whether times are in the years that texts can have; `day` is the length of one."""
    first, end = (year * day for year in _YEARS)
    return within(numbers, first, end)


def within(numbers: pa.Array, first: int, end: int) -> pa.Array:
    """Return which of the numbers are at least the first one and less than the other."""
    import pyarrow.compute as pc

    return pc.and_(pc.greater_equal(numbers, number(first)), pc.less(numbers, number(end)))


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
