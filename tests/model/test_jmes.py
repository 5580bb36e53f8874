"""JMESPath expressions: the quick way finds what the library does, and whatever is too much is refused clearly."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64encode
from decimal import Decimal
from typing import Any

import jmespath
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.inputs.mapping import RecordMapping
from pik.model.delivery import raw_line, stamp
from pik.model.event import REQUIRED, one_line
from pik.model.jmes import MAX_DEPTH, MAX_LENGTH, MAX_MADE, Expression
from pik.model.place import Place
from pik.model.times import Times

NAMES = st.sampled_from(["a", "b", "c", "é", "a b", "@"])
SCALARS = st.sampled_from(["", "x", "7", 0, 1, -1, 2.5, None, True, False])
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
RECORDS = st.dictionaries(NAMES, VALUES, max_size=5)


def _names(name: str) -> str:
    return name if name.isalpha() and name.isascii() else json.dumps(name, ensure_ascii=False)


FIELDS = NAMES.map(_names)
LEAVES = st.one_of(
    FIELDS,
    st.just("@"),
    st.sampled_from(["'text'", "`1`", "`null`", "`[]`", "`{}`", "`false`", '`[1, {"a": 2}]`']),
)


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(FIELDS, inner).map(lambda two: f"{two[0]}: {two[1]}")
    several = st.lists(inner, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        st.tuples(inner, FIELDS).map(lambda two: f"({two[0]}).{two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) || ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) && ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) | ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) == ({two[1]})"),
        st.tuples(inner, st.integers(-2, 2)).map(lambda two: f"({two[0]})[{two[1]}]"),
        st.lists(pair, min_size=1, max_size=3).map(lambda pairs: f"{{{', '.join(pairs)}}}"),
        several.map(lambda texts: f"[{texts}]"),
        several.map(lambda texts: f"not_null({texts})"),
        inner.map(lambda text: f"to_string({text})"),
        inner.map(lambda text: f"!({text})"),
        inner.map(lambda text: f"({text})[]"),
        inner.map(lambda text: f"({text})[*].a"),
        inner.map(lambda text: f"({text})[?a]"),
    )


EXPRESSIONS = st.recursive(LEAVES, _grow, max_leaves=8)


def outcome(search: Any, value: Any) -> Any:
    """What is found, with its types; or the refusal."""
    try:
        return repr(search(value))
    except Invalid as error:
        return "refused", error.message


@given(EXPRESSIONS, RECORDS)
@example("a.b.c", {"a": {"b": "x"}})
@example("a[0].b", {"a": [{"b": 0}]})
@example("a || b", {"a": 0, "b": 1})
@example("a || b", {"a": [], "b": 1})
@example("{a: a}", {})
@example("a.{b: b}", {"a": None})
@example("a[5]", {"a": [1]})
@example("a[-2]", {"a": [1]})
def test_the_quick_way_finds_what_the_library_does(text: str, record: dict[str, Any]) -> None:
    expression = Expression(text, "--map x")
    assert outcome(lambda value: expression.search(value, 1000), record) == outcome(expression.search_slowly, record)
    if "to_string" not in text:  # which is ours
        try:
            expected = repr(jmespath.search(text, record))
        except (ValueError, TypeError):
            return
        assert outcome(expression.search_slowly, record) == expected


@pytest.mark.parametrize(
    "text", ["a", "a.b", "@", "'x'", "{a: a, b: b.c}", "[a, b]", "a || b", "a[0].b", "a | b", "{a: {b: c}}"]
)
def test_what_most_mappings_are_made_of_need_not_be_weighed(text: str) -> None:
    assert Expression(text, "--map x")._growth


# Whole mappings

NUMBERS = st.sampled_from("1 -0 10.0 0.5 1e2 0.00001 12345678901234567 12345678901234567890123 1.50 100000.25".split())
TIMES = st.sampled_from(
    [
        '"2026-01-01T00:00:00Z"',
        '"2026-01-01T01:00:00+0100"',
        '"2026-01-01 10:00"',
        "1767225600",
        "20260302",
        '"x"',
        "null",
    ]
)
TEXTS = st.one_of(
    NUMBERS, st.sampled_from(['"é"', '""', '"\\ud800"', "null", "true", "{}", '"a\\u0000"', '{"a": 1.0}'])
)


@st.composite
def record_texts(draw: st.DrawFn) -> bytes:
    names = ["source", "event_type", "entity_id", "payload", "idempotency_key", "other"]
    members = [
        f'"{name}": {draw(TEXTS if draw(st.integers(0, 3)) == 0 else st.just(json.dumps(name)))}' for name in names
    ]
    members[3] = f'"payload": {{"n": {draw(NUMBERS)}, "t": [{draw(TEXTS)}], "s": "plain"}}'
    members += [f'"event_time": {draw(TIMES)}', f'"received_time": {draw(TIMES)}']
    text = "{" + ", ".join(draw(st.permutations(members))) + "}"
    return text.encode() if draw(st.integers(0, 9)) else text.encode()[: draw(st.integers(0, len(text)))]


PAYLOADS = [
    "payload",
    "@",
    "{a: payload.n, b: other}",
    "[to_number('1e400'), other]",
    "{a: `1e-7`}",
    "payload.t",
    "'x'",
    "{a: parse_json(other), n: payload.n}",
    "parse_json(to_string(payload))",
    "{f: file(), l: line(), s: split(other, '1'), t: trim(other), c: coalesce(other, payload.n)}",
    "{u: parent('n'), h: sha256(to_string(payload))}",
    "{a: @, b: [@, @]}",
]
TYPES = ["event_type || 'none'", "to_string(payload)", "lower(event_type)", "to_string(parse_json(event_type).a)"]
PLACE = Place("dt=1/a", 3, ({"n": Decimal("0.12345678901234567890")},))


@given(
    record_texts(),
    st.sampled_from(PAYLOADS),
    st.sampled_from(["rfc3339", "auto", "epoch"]),
    st.sampled_from([None, "Europe/Berlin"]),
    st.sampled_from(TYPES),
)
def test_the_fast_and_the_slow_mapping_agree_on_any_record(
    line: bytes, payload: str, time_format: str, zone: Any, event_type: str
) -> None:
    mapping = RecordMapping({"payload": payload, "event_type": event_type}, Times(time_format, zone))

    def slowly(line: bytes, place: Place) -> Any:
        return mapping.read_slowly(line, place), one_line(line.strip())

    def read(way: Any) -> Any:
        try:
            event, original = way(line, PLACE)
        except Invalid as error:
            return error.message, error.field
        return raw_line(event, 1, stamp(0, "B"), original), event

    assert read(mapping.read) == read(
        lambda record, place: (mapping.read_slowly(record, place), one_line(record.strip()))
    )


# Bounds

BOMBS = {
    "bomb": b64encode(gzip.compress(bytes(MAX_MADE + 1))).decode(),
    "bombs": b64encode(2 * gzip.compress(bytes(MAX_MADE // 2 + 1))).decode(),
}
HOSTILE = {
    "doubled": "|".join(["[@,@]"] * 40),
    "doubled and printed": "|".join(["[@,@]"] * 40) + "|to_string(@)",
    "doubled and flattened": "|".join(["[@,@][]"] * 40),
    "joined": "{g: join('', [a,a,a,a])}" + "|{g: join(g, [g,g,g,g])}" * 6,
    "escaped": "a|" + "|".join(["to_string([@])"] * 40),
    "objects": "|".join(["{a: @, b: @}"] * 40),
    "mapped": "[@,@,@,@]" + "|map(&[@,@], @)" * 30,
    "projected": "[@,@,@,@]" + "|[*].[@,@]" * 30,
    "compared": "|".join(["[@,@]"] * 30) + "|{a:@, b:[@]}|a == b",
    "merged": "|".join(["{a: @, b: merge(@, @)}"] * 30),
    "replaced": "a" + "|replace(@, 't', 'tttttttttttttttttttttttt')" * 6,
    "split": "join('', [" + "a," * 4000 + "a])|{a: @, b: split(@, 't'), c: split(@, '')}|to_string(@)|split(@, 'e')",
    "parsed": "|".join(["parse_json(to_string([@,@]))"] * 40),
    "unpacked": "base64_gunzip(bomb)",
    "unpacked again": "base64_gunzip(bombs)",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_an_expression_makes_is_bounded(text: str) -> None:
    record = {"a": 'text "quoted" ' * 5} | (BOMBS if "bomb" in text else {})
    expression = Expression(text, "--map payload=…")
    with pytest.raises(Invalid, match=f"makes more than {MAX_MADE >> 20} MiB of this record"):
        expression.search(record, len(json.dumps(record)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a" * (MAX_LENGTH + 1), "the expression has 16,385 characters"),
        ("(" * 10_000 + "a" + ")" * 6000, "is nested deeper than"),
        ("[" * 5000 + "a" + "]" * 5000, "is nested deeper than"),
        ("|".join(["a"] * (MAX_DEPTH + 1)), "is nested deeper than"),
        ("|".join(["@"] * 5000), "is nested deeper than"),
        ("!" * 10_000 + "a", "is nested deeper than"),
        ("nosuch(a)", "unknown function nosuch()"),
        ("a.b || [uppercase(a)]", "unknown function uppercase()"),
        ("lower(a, b)", "lower() takes 1 argument, not 2"),
        ("date()", "date() takes 1 or 2 arguments, not 0"),
        ("date_part('day', a, 'UTC', b)", "date_part() takes 2 or 3 arguments, not 4"),
        ("split(a, `1`)", "split() takes string, not number: '1'"),
        ("trim(`null`)", "trim() takes string, not null"),
        ("partition(`[]`)", "partition() takes string, not array"),
        ("replace(a, '', b)", "replace(): the text to replace is empty"),
        ("date_part('weekday', a)", "unknown part 'weekday', not one of year, month, day"),
        ("date(a, 'Berlin')", "date(): unknown time zone 'Berlin', perhaps Europe/Berlin"),
        ("date(a, `1`)", "date() takes the name of a time zone, not '1'"),
        ("parse_json('{')", "parse_json(): the text is not JSON"),
        ("base64_decode('é')", "base64_decode(): 'é' is not base64"),
        ("join(a)", "join() takes 2 arguments, not 1"),
        ("merge()", "merge() takes at least 1 argument, not 0"),
        ("a[", "a[ is not a JMESPath expression"),
        ("", "cannot be empty"),
        ("[9" + "9" * 5000 + "]", ""),
    ],
)
def test_an_expression_that_never_can_be_evaluated_is_refused_before_anything_is_read(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        Expression(text, "--map payload=…")
    assert said in error.value.message
    assert len(error.value.message) < 400
    assert "\n" not in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("@timestamp", "'\"@timestamp\"'"),
        ("user-id", "'\"user-id\"'"),
        ("$oid", "'\"$oid\"'"),
        ("body.user-id", "'body.\"user-id\"'"),
        ("Start time", "'\"Start time\"'"),
        ("No.", "'\"No.\"'"),
        ("Price (€)", "'\"Price (€)\"'"),
        ("body.Day-ahead Price [EUR/MWh]", "'body.\"Day-ahead Price [EUR/MWh]\"'"),
        ("it's", None),
        ("a[", None),
        ("a..b", None),
    ],
)
def test_a_name_that_needs_quotes_is_offered_with_them(text: str, meant: str | None) -> None:
    with pytest.raises(UsageError) as error:
        Expression(text, f"--map entity_id={text}")
    if meant is None:
        assert "needs quotes" not in error.value.hint
    else:
        assert error.value.hint.endswith(f"needs quotes: --map entity_id={meant}")
        with pytest.raises(UsageError, match=rf"^--by {re.escape(text)} is not a JMESPath expression") as error:
            Expression(text, f"--by {text}")
        assert error.value.hint.endswith(f"needs quotes: --by {meant}")


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("lower id", " at 'id' (character 7)", "a function has parentheses: lower(TEXT)"),
        ("split(id, -)", " at '-)' (character 11)", "split(TEXT, ',')"),
        ("split(id, '-').1", " at '1' (character 16)", "an element of a list is in brackets: [0] is the first"),
        (
            "file()-line()",
            " at '-line()' (character 7)",
            "texts are put together by join(",
        ),
        ("coalesce(id, 'x)", " at ''x)' (character 14)", "a quote is not closed: '"),
        ("sha256(body", ": it ends too early", "the parentheses do not match: 1 are opened, 0 closed"),
        ("a ? b", " at '? b' (character 3)", "https://jmespath.org"),
        ("$.user.id", " at '$.user.id' (character 1)", "a path begins with the name of a field: --map x='user.id'"),
        (".a-b[0].c", " at '-b[0].c' (character 3)", "a path begins with the name of a field: --map x='\"a-b\"[0].c'"),
        ("$['a-b'].c", " at '$['a-b'].c' (character 1)", "a path begins with the name of a field: --map x='\"a-b\".c'"),
    ],
)
def test_an_error_suggests_what_was_perhaps_meant(text: str, where: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        Expression(text, f"--map x={text}", of_record=True)
    assert error.value.message == f"--map x={text} is not a JMESPath expression{where}"
    assert error.value.hint.startswith(hint)


def test_an_expression_as_long_as_a_wide_table_is_fine() -> None:
    wide = "{" + ", ".join(f"column_{n}: body.fields.column_{n}" for n in range(300)) + "}"
    record = {"body": {"fields": {f"column_{n}": n for n in range(300)}}}
    assert Expression(wide, "--map payload=…").search(record, 10_000) == {f"column_{n}": n for n in range(300)}
    assert len(REQUIRED) == 5
