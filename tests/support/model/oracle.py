"""Identity once more, written from its definition and from nothing of pik's: slow, exact, and easy to believe.

Also what readers that keep numbers as doubles and 64-bit integers, and the first of a repeated key, make of a text.
"""

from __future__ import annotations

import json
from decimal import Decimal
from hashlib import sha256
from typing import Any


def parse(text: str) -> Any:
    """The JSON value, numbers exact; of a repeated key the last counts."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no white space, the fewest escapes, exact numbers as ECMAScript would write them."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_string(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Decimal):
        return _number(value)
    return {None: "null", True: "true", False: "false"}[value]


def _string(text: str) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(short.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


def _number(value: Decimal) -> str:
    """ECMA-262, Number::toString, with the digits s and the n and k of its steps."""
    sign, digits, exponent = value.as_tuple()
    s = "".join(map(str, digits)).strip("0")
    if not s:
        return "0"
    assert isinstance(exponent, int)
    # value = 0.DIGITS × 10^n
    n = len("".join(map(str, digits)).lstrip("0")) + exponent
    k = len(s)
    if k <= n <= 21:
        text = s + "0" * (n - k)
    elif 0 < n <= 21:
        text = s[:n] + "." + s[n:]
    elif -6 < n <= 0:
        text = "0." + "0" * -n + s
    else:
        text = s[0] + ("." + s[1:] if k > 1 else "") + "e" + ("+" if n > 0 else "-") + str(abs(n - 1))
    return "-" * sign + text


def hash_of(*fields: Any) -> str:
    """32 hex digits over the canonical array of the fields."""
    return sha256(canonical(list(fields)).encode()).hexdigest()[:32]


def plainly_read(text: str) -> Any:
    """What a reader sees that knows int64, uint64 and double only, and takes the first of a repeated key."""

    def whole(number: str) -> Decimal:
        value = int(number)
        return Decimal(value) if -(2**63) <= value < 2**64 else real(number)

    def real(number: str) -> Decimal:
        return Decimal(repr(float(number)))

    return json.loads(text, parse_float=real, parse_int=whole, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def unquoted(value: Any, like: Any) -> Any:
    """`value` with the strings that stand for numbers (where `like` has one) turned into them."""
    if isinstance(like, dict) and isinstance(value, dict):
        return {key: unquoted(member, like.get(key)) for key, member in value.items()}
    if isinstance(like, list) and isinstance(value, list):
        return [unquoted(item, other) for item, other in zip(value, like, strict=True)]
    return Decimal(value) if isinstance(like, Decimal) and isinstance(value, str) else value
