"""Where a name matches nothing, names that are written nearly so are asked about, from a bounded look at the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.model.delivery import Filter
from pik.rawlog import objects
from pik.stores import open_store
from pik.usecases.inspect import near_names
from pik.usecases.inspect.events import nothing_matches
from tests.cli.conftest import Result
from tests.support.regular import START, made

Pik = Callable[..., Result]


@pytest.fixture
def shop(pik: Pik) -> Pik:
    events = [made("warehouse", START, START, number, f"customer-{number}") for number in range(40)]
    Path("events.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert pik("ingest", "events.jsonl").code == 0
    return pik


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (("--entity", "custmer-17"), "0 events match; did you mean 'customer-17'?\n"),
        (("--entity", "customer-*"), "0 events match; 'customer-*' is looked for as one entity, as it stands\n"),
        (("--entity", "a,b"), "0 events match; 'a,b' is looked for as one entity, as it stands\n"),
        (("--entity", "CUSTOMER-17"), "0 events match; did you mean 'customer-17'?\n"),
        (("--entity", "customer-99"), "0 events match\n"),  # another one, not a misspelt one
        (("--entity", "nobody"), "0 events match\n"),
        (("--source", "warehose"), "0 events match; did you mean --source warehouse?\n"),
        (("--type", "piad"), "0 events match; did you mean --type paid?\n"),
        (("--type", "payed"), "0 events match; did you mean --type paid?\n"),
        (("--type", "refunded"), "0 events match\n"),
        (("--source", "warehouse", "--type", "Paid"), "0 events match; did you mean --type paid?\n"),
    ],
)
def test_names_that_are_written_nearly_so_are_asked_about(shop: Pik, wanted: tuple[str, ...], said: str) -> None:
    result = shop("events", *wanted)
    assert (result.code, result.err) == (0, said)


def test_errors_about_nothing_ask_likewise(shop: Pik) -> None:
    for line in ("explain event_count custmer-17 2026-01-01", "diff aggregates --entity custmer-17"):
        assert shop(*line.split()).err.endswith("\nhint: did you mean 'customer-17'?\n")
    assert "did you mean" not in shop("explain", "event_count", "customer-17", "2026-01-02").err
    assert shop("gaps", "--source", "warehose").err.endswith("\nhint: did you mean --source warehouse?\n")


def test_a_name_in_another_unicode_form_is_asked_about(shop: Pik, tmp_path: Path) -> None:
    line = {
        "source": "s",
        "event_type": "t",
        "entity_id": "d\u00e9",
        "event_time": "2026-01-01T00:00:00Z",
        "payload": {},
    }
    (tmp_path / "e.jsonl").write_text(json.dumps(line) + "\n")
    shop("ingest", "e.jsonl")
    error = shop("explain", "event_count", "de\u0301", "2026-01-01").err
    assert error.endswith(
        "hint: did you mean 'd\u00e9'? (its letters look the same, and are in another Unicode form)\n"
    )


def test_an_entity_that_looks_like_an_option_is_named_with_the_line_to_type(shop: Pik) -> None:
    error = shop("explain", "revenue", "--events", "--bo", "2026-01-03", "--as-of", "2026-01-05").err
    assert error.endswith("after --: pik explain --events --as-of 2026-01-05 -- revenue --bo 2026-01-03\n")
    assert "after --" not in shop("events", "--bo").err


def test_the_look_at_the_store_is_bounded(shop: Pik, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    def counted(*given: Any) -> list[bytes]:
        read.append(given)
        return objects.frame_lines(*given)

    monkeypatch.setattr(near_names, "_FRAMES_SEARCHED", 2)
    monkeypatch.setattr(near_names, "frame_lines", counted)
    for number in range(5):
        Path("more.jsonl").write_text(json.dumps(made("app", START, START, number, f"more-{number}")))
        assert shop("ingest", "more.jsonl").code == 0
    store = open_store(".pik")
    assert nothing_matches("events", store, Filter(event_type="piad")).endswith("did you mean --type paid?")
    assert len(read) == 2
