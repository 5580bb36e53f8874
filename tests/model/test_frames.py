"""Frames: a small object is read whole, or not at all."""

from __future__ import annotations

import pytest
import zstandard

from pik.errors import Damaged
from pik.rawlog.objects import unpacked

FRAMES = [zstandard.ZstdCompressor(write_checksum=True).compress(text) for text in (b"one\ntwo\n", b"three\n")]


def test_all_frames_of_an_object_are_read() -> None:
    assert unpacked("raw/x", b"".join(FRAMES)) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("missing", range(1, len(FRAMES[1])))
def test_an_object_that_lacks_its_last_bytes_is_damaged(missing: int) -> None:
    with pytest.raises(Damaged, match="raw object raw/x is damaged"):
        unpacked("raw/x", b"".join(FRAMES)[:-missing])
