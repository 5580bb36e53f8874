"""Records inside of documents are found as a parser of whole documents finds them, wherever reads and blocks end."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import InputError, Invalid, UsageError
from pik.inputs import blocks as limits
from pik.inputs import held_records, json_text
from pik.inputs.blocks import Block, Problem
from pik.inputs.nested_records import blocks, expect_lists
from pik.inputs.source import file_source
from pik.model.layout import Layout, read_layout
from pik.model.record_path import EACH, RecordPath, path_text, read_path

MAX_LINE = 500


@contextmanager
def small(block: int, held: int = held_records.HELD) -> Iterator[None]:
    """Blocks, and reads, of about so many bytes; so many of records may wait for the fields around them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK", block)
        patch.setattr(limits, "FIRST_READ", max(3, block))  # as long as a byte order mark
        patch.setattr(json_text, "READ", block)
        patch.setattr(json_text, "AHEAD", 40)
        patch.setattr(held_records, "HELD", held)
        patch.setattr(held_records, "OVERHEAD", 0)
        yield


def layout_of(path: str, *parents: str) -> Layout:
    layout = read_layout({"records": path})
    return Layout(layout.format, layout.records, parents=frozenset(parents))


def read(data: bytes, path: str, *parents: str, max_line: int = MAX_LINE, first_seq: int = 1) -> list[Block]:
    return list(blocks(io.BytesIO(data), "it", layout_of(path, *parents), max_line=max_line, first_seq=first_seq))


def records(found: list[Block]) -> list[bytes | Problem]:
    """The records in order, or the problems in their places."""
    listed: list[bytes | Problem] = []
    for block in found:
        lines = block.data.removesuffix(b"\n").split(b"\n")
        assert block.last_seq == block.first_seq + len(lines) - 1
        assert block.first_seq == len(listed) + found[0].first_seq
        listed += [block.problems.get(seq, line) for seq, line in enumerate(lines, block.first_seq)]
    return listed


def around(found: list[Block]) -> list[dict[str, Any]]:
    """The fields around each record."""
    listed: list[dict[str, Any]] = []
    for block in found:
        first_seq = block.first_seq
        for part in block.parents:
            listed += [exact(part.fields)] * (part.last_seq - first_seq + 1)
            first_seq = part.last_seq + 1
        assert first_seq == block.last_seq + 1
    return listed


def exact(text: bytes | str) -> Any:
    """The value of a JSON text, its numbers as they are written."""
    return json.loads(text, parse_float="number {}".format, parse_int="number {}".format)


def expected(document: Any, path: RecordPath, parents: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The definition: each record with the fields around it. None stands for an object without a list."""
    if not path:
        yield document, parents
    elif document is None:
        return
    elif path[0] is EACH and isinstance(document, list):
        for element in document:
            found = list(expected(element, path[1:], parents))
            yield from found
    elif path[0] is not EACH and isinstance(document, dict) and path[0] in document:
        fields = {name: value for name, value in document.items() if name != path[0]}
        yield from expected(document[path[0]], path[1:], {**parents, **fields})
    else:
        raise LookupError


def units(
    document: Any, path: RecordPath, parents: Mapping[str, Any]
) -> Iterator[tuple[Any, Mapping[str, Any]] | None]:
    """What each document, and each element of a list on the path, has: None for one in which there is no list."""
    inner = path.index(EACH) + 1
    try:
        first = list(expected(document, path[:inner], parents))
    except LookupError:
        yield None
        return
    for element, fields in first:
        if inner == len(path):
            yield element, fields
        else:
            yield from units(element, path[inner:], fields)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcx\n"), inner, max_size=3),
    max_leaves=5,
)
PATHS = st.sampled_from(["a[]", "[]", "a[].b[]", "[].b[]", "a.b[]", "a[][]", "a[].b.c[]", '"\\n"[]'])


def on(path: RecordPath) -> st.SearchStrategy[Any]:
    """Documents in which the path mostly leads to records."""
    if not path:
        return VALUES
    if path[0] is EACH:
        return st.lists(on(path[1:]), max_size=4) | st.none() | VALUES
    others = st.lists(st.tuples(st.sampled_from("abcxy"), VALUES), max_size=3)
    return st.tuples(others, on(path[1:]), others).map(
        lambda parts: {**dict(parts[0]), path[0]: parts[1], **{k: v for k, v in parts[2] if k != path[0]}}
    )


def written(document: Any, style: int) -> str:
    if style == 1:
        return json.dumps(document, indent=1, ensure_ascii=False)
    return json.dumps(document, separators=(",", ":") if style else None)


@settings(max_examples=150)
@given(PATHS.flatmap(lambda path: st.tuples(st.just(path), st.lists(on(read_path(path)), max_size=4))), st.data())
def test_records_are_those_of_a_parser_of_whole_documents(found: tuple[str, list[Any]], data: st.DataObject) -> None:
    path, documents = found
    documents = [one for one in documents if isinstance(one, (dict, list))]
    text = data.draw(st.sampled_from(["\n", " ", "\n\n", "\x1e"])).join(
        written(one, data.draw(st.integers(0, 2))) for one in documents
    )
    wanted = data.draw(st.lists(st.sampled_from("abxy"), max_size=2))
    steps = read_path(path)
    correct = [one for document in documents for one in units(exact(json.dumps(document)), steps, {})]
    with small(data.draw(st.sampled_from([1, 3, 7, 50, 10_000]))):
        blocks = read(text.encode(), path, *wanted, max_line=10_000)
        again = read(text.encode(), path, *wanted, max_line=10_000, first_seq=len(correct) // 2 + 1)
    assert [None if isinstance(one, Problem) else exact(one) for one in records(blocks)] == [
        one and one[0] for one in correct
    ]
    assert records(again) == records(blocks)[len(correct) // 2 :]
    if wanted:
        has = [one and {name: one[1][name] for name in wanted if name in one[1]} for one in correct]
        there = around(blocks)
        assert [one for one, correct in zip(there, has, strict=True) if correct is not None] == [
            one for one in has if one is not None
        ]
        assert around(again) == there[len(correct) // 2 :]


ALIKE = st.recursive(
    st.sampled_from(
        ['{"k":1}', '{"k":"},{"}', '{"k":"a\\nb"}', '{"k": 1}', '{"k":\n1}', "{}", '{"k":tru}', '{"k":"\n"}', "1"]
    ),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: f'{{"k":[{",".join(parts)}]}}'),
    max_leaves=12,
)


@given(st.lists(ALIKE, max_size=30), st.sampled_from([",", ",\n", " , "]), st.sampled_from([3, 100, 300, 10_000]))
def test_elements_that_begin_alike_are_told_apart(elements: list[str], comma: str, size: int) -> None:
    with small(size):
        found = records(read(f'{{"a":[{comma.join(elements)}]}}\n{{"a":[0]}}'.encode(), "a[]", max_line=10_000))
    correct: list[str | None] = []
    for element in elements:
        try:
            json.loads(element)
            correct.append(element.replace("\n", " "))
        except ValueError:
            correct.append(None)
    assert [None if isinstance(one, Problem) else one.decode() for one in found] == [*correct, "0"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # an element that is not JSON
        ('{"a":[{"n":1},{"n":tru},{"n":1.50}]}', ['{"n":1}', "the record is not JSON", '{"n":1.50}']),
        ('{"a":[{"n":1},\n{"t":"x\ny"},2]}', ['{"n":1}', "the record is not JSON: '\\n' is not escaped", "2"]),
        ('{"a":[1,{]},3]}\n{"a":[4]}', ["1", "the record is not JSON", "expected a comma or ] at '},3]}'", "4"]),
        # documents without the list
        ('{"a":[1]}\n{"b":1,"c":2}\n{"a":[2]}', ["1", "no list a in this document; it has: b, c (line 2)", "2"]),
        ('{}{"a":[]}{"a":null}', ["no list a in this document; it has: no fields (line 1)"]),
        ('{"a":"x"}\n{"a":{"b":[1]}}\n[1]\n7 {"a":[3]}\n"x"\n{"a":[4]}', [
            "a in this document is a text, not a list (line 1)", "a in this document is an object, not a list (line 2)",
            "this document is a list, not an object (line 3)", "expected a JSON document (line 4)",
            "expected a JSON document (line 5)", "4"]),
        # documents that are cut, each before another one
        ('{"a":[1,2,\n{"a":[3]}\n{"a":[4]}', ["1", "2", '{"a":[3]}', "expected a comma or ]", "4"]),
        ('{"a":[1,{"n":"x\n{"a":[3]}', ["1", "another document begins inside of a value (line 2)", "3"]),
        ('{"a":[1,{"n":2\n{"a":[3]}', ["1", "another document begins inside of a value (line 2)", "3"]),
        ('{"a":[1,{"n":2\x1e{"a":[3]}', ["1", "a record separator stands inside of a value (line 1)", "3"]),
        ('{"a":[1\n{"a":[3]}', ["1", "expected a comma or ] at '{\"a\":[3]}' (line 2)", "3"]),
        ('{"b":1,"a":\n{"a":[3]}\n{"a":[4]}', ["expected a comma or } at '{\"a\":[4]}' (line 3)", "4"]),
        # documents with something wrong between their values
        ('{"a":[1 2]}\n{"a":[3]}', ["1", "expected a comma or ] at '2]}' (line 1)", "3"]),
        ('{"a":[1,]}\n{"a":[3]}', ["1", "expected a value at ']}' (line 1)", "3"]),
        ('{"a":[1],"b":}\n{"a":[3]}', ["1", "expected a value at '}' (line 1)", "3"]),
        ('{"a":[1],b:2}\n{"a":[3]}', ["1", "expected the name of a field at 'b:2}' (line 1)", "3"]),
        ('{"a":[1],"a":[2]}\n{"a":[3]}', ["1", "the field a comes twice (line 1)", "3"]),
        ('{"a":[1],"p":tru}\n{"a":[3]}', ["parent('p') is not known", "the field p: the record is not JSON", "3"]),
    ],
)  # fmt: skip
def test_what_is_malformed_is_kept_and_the_rest_is_read(text: str, found: list[str]) -> None:
    for size in (1, 5, 10_000):
        with small(size):
            there = records(read(text.encode(), "a[]", *(["p"] if '"p"' in text else [])))
        shown = [one.reason if isinstance(one, Problem) else one.decode() for one in there]
        assert len(shown) == len(found), shown
        assert all(part in one for part, one in zip(found, shown, strict=True)), shown


@pytest.mark.parametrize(
    ("text", "complete", "message"),
    [
        ('{"b":1,\n"a":[1,2', 1, "it ends inside of the JSON document that begins on line 1"),
        ('{"a":[1,{"n":"', 1, "it ends inside"),
        ('{"a":[1,{"n":"\\', 1, "it ends inside"),
        ('{"a":[1]}\n\n{"a', 1, "it ends inside of the JSON document that begins on line 3"),
        (
            '{"a":[1],\n "b":2,\n "c" 3,\n "d":4}',
            1,
            "the document is malformed: expected the name of a field at .* (line 3)",
        ),
        ('{"a":[1 2,3]}', 1, "is malformed: expected a comma"),
    ],
)
def test_an_input_that_ends_or_goes_wrong_for_good_is_an_error(text: str, complete: int, message: str) -> None:
    for size in (1, 10_000):
        found: list[Block] = []
        with small(size), pytest.raises(InputError) as error:
            found.extend(blocks(io.BytesIO(text.encode()), "it", layout_of("a[]"), max_line=MAX_LINE))
        assert message.replace(" at .* ", " at '\"c\" 3,' ") in error.value.message


def test_fields_after_a_list_are_waited_for_up_to_a_limit() -> None:
    late = json.dumps({"o": [{"a": list(range(10, 20)), "p": 1, "q": 3}, {"p": 2, "a": [20]}], "p": 0, "q": 4})
    for held in (1000, 70):
        with small(5, held):
            found = read(late.encode(), "o[].a[]", "p", "q", "r")
            assert [one["p"] for one in around(found)] == ["number 1"] * 10 + ["number 2"]
            assert [one["q"] for one in around(found)] == ["number 3"] * 10 + ["number 4"]
    for wanted, line in (("p", 1), ("q", 1)):
        with small(5, 15), pytest.raises(InputError, match=rf"the field {wanted} comes after more than .*line {line}"):
            read(late.encode(), "o[].a[]", wanted)
    with small(5, 15):
        assert len(records(read(late.encode(), "o[].a[]", "r"))) == 11  # never comes
        again = b'{"p":9,"o":[{"p":1,"a":[10,11,12,13,14,15,16,17]}],"p":0}'  # which is not the nearest one
        assert {one["p"] for one in around(read(again, "o[].a[]", "p"))} == {"number 1"}


class Endless(io.RawIOBase):
    """A beginning, a part that is repeated, and an end."""

    def __init__(self, start: bytes, part: bytes, times: int, end: bytes) -> None:
        self._parts = iter([start, *[part] * times, end])

    def read(self, _size: int = -1) -> bytes:
        return next(self._parts, b"")


PART = 1 << 18


@pytest.mark.parametrize(
    ("start", "part", "end", "problems"),
    [
        (b'{"a":[1,"', b"x" * PART, b'",3]}', 1),  # a text without end
        (b'{"a":[1,"', b'\\"' * (PART // 2), b'",3]}', 1),
        (b'{"a":[1,"', b"\n" * PART, b'",3]}', 1),
        (b'{"a":[1,[', b"[" * 1500 + b"]" * 1500 + b",", b"7],3]}", 1),
        (b'{"a":[1,[', b'{"b":[[1]]},' * (PART // 12), b"7],3]}", 1),
        (b'{"b":[', b"[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]," * 100, b'2],"a":[1,null,3]}', 0),
        (b'{"a":[1,null,3],"b":"', b"x" * PART, b'"}', 0),
        (b"{", b'"b":1,' * 300, b'"a":[1,null,3]}', 0),  # fields without end
        (b"{", b" " * PART, b'"a":[1,null,3]}', 0),
        (b'{"b":1,', b'"p":1,' * 300, b'"a":[1,null,3]}', 0),
        (b"", b'{"b":1}\n' * 100, b'{"a":[1,null,3]}', 2000),
    ],
    ids="text escapes breaks deep objects skipped-lists skipped-text names blanks wanted documents".split(),
)
def test_memory_is_bounded_whatever_the_input(start: bytes, part: bytes, end: bytes, problems: int) -> None:
    stream: Any = Endless(start, part, 20, end)
    tracemalloc.start()
    found = list(blocks(stream, "it", layout_of("a[]", "p"), max_line=PART // 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * PART
    assert len(found[0].problems) == problems
    assert found[0].last_seq == 3 + (problems if problems > 1 else 0)


def test_brackets_without_end_are_read_to_the_end() -> None:
    with pytest.raises(InputError, match="ends inside"):
        read(b'{"a":[' + b"[" * 10_000, "a[]")


def test_fields_around_records_that_are_too_large_are_refused() -> None:
    text = json.dumps({"p": "x" * 300, "o": [{"p": "x" * 300, "a": [1]}]}).encode()
    assert len(around(read(text, "o[].a[]", "p", max_line=700))) == 1
    for limit, message in ((500, "the fields around the records, p among them, have more than 500 bytes"), (300, "p")):
        with pytest.raises(InputError, match=message):
            read(text, "o[].a[]", "p", max_line=limit)


def test_a_path_that_finds_nothing_is_refused_before_anything_is_recorded() -> None:
    documents = b'{"Records":[{"n":1}],"more":{"lists":[{"events":[{}]}]}}\n' * 2
    for path, reason in (("records[]", "no list records"), ("[]", "this document is an object, not a list")):
        with pytest.raises(UsageError, match=reason) as error:
            expect_lists(iter(read(documents, path)), layout_of(path), "it")
        assert "'Records[]' or 'more.lists[].events[]'" in error.value.hint
    for data in (documents, b'{"x":1}\n' + documents, b'{"Records":[]}', b'{"Records":null}', b""):
        expect_lists(iter(read(data, "Records[]")), layout_of("Records[]"), "it")


@given(st.lists(st.none() | st.text(min_size=1, max_size=4), min_size=1, max_size=5))
def test_a_path_is_read_as_it_is_typed(steps: list[str | None]) -> None:
    path = (*steps, EACH)
    assert read_path(path_text(path)) == path


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Records", "records 'Records[]'"),
        ("$.Records[*]", "records 'Records[]'"),
        (".Records[]", "records 'Records[]'"),
        ("log-events[]", "records '\"log-events\"[]'"),
        ("a[]b[]", "records 'a[].b[]'"),
        ("a..b[]", "records 'a.b[]'"),
        ("a[].", "records 'a[]'"),
        ("", "names and []"),
        ("a | b", "names and []"),
        ('"\\q"[]', "names and []"),
        ("[]" * 33, "names and []"),
    ],
)
def test_a_path_that_cannot_be_is_refused_with_what_to_type(text: str, hint: str) -> None:
    with pytest.raises(Invalid, match="records") as error:
        read_layout({"records": text})
    assert hint in error.value.hint


def test_a_path_is_for_json() -> None:
    assert read_layout({"records": "a[]", "input": "jsonl"}) == layout_of("a[]")
    for other in ({"input": "csv"}, {"input": "parquet"}, {"delimiter": ";"}, {"pattern": "common"}):
        with pytest.raises(Invalid):
            read_layout({"records": "a[]", **other})


@pytest.mark.parametrize(
    ("text", "path", "what"), [(b'["x","y"]\n', "[]", "texts"), (b'{"a":[[1,2],[3,4]]}\n', "a[]", "lists")]
)
def test_records_that_are_not_objects_are_refused_with_how_their_places_get_names(
    tmp_path: Path, text: bytes, path: str, what: str
) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with file_source(str(tmp_path / "a.json")).open() as opened, pytest.raises(UsageError, match=what) as error:
        opened.expect_events(layout_of(path))
    assert ("jq" in error.value.hint) == (what == "lists")
