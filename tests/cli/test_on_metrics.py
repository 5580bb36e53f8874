"""`diff aggregates --on`: each metric of docs/metrics.md, an example or what to write instead, has the same values on a
fleet as in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pik.fleets.here import Here
from pik.fleets.session import Session
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from tests.engine.test_docs import EXAMPLES, REFUSED
from tests.support.fleet import RepeatingFleet
from tests.support.spark import LOCATION

pytestmark = pytest.mark.xdist_group("spark")

INSTEAD = dict.fromkeys(value for _, value in REFUSED if value)


def event(number: int) -> dict[str, object]:
    """One of ten days, of few entities; some lack an amount, one has a text for it."""
    payload: dict[str, object] = {
        "currency": "EUR" if number % 4 else "USD",
        "session": f"s{number % 13}",
        "orders": number % 3,
        "visits": number % 5,
        "limit": "7.5",
        "at": f"2026-03-{1 + number % 9:02}T08:00:00+02:00",
        "a": number,
        **({"amount": f"{number}.{number % 100:02}"} if number % 7 else {}),
    }
    return {
        "source": f"shop-{number % 2}",
        "event_type": "order_paid" if number % 3 else "order_placed",
        "entity_id": f"e{number % 5}",
        "event_time": f"2026-03-{1 + number % 10:02}T{number % 24:02}:30:00Z",
        "received_time": f"2026-03-{1 + number % 10:02}T{number % 24:02}:30:{number % 60:02}.000001Z",
        "payload": payload,
    }


def written(name: str, numbers: range, *more: dict[str, object]) -> str:
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in [*map(event, numbers), *more]))
    return name


@pytest.fixture
def filled(pik: Callable[..., Any], once: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make() -> None:
        pik("init")
        plain = [f'[[metric]]\nname = "instead_{at}"\nvalue = """{value}"""' for at, value in enumerate(INSTEAD)]
        for at, text in enumerate([*EXAMPLES, "\n".join(plain)]):
            Path(f"{at}.toml").write_text(text)
            assert pik("metrics", "apply", f"{at}.toml").code == 0
        strange = {**event(1), "payload": {"amount": "a text", "at": "never", "a": 1 << 64}}
        assert pik("ingest", written("first.jsonl", range(60))).code == 0
        assert pik("ingest", written("second.jsonl", range(50, 80), strange)).code == 0

    once(make)
    monkeypatch.setattr("pik.usecases.metrics.diff.BYTES_AT_ONCE", 40_000)
    monkeypatch.setattr("pik.usecases.metrics.compare_stretches.SHARE_BYTES", 4000)
    return pik


def expect_same(pik: Callable[..., Any], metrics: set[str]) -> None:
    """Nothing is current yet, so that each value is a difference."""
    chosen = [word for name in sorted(metrics) for word in ("--metric", name)]
    here = pik("diff", "aggregates", *chosen, "--format", "json")
    assert pik("diff", "aggregates", *chosen, "--format", "json", "--on", LOCATION) == here
    assert here.code == 3  # some cannot be computed: an amount is a text
    assert {one["metric"] for one in here.json()["differences"]} == metrics


def applied(pik: Callable[..., Any]) -> set[str]:
    return {one["name"] for one in pik("metrics", "list", "--format", "json").json()["metrics"]}


@pytest.fixture
def on_repeating(filled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    @contextmanager
    def opened(location: str, store: Store, engine: Engine, *_: object) -> Iterator[Fleet]:
        yield RepeatingFleet(store, engine) if location == LOCATION else Here(store, engine)

    monkeypatch.setattr("pik.fleets.open_fleet", opened)
    return filled


def test_examples_are_the_same_whatever_is_repeated(on_repeating: Callable[..., Any]) -> None:
    expect_same(on_repeating, {name for name in applied(on_repeating) if not name.startswith("instead_")})


@pytest.mark.slow
def test_all_are_the_same_whatever_is_repeated(on_repeating: Callable[..., Any]) -> None:
    expect_same(on_repeating, applied(on_repeating))


@pytest.mark.slow
def test_all_are_the_same_on_spark(filled: Callable[..., Any], spark: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def driver(*_: object) -> Iterator[Session]:
        yield spark

    monkeypatch.setattr("pik.fleets.session.driver", driver)
    expect_same(filled, applied(filled))
