"""The real command line against a deployed stack, step by step as against a local store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.stores.aws.catalog import generation
from tests.cli.conftest import pik
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.processor import NOTICED, processing
from tests.support.aws.story import tell

__all__ = ["pik"]


def test_promise_10_the_story_is_the_same_in_a_stack(pik, aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "NOTICED", NOTICED)
    stack = make_stack(aws)
    home = list(tell(pik, str(tmp_path / "store"), tmp_path / "home"))
    with processing(stack, tmp_path):
        for here, there in zip(home, tell(pik, publish(aws, stack), tmp_path / "away"), strict=True):
            assert there == here


@pytest.mark.slow
def test_the_story_is_the_same_twice(pik, tmp_path: Path) -> None:
    """What it leaves out of a comparison is enough, and not all."""
    first, second = (list(tell(pik, str(tmp_path / f"{name}-store"), tmp_path / name)) for name in ("one", "two"))
    for left, right in zip(first, second, strict=True):
        assert left == right
