"""Damaged raw is named, and no number is computed from it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.errors import Damaged, EngineError
from pik.model.aggregate import Computed
from pik.model.calendar import UTC_DAYS
from pik.model.window import ALL_TIME
from pik.ports.engine import Inputs
from tests.support.raw_files import compute, event, frame, metric, raw, raw_lines

TOTAL = metric("sum((payload->>'$.n')::INTEGER)")
LINES = raw_lines(event({"n": n}, entity_id=f"e{n % 7}") for n in range(60))
FRAMES = [frame(LINES[at : at + 20]) for at in (0, 20, 40)]


def found(tmp_path: Path, data: bytes) -> list[Computed]:
    """What comes of a file among others, of which `data` should be LINES."""
    good = raw(tmp_path / "good.zst", [event()])
    bad = tmp_path / "bad.zst"
    bad.write_bytes(data)
    return compute(Inputs([*good.files, bad], len(LINES) + 1), TOTAL)


def test_one_flipped_byte_anywhere(tmp_path: Path) -> None:
    whole = b"".join(FRAMES)
    truth = found(tmp_path, whole)
    chance = random.Random(3)
    caught = 0
    for at in [0, 4, 5, len(whole) - 1, *chance.sample(range(len(whole)), 30)]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chance.randrange(8)
        try:
            assert found(tmp_path, bytes(flipped)) == truth, f"byte {at}"
        except Damaged:
            caught += 1
    assert caught >= 30


def test_flipped_bytes_name_the_file(tmp_path: Path) -> None:
    whole = bytearray(b"".join(FRAMES))
    whole[len(whole) // 2] ^= 255
    with pytest.raises(Damaged, match=r"bad\.zst") as caught:
        found(tmp_path, bytes(whole))
    assert "good.zst" not in caught.value.message
    assert "verify" in caught.value.hint


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_cut_between_frames(tmp_path: Path, frames: int) -> None:
    with pytest.raises(Damaged, match=f"{frames * 20 + 1} whole deliveries of 61"):
        found(tmp_path, b"".join(FRAMES[:frames]))


@pytest.mark.parametrize("at", [1, 7, 100, len(FRAMES[0]) + 3, -5, -40])
def test_cut_inside_of_a_frame(tmp_path: Path, at: int) -> None:
    with pytest.raises(Damaged):
        found(tmp_path, b"".join(FRAMES)[:at])


def test_cut_inside_of_the_last_checksum(tmp_path: Path) -> None:
    """Every line is there still; `verify` misses the byte, the numbers don't."""
    whole = b"".join(FRAMES)
    assert found(tmp_path, whole[:-1]) == found(tmp_path, whole)


def test_a_frame_twice(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="81 whole deliveries of 61"):
        found(tmp_path, b"".join(FRAMES) + FRAMES[0])


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b'{"event_id":',
        b"[]",
        b"{}",
        LINES[0].replace(b'"entity_id"', b'"entity-id"'),
        LINES[0].replace(b'"event_time"', b'"event-time"'),
        LINES[0].replace(b'"event_id":"', b'"event_id":"x'),
        LINES[0].replace(b"2026-01-01T", b"2026-13-01T"),
    ],
)
def test_a_line_that_is_not_a_delivery(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(Damaged):
        found(tmp_path, frame([line, *LINES[1:]]))


def test_a_line_too_long_for_the_engine_is_not_damage(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"r\.zst has a line of more than 16 MiB"):
        compute(raw(tmp_path / "r.zst", [event({"v": "x" * (34 << 20)})]), TOTAL)


def test_a_missing_file(tmp_path: Path) -> None:
    good = raw(tmp_path / "good.zst", [event()])
    inputs = Inputs([*good.files, tmp_path / "gone.zst"], 2)
    with pytest.raises(Damaged, match=r"gone\.zst"):
        compute(inputs, TOTAL)
    with pytest.raises(Damaged, match=r"gone\.zst"):
        list(DuckEngine().touched(inputs, UTC_DAYS, ALL_TIME))


def test_no_files_for_some_deliveries() -> None:
    with pytest.raises(Damaged):
        compute(Inputs([], 3), TOTAL)
