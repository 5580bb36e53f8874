"""Handlers over a local store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pik import lambdas
from pik.stores import open_store
from tests.support.lambdas.calls import Buffered, wire


@pytest.fixture
def store(tmp_path, monkeypatch):
    made = open_store(str(tmp_path / "store"), create=True)
    wire(monkeypatch, made)
    return made


@pytest.fixture
def buffer(monkeypatch):
    """The queue of buffered requests."""
    made = Buffered()
    monkeypatch.setattr(lambdas, "buffer", lambda: made)
    return made


@pytest.fixture
def later(monkeypatch):
    """What the replay function had itself called with."""
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(lambdas, "call_again", lambda event: called.append(json.loads(json.dumps(event))))
    return called
