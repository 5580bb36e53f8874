"""Identity: canonical JSON, `event_id` and `content_hash` (promise 5; docs/format.md has test vectors).

Canonical JSON is that of RFC 8785 with two differences: object keys are sorted by code point (RFC 8785: by UTF-16
unit), and a number is its exact decimal value, however long (RFC 8785: the nearest double), written as RFC 8785 would
write it.

    content_hash = H(["pik.content.1", source, event_type, entity_id, event_time, payload])
    event_id     = content_hash, or with an idempotency key
                   H(["pik.key.1", source, event_type, entity_id, idempotency_key])

H is the first 128 bits of SHA-256 over the canonical JSON of the array, in hex.
`event_time` there is RFC 3339 in UTC with all nine digits of the second's fraction.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from hashlib import sha256
from itertools import accumulate, repeat
from math import isfinite
from typing import Any

import msgspec

from pik.errors import Invalid

MAX_DEPTH = 100
"""Arrays and objects nested deeper than this, the payload itself being the first level, are refused."""

MAX_DIGITS = 256
"""An integer with more digits fits into no name."""

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_BRACKET = re.compile(rf"{_STRING}|[{{}}\[\]]")
# The shape of a JSON text: what numbers are made of as 0, both letters e as e, what may stand before a number as a
# colon, all else as x.
_SHAPE = bytearray(b"x" * 256)
for _marks, _mark in ((b"0123456789.-", b"0"), (b"eE", b"e"), (b":,[ \t\n\r", b":")):
    for _byte in _marks:
        _SHAPE[_byte : _byte + 1] = _mark
# A number of 17 characters or more (a double keeps 15 digits of every number), or one with an exponent.
_LONG = re.compile(b":0(?:0{16}|0*e)")
_WHOLE = re.compile(rb"\.0[,}\]]")
_find_long, _find_whole = _LONG.search, _WHOLE.search
_HUGE = re.compile(rb"-[0-9]{19}|[0-9]{20}")

_encode = msgspec.json.Encoder(order="deterministic").encode
UNBOUNDED = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def canonical_number(text: str) -> str:
    """Return the one text of a JSON number's exact decimal value: `10`, `10.0` and `1e1` are all `10`; -0 is `0`."""
    whole, dot, fraction = text.partition(".")
    if dot and len(whole) < 22 and fraction.isdigit() and (figures := fraction.rstrip("0")) and whole.lstrip("-0"):
        return f"{whole}.{figures}"
    try:
        sign, digits, exponent = Decimal(text, UNBOUNDED).as_tuple()
    except InvalidOperation:
        raise Invalid(f"the exponent of the number '{text[:40]}' is out of range", field="payload") from None
    assert isinstance(exponent, int), "JSON has no NaN and no Infinity"
    written = "".join(map(str, digits)).lstrip("0")
    figures = written.rstrip("0")
    if not figures:
        return "0"
    minus = "-" if sign else ""
    point = len(written) + exponent  # the decimal point stands after this many of the figures
    if len(figures) <= point <= 21:
        return minus + figures.ljust(point, "0")
    if 0 < point <= 21:
        return f"{minus}{figures[:point]}.{figures[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{figures}"
    mantissa = figures[0] + ("." + figures[1:] if len(figures) > 1 else "")
    return f"{minus}{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def name_of_number(text: str) -> str:
    """Return a JSON number as the text of a name or id: an integer's digits, up to MAX_DIGITS of them, and of any other
    number, or a longer one, the canonical text."""
    canonical = canonical_number(text)
    mantissa, _, exponent = canonical.partition("e+")
    whole, _, fraction = mantissa.partition(".")
    if not exponent or not len(fraction) <= int(exponent) < MAX_DIGITS:
        return canonical
    return whole + fraction.ljust(int(exponent), "0")


def is_machine_number(canonical: str) -> bool:
    """Return whether readers that keep numbers as 64-bit integers and doubles see exactly this canonical number."""
    if canonical.lstrip("-").isdigit() and len(canonical) <= 20 and -(2**63) <= int(canonical) < 2**64:
        return True
    return _is_double(canonical)


def exact_number(text: str) -> int | float | Decimal:
    """Return the machine number that a JSON number's text is, or the Decimal where there is none."""
    canonical = canonical_number(text)
    if not is_machine_number(canonical):
        return Decimal(text)
    return int(canonical) if canonical.lstrip("-").isdigit() else float(canonical)


def _is_double(canonical: str) -> bool:
    if len(canonical) > 30:
        return False
    value = float(canonical)
    return isfinite(value) and canonical_number(repr(value)) == canonical


def _read_as_written(text: str, canonical: str) -> bool:
    """Return whether such readers see this number as it is written: with a point or an exponent it is a double to
    them."""
    return _is_double(canonical) if "." in text or "e" in text or "E" in text else is_machine_number(canonical)


Payload = tuple[bytes, bytes | None]
"""What identity and the metric engine need to know of a payload: its canonical JSON, and a text for plain readers.

The text is None for nearly every payload. Where a reader that goes through doubles, or that takes the first of a
repeated key, would see other values than those written, it is the payload for such readers: repeated keys resolved, and
each number that no machine number holds as a string of its exact digits. All else is as it was written, keys in their
order, so that a part of the payload has one text, whatever else is in it.
"""


class _Numbers:
    """A hook for decoding numbers; remembers whether one was inexact. One per process: not for threads."""

    def __init__(self) -> None:
        self.inexact = False

    def exact(self, text: str) -> float | msgspec.Raw:
        """Return a value that the encoder writes as the canonical number."""
        if text.endswith(".0") and len(text) <= 16:
            return int(text[:-2])
        if text[-1] != "0" and "e" not in text and "E" not in text and "0.0000" not in text[:7]:
            value = float(text)
            # At most 15 digits: then the double's shortest text is the number as written, and the canonical one.
            if len(text) <= 16 or repr(value) == text:
                return value
        canonical = canonical_number(text)
        if not _read_as_written(text, canonical):
            self.inexact = True
        return msgspec.Raw(canonical.encode())


def _plain_number(text: str) -> msgspec.Raw:
    """Return a number as the text for plain readers has it."""
    canonical = canonical_number(text)
    if text != "-0" and _read_as_written(text, canonical):
        return msgspec.Raw(text.encode())
    # Here only an integer can still be a machine number, one that was written with a point or an exponent.
    return msgspec.Raw((canonical if is_machine_number(canonical) else f'"{canonical}"').encode())


_numbers = _Numbers()
_decode = msgspec.json.Decoder(dict | list).decode
_decode_exact = msgspec.json.Decoder(float_hook=_numbers.exact).decode
_decode_checked = msgspec.json.Decoder(float_hook=canonical_number).decode
_decode_plain = msgspec.json.Decoder(float_hook=_plain_number).decode
_encode_in_order = msgspec.json.Encoder().encode


def read_payload(raw: bytes) -> Payload:
    """Return the Payload of its JSON text. Raises Invalid unless it is a JSON object or array within MAX_DEPTH."""
    try:
        canonical = _encode(_decode(raw))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return read_payload_slowly(raw)
    return _read(raw, canonical, plain=not _find_long(raw.translate(_SHAPE)) and not _find_whole(canonical))


def has_plain_numbers(raw: bytes) -> bool:
    """Return whether each number in a JSON text is surely one that machine numbers hold and print as it was written,
    whole numbers with a fraction aside."""
    return b"0.0000" not in raw and not _find_long(raw.translate(_SHAPE))


def plain_canonical(raw: bytes, value: Any) -> bytes | None:
    """Return the canonical JSON of a payload, given as text and as what msgspec decoded of a text that
    `has_plain_numbers`.

    None where that must be read from the text, or is not a payload.
    """
    if not isinstance(value, (dict, list)) or raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        return None
    canonical = _encode(value)
    return None if _find_whole(canonical) else canonical


def read_payloads(raws: Sequence[bytes]) -> list[Payload]:
    """`read_payload` of each, faster: what is hardly ever found is searched for in all of them at once. Raises
    MsgspecError, ValueError, RecursionError or Invalid if one of them is not readable."""
    canonicals = list(map(_encode, map(_decode, raws)))
    payloads: list[Payload] = list(zip(canonicals, repeat(None)))
    odd = {*_finding(_LONG, raws, b"\n".join(raws).translate(_SHAPE)), *_finding(_WHOLE, canonicals)}
    others = [n for n, raw in enumerate(raws) if len(raw) != len(canonicals[n]) or len(raw) > 2 * MAX_DEPTH]
    for n in odd.union(others):
        payloads[n] = _read(raws[n], canonicals[n], plain=n not in odd)
    return payloads


def _finding(pattern: re.Pattern[bytes], texts: Sequence[bytes], joined: bytes | None = None) -> Iterator[int]:
    """Yield the numbers of the texts in which the pattern, which matches no line break, is found. `joined` are the
    texts, or what is searched in their place, with a byte between."""
    ends: list[int] = []  # of the texts with that byte
    for match in pattern.finditer(b"\n".join(texts) if joined is None else joined):
        ends = ends or list(accumulate([len(text) + 1 for text in texts]))
        yield bisect_right(ends, match.start())


def _read(raw: bytes, canonical: bytes, *, plain: bool) -> Payload:
    """Return the Payload, given what the encoder makes of it and whether the encoder's numbers are `plain`.

    They are the canonical ones where each was written with at most 15 digits, without an exponent, is not a whole
    number with a fraction (so far it is plain), nor smaller than a ten-thousandth.
    """
    if len(raw) > 2 * MAX_DEPTH and raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        return read_payload_slowly(raw)
    # Nothing plain is longer in canonical JSON than it was, and a number that small is shorter, as is an object without
    # its repeated keys. So the same length means that all is as it was.
    if plain and len(raw) == len(canonical):
        return canonical, None
    # Otherwise a repeated key shows in the number of quotes, unless an escaped quote was spelled \u0022.
    if raw.count(b'"') != canonical.count(b'"') or b"\\u0022" in raw:
        return read_payload_slowly(raw)
    return (canonical, None) if plain and b"0.0000" not in raw else _read_numbers(raw)


def _read_numbers(raw: bytes) -> Payload:
    """As `read_payload`, for a payload whose only peculiarity is how its numbers are written."""
    if _HUGE.search(raw):
        return read_payload_slowly(raw)  # an integer that does not fit 64 bits, and integers do not pass the hook
    _numbers.inexact = False
    try:
        canonical = _encode(_decode_exact(raw))
    except (msgspec.MsgspecError, ValueError):
        return read_payload_slowly(raw)
    return canonical, _encode_in_order(_decode_plain(raw)) if _numbers.inexact else None


class _Object(list[tuple[str, Any]]):
    """An object's members in order, repeated ones included."""


def read_payload_slowly(raw: bytes) -> Payload:
    """The definition that `read_payload` must agree with: slow, exact, and with a reason for each refusal."""
    try:
        value = read_json_slowly(raw, "payload")
    except Invalid as error:
        raise Invalid(error.message, field="payload") from None
    if not isinstance(value, list):
        raise Invalid("payload is not a JSON object or array", field="payload")
    plain = _Plain()
    canonical = _encode(plain(value, quote=False))
    return canonical, _encode_in_order(plain(value, quote=True)) if plain.differs else None


def check_json(raw: bytes, what: str) -> None:
    """Raises Invalid, naming `what`, unless `raw` is one JSON value within MAX_DEPTH."""
    try:
        _decode_checked(raw)
        if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH or _depth(raw.decode()) <= MAX_DEPTH:
            return
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    read_json_slowly(raw, what)


def read_json_slowly(raw: bytes, what: str) -> Any:
    """Return the JSON value of `raw`: objects as lists of their members in order, numbers as their texts.

    Raises Invalid, naming `what`, for everything that RFC 8259 does not allow, and for nesting beyond MAX_DEPTH.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{what} is not UTF-8 (byte {error.start + 1})") from None
    if text.startswith("\ufeff"):
        raise Invalid(f"{what} begins with a byte order mark, as where files with one were joined")
    if _depth(text) > MAX_DEPTH:
        raise Invalid(f"{what} is nested deeper than {MAX_DEPTH} levels")

    def no_constant(name: str) -> None:
        raise Invalid(f"{what} has {name}, which JSON does not")

    try:
        value = json.loads(
            text, parse_float=_Number, parse_int=_Number, parse_constant=no_constant, object_pairs_hook=_Object
        )
    except json.JSONDecodeError as error:
        raise Invalid(f"{what} is not JSON: {_fault(text, error.pos)}") from None
    if "\\u" in text:
        _refuse_surrogates(value, what)
    return value


def _fault(text: str, at: int) -> str:
    """Return what is wrong with a text at the place where it stops being JSON."""
    rest, before = text[at:], text[:at].rstrip()
    if not rest.strip():
        return "it ends too early"
    if rest[0] in "}]" and before.endswith(","):
        return f"a comma stands before {rest[0]!r} (character {at + 1})"
    if rest[0] < " ":
        return f"{rest[0]!r} is not escaped (character {at + 1})"
    if rest[0] == '"' and not re.match(_STRING, rest):
        return f"a string does not end (character {at + 1})"
    word = re.match(r"\w{1,20}", rest)
    return f"unexpected {(word or rest)[0]!r} (character {at + 1})"


class _Number(str):
    """The text of a number."""


class _Plain:
    """Turns a slowly read value into what the encoder takes; notes whether plain readers would see another one."""

    def __init__(self) -> None:
        self.differs = False

    def __call__(self, value: Any, *, quote: bool) -> Any:
        if isinstance(value, _Object):
            members = dict(value)
            self.differs = self.differs or len(members) < len(value)
            return {key: self(member, quote=quote) for key, member in members.items()}
        if isinstance(value, list):
            return [self(item, quote=quote) for item in value]
        if isinstance(value, _Number):
            canonical = canonical_number(value)
            self.differs = self.differs or not _read_as_written(value, canonical)
            return _plain_number(value) if quote else msgspec.Raw(canonical.encode())
        return value


def _depth(text: str) -> int:
    """Return how deep arrays and objects nest, brackets inside strings aside."""
    deepest = level = 0
    for token in _BRACKET.finditer(text):
        if token[0] in "{[":
            level += 1
            deepest = max(deepest, level)
        elif token[0] in "}]":
            level -= 1
    return deepest


def _refuse_surrogates(value: Any, what: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid(f"{what} has half of a surrogate pair, which is no character") from None
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_surrogates(item, what)


def content_hash(source: bytes, event_type: bytes, entity_id: bytes, event_time: bytes, payload: bytes) -> bytes:
    """Return the 16 bytes of a content hash. All five are canonical JSON texts; event_time that of a `full_instant`."""
    text = b'["pik.content.1",%s,%s,%s,%s,%s]' % (source, event_type, entity_id, event_time, payload)
    return sha256(text).digest()[:16]


def keyed_id(source: bytes, event_type: bytes, entity_id: bytes, idempotency_key: bytes) -> bytes:
    """Return the 16 bytes of the event_id of an event with an idempotency key. All four are canonical JSON texts."""
    return sha256(b'["pik.key.1",%s,%s,%s,%s]' % (source, event_type, entity_id, idempotency_key)).digest()[:16]
