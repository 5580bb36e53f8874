"""Hypothesis strategies: JSON texts in every spelling, and bytes that are nearly JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

digits = st.text("0123456789", min_size=1, max_size=24)
whole = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(
        "0 -0 9007199254740992 9007199254740993 -9007199254740993 9223372036854775807 9223372036854775808"
        " -9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616 100000000000000000000"
        " 1000000000000000000000".split()
    ),
)
exponent = st.one_of(st.just(""), st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]),
                     st.one_of(st.integers(0, 30), st.integers(0, 420), st.just("007")).map(str)))  # fmt: skip
fraction = st.one_of(st.just(""), digits.map(lambda text: "." + text), st.sampled_from([".0", ".00001", ".10"]))
numbers = st.one_of(
    st.builds("{}{}{}".format, whole, fraction, exponent),
    st.integers(-1000, 100000).map(str),
    st.decimals(-1000, 1000, places=3).map(str),
    st.sampled_from(
        "1e22 1E+5 1e-7 0.00001 1.0 -0.0 10 10.0 1e1 1e400 1e-400 123456789012345678.123456 0.1 1e21 1e20 1e-6"
        " 9007199254740993.0 9007199254740993e0 123456789012345e9 8592204076e-324 5e-324 12345678901234567".split()
    ),
)
characters = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\/\b\f\n\r\t\x00\x7fé\ue000😀|,:[]{}')
)
strings = st.text(characters, max_size=12)


@st.composite
def string_texts(draw: st.DrawFn, text: str) -> str:
    """A JSON string, each character in one of its spellings."""
    return '"' + "".join(draw(st.sampled_from(_spellings(character))) for character in text) + '"'


def _spellings(character: str) -> list[str]:
    escaped = json.dumps(character)[1:-1]
    units = character.encode("utf-16-be").hex()
    unicode = "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4))
    spellings = [escaped, unicode, unicode.upper().replace("\\U", "\\u")]
    return spellings if character < " " or character in '"\\' else [character, character, *spellings]


spaces = st.sampled_from(["", "", "", " ", "\t", " \r", "  "])

Model = Any
"""A JSON value with numbers as a tuple of their text, and objects as lists of pairs in one more list."""

models: st.SearchStrategy[Model] = st.recursive(
    st.one_of(numbers.map(lambda text: ("number", text)), strings, st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: ("array", items)),
        st.lists(st.tuples(st.one_of(strings, st.sampled_from("ab")), inner), max_size=4).map(
            lambda members: ("object", members)
        ),
    ),
    max_leaves=12,
)
payload_models = st.one_of(
    st.lists(models, max_size=4).map(lambda items: ("array", items)),
    st.lists(st.tuples(strings, models), max_size=5).map(lambda members: ("object", members)),
)


@st.composite
def written(draw: st.DrawFn, model: Model) -> str:
    """One of the texts of a model."""
    if isinstance(model, str):
        return draw(string_texts(model))
    if isinstance(model, tuple):
        kind, content = model
        if kind == "number":
            return str(content)
        if kind == "array":
            items = [draw(spaces) + draw(written(item)) + draw(spaces) for item in content]
            return "[" + (",".join(items) or draw(spaces)) + "]"
        members = [
            f"{draw(spaces)}{draw(string_texts(key))}{draw(spaces)}:{draw(spaces)}{draw(written(value))}{draw(spaces)}"
            for key, value in content
        ]
        return "{" + (",".join(members) or draw(spaces)) + "}"
    return json.dumps(model)


payload_texts = payload_models.flatmap(written)


TOKENS = [
    *b"NaN Infinity - +1 01 1. .5 1e \" \\ { ] , // ' 1e400 -0 0x1 tru null \\u0022 \xff \xed\xa0\x80 \xc0\x80".split(),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b"\xef\xbb\xbf", b"\x00", b"1" * 400),
]


@st.composite
def nearly_json(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> bytes:
    """A JSON text, usually damaged: bytes cut off, put in, taken out or changed."""
    data = bytearray(draw(texts).encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["cut", "insert", "remove", "token"]))
        if how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=3))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 3))]
        else:
            data[at:at] = draw(st.sampled_from(TOKENS))
    return bytes(data)


def from_datetime(moment: datetime) -> int:
    """Nanoseconds since the epoch; a naive moment is UTC."""
    delta = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return delta // timedelta(microseconds=1) * 1000
