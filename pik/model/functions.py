"""Functions of expressions: JMESPath's own, and those that mappings need beside them.

JMESPath has hardly any for texts. `lower`, `upper`, `trim`, `split` and `replace` are those of JMESPath Community
(https://jmespath.site); `coalesce`, `date_part` and `sha256` are named as in DuckDB, `parse_json` and `date` as in
BigQuery.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from jmespath.functions import Functions, signature

from pik.errors import Invalid, UsageError
from pik.model.identity import MAX_DEPTH, check_json, exact_number, has_plain_numbers, name_of_number
from pik.model.instant import parse_local, resolved
from pik.model.place import NOWHERE, Place
from pik.model.zone import Zone, load_zone

OF_PLACE = frozenset(("file", "line", "partition", "parent"))
"""Functions whose value depends on where the record stands."""

USAGE = {
    one.partition("(")[0]: one
    for one in (
        *("parse_json(TEXT)", "lower(TEXT)", "upper(TEXT)", "trim(TEXT)", "split(TEXT, ',')"),
        *("replace(TEXT, 'OLD', 'NEW')", "coalesce(A, B)", "sha256(TEXT)", "base64_decode(TEXT)"),
        *("base64_gunzip(TEXT)", "url_decode(TEXT)", "date(TIME, 'ZONE')", "date_part('hour', TIME, 'ZONE')"),
        *(
            "file()",
            "line()",
            "partition('NAME')",
            "parent('NAME')",
            "join('-', [TEXT, to_string(NUMBER)])",
            "to_string(VALUE)",
        ),
    )
}
"""How functions are called."""

OF_TEXT = frozenset(
    ("parse_json", "lower", "upper", "trim", "sha256", "base64_decode", "base64_gunzip", "url_decode", "to_string")
)
"""Functions of one text, which fail or succeed with it alone."""

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.decode


class Meter:
    """Counts what an expression makes of a record. Raises ValueError where that is more than is allowed."""

    def __init__(self, allowed: int) -> None:
        self._allowed = self.left = allowed

    def take(self, size: int) -> None:
        """Count so many bytes, about."""
        self.left -= size
        if self.left < 0:
            raise ValueError(f"its expression makes more than {self._allowed >> 20} MiB of this record")

    def weighed(self, made: Any) -> Any:
        """Return what was made, after counting its JSON text."""
        waiting = [made]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self.take(len(one))
            elif isinstance(one, list):
                self.take(8 * len(one))
                waiting += one
            elif isinstance(one, dict):
                self.take(sum(map(len, one)) + 8 * len(one))
                waiting += one.values()
        return made


class ValueFunctions(Functions):
    """The functions of an expression that is evaluated at a place. What makes much of little is counted before it is
    made. Those of JMESPath that would round or mark a number that is not a machine number are replaced."""

    def __init__(self, meter: Meter, place: Place = NOWHERE) -> None:
        self._meter, self._place = meter, place

    def call(self, name: str, arguments: Sequence[Any]) -> Any:
        """Return the value of a function, as `call_function` does, of as many arguments as it takes."""
        types = _USUAL.get(name)
        if types is not None and all(map(isinstance, arguments, types)):
            return self.FUNCTION_TABLE[name]["function"](self, *arguments)
        return self.call_function(name, arguments)  # which says what is wrong

    @signature({"types": []})
    def _func_to_string(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if _is_number(value):
            return name_of_number(str(value))
        text = _encode(value)
        return (text if b".0" not in text else _encode(_exactly(text.decode()))).decode()

    @signature({"types": []})
    def _func_to_number(self, value: Any) -> int | float | Decimal | None:
        if _is_number(value):
            return value  # type: ignore[no-any-return]
        return exact_number(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, glue: str, parts: list[str]) -> str:
        self._meter.take(len(glue) * len(parts))
        return glue.join(parts)

    @signature({"types": ["string"]})
    def _func_parse_json(self, text: str) -> Any:
        self._meter.take(len(text) + 8 * sum(map(text.count, ",[{")))
        return _parsed(text)

    @signature({"types": ["string"]})
    def _func_lower(self, text: str) -> str:
        return text.lower()

    @signature({"types": ["string"]})
    def _func_upper(self, text: str) -> str:
        return text.upper()

    @signature({"types": ["string"]})
    def _func_trim(self, text: str) -> str:
        return text.strip()

    @signature({"types": ["string"]}, {"types": ["string"]})
    def _func_split(self, text: str, separator: str) -> list[str]:
        self._meter.take(8 * (text.count(separator) + 1))
        return text.split(separator) if separator else list(text)

    @signature({"types": ["string"]}, {"types": ["string"]}, {"types": ["string"]})
    def _func_replace(self, text: str, old: str, new: str) -> str:
        expect_constants("replace", (text, old, new))
        self._meter.take(text.count(old) * len(new))
        return text.replace(old, new)

    @signature({"types": [], "variadic": True})
    def _func_coalesce(self, *values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    @signature({"types": ["string"]})
    def _func_sha256(self, text: str) -> str:
        return sha256(text.encode()).hexdigest()

    @signature({"types": ["string"]})
    def _func_base64_decode(self, text: str) -> str:
        return _utf8("base64_decode", _base64("base64_decode", text))

    @signature({"types": ["string"]})
    def _func_base64_gunzip(self, text: str) -> str:
        return _utf8("base64_gunzip", self._gunzipped(_base64("base64_gunzip", text)))

    def _gunzipped(self, data: bytes) -> bytes:
        made = b""
        while data:
            stream = zlib.decompressobj(wbits=31)
            try:
                member = stream.decompress(data, self._meter.left + 1)
            except zlib.error:
                raise Invalid("base64_gunzip(): the data is not gzip, or damaged") from None
            self._meter.take(len(member))
            if not stream.eof:
                raise Invalid("base64_gunzip(): the data ends too early")
            made, data = made + member, stream.unused_data
        return made

    @signature({"types": ["string"]})
    def _func_url_decode(self, text: str) -> str:
        if wrong := _NOT_ENCODED.search(text):
            raise Invalid(f"url_decode(): '{text[wrong.start() : wrong.start() + 3]}' is not %XX")
        try:
            return unquote_plus(text, errors="strict")
        except UnicodeDecodeError:
            raise Invalid(f"url_decode(): '{text:.40}' is not UTF-8") from None

    @signature({"types": ["string"], "variadic": True})
    def _func_date(self, *given: str) -> str:
        return _local("date", given).date().isoformat()

    @signature({"types": ["string"]}, {"types": ["string"], "variadic": True})
    def _func_date_part(self, part: str, *given: str) -> int:
        expect_constants("date_part", (part,))
        return _PARTS[part](_local("date_part", given))

    @signature()
    def _func_file(self) -> str:
        return self._place.file_name()

    @signature()
    def _func_line(self) -> int:
        return self._place.line

    @signature({"types": ["string"]})
    def _func_partition(self, name: str) -> str | None:
        return self._place.partition(name)

    @signature({"types": ["string"]})
    def _func_parent(self, name: str) -> Any:
        return self._place.parent(name)


_USUAL: dict[str, tuple[type, ...]] = {
    name: tuple(str if argument["types"] else object for argument in known["signature"])
    for name, known in ValueFunctions.FUNCTION_TABLE.items()
    if all(argument["types"] in (["string"], []) for argument in known["signature"])
}
"""The types of arguments of functions that take only texts, or anything."""

MOST = {"date": 2, "date_part": 3}
"""Arguments that functions take at most, where that is more than at least and not any number."""


def expect_constants(function: str, given: Sequence[Any]) -> None:
    """Raise Invalid where arguments that are mostly constants are wrong, None being one that is not known."""
    if function == "replace" and given[1] == "":
        raise Invalid("replace(): the text to replace is empty")
    if function == "date_part" and given[0] is not None and given[0] not in _PARTS:
        raise Invalid(f"date_part(): unknown part '{given[0]}', not one of {', '.join(_PARTS)}")
    if function in MOST and len(given) == MOST[function] and given[-1] is not None:
        _zone(function, given[-1])


_NOT_ENCODED = re.compile("%(?![0-9A-Fa-f]{2})")

_PARTS: dict[str, Callable[[datetime], int]] = {
    "year": lambda local: local.year,
    "month": lambda local: local.month,
    "day": lambda local: local.day,
    "hour": lambda local: local.hour,
    "minute": lambda local: local.minute,
    "second": lambda local: local.second,
    "isodow": datetime.isoweekday,
}


def _local(function: str, given: Sequence[Any]) -> datetime:
    """Return the local time that a time and the name of a zone, or else UTC, tell. Raises Invalid."""
    text, *zones = given
    zone = _zone(function, zones[0]) if zones else None
    try:
        local, offset = parse_local(text, date_only=True)
        if offset is None and zone is None:
            example = f"{function}({'…, ' if function == 'date_part' else ''}TIME, 'Europe/Berlin')"
            raise Invalid(f"'{text:.40}' has no offset; {example} says which zone it is in")
        instant = resolved(local, offset, zone, text)
    except Invalid as error:
        raise Invalid(f"{function}(): {error.message}") from None
    return (zone or load_zone("UTC")).local_at(instant)


def _zone(function: str, name: Any) -> Zone:
    if not isinstance(name, str):
        raise Invalid(f"{function}() takes the name of a time zone, not '{name!s:.40}'")
    try:
        return load_zone(name)
    except UsageError as error:
        raise Invalid(f"{function}(): unknown time zone '{name:.40}', {error.hint}") from None


def _base64(function: str, text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise Invalid(f"{function}(): '{text:.40}' is not base64") from None


def _utf8(function: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{function}(): the data is not UTF-8 text") from None


@lru_cache(maxsize=2)
def _parsed(text: str) -> Any:
    """Return the value of a JSON text. The fields of a mapping often ask for the same one. Raises Invalid."""
    raw = text.encode()
    if has_plain_numbers(raw) and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        try:
            return _decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    try:
        check_json(raw, "the text")
    except Invalid as error:
        raise Invalid(f"parse_json(): {error.message}: '{text:.40}'") from None
    return _exactly(text)


def _exactly(text: str) -> Any:
    return json.loads(text, parse_float=exact_number, parse_int=exact_number)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
