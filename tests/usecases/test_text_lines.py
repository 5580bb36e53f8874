"""Lines of text become records by a pattern, and kcat's lines by their tab, at any size of a block."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import UsageError
from pik.inputs import blocks as limits
from pik.inputs import kcat_lines, text_lines
from pik.inputs.blocks import Block
from pik.inputs.mapping import RecordMapping
from pik.inputs.source import file_source
from pik.model.event import REQUIRED
from pik.model.layout import AUTO, InputFormat, Layout, read_layout
from pik.model.log_lines import PATTERNS

MAX_LINE = 40
Reader = Callable[..., Iterator[Block]]


def text(pattern: str) -> Layout:
    return Layout(InputFormat.TEXT, pattern=pattern)


def read(reader: Reader, data: bytes, layout: Layout, **options: Any) -> list[Block]:
    return list(reader(io.BytesIO(data), "it", layout, **{"max_line": MAX_LINE, **options}))


def records(blocks: list[Block]) -> list[Any]:
    """By seq; a problem is its reason, a blank line None."""
    found: list[Any] = []
    for block in blocks:
        for seq, line in enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.first_seq):
            problem = block.problems.get(seq)
            found.append(problem.reason if problem else json.loads(line) if line.strip() else None)
    return found


ODD = [b"\xff", b"x" * 50, b"k\t{", b"k\t[1,"]
LINE = st.text('ab=; \té\x1e"\\', max_size=8).map(str.encode) | st.sampled_from(ODD)
PATTERN = r"(?P<key>[^=;]+)=(?P<value>[^;]*)(?:;(?P<rest>.*))?"


def expected_text(line: bytes) -> Any:
    if len(line) > MAX_LINE:
        return f"the line is longer than {MAX_LINE} bytes"
    try:
        found = re.fullmatch(PATTERN, line.decode())
    except UnicodeDecodeError:
        return "the line is not valid UTF-8"
    return {"line": line.decode(), **found.groupdict("")} if found else "the line does not match the pattern"


def expected_kcat(line: bytes) -> Any:
    if len(line) > MAX_LINE:
        return f"the line is longer than {MAX_LINE} bytes"
    if b"\t" not in line:
        return "the line has no tab between a key and a value"
    try:
        key, value = line.decode().split("\t", 1)
    except UnicodeDecodeError:
        return "the line is not valid UTF-8"
    try:
        return {"key": key, "value": json.loads(value) if value[:1] != "N" else value}
    except ValueError:
        return None if value.startswith("{") else {"key": key, "value": value}


@settings(max_examples=60)
@given(
    st.lists(LINE, max_size=10), st.booleans(), st.integers(1, 30), st.integers(1, 4), st.sampled_from(["\n", "\r\n"])
)
def test_a_record_is_a_line_and_a_crash_changes_nothing(
    lines: list[bytes], ended: bool, size: int, most: int, end: str
) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    data = end.encode().join(lines) + end.encode() * ended
    for reader, layout, expected in (
        (text_lines.blocks, text(PATTERN), expected_text),
        (kcat_lines.blocks, Layout(InputFormat.KCAT), expected_kcat),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "BLOCK", size)
            patch.setattr(limits, "LINES", most)
            patch.setattr(text_lines, "GROUP", size)
            blocks = read(reader, data, layout)
        for found, line in zip(records(blocks), lines, strict=False):
            if not line.strip():
                assert found is None
            elif expected(line) is None:
                assert found.startswith("the value is not JSON")
            else:
                assert found == expected(line)
        assert len(records(blocks)) >= len(lines) - 1
        for number, block in enumerate(blocks, 1):
            rest = read(reader, data, layout, first_seq=block.last_seq + 1, offset=block.offset)
            assert records(rest) == records(blocks[number:])


def test_values_of_kcat_are_kept_as_they_are_written() -> None:
    data = b'k\t{"n":1.50, "big":12345678901234567890}\n\t[1]\nk\t7\nk\t007\nk\t[2026] x\nk\t\na\tb\tc\n'
    (block,) = read(kcat_lines.blocks, data, Layout(InputFormat.KCAT), max_line=100)
    assert block.data.splitlines() == [
        b'{"key":"k","value":{"n":1.50, "big":12345678901234567890}}',
        b'{"key":"","value":[1]}',
        b'{"key":"k","value":7}',
        b'{"key":"k","value":"007"}',
        b'{"key":"k","value":"[2026] x"}',
        b'{"key":"k","value":""}',
        b'{"key":"a","value":"b\\tc"}',
    ]


@pytest.mark.parametrize("hostile", ["(?P<a>(?:a+)+)", "(?P<a>(?:a|aa)+)b", "(?P<a>(?:.*.*.*)*)=c"])
def test_no_pattern_takes_more_than_time_in_proportion_to_the_line(hostile: str) -> None:
    """Python's own expressions would take longer than the universe has been there."""
    blocks = read(text_lines.blocks, b"a" * 50_000 + b"!\n", text(hostile), max_line=1 << 20)
    assert records(blocks) == ["the line does not match the pattern"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "it has no named group"),
        ("x+", "it has no named group"),
        ("(?P<a>x", "missing )"),
        ("(?P<a>x)(y)", "unnamed groups"),
        (r"(?P<a>x)(?=y)", "invalid perl operator"),
        ("(?P<line>x)", "the name line is that of the whole line"),
        ("(?P<a>x)(?P<a>y)", "the name a comes twice"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "log").write_text("x\n")
    with file_source(str(tmp_path / "log")).open() as opened, pytest.raises(UsageError) as error:
        opened.recognize(read_layout({"pattern": pattern}), mapped=True)
    assert message in error.value.message
    assert error.value.hint


def test_a_text_that_does_not_match_at_all_is_refused_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo\n" * 9000)
    mapping = RecordMapping({**dict.fromkeys(REQUIRED, "'x'"), "event_time": "'2026-01-01T00:00:00Z'"})
    with file_source(str(tmp_path / "log")).open() as opened:
        for layout, reason in ((text("(?P<a>x)"), "the line does not match"), (Layout(InputFormat.KCAT), "no tab")):
            with pytest.raises(
                UsageError, match=f"lines of .*log are not read by it; line 1: .*{reason}.*'one'"
            ) as error:
                opened.expect_fields(layout, mapping)
            assert "--on-invalid reject" in error.value.hint
        opened.expect_fields(text("(?P<a>t.*)"), mapping)


COMMON = '10.0.0.1 - ann [02/Mar/2026:10:00:00 +0000] "GET /a?b=\\"c HTTP/1.1" 200 7'
BAD_REQUEST = '::1 - - [02/Mar/2026:10:00:01 +0000] "\\x16\\x03" 400 -'
AGENT = ' "https://example.org/" "Mozilla/5.0 (X11; Linux, x86_64)"'
S3 = (
    "79a5 bucket [06/Feb/2026:00:00:38 +0000] 192.0.2.3 79a5 3E57427F3EXAMPLE REST.GET.VERSIONING - "
    '"GET /bucket?versioning HTTP/1.1" 200 - 113 - 7 - "-" "S3Console/0.4" -'
)
ALB = (
    "https 2026-07-02T22:23:00.186641Z app/lb/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 200 "
    '200 0 57 "GET https://www.example.com:443/ HTTP/1.1" "curl/7.46.0" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 '
    'arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/t/73e2d6bc24d8a067 "Root=1-58337281-1d84f3d7" '
    '"www.example.com" "arn:aws:acm:us-east-2:123456789012:certificate/1" 1 2026-07-02T22:22:48.364000Z '
    '"authenticate,forward" "-" "-" "10.0.0.1:80" "200" "-" "-"'
)
USUAL = {
    "common": (
        [COMMON, BAD_REQUEST],
        {"host": "10.0.0.1", "user": "ann", "method": "GET", "status": "200", "bytes": "7"},
    ),
    "combined": (
        [COMMON + AGENT, BAD_REQUEST + ' "-" "-"'],
        {"path": '/a?b=\\"c', "referer": "https://example.org/", "user_agent": "Mozilla/5.0 (X11; Linux, x86_64)"},
    ),
    "s3-access": (
        [S3, S3 + " s9lzHYr SigV4 ECDHE-RSA AuthHeader bucket.s3.amazonaws.com TLSV1.2 - Yes later"],
        {"bucket": "bucket", "operation": "REST.GET.VERSIONING", "bytes_sent": "113", "user_agent": "S3Console/0.4"},
    ),
    "alb": (
        [ALB, ALB + " TID_dc57cebed65b444ebc8177bb698fe166", ALB.partition(' "10.0.0.1:80" "200"')[0]],
        {"time": "2026-07-02T22:23:00.186641Z", "target": "10.0.0.1:80", "elb_status_code": "200", "error_reason": "-"},
    ),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_logs_are_recognized_and_read_by_their_pattern(tmp_path: Path, name: str) -> None:
    lines, fields = USUAL[name]
    (tmp_path / "log").write_text("\n".join(lines))
    with file_source(str(tmp_path / "log")).open() as opened:
        layout = opened.recognize(AUTO, mapped=False)
        assert layout == text(name)
        found = records(list(opened.blocks(layout, 1 << 20)))
    assert fields.items() <= found[0].items()
    for line, record in zip(lines, found, strict=True):
        match = re.fullmatch(PATTERNS[name], line)
        assert match
        assert record == {"line": line, **match.groupdict("")}
