"""`--on`: a command says the same on a fleet as in this process, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pik.cli.clusters import without_cluster
from pik.engine import DuckEngine
from pik.fleets.here import Here
from pik.fleets.session import Session
from pik.model.window import ALL_TIME
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.stores import open_store
from pik.usecases.metrics.diff import diff_aggregates
from tests.support.exports import rows_of
from tests.support.fleet import RepeatingFleet
from tests.support.spark import LOCATION, require_spark

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
[[metric]]
name = "none"
where = "event_type = 'piad'"
value = "count(*)"
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


Run = Callable[..., tuple[Any, Any]]
"""Runs a command in this process and on a fleet."""


@pytest.fixture
def on_spark(filled: Callable[..., Any], spark: Session, monkeypatch: pytest.MonkeyPatch) -> Run:
    @contextmanager
    def driver(*_: object) -> Iterator[Session]:
        yield spark

    monkeypatch.setattr("pik.fleets.session.driver", driver)
    return lambda *arguments: (filled(*arguments), filled(*arguments, "--on", LOCATION))


@pytest.fixture
def on_repeating(filled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    @contextmanager
    def opened(location: str, store: Store, engine: Engine, *_: object) -> Iterator[Fleet]:
        yield RepeatingFleet(store, engine) if location == LOCATION else Here(store, engine)

    monkeypatch.setattr("pik.fleets.open_fleet", opened)
    return lambda *arguments: (filled(*arguments), filled(*arguments, "--on", LOCATION))


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
    ("--metric", "none"),
]


QUICK = [(1, True), (2, False), (5, True), (6, True), (10, False)]


def diff_on(run: Run, options: tuple[str, ...], shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stretch by one task, or by several that compute a share of it each."""
    monkeypatch.setattr("pik.usecases.metrics.diff.BYTES_AT_ONCE", 20_000)
    monkeypatch.setattr("pik.usecases.metrics.compare_stretches.SHARE_BYTES", 5000 if shared else 1 << 30)
    monkeypatch.setattr("pik.usecases.metrics.causes.ON_FLEET", 100)
    written("more.jsonl", [event(number) for number in range(1000, 1020)])
    Path("numbers.csv").write_text("bucket,entity_id,revenue\n1970-01-04,e1,12.5\n1970-01-05,hot,1\n1970-01-05,x,1\n")
    here, there = run("diff", "aggregates", *options, "--format", "json")
    assert there == here
    assert here.code in (1, 2, 3), here.err


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        pytest.param(options, shared, marks=[] if (number, shared) in QUICK else [pytest.mark.slow])
        for number, options in enumerate(DIFFS)
        for shared in (False, True)
    ],
)
def test_a_diff_is_the_same_whatever_is_repeated(
    on_repeating: Run, options: tuple[str, ...], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    diff_on(on_repeating, options, shared, monkeypatch)


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        (DIFFS[1], True),
        *(pytest.param(one, shared, marks=pytest.mark.slow) for one in DIFFS for shared in (False, True)),
    ],
)
def test_a_diff_is_the_same_on_spark(
    on_spark: Run, options: tuple[str, ...], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    diff_on(on_spark, options, shared, monkeypatch)


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_flipped_bit_says_the_same(on_repeating: Run, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    on_repeating("status")
    damaged = max(Path(".pik/raw").rglob("*.ndjson.zst"), key=lambda path: path.stat().st_size)
    damaged.chmod(0o600)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    diff_on(on_repeating, ("--explain",), shared, monkeypatch)


def test_what_is_recorded_meanwhile_does_not_count(filled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Until when deliveries count is fixed once, so that a task that is run again, or late, computes the same."""
    monkeypatch.setattr("pik.usecases.metrics.diff.BYTES_AT_ONCE", 20_000)
    asked: dict[str, Any] = {"metrics": ["revenue", "event_count"]}
    store, engine = open_store(".pik"), DuckEngine(threads=1)
    before = list(diff_aggregates(store, engine, ALL_TIME, **asked).rows)
    numbers = count(2000)

    def more() -> None:
        assert filled("ingest", written("more.jsonl", [event(next(numbers)) for _ in range(5)])).code == 0

    fleet = RepeatingFleet(store, engine, before=more)
    assert list(diff_aggregates(store, engine, ALL_TIME, **asked, fleet=fleet).rows) == before
    assert next(numbers) > 2000
    assert list(diff_aggregates(store, engine, ALL_TIME, **asked).rows) != before


EXPORTS = [
    ("--partition-by", "event_date,source", "--include-duplicates", "--column", "v=v:decimal(38,6)"),
    ("--as", "csv", "--from", "1969-12-03T12:00:00Z", "--to", "1970-01-10", "--entity", "hot", "--entity", "e4"),
    ("--as", "jsonl", "--as-received"),
    ("--partition-by", "event_date", "--timezone", "Europe/Berlin", "--dry-run"),
    ("--column", "v=kind:int64"),
    ("--from", "1990-01-01", "--fail-if-none"),
]


def export_on(filled: Callable[..., Any], options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and totals are the same, in other files."""
    monkeypatch.setattr("pik.usecases.export.fleet.TASK_BYTES", 3000)
    here = filled("export", "--out", "here", *options, "--format", "json")
    there = filled("export", "--out", "there", *options, "--format", "json", "--on", LOCATION)
    notes = [line for line in there.err.splitlines() if not line.startswith("exporting to there: ")]
    assert (there.code, notes) == (here.code, here.err.splitlines())
    if here.code == 2:
        return
    found, expected = json.loads(there.out), json.loads(here.out)
    files = [found.pop("files"), expected.pop("files")]
    for one in (found, expected):
        del one["out"], one["manifest"], one["bytes"]
    assert found == expected
    if files[1]:
        assert len(files[0]) > len(files[1]) or "--partition-by" in options
        format_: Any = found["format"]
        assert rows_of(Path("there"), format_) == rows_of(Path("here"), format_)


@pytest.mark.parametrize("options", EXPORTS)
def test_an_export_has_the_same_rows_whatever_is_repeated(
    filled: Callable[..., Any], on_repeating: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_on(filled, options, monkeypatch)


@pytest.mark.parametrize("options", [EXPORTS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in EXPORTS[1:])])
def test_an_export_has_the_same_rows_on_spark(
    filled: Callable[..., Any], on_spark: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_on(filled, options, monkeypatch)


WITH_ON = {
    "diff aggregates": (),
    "export": ("--out", "out"),
    "ingest": ("events.jsonl",),
    "lag": (),
    "replay": ("--all",),
    "verify": (),
}


def test_a_text_that_is_not_a_location_is_refused_before_anything_is_done(pik: Callable[..., Any]) -> None:
    assert set(WITH_ON) == set(without_cluster("pik").hint.removeprefix("it goes with ").split(", "))
    written("events.jsonl", [event(1)])
    for name, options in WITH_ON.items():
        for location in ("local-cluster[2", "local-cluster[0,1,1024]", "spark://", "sc://", "nowhere", "yarn"):
            refused = pik(*name.split(), *options, "--on", location)
            assert (refused.code, refused.out) == (2, ""), name
            assert refused.err.startswith("error: --on: ")
            assert repr(location) in refused.err
    assert [path.name for path in Path().iterdir()] == ["events.jsonl"]


@pytest.mark.parametrize(
    ("location", "cluster", "message"),
    [
        ("spark-submit", "", "was not started by spark-submit"),
        ("spark://nowhere:7077", '[cluster]\narchive = "gone.tar.gz"\n', "cluster.archive: no file "),
        (LOCATION, '[cluster.spark]\n"spark.master" = "local"\n', "spark.master is what --on says: "),
    ],
)
def test_an_ingest_creates_no_store_where_there_can_be_no_cluster(
    pik: Callable[..., Any], location: str, cluster: str, message: str
) -> None:
    written("events.jsonl", [event(1)])
    Path("pik.toml").write_text(cluster)
    refused = pik("ingest", "events.jsonl", "--on", location)
    assert refused.code == 2
    assert message in refused.err
    assert not Path(".pik").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PATH": "/nowhere"}, "needs Java: there is no java on the path"),
        ({"JAVA_HOME": "/nowhere"}, "needs Java: JAVA_HOME is /nowhere, which has no bin/java"),
    ],
)
def test_a_machine_without_java(
    pik: Callable[..., Any], variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_spark()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    written("events.jsonl", [event(1)])
    refused = pik("ingest", "events.jsonl", "--on", LOCATION)
    assert refused.code == 2
    assert message in refused.err
    assert not Path(".pik").exists()


def test_what_several_machines_cannot_write_is_refused(pik: Callable[..., Any]) -> None:
    for out, what in (("e.csv", "a single file"), ("-", "standard output")):
        refused = pik("export", "--out", out, "--as", "csv", "--on", LOCATION)
        assert refused.code == 2
        assert f"each task of a cluster writes its own files, and {out} is {what}" in refused.err
        assert "leave --on out" in refused.err
    Path("full").mkdir()
    Path("full/mine").touch()
    pik("init")
    for on in ("local", "spark://nowhere:1"):
        refused = pik("export", "--out", "full", "--on", on)
        assert (refused.code, refused.err.splitlines()[0]) == (2, f"error: {Path('full').absolute()} is not empty")


def segments(day: str = "*") -> list[Path]:
    return sorted(Path(".pik/raw").glob(f"event_date={day}/*"))


def flip() -> None:
    path = segments("1970-01-04")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def lose() -> None:
    for path in (segments()[0], segments()[-1], segments("1970-01-04")[-1]):
        path.unlink()


def leave_unlisted() -> None:
    path = segments("1970-01-04")[0]
    (path.parent / f"01{'0' * 24}-0.ndjson.zst").write_bytes(path.read_bytes())


DAYS = ("--from", "1970-01-03", "--to", "1970-01-05")

Damage = Callable[[], None] | None

VERIFICATIONS: list[tuple[Damage, tuple[str, ...]]] = [
    (flip, DAYS),
    (None, ()),
    (flip, ()),
    (lose, ()),
    (lose, ("--quick",)),
    (leave_unlisted, DAYS),
]


def verify_on(run: Run, damage: Damage, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Days in shares."""
    monkeypatch.setattr("pik.usecases.care.verify_days._SHARE_OBJECTS", 2)
    if damage:
        damage()
    here, there = run("verify", *options, "--format", "json", "--quiet")
    assert there == here
    assert here.code == (1 if damage in (flip, lose) else 0), here.out


@pytest.mark.parametrize(
    ("damage", "options"),
    [
        *(VERIFICATIONS[number] for number in (0, 3)),
        *(pytest.param(*VERIFICATIONS[number], marks=pytest.mark.slow) for number in (1, 2, 4, 5)),
    ],
)
def test_a_verification_is_the_same_whatever_is_repeated(
    on_repeating: Run, damage: Damage, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_on(on_repeating, damage, options, monkeypatch)


@pytest.mark.parametrize(
    ("damage", "options"),
    [VERIFICATIONS[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in VERIFICATIONS[1:])],
)
def test_a_verification_is_the_same_on_spark(
    on_spark: Run, damage: Damage, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_on(on_spark, damage, options, monkeypatch)


LAGS = [
    (*DAYS, "--by", "payload.kind", "--warn-after", "1h", "--error-after", "1000000d"),
    ("--by", "batch"),
    ("--by", "hour", "--as-received"),
    ("--entity", "hot", "--entity", "nobody"),
    ("--source", "nobody"),
]


def lag_on(run: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pik.usecases.timing.lag.SHARE_BYTES", 5000)
    here, there = run("lag", *options, "--format", "json")
    assert there == here
    assert here.code == 0, here.err


@pytest.mark.parametrize("options", [*LAGS[:2], *(pytest.param(one, marks=pytest.mark.slow) for one in LAGS[2:])])
def test_lags_are_the_same_whatever_is_repeated(
    on_repeating: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lag_on(on_repeating, options, monkeypatch)


@pytest.mark.parametrize("options", [LAGS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in LAGS[1:])])
def test_lags_are_the_same_on_spark(on_spark: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    lag_on(on_spark, options, monkeypatch)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("verify", "--continue"), "a file here"),
        (("verify", "--rebuild-index"), "write, which one process does"),
        (("verify", "--restore", "copy"), "write, which one process does"),
        (("verify", "bundle.tar.zst"), "as a whole"),
        (("lag", "--skew"), "in their order"),
        (("lag", "--late"), "single values"),
    ],
)
def test_what_a_cluster_does_not_do_is_refused(
    filled: Callable[..., Any], command: tuple[str, ...], reason: str
) -> None:
    refused = filled(*command, "--on", "spark://nowhere:7077")
    assert refused.code == 2
    assert reason in refused.err
