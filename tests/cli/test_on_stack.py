"""`--on` with the store of a stack: executors read it, and write to it, themselves, through boto3, and say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pik.engine import DuckEngine
from pik.fleets.session import Session
from pik.model.aggregate import Aggregate
from pik.model.window import ALL_TIME
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.stack import Stack
from pik.usecases.ingest.api_request import record_request
from pik.usecases.replay.promote import promote
from tests.cli.test_ingest_on import archive, blanked
from tests.cli.test_on import (
    DAYS,
    DIFFS,
    EXPORTS,
    LAGS,
    METRICS,
    Run,
    diff_on,
    event,
    export_on,
    lag_on,
    verify_on,
    written,
)
from tests.support.aws.calls import hooked
from tests.support.aws.compacted import compact
from tests.support.aws.emulator import ENVIRONMENT, REGION, make_stack, publish
from tests.support.aws.processor import NOTICED, processing
from tests.support.aws.refusing import refusing
from tests.support.snapshot import snapshot
from tests.support.spark import LOCATION
from tests.support.stores import replayed

pytestmark = pytest.mark.xdist_group("spark")

Pik = Callable[..., Any]

SEGMENTS = "raw/event_date="
CLOCK = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\b01[0-9A-Z]{24}\b|--store \S+")


@pytest.fixture
def executors(spark: Session, aws: Clients, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of what executors run: they find the emulator, and credentials for it, there alone."""

    @contextmanager
    def driver(*_: object) -> Iterator[Session]:
        yield spark

    monkeypatch.setattr("pik.fleets.session.driver", driver)
    environment: dict[str, str] = spark.spark.sparkContext.environment
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": aws.client("s3").meta.endpoint_url}.items():
        monkeypatch.setitem(environment, name, value)
    return environment


@pytest.fixture(scope="module")
def filled() -> list[str]:
    """The store that tests which only read share, once one of them has made it."""
    return []


@pytest.fixture
def url(filled: list[str], aws: Clients, pik: Pik, monkeypatch: pytest.MonkeyPatch) -> str:
    """Promoted values of a first batch, and of requests that are packed; then late events, duplicates and conflicts
    across batches, a request that is not packed, and corrections."""
    monkeypatch.setattr(generation, "NOTICED", NOTICED)
    if filled:
        monkeypatch.setenv("PIK_STORE", filled[0])
        return filled[0]
    made = publish(aws, make_stack(aws))
    monkeypatch.setenv("PIK_STORE", made)
    Path("metrics.toml").write_text(METRICS)
    assert pik("metrics", "apply", "metrics.toml").code == 0
    first = [event(number, key=f"k{number}" if number % 5 == 0 else None) for number in range(300)]
    assert pik("ingest", written("first.jsonl", first)).code == 0
    store = open_store(made)
    for number in range(300, 330):
        record_request(store, json.dumps(event(number)).encode())
    assert compact(store)
    replayed(store, DuckEngine(threads=1))
    again = [event(number, key=f"k{number - 40}", event_time="1970-02-03T04:05:06Z") for number in range(40, 90, 5)]
    assert pik("ingest", written("second.jsonl", [*again, *(event(number) for number in range(280, 360))])).code == 0
    record_request(store, json.dumps(event(400)).encode())
    assert pik("correct", "--assume", "shift=2h,entity=e4", "--reason", "INC-1", "--yes").code == 0
    filled.append(made)
    return made


@pytest.fixture
def run(url: str, executors: dict[str, str], pik: Pik) -> Run:
    return lambda *words: (pik(*words, "--quiet"), pik(*words, "--quiet", "--on", LOCATION))


@pytest.fixture
def packed(pik: Pik, aws: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of these commands has the events of a few requests, of two days; those of all but one are packed."""
    monkeypatch.setattr(generation, "NOTICED", NOTICED)
    store = open_store(publish(aws, make_stack(aws)))
    monkeypatch.setenv("PIK_STORE", store.url)
    for number in range(0, 200, 20):
        record_request(store, json.dumps(event(number)).encode())
    assert compact(store)
    record_request(store, json.dumps(event(200)).encode())


@pytest.mark.usefixtures("packed", "executors")
def test_executors_read_a_packed_stack(pik: Pik) -> None:
    for words, code in ((("verify",), 0), (("diff", "aggregates"), 1)):
        here = pik(*words, "--format", "json", "--quiet")
        assert pik(*words, "--format", "json", "--quiet", "--on", LOCATION) == here
        assert here.code == code, here.err


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(DIFFS)))
def test_a_diff_is_the_same(run: Run, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    diff_on(run, DIFFS[number], number % 2 == 0, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), DAYS, ("--quick",), ("--full",)])
def test_a_verification_is_the_same(run: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    verify_on(run, None, options, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("options", LAGS)
def test_lags_are_the_same(run: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    lag_on(run, options, monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("url", "executors")
@pytest.mark.parametrize("options", EXPORTS)
def test_an_export_has_the_same_rows(pik: Pik, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    export_on(lambda *words: pik(*words, "--quiet"), options, monkeypatch)


@pytest.fixture
def two(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> list[Stack]:
    """Empty stacks: for what is done here, and on executors."""
    monkeypatch.setattr(generation, "NOTICED", NOTICED)
    stacks = [make_stack(aws), make_stack(aws)]
    for stack in stacks:
        publish(aws, stack)
    return stacks


@pytest.mark.slow
@pytest.mark.usefixtures("executors")
def test_objects_are_ingested_the_same(
    pik: Pik, two: list[Stack], aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executors read them, and create the segments."""
    monkeypatch.setattr("pik.usecases.ingest.bulk_plan.PART_IN_STACK", 9000)
    bucket = bucket_of(aws, archive(tmp_path / "archive"))
    created: list[str] = []
    create = AwsRaw.create

    def noted(raw: AwsRaw, key: str, data: bytes) -> None:
        created.append(key)
        create(raw, key, data)

    monkeypatch.setattr(AwsRaw, "create", noted)
    ran, by_driver = [], []
    for stack, where in zip(two, ((), ("--on", LOCATION)), strict=True):
        created.clear()
        words = "--store", f"aws://{stack.name}", "ingest", f"s3://{bucket}/x/**"
        lines = [blanked(pik(*words, "--format", "json", "--quiet", *where)) for _ in range(2)]
        ran.append([line.replace(stack.name, "") for line in chain(*lines)])
        by_driver.append([key for key in created if key.startswith(SEGMENTS)])
    assert ran[1] == ran[0]
    assert ran[0][0] == "exit 3"
    here, there = (open_store(f"aws://{stack.name}") for stack in two)
    assert snapshot(there) == snapshot(here)
    assert by_driver[0]
    assert by_driver[1] == []


@pytest.mark.slow
@pytest.mark.usefixtures("executors")
def test_a_replay_is_the_same(pik: Pik, two: list[Stack], tmp_path: Path) -> None:
    """As the stack's processors do it."""
    Path("metrics.toml").write_text(METRICS)
    ran, values = [], []
    for stack, where in zip(two, ((), ("--on", LOCATION)), strict=True):
        at = "--store", f"aws://{stack.name}"
        pik(*at, "metrics", "apply", "metrics.toml")
        assert pik(*at, "ingest", written("events.jsonl", [event(number) for number in range(300)])).code == 0
        with nullcontext() if where else processing(stack, tmp_path):
            done = pik(*at, "replay", "--all", "--promote", "--yes", "--format", "json", "--quiet", *where)
        ran.append([done.code, *CLOCK.sub("", f"{done.out}{done.err}".replace(stack.name, "")).splitlines()])
        store = open_store(f"aws://{stack.name}")
        values.append(
            [one.computed for name in ("event_count", "largest") for one in store.aggregates.current(name, ALL_TIME)]
        )
        assert store.queue.receive("any", 1) is None
        verified = pik(*at, "verify", "--quiet", *where)
        assert verified.code == 0, verified.out
    assert ran[1] == ran[0]
    assert values[1] == values[0]
    assert values[0]


@pytest.mark.slow
@pytest.mark.usefixtures("executors")
def test_promise_7_each_value_is_the_old_or_the_new_one(
    pik: Pik, two: list[Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads while what executors wrote is promoted, after whichever call."""
    url = f"aws://{two[0].name}"
    monkeypatch.setenv("PIK_STORE", url)
    for payload in ({"v": 1}, {"v": 2}):
        events = [
            event(40 * number + day, entity=f"c{number}", payload=payload) for number in range(60) for day in range(4)
        ]
        assert pik("ingest", written("events.jsonl", events)).code == 0
        done = pik("replay", "--all", "--format", "json", "--quiet", "--on", LOCATION)
        assert done.code == 0, done.err
        run_id = done.json()["run_id"]
        if payload["v"] == 1:
            assert pik("promote", run_id, "--yes").code == 0
    store, reader = open_store(url), open_store(url)

    def place(one: Aggregate) -> tuple[int, str]:
        return one.computed.bucket, one.computed.entity_id

    def current() -> dict[tuple[int, str], tuple[str, Any]]:
        found = reader.aggregates.current("event_count", ALL_TIME)
        return {place(one): (one.run_id, one.computed.value) for one in found}

    old = current()
    new = {place(one.written): (run_id, one.written.computed.value) for one in store.aggregates.changes(run_id)}
    assert (len(old), new.keys()) == (240, old.keys())
    moved: list[int] = []

    def read(**_: Any) -> None:
        found = current()
        assert found.keys() == old.keys()
        moved.append(sum(found[where] == new[where] for where in new))
        assert sum(found[where] == old[where] for where in old) == len(old) - moved[-1]

    with hooked(store, "after-call.dynamodb.BatchExecuteStatement", read):
        promote(store, run_id, 2, "")
    assert current() == new
    assert 0 < min(moved) < len(new)


def bucket_of(aws: Clients, folder: Path) -> str:
    """The name of a new bucket, which has what is below a folder."""
    bucket, s3 = f"archive-{uuid4().hex[:12]}", aws.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for path in folder.rglob("*.*"):
        s3.put_object(Bucket=bucket, Key=f"x/{path.relative_to(folder)}", Body=path.read_bytes())
    return bucket


NO_CREDENTIALS = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
NO_FILES = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/nowhere")
ROLE = "User: arn:aws:sts::123456789012:assumed-role/pik-jobs/1 is not authorized to perform: s3:ListBucket"
EXPIRED, DENIED = (400, "ExpiredToken", "The token has expired."), (403, "AccessDenied", ROLE)

LACKING: dict[str, tuple[dict[str, str], tuple[int, str, str] | None, str]] = {
    "credentials": ({**NO_CREDENTIALS, **NO_FILES}, None, "no usable AWS credentials: Unable to locate credentials"),
    "a route": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, None, r"cannot reach \w+: Could not connect .*"),
    "credentials that hold": ({}, EXPIRED, "the AWS credentials have expired"),
    "a permission": ({}, DENIED, rf".*S3 denies .*: {ROLE}"),
}
"""What executors lack: their variables, or the answer of their S3, and what the command says of it."""


@pytest.mark.slow
@pytest.mark.usefixtures("packed")
@pytest.mark.parametrize("lacking", LACKING)
def test_it_says_that_executors_lack_it(
    pik: Pik, aws: Clients, executors: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    variables, refusal, message = LACKING[lacking]
    bucket = bucket_of(aws, archive(tmp_path / "archive"))
    with refusing(*(refusal or DENIED)) as address:
        for name, value in (variables or {"AWS_ENDPOINT_URL_S3": address}).items():
            monkeypatch.setitem(executors, name, value)
        for words in (
            ("verify",),
            ("diff", "aggregates"),
            ("lag",),
            ("export", "--out", "out"),
            ("ingest", f"s3://{bucket}/x/*"),
            ("replay", "--all"),
        ):
            refused = pik(*words, "--quiet", "--on", LOCATION)
            assert (refused.code, refused.out) == (4, ""), words
            error, hint = refused.err.splitlines()
            assert re.fullmatch(rf"error: on an executor of {re.escape(LOCATION)}: {message}", error), words
            assert "docs/scale.md#access" in hint
        assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("packed")
def test_a_table_that_throttles_is_not_the_fault_of_executors(
    pik: Pik, executors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "ProvisionedThroughputExceededException"
    with refusing(400, code, "too much") as address:
        monkeypatch.setitem(executors, "AWS_ENDPOINT_URL_DYNAMODB", address)
        refused = pik("lag", "--quiet", "--on", LOCATION)
    error, hint = refused.err.splitlines()
    assert (refused.code, hint) == (4, "hint: run the same command again later")
    assert re.fullmatch(rf"error: DynamoDB refused \w+ \({code}\): too much", error)
