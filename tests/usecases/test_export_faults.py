"""An export that fails leaves nothing, and damage to raw never shortens one."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from msgspec.structs import replace as changed
from zstandard import ZstdCompressor

from pik.errors import Damaged, StoreError
from pik.exporters import exporter
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.exporter import Exporter, Layout
from pik.ports.store import Store
from pik.rawlog.objects import frame_lines
from pik.runtime import SILENT
from pik.usecases.export.export import export
from pik.usecases.export.rows import SegmentPart, read_block
from tests.support.stores import event, ingest

from .test_export import EVERYTHING, run


class Broken:
    """An exporter whose steps `fault` may refuse: it is asked before each, with the step's name."""

    def __init__(self, inner: Exporter, fault: Callable[[str], None]) -> None:
        self.inner, self.fault = inner, fault
        self.layout, self.suffix = inner.layout, inner.suffix

    def cut(self, block: Any) -> Iterator[Any]:
        self.fault("cut")
        return self.inner.cut(block)

    def sink(self, file: BinaryIO) -> BrokenSink:
        self.fault("sink")
        return BrokenSink(self.inner.sink(file), self.fault)


class BrokenSink:
    def __init__(self, inner: Any, fault: Callable[[str], None]) -> None:
        self.inner, self.fault = inner, fault

    def write(self, rows: Any) -> None:
        self.inner.write(rows)
        self.fault("write")

    def close(self) -> None:
        self.fault("close")
        self.inner.close()


class Fault:
    """Raises at the `nth` step of one kind; `reached` tells whether there was one."""

    def __init__(self, kind: str, nth: int, error: BaseException) -> None:
        self.kind, self.left, self.error = kind, nth, error

    def __call__(self, kind: str) -> None:
        if kind == self.kind:
            self.left -= 1
            if self.left == 0:
                raise self.error

    @property
    def reached(self) -> bool:
        return self.left <= 0

    def around(self, function: Any, kind: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self(kind)
            return function(*arguments, **options)

        return call


def attempt(store: Store, made: Exporter, target: Path) -> BaseException | None:
    """What an export ends with."""
    try:
        export(store, made, target, SILENT, directory=not target.suffix)
    except (StoreError, OSError, KeyboardInterrupt) as error:
        return error
    return None


@pytest.mark.parametrize("kind", ["mkdtemp", "cut", "sink", "write", "close", "fsync", "name"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"]
)
@pytest.mark.parametrize("name", ["e.parquet", "data", "e.csv.gz"])
def test_whatever_fails_leaves_nothing(
    filled: Store, place: Path, name: str, error: BaseException, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = replace(EVERYTHING, partition_by=() if "." in name else ("event_date", "source"))
    if name.endswith("gz"):
        layout = replace(layout, format="csv", compression="gzip")
    # What goes wrong with the target is told as such; reading is the store's own to translate.
    told = error if kind == "cut" or not isinstance(error, OSError) else StoreError("")
    for nth in range(1, 100):
        fault = Fault(kind, nth, error)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fault.around(os.fsync, "fsync"))
            patched.setattr(Path, "rename", fault.around(Path.rename, "name"))
            patched.setattr(os, "link", fault.around(os.link, "name"))
            patched.setattr(tempfile, "mkdtemp", fault.around(tempfile.mkdtemp, "mkdtemp"))
            raised = attempt(filled, Broken(exporter(layout), fault), place / name)
        if not fault.reached:
            break
        assert type(raised) is type(told)
        assert not isinstance(raised, StoreError) or ("No space left on device" in raised.message and raised.hint)
        assert os.listdir(place) == []
    assert nth > 1
    assert len(os.listdir(place)) == (1 if name == "data" else 2)


def test_a_full_disk(filled: Store, tmp_path: Path, place: Path) -> None:
    ingest(filled, tmp_path, [event(number, os.urandom(40).hex(), "07T00:00") for number in range(2000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        for name, layout in (("e.parquet", EVERYTHING), ("e.jsonl", Layout(Filter(ALL_TIME), "jsonl", "none"))):
            with pytest.raises(StoreError, match=r"cannot write .*: File too large"):
                run(filled, place / name, layout)
            assert os.listdir(place) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run(filled, place / "e.parquet")


def test_damage_is_reported_and_nothing_is_written(filled: Store, place: Path) -> None:
    segment = next(iter(filled.index.segments(ALL_TIME)))
    path = Path(filled.url) / segment.key
    path.chmod(0o644)
    whole = path.read_bytes()
    for damaged in (whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], whole[:-1], b""):
        path.write_bytes(damaged)
        for format_ in ("parquet", "jsonl"):
            with pytest.raises(Damaged, match=segment.key):
                run(filled, place / "e.parquet", replace(EVERYTHING, format=format_, compression="zstd"))
        with pytest.raises(Damaged):
            run(filled, place / "e.parquet", dry_run=True)
    path.unlink()
    with pytest.raises(Damaged, match="missing"):
        run(filled, place / "data")
    assert os.listdir(place) == []


def test_no_flipped_bit_comes_through(store: Store, tmp_path: Path, place: Path) -> None:
    """Frames are unpacked many at once, and each is still held to its own checksum, length and number of lines."""
    ingest(store, tmp_path, [event(number, "e" * 200, "07T00:00", kind="k" * 200) for number in range(600)])
    (segment,) = store.index.segments(ALL_TIME)
    assert len(segment.frames) > 3
    path = Path(store.url) / segment.key
    path.chmod(0o644)
    whole = path.read_bytes()
    expected = run(store, place / "whole.parquet").files[0].sha256
    headers = [(frame.offset + byte, bit) for frame in segment.frames[::3] for byte in range(12) for bit in range(8)]
    for number, bit in [*headers, *((at, at % 8) for at in range(0, len(whole), 97))]:
        flipped = bytearray(whole)
        flipped[number] ^= 1 << bit
        path.write_bytes(flipped)
        target, told = place / f"{number}-{bit}.parquet", ""
        try:
            assert run(store, target).files[0].sha256 == expected  # a bit that means nothing: headers have one
        except Damaged as error:
            told = error.message
        at = max(frame.offset for frame in segment.frames if frame.offset <= number)
        assert target.exists() or f"{segment.key} is damaged: the frame at byte {at} does not" in told


def test_frames_with_other_lines_are_damage(store: Store, tmp_path: Path, place: Path) -> None:
    ingest(store, tmp_path, [event(number, "e" * 200, "07T00:00", kind="k" * 200) for number in range(600)])
    (segment,) = store.index.segments(ALL_TIME)
    path = Path(store.url) / segment.key
    path.chmod(0o644)
    first, *others = segment.frames
    lines = frame_lines(store.raw, segment, first)
    behind = path.read_bytes()[first.length :]
    for other in (lines[:-1], [*lines, lines[0]], [*lines[:-2], lines[-2] + lines[-1]], [*lines, b""]):
        packed = ZstdCompressor(write_checksum=True).compress(b"".join(line + b"\n" for line in other))
        moved = [changed(frame, offset=frame.offset - first.length + len(packed)) for frame in others]
        path.write_bytes(packed + behind)
        part = SegmentPart(segment, [changed(first, length=len(packed)), *moved], {})
        with pytest.raises(Damaged, match=f"the frame at byte 0 does not hold {first.lines} lines"):
            read_block(store.raw, [part])
