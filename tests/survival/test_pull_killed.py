"""`pik pull`, killed at any instant: the same command again ends as an uninterrupted one would have."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pik.errors import NotFound, NotHeld
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_copy
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.inspect.duplicates import DuplicateFilter, list_duplicates
from pik.usecases.inspect.events import list_events
from tests.support.stores import PlainEngine
from tests.survival.conftest import PATIENCE, longer, pik, whole


def said(store: Store) -> Any:
    wanted = Filter(ALL_TIME)
    return list(list_events(store, wanted)), list(list_duplicates(store, DuplicateFilter(wanted)))


@pytest.mark.parametrize("wanted", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_instants(tmp_path: Path, events: Path, wanted: int) -> None:
    source = whole(tmp_path, events)
    expected = said(source)
    began = time.monotonic()
    assert pik("pull", "--store", source.url, "--into", str(tmp_path / "timed"), "--quiet").wait() == 0
    lasts, draw, kills, number = time.monotonic() - began, random.Random(wanted), 0, 0
    while kills < wanted:
        number += 1
        target = tmp_path / f"copy{number}"
        for longest in longer(0.9 * lasts):
            process = pik("pull", "--store", source.url, "--into", str(target), "--quiet")
            time.sleep(draw.uniform(0.2, 1) * longest)
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate(timeout=PATIENCE)
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, errors
            kills += 1
            # What is there never says anything wrong: all of it, or that it is not there.
            with suppress(NotHeld, NotFound):
                assert said(open_copy(str(target), source, create=False)) == expected
        copy = open_copy(str(target), source)
        assert said(copy) == expected
        rebuild_index(copy, SILENT)
        assert said(copy) == expected
        assert list(verify(copy, PlainEngine(), ALL_TIME, SILENT)) == []
