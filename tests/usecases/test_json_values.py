"""JSON values are records wherever they begin and end, at any size of a block and after any crash."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pik.errors import InputError
from pik.inputs import blocks as limits
from pik.inputs import json_values
from pik.inputs.blocks import Block
from pik.inputs.json_values import blocks

MAX_LINE = 200


@contextmanager
def small(block: int, lines: int = limits.LINES) -> Iterator[None]:
    """Blocks of about so many bytes, and reads of as many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK", block)
        patch.setattr(limits, "LINES", lines)
        patch.setattr(limits, "FIRST_READ", max(3, block))  # as long as a byte order mark
        patch.setattr(json_values, "READ", block)
        yield


def read(data: bytes, *, max_line: int = MAX_LINE, first_seq: int = 1, offset: int = 0) -> list[Block]:
    return list(blocks(io.BytesIO(data), "it", max_line=max_line, first_seq=first_seq, offset=offset))


def records(found: list[Block]) -> list[bytes | tuple[str, bytes]]:
    """The records in order; a problem is its reason and its text."""
    listed: list[bytes | tuple[str, bytes]] = []
    for block in found:
        lines = block.data.removesuffix(b"\n").split(b"\n")
        assert block.last_seq == block.first_seq + len(lines) - 1
        for seq, line in enumerate(lines, block.first_seq):
            problem = block.problems.get(seq)
            listed.append((problem.reason, problem.record) if problem else line)
    return listed


def texts(found: list[Block]) -> list[bytes]:
    return [one[1] if isinstance(one, tuple) else one for one in records(found)]


def resumes(data: bytes, found: list[Block], *, max_line: int = MAX_LINE) -> None:
    """From behind each block, the rest is what followed, whatever size blocks are then."""
    for number, block in enumerate(found):
        for size in (3, 1000):
            with small(size):
                rest = read(data, max_line=max_line, first_seq=block.last_seq + 1, offset=block.offset)
            assert records(rest) == records(found[number + 1 :])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[]", []),
        (b" [ ] ", []),
        (b"[1]", [b"1"]),
        (b"[true, false,null ,-1,\"x\"]", [b"true", b"false", b"null", b"-1", b'"x"']),
        (b"\xef\xbb\xbf\n [1 , 2]\n", [b"1", b"2"]),
        (b'[{"a":[1,{"b":2}]},[3]]', [b'{"a":[1,{"b":2}]}', b"[3]"]),
        (b'[{"a":"],[\\"},{\\\\"},"]"]', [b'{"a":"],[\\"},{\\\\"}', b'"]"']),
        (b'[{\n"a"\r\n:1.50}\n,\n2\n]\n', [b'{ "a"  :1.50}', b"2"]),
        (b"[{]},{}x,3]", [b"{]}", b"{}x", b"3"]),
        (b"[1 2,,3]", [b"1 2", b",", b"3"]),
        (b"[,1]", [b",", b"1"]),
        (b"[[[1]]]", [b"[[1]]"]),
        (b"[" + b"7" * 300 + b",8]", [b"7" * (MAX_LINE + 1), b"8"]),
        (b'["' + b"\\\"" * 300 + b'",8]', [b'"' + b"\\\"" * (MAX_LINE // 2), b"8"]),
        (b"\n" * 3000 + b"[1]", [b"1"]),
        (b"", []),
        (b" \n", []),
        (b'{"a":1}', [b'{"a":1}']),
        (b'{"a":1}{"a":2} {"a":3}\n\n{"a":4}', [b'{"a":%d}' % n for n in range(1, 5)]),
        (b'{\n  "a": {\n    "b": [{}\n    ]\n  }\n}\n{\n}', [b'{   "a": {     "b": [{}     ]   } }', b"{ }"]),
        (b'\x1e{"a":1}\n\x1e{"a":\n2}\n\x1e', [b'{"a":1}', b'{"a": 2}']),
        (b'{"a":"}{"}{"a":"\\"}\\\\"}', [b'{"a":"}{"}', b'{"a":"\\"}\\\\"}']),
        (b'{"a":12345678901234567890.10e1}', [b'{"a":12345678901234567890.10e1}']),
        (b'1 2\n"a{" x\n[1]\n', [b"1 2", b'"a{" x', b"[1]"]),
    ],
)  # fmt: skip
def test_a_record_is_an_element_of_an_array_or_a_value_among_others(data: bytes, expected: list[bytes]) -> None:
    for size in (1, 2, 3, 7, 1000):
        with small(size):
            assert texts(read(data)) == expected


MALFORMED = b"""{"n": 1}
{"n": 2
{"n": 3, "t": "open
{"n": 4}
{
  "n": 5 "x",
  "m": [{"a": 1}, {"a": 2}]
}
{"n": {"x": 6}{"n": 7}{"n": 8,}
word {"n": 9} }
\x1e{"n": 10
\x1e{"n": 11}
{"n": [1, 2
{
  "n": 12
}
{"n": 13"""


def test_a_malformed_value_is_kept_with_its_reason_and_its_line_and_the_next_one_is_read() -> None:
    for size in (1, 2, 7, 1000):
        with small(size):
            found = read(MALFORMED)
            good = [json.loads(one)["n"] for one in records(found) if isinstance(one, bytes)]
            assert good == [1, 4, 7, 9, 11, 12]
            bad = [(one[1].decode(), one[0]) for one in records(found) if isinstance(one, tuple)]
    assert [text.split("\n")[0] for text, _ in bad] == [
        '{"n": 2', '{"n": 3, "t": "open', "{", '{"n": {"x": 6}', '{"n": 8,}', "word", "}", '{"n": 10', '{"n": [1, 2',
        '{"n": 13',
    ]  # fmt: skip
    assert [int(reason.rpartition("(line ")[2][:-1]) for _, reason in bad] == [2, 3, 5, 9, 9, 10, 10, 11, 13, 17]
    assert bad[2][0] == '{\n  "n": 5 "x",\n  "m": [{"a": 1}, {"a": 2}]\n}'
    resumes(MALFORMED, found)


VALUE = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\[]{},:\x1eé', max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.text('a"\\[]{},:é', max_size=4), VALUE, max_size=3)
SIZES = st.integers(1, 90), st.integers(1, 5)


@given(st.lists(VALUE, max_size=12), st.sampled_from([None, 1]), st.booleans(), *SIZES)
def test_elements_are_the_same_at_any_block_size_and_from_any_offset(
    elements: list[object], indent: int | None, marked: bool, size: int, most: int
) -> None:
    data = b"\xef\xbb\xbf" * marked + json.dumps(elements, indent=indent, ensure_ascii=False).encode()
    with small(size, most):
        found = read(data, max_line=10**6)
        assert [json.loads(line) for line in texts(found)] == elements
        assert all(block.last_seq - block.first_seq < most and not block.problems for block in found)
    resumes(data, found, max_line=10**6)


@given(st.lists(st.tuples(OBJECT, st.sampled_from(["", "\n", "\r\n", " ", "\n\x1e"]), st.sampled_from([None, 2])),
                max_size=10), *SIZES)  # fmt: skip
def test_values_are_the_same_at_any_block_size_and_from_any_offset(
    parts: list[tuple[object, str, int | None]], size: int, most: int
) -> None:
    written = [json.dumps(value, indent=indent) + after for value, after, indent in parts]
    data = "".join(written).encode()
    with small(size, most):
        found = read(data, max_line=10**6)
        assert [json.loads(line) for line in texts(found)] == [value for value, _, _ in parts]
        assert not any(block.problems for block in found)
    resumes(data, found, max_line=10**6)


@settings(max_examples=200)
@given(st.text('{}[]",:\\ \n\x1e\0a1', max_size=60), *SIZES)
@example('{"":{"":{\n{{"}', 1, 1)
def test_whatever_stands_there_is_kept_and_read_alike_at_any_block_size(text: str, size: int, most: int) -> None:
    data = ("{" + text).encode()
    expected = records(read(data, max_line=20))
    with small(size, most):
        found = read(data, max_line=20)
    assert records(found) == expected
    resumes(data, found, max_line=20)
    if all(len(one) <= 20 for one in texts(found)):
        assert b"".join(b"".join(texts(found)).split()) == b"".join(data.replace(b"\x1e", b" ").split())


@pytest.mark.parametrize("data", [b"[", b"[1,", b'[{"a":1', b'["a]', b'[{"a":"\\"}]', b"[1,2\n", b"[[1]"])
def test_an_array_that_is_not_closed_is_an_error_after_what_came_before(data: bytes) -> None:
    for size in (1, 1000):
        with small(size), pytest.raises(InputError, match="it ends inside its JSON array"):
            read(data)
    found = blocks(io.BytesIO(b"[1,2,3"), "it", max_line=9)
    assert next(found).data == b"1\n2\n"
    with pytest.raises(InputError):
        next(found)


@pytest.mark.parametrize(
    "data",
    [b"[table]\na = 1", b" [[metric]]\n", b"['it']", b"[ 2026-01-31 10:00] x", b"[2026/01/31]", b"[x,1]", b"[\xff]"],
)
def test_what_only_begins_like_an_array_is_not_json(data: bytes) -> None:
    with pytest.raises(InputError, match="it is not JSON: it begins with") as error:
        read(data)
    assert error.value.hint


@pytest.mark.parametrize("data", [b"[1]2", b"[1],", b"[]\n{}\n", b"[1]" + b"\n" * 500 + b"[2]"])
def test_whatever_follows_an_array_is_an_error_and_not_dropped(data: bytes) -> None:
    for size in (1, 1000):
        with small(size), pytest.raises(InputError, match="it continues after its JSON array") as error:
            read(data)
        assert error.value.hint


LONG = {
    "a string": (b'{"a":"', b"x\\\\", b'"}'),
    "escaped quotes": (b'{"a":"', b'}\\"', b'"}'),
    "numbers": (b'{"a":[', b"1,", b"2]}"),
    "objects": (b'{"a":[', b'{"b":"}{"},\n', b"{}]}"),
    "white space": (b'{"a":', b" \n", b"1}"),
    "text": (b"x", b" y", b"\n"),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_value_that_is_too_long_is_one_reject_and_does_not_fill_the_memory(kind: str) -> None:
    first, middle, last = LONG[kind]
    long = first + middle * (3_000_000 // len(middle)) + last
    reason = f"the value is longer than {MAX_LINE} bytes (line 2)"
    with small(1 << 14):
        for data in (b'{"n":1}\n' + long + b'{"n":2}', b"[ 1,\n" + long + b",2]"):
            stream = io.BytesIO(data)
            tracemalloc.start()
            before, problem, after = records(list(blocks(stream, "it", max_line=MAX_LINE)))
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
            tracemalloc.stop()
            assert problem == (reason, long[: MAX_LINE + 1])
            assert (before, after) in ((b'{"n":1}', b'{"n":2}'), (b"1", b"2"))
