"""Time that passes at once, for the leases of whoever died."""

from __future__ import annotations

import time

import pytest

from pik.stores.aws import lease
from pik.stores.aws.catalog import generation


def later(monkeypatch: pytest.MonkeyPatch, leases: float = 1) -> None:
    """The leases of whoever died have ended, each after the other; and waiting for one to be over takes no time."""
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    offset = leases * lease.LASTING * 1.1
    for module in (lease, generation):
        monkeypatch.setattr(module, "time_ns", lambda: time.time_ns() + int(offset * 1e9))
        monkeypatch.setattr(module, "sleep", sleep)
        monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + offset + slept)
    monkeypatch.setattr(lease, "HELD", set())
