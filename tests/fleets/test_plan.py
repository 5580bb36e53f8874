"""Promise 8: what a fleet is given to do is planned in bounded memory, however much there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.spark import TOP

LIMIT = 400
"""MiB."""


@pytest.mark.slow
def test_promise_8_the_plan_of_ten_billion_deliveries(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fleets.plan_of_billions", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=True)
    deliveries, tasks, sent, most = json.loads(done.stdout)
    assert deliveries > 10**10
    assert 4000 < tasks < 20_000  # of about 128 MB
    assert sent < 10 << 20
    assert most < LIMIT
