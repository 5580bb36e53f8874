"""Inputs: whatever way the bytes come, the records and their positions are the same."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from pik.errors import InputError
from pik.inputs import blocks as module
from pik.inputs.blocks import UTF8_BOM, Block, NulRuns, blocks
from pik.inputs.compression import uncompressed
from pik.inputs.opened_file import HEAD, READERS
from pik.inputs.source import file_source
from pik.model.layout import JSON_LINES, JSON_VALUES, InputFormat, Layout

MAX_LINE = 200


@contextmanager
def small(block: int, lines: int = module.LINES) -> Iterator[None]:
    """Blocks of about so many bytes, and reads of as many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "LINES", lines)
        yield


def buffered(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, io.BytesIO(data)))


def read(data: bytes, *, max_line: int = MAX_LINE, first_seq: int = 1, offset: int = 0) -> list[Block]:
    with uncompressed(cast(BinaryIO, buffered(data)), "it") as stream:
        return list(
            blocks(cast(BinaryIO, NulRuns(stream)), "it", max_line=max_line, first_seq=first_seq, offset=offset)
        )


def records(found: list[Block]) -> list[tuple[int, bytes]]:
    """(seq, record) of each that is not blank, over-long ones cut as they are kept. Blocks must follow each other."""
    numbered = []
    following = found[0].first_seq if found else 0
    for block in found:
        assert block.first_seq == following
        lines = block.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        assert block.last_seq == block.first_seq + len(lines) - 1
        numbered += list(enumerate((line[: MAX_LINE + 1] for line in lines), block.first_seq))
        following = block.last_seq + 1
    return [(seq, line.rstrip(b"\r")) for seq, line in numbered if line.strip()]


def told(data: bytes) -> list[tuple[int, bytes]]:
    return records(read(data))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", []),
        (b" \n\r\n\t\n", []),
        (b"a", [(1, b"a")]),
        (b"a\n", [(1, b"a")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"\n\na\n\n b\n", [(3, b"a"), (5, b" b")]),
        (b"\xef\xbb\xbfa\nb\n", [(1, b"a"), (2, b"b")]),
        (b"\xef\xbb\xbf", []),
        (b"a\n\xef\xbb\xbfb", [(1, b"a"), (2, b"\xef\xbb\xbfb")]),
        (b"a\rb\n", [(1, b"a\rb")]),
    ],
)
def test_a_record_is_a_line_and_its_seq_the_number_of_the_line(data: bytes, expected: list[tuple[int, bytes]]) -> None:
    for size in (1, 2, 3, 1000):
        with small(size):
            assert told(data) == expected


LINE = st.one_of(
    st.binary(max_size=30).map(lambda data: data.translate(None, b"\n\0")),
    st.integers(1, 3 * MAX_LINE).map(lambda size: b"x" * size),
    st.just(b'{"a":1}\r'),
    st.just(b""),
)


@given(st.lists(LINE, max_size=30), st.booleans(), st.integers(1, 700), st.integers(1, 5))
@example([b"x" * 600, b"y" * 600, b"z"], False, 100, 1)
def test_lines_are_the_same_at_any_block_size_and_from_any_offset(
    lines: list[bytes], ended: bool, size: int, most: int
) -> None:
    lines = [b"{", *lines]  # neither a mark of some format nor white space at the beginning
    data = b"\n".join(lines) + b"\n" * ended
    expected = [(seq, line[: MAX_LINE + 1].rstrip(b"\r")) for seq, line in enumerate(lines, 1)]
    expected = [(seq, line) for seq, line in expected if line.strip()]
    with small(size, most):
        found = read(data)
        assert records(found) == expected
        assert all(block.last_seq - block.first_seq < most for block in found)
        assert all(block.last_seq == block.first_seq or len(block.data) <= 4096 + MAX_LINE + size for block in found)
        assert (found[-1].offset if found else 0) == len(data)
        resumes(data, found)


def resumes(data: bytes, found: list[Block], *, max_line: int = MAX_LINE, every: int = 1) -> None:
    """From behind each block, the rest is what followed, whatever size blocks are then."""
    for number in range(0, len(found), every):
        block, following = found[number], records(found[number + 1 :])
        for size in (module.BLOCK, 1000):
            with small(size):
                rest = read(data, max_line=max_line, first_seq=block.last_seq + 1, offset=block.offset)
            assert records(rest) == following


def test_what_begins_like_an_array_is_not_lines() -> None:
    with pytest.raises(InputError, match="it is not JSON lines: it begins like a JSON array") as error:
        read(b"\n [1]\n")
    assert error.value.hint == "--input json reads one"
    found = read(b"\n" * 100_000 + b"[1]\n")
    assert [(seq, line) for seq, line in records(found)] == [(100_001, b"[1]")]


LONG = b"".join(b'{"n":%d}\n' % number for number in range(5000))
EXPECTED = list(enumerate(LONG.split(b"\n")[:-1], 1))
SKIPPABLE = b"\x5a\x2a\x4d\x18\x04\x00\x00\x00abcd"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def zstd_stream(data: bytes) -> bytes:
    """As a program writes that does not know the size beforehand."""
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return compressor.compress(data) + compressor.flush()


COMPRESSED = {
    "gzip": gzip.compress(LONG),
    "gzip of several members": gzip.compress(LONG[:77]) + gzip.compress(b"") + gzip.compress(LONG[77:]),
    "gzip with padding": gzip.compress(LONG) + b"\0" * 100,
    "zstd": zstd(LONG),
    "zstd stream": zstd_stream(LONG),
    "zstd of several frames": zstd(LONG[:77]) + zstd(b"") + zstd_stream(LONG[77:]),
    "zstd with frames to skip": SKIPPABLE + zstd(LONG[:77]) + SKIPPABLE + zstd(LONG[77:]) + SKIPPABLE,
    "bzip2": bz2.compress(LONG),
    "bzip2 of several streams": bz2.compress(LONG[:77]) + bz2.compress(b"") + bz2.compress(LONG[77:]),
    "xz": lzma.compress(LONG),
    "xz of several streams": lzma.compress(LONG[:77]) + lzma.compress(b"") + b"\0" * 8 + lzma.compress(LONG[77:]),
    "gzip in gzip": gzip.compress(gzip.compress(LONG)),
    "bzip2 in zstd in xz": lzma.compress(zstd(bz2.compress(LONG))),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_inputs(name: str) -> None:
    for size in (100, module.BLOCK):
        with small(size):
            assert told(COMPRESSED[name]) == EXPECTED
    found = read(COMPRESSED[name])
    assert found[-1].offset == len(LONG)
    with small(500):
        resumes(COMPRESSED[name], read(COMPRESSED[name]), every=40)


@pytest.mark.parametrize("name", [name for name in COMPRESSED if name not in ("gzip with padding",)])
def test_a_compressed_input_that_is_cut_is_an_error_wherever_it_is(name: str) -> None:
    """Except between two members or frames, where nothing tells."""
    data = COMPRESSED[name]
    cuts = {5, 9, 20, len(data) // 3, len(data) // 2, len(data) - 5, len(data) - 1}
    for cut in {cut for cut in cuts if not whole(data[:cut])}:
        told_before, error = until_error(data[:cut])
        assert "it cannot be decompressed to its end" in str(error)
        assert told_before == EXPECTED[: len(told_before)]
        if name in ("gzip", "bzip2"):  # all that another reader finds is read, too
            inner = zlib.decompressobj(31) if name == "gzip" else bz2.BZ2Decompressor()
            assert len(told_before) == inner.decompress(data[:cut]).count(b"\n")


def until_error(data: bytes, layout: Layout = JSON_LINES) -> tuple[list[tuple[int, bytes]], InputError]:
    """The records that are read before an error, and the error."""
    found: list[Block] = []
    read = READERS[layout.format or InputFormat.JSONL]
    with pytest.raises(InputError) as error, uncompressed(cast(BinaryIO, buffered(data)), "it") as stream:
        found.extend(read(stream, "it", layout, max_line=MAX_LINE))
    return records(found), error.value


def test_what_precedes_a_cut_is_read_of_other_formats_too() -> None:
    """A record for each line that another reader finds whole."""
    array = b"[" + LONG.strip().replace(b"\n", b",\n") + b"]"
    rows = b"n,m\n" + b"".join(b"%d,x\n" % number for number in range(5000))
    for data, layout, before in ((array, JSON_VALUES, 0), (rows, Layout(InputFormat.CSV), 1)):
        cut = gzip.compress(data)[:-300]
        lines = zlib.decompressobj(31).decompress(cut).count(b"\n")
        told_before, error = until_error(cut, layout)
        assert len(told_before) == lines - before
        assert error.message == "it cannot be decompressed to its end: it is cut"


@pytest.mark.parametrize("name", ["gzip", "zstd", "bzip2", "xz"])
def test_what_follows_compressed_data_and_is_not_is_an_error_after_what_came_before(name: str) -> None:
    told_before, error = until_error(COMPRESSED[name] + b"garbage")
    assert told_before == EXPECTED
    assert error.message == f"it cannot be decompressed to its end: after its member comes what is not {name}"
    assert "FILE 2>/dev/null | pik ingest -" in error.hint
    assert told(COMPRESSED[name] + b"\0" * 700) == EXPECTED


def test_an_input_that_is_compressed_over_and_over_is_refused_and_a_bomb_does_not_fill_the_memory() -> None:
    data = b"{}\n"
    for _ in range(4):
        data = gzip.compress(data)
    _, error = until_error(data)
    assert error.message == "it is compressed more than 3 times, one compression within another"
    for compress in (gzip.compress, zstd, bz2.compress, lzma.compress):
        bomb = compress(b"x" * (24 << 20))
        tracemalloc.start()
        with uncompressed(cast(BinaryIO, buffered(bomb)), "it") as stream:
            assert sum(len(data) for data in iter(partial(stream.read, 1 << 20), b"")) == 24 << 20
        assert tracemalloc.get_traced_memory()[1] < 18 << 20
        tracemalloc.stop()


def test_xz_that_takes_more_memory_than_is_given_to_it_is_refused_with_what_works() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]
    _, error = until_error(lzma.compress(LONG, filters=filters))
    assert "Memory usage limit" in error.message
    assert "more memory than 128 MiB, or --max-window, allows" in error.hint
    with uncompressed(cast(BinaryIO, buffered(lzma.compress(LONG, filters=filters))), "it", 256 << 20) as stream:
        assert stream.read() == LONG


def whole(data: bytes) -> bool:
    """Whether it ends where a member, a frame or a stream does, by another reader than pik's."""
    try:
        if data[:2] == b"\x1f\x8b":
            return whole(gzip.decompress(data)) if data else True
        if data[:3] == b"BZh":
            with bz2.open(io.BytesIO(data)) as file:
                file.read()
        elif data[:1] == b"\xfd":
            with lzma.open(io.BytesIO(data)) as file:
                return whole(file.read())
        else:
            while data[:4] in (b"\x28\xb5\x2f\xfd", SKIPPABLE[:4]):
                frame = zstandard.ZstdDecompressor().decompressobj()
                frame.decompress(data)
                if not frame.eof:
                    return False
                data = frame.unused_data
    except (EOFError, OSError, zstandard.ZstdError):
        return False
    return not data or data[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("name", ["gzip", "zstd stream", "bzip2", "xz", "gzip in gzip"])
def test_a_compressed_input_with_a_flipped_bit_is_an_error(name: str) -> None:
    data = bytearray(COMPRESSED[name])
    data[len(data) // 2] ^= 4
    with pytest.raises(InputError, match="it cannot be decompressed to its end"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ('{"a":1}\n'.encode("utf-16"), "looks like UTF-16"),
        (b"\xfe\xff\x00{", "looks like UTF-16"),
        ('{"a":1}\n'.encode("utf-16-le"), "looks like UTF-16-LE without"),
        (b"SQLite format 3\0", "looks like a SQLite database"),
        (b"Obj\x01\x04\x16", "looks like an Avro file"),
        (b"\x7fELF\2\1\0\0", "is a binary file"),
    ],
)
def test_text_that_is_invalid_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read(data)


def test_a_file_can_be_read_again_and_its_content_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"abc")
    source = file_source(str(path))
    assert (source.path, source.size) == (str(path), 3)
    with source.open() as opened:
        digests = {opened.digest() for _ in range(2)}
        assert [block.data for block in opened.blocks(JSON_LINES, MAX_LINE)] == [b"abc"]
    assert digests == {"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


def test_all_blocks_are_there_before_a_change_is_reported(tmp_path: Path) -> None:
    """So that what was read is recorded first."""
    path, lines = tmp_path / "a.jsonl", b"abc\n" * HEAD
    path.write_bytes(lines)
    with file_source(str(path)).open() as opened:
        opened.digest()
        path.write_bytes(lines + b"def\n")
        found = b"".join(block.data for block in opened.blocks(JSON_LINES, MAX_LINE))
        assert found == lines + b"def\n"
        with pytest.raises(InputError, match=r"a\.jsonl changed while it was being read"):
            opened.expect_unchanged()


def test_a_short_file_is_recorded_as_it_was_digested_and_a_change_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"abc\n")
    with file_source(str(path)).open() as opened:
        assert opened.digest() == sha256(b"abc\n").hexdigest()
        path.write_bytes(b"xyz\ndef\n")
        assert [block.data for block in opened.blocks(JSON_LINES, MAX_LINE)] == [b"abc\n"]
        with pytest.raises(InputError, match=r"a\.jsonl changed while it was being read"):
            opened.expect_unchanged()


@given(
    st.lists(st.sampled_from([b'{"a":1}', b"\n", b"\r\n", b"\xef\xbb\xbf", b"[", b" ", b"\0", b"x" * 50])).map(
        b"".join
    ),
    st.integers(0, 3),
)
def test_a_short_file_is_read_as_a_long_one(tmp_path_factory: pytest.TempPathFactory, data: bytes, lines: int) -> None:
    path = tmp_path_factory.getbasetemp() / "short.jsonl"
    path.write_bytes(data)

    def from_there(max_line: int, first_seq: int = 1, offset: int = 0) -> list[tuple[int, bytes]] | str:
        with file_source(str(path)).open() as opened:
            try:
                return records(list(opened.blocks(JSON_LINES, max_line, first_seq=first_seq, offset=offset)))
            except InputError as error:
                return error.message

    assert from_there(HEAD) == from_there(HEAD - 1)
    offset = len(b"".join(data.removeprefix(UTF8_BOM).splitlines(keepends=True)[:lines]))
    assert from_there(HEAD, lines + 1, offset) == from_there(HEAD - 1, lines + 1, offset)


def test_a_file_that_is_replaced_meanwhile_is_read_as_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"abc\n")
    with file_source(str(path)).open() as opened:
        (tmp_path / "new").write_bytes(b"defg\n")
        (tmp_path / "new").rename(path)
        assert opened.digest() == sha256(b"abc\n").hexdigest()
        assert [block.data for block in opened.blocks(JSON_LINES, MAX_LINE)] == [b"abc\n"]
        opened.expect_unchanged()


def test_a_pipe_is_read_once_as_standard_input_is(tmp_path: Path) -> None:
    """Such as `pik ingest <(zcat old.gz)`: reading it for its digest would leave nothing."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(gzip.compress(LONG)))
    writer.start()
    source = file_source(str(path))
    assert (source.path, source.size) == (None, None)
    with source.open() as opened:
        assert records(list(opened.blocks(JSON_LINES, MAX_LINE))) == EXPECTED
    writer.join()


@st.composite
def with_nul_runs(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Lines with runs of NUL bytes around and in them, and the records that they are."""
    records: list[bytes] = []
    data = b""
    for text in draw(st.lists(st.sampled_from([b"a", b'{"b":1}', b"c d"]), max_size=6)):
        if run := draw(st.integers(0, 3)):
            records.append(b"\0" * run)
            data += b"\0" * run + draw(st.sampled_from([b"", b"\n"]))
        records.append(text)
        data += text + draw(st.sampled_from([b"\n", b"\r\n"]))
    if run := draw(st.integers(0, 3)):
        records.append(b"\0" * run)
        data += b"\0" * run
    return data, records


@given(with_nul_runs(), st.sampled_from([1, 2, 3, 7, 1000]))
def test_a_run_of_nul_bytes_is_one_record_wherever_it_stands(drawn: tuple[bytes, list[bytes]], size: int) -> None:
    data, expected = drawn
    with small(size):
        assert [line for _, line in told(data)] == expected


def test_a_block_may_end_inside_of_a_run_of_nul_bytes_and_the_next_reader_continues_there() -> None:
    data = b"a\n" + b"\0" * 50 + b"b\nc\n"
    with small(16):
        found = read(data)
        for block in found:
            assert read(data, first_seq=block.last_seq + 1, offset=block.offset) == [
                later for later in found if later.first_seq > block.last_seq
            ]
    assert told(data)[1][1].count(b"\0") == 50
