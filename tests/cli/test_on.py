"""`--on`: a command says the same on a Spark cluster as in this process, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pik.fleets.session import Session
from tests.support.spark import LOCATION

pytestmark = pytest.mark.xdist_group("spark")

METRICS = """
[[metric]]
name = "revenue"
value = "sum((payload->>'v')::DECIMAL(38, 6))"
[[metric]]
name = "largest"
value = "max((payload->>'v')::DECIMAL(38, 6))"
bucket = "7d"
[[metric]]
name = "kinds"
value = "count(DISTINCT payload->>'kind')"
bucket = "1mo"
timezone = "America/New_York"
[[metric]]
name = "everyone"
value = "count(DISTINCT entity_id)"
per = "all"
bucket = "1h"
[[metric]]
name = "whole"
value = "sum((payload->>'kind')::BIGINT)"
"""


def event(number: int, *, entity: str | None = None, key: str | None = None, **changed: object) -> dict[str, object]:
    """One of forty days from the end of 1969 on, of few entities, the first of which has most events."""
    made: dict[str, object] = {
        "source": "web",
        "event_type": "paid",
        "entity_id": entity or (f"e{number % 9}" if number % 3 else "hot"),
        "event_time": f"19{'69-12' if number % 40 < 20 else '70-01'}-{1 + number % 20:02}T{number % 24:02}:30:00Z",
        "payload": {"v": number / 8, "kind": f"{number % 7}", "number": number},
    }
    return {**made, **({} if key is None else {"idempotency_key": key}), **changed}


def written(name: str, events: list[dict[str, object]], *lines: str) -> str:
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in events) + "".join(f"{line}\n" for line in lines))
    return name


@pytest.fixture
def filled(pik: Callable[..., Any], once: Callable[..., None]) -> Callable[..., Any]:
    """Promoted values of a first batch; then late events, duplicates and conflicts across batches, keys that come again
    on other days, numbers of 24 digits, a text that is not a number, and corrections: one withdraws a batch."""

    def make() -> None:
        Path("metrics.toml").write_text(METRICS)
        pik("init")
        assert pik("metrics", "apply", "metrics.toml").code == 0
        first = [event(number, key=f"k{number}" if number % 5 == 0 else None) for number in range(600)]
        assert pik("ingest", written("first.jsonl", first)).code == 0
        assert pik("replay", "--all", "--promote", "--yes").code == 0
        keyed = [event(number, key=f"k{number - 40}", event_time="1970-02-03T04:05:06Z") for number in range(40, 90, 5)]
        late = [event(number) for number in range(500, 700)]
        lines = [
            json.dumps(event(800, payload="P")).replace('"P"', '{"v": 123456789012345678.123456, "kind": "3"}'),
            json.dumps(event(801, payload={"v": "1.5", "kind": "not a number"})),
        ]
        assert pik("ingest", written("second.jsonl", [*late, *keyed], *lines)).code == 0
        assert pik("ingest", written("third.jsonl", [event(number) for number in range(900, 930)])).code == 0
        batch = pik("batches", "--format", "json").json()["batches"][0]["batch_id"]
        for assumed in ("shift=2h,entity=e4", f"without-batch={batch}"):
            assert pik("correct", "--assume", assumed, "--reason", "INC-1", "--yes").code == 0

    once(make)
    return pik


@pytest.fixture
def on_spark(
    filled: Callable[..., Any], spark: Session, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, Any]]:
    """Runs a command in this process and on the cluster."""

    @contextmanager
    def driver(*_: object) -> Iterator[Session]:
        yield spark

    monkeypatch.setattr("pik.fleets.session.driver", driver)

    def run(*arguments: object) -> tuple[Any, Any]:
        return filled(*arguments), filled(*arguments, "--on", LOCATION)

    return run


DIFFS = [
    (),
    ("--explain",),
    ("--explain", "--total"),
    ("--by", "bucket", "--tolerance", "5%"),
    ("--entity", "hot", "--entity", "nobody", "--stats"),
    ("--metric", "revenue", "--assume", "shift=1d,entity=hot", "--assume", "with=@more.jsonl"),
    ("--against", "numbers.csv", "--metric", "revenue"),
    ("--left", "current@2100-01-01T00:00:00Z", "--changed-only"),
    ("--metric", "unknown"),
    ("--since", "1h"),
]


def marked(number: int, *, shared: bool) -> list[pytest.MarkDecorator]:
    """One of them is quick enough for every run of the tests."""
    return [] if (number, shared) == (1, True) else [pytest.mark.slow]


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        pytest.param(options, shared, marks=marked(number, shared=shared))
        for number, options in enumerate(DIFFS)
        for shared in (False, True)
    ],
)
def test_a_diff_is_the_same(
    on_spark: Callable[..., tuple[Any, Any]],
    options: tuple[str, ...],
    shared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each stretch by one task, and by several that compute a share of it each."""
    monkeypatch.setattr("pik.usecases.metrics.diff.BYTES_AT_ONCE", 20_000)
    monkeypatch.setattr("pik.usecases.metrics.compare_stretches.SHARE_BYTES", 5000 if shared else 1 << 30)
    monkeypatch.setattr("pik.usecases.metrics.causes.ON_FLEET", 100)
    written("more.jsonl", [event(number) for number in range(1000, 1020)])
    Path("numbers.csv").write_text("bucket,entity_id,revenue\n1970-01-04,e1,12.5\n1970-01-05,hot,1\n1970-01-05,x,1\n")
    here, there = on_spark("diff", "aggregates", *options, "--format", "json")
    assert there.out == here.out
    assert there.code == here.code
    assert there.err == here.err
    assert here.code in (1, 2, 3), here.err
