"""A store with a few events in it, and an engine in plain Python that is easy to believe and easy to break."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.inputs import blocks as blocks_module
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.metrics.definitions import add_version
from tests.support.stores import SUM, PlainEngine, ingest


@pytest.fixture
def engine() -> PlainEngine:
    return PlainEngine()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Empty, but for the metric `total`."""
    made = open_store(str(tmp_path / "store"), create=True)
    add_version(made.metrics, SUM, 1)
    return made


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """With the kit's EVENTS."""
    ingest(store, tmp_path)
    return store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.fixture
def blocks_of_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are cut into many blocks."""
    monkeypatch.setattr(blocks_module, "BLOCK", 400)
    monkeypatch.setattr(blocks_module, "FIRST_READ", 100)
