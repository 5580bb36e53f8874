"""`--on emr-serverless://…`: a job says what this process says, with the same exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from pik.cli import jobs
from pik.errors import StoreError
from pik.stores.aws import emr
from pik.stores.aws.clients import Clients
from tests.support.aws.emr import APPLICATION, BEFORE, LOCATION, ROLE, Emr, Refusal, emr_serverless, on_spark
from tests.support.aws.emulator import REGION, make_stack, publish
from tests.support.aws.policy import as_list
from tests.support.docs.console import REPOSITORY

Pik = Callable[..., Any]


def event(number: int) -> dict[str, object]:
    return {
        "source": "web",
        "event_type": "paid",
        "entity_id": f"e{number % 5}",
        "event_time": f"2026-01-0{1 + number % 3}T00:00:00Z",
        "payload": {"v": number},
    }


def written(name: str, events: list[dict[str, object]]) -> str:
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in events))
    return name


@pytest.fixture(scope="module")
def url(aws: Clients) -> str:
    """The store of a stack."""
    return f"{publish(aws, make_stack(aws))}?region={REGION}"


@pytest.fixture
def bucket(aws: Clients) -> str:
    name = f"archives-{uuid4().hex[:8]}"
    aws.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.client("s3").put_object(Bucket=name, Key="jobs/pik.tar.gz", Body=b"packed")
    return name


@pytest.fixture
def stack(pik: Pik, url: str, bucket: str) -> Pik:
    """Runs pik on the stack, which has events and no values."""
    Path("pik.toml").write_text(
        f'store = "{url}"\n[cluster]\narchive = "s3://{bucket}/jobs/pik.tar.gz"\nparallelism = 3\n'
        '[cluster.spark]\n"spark.executor.memory" = "1g"\n"spark.driver.extraJavaOptions" = "-Da=\'b c\' -Dd=$e"\n'
    )
    assert pik("ingest", written("events.jsonl", [event(number) for number in range(30)])).code == 0
    return pik


@pytest.fixture
def service(aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emr]:
    monkeypatch.setattr(emr, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(emr, "LONGEST_WAIT", 0.2)
    directory = tmp_path / "service"
    directory.mkdir()
    with emr_serverless(aws, directory) as made:
        yield made


def left(service: Emr, bucket: str) -> list[str]:
    """What lies beside the archive."""
    found = service.clients.client("s3").list_objects_v2(Bucket=bucket, Prefix="jobs/pik-jobs/").get("Contents", ())
    return [one["Key"].removeprefix("jobs/pik-jobs/") for one in found]


def notes(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("job ")]


def same(stack: Pik, service: Emr, *words: str) -> Any:
    """Expect that a job says what this process says."""
    here, there = stack(*words), stack(*words, "--on", LOCATION)
    log = service.job.log.read_text() if service.job.log.is_file() else ""
    waiting = "job ", "waiting for an executor"
    said = "".join(f"{line}\n" for line in there.err.splitlines() if not line.startswith(waiting))
    assert (there.code, there.out, said) == (here.code, here.out, here.err), log + there.err
    return there


def actions(bucket: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The actions that calls take from now on, those on objects of the bucket alone."""
    found: set[str] = set()
    real = Clients.client

    def seen(params: Any, model: Any, **_: Any) -> None:
        operation = {"HeadObject": "GetObject", "ListObjectsV2": "ListBucket"}.get(model.name, model.name)
        service = model.service_model.service_name
        if service == "emr-serverless" or params.get("Bucket") == bucket:
            found.add(f"{service}:{operation}")

    def client(self: Clients, service: str) -> Any:
        made = real(self, service)
        made.meta.events.register("provide-client-params", seen, unique_id="seen")
        return made

    monkeypatch.setattr(Clients, "client", client)
    return found


def policy(name: str) -> dict[str, list[str]]:
    """The actions by Sid of a policy in docs/iam.md."""
    text = (REPOSITORY / "docs/iam.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"<!-- jobs:{name} -->\n```json\n(.*?)```", text, re.DOTALL)
    return {one["Sid"]: as_list(one["Action"]) for one in json.loads(found)["Statement"]}


def test_a_job_says_the_same_and_leaves_nothing(
    stack: Pik, service: Emr, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a file, the notes of its states, an exit code that is no failure of the job, and the calls that docs/iam.md
    names."""
    called = actions(bucket, monkeypatch)
    Path("more").mkdir()
    written("more/late.jsonl", [event(number) for number in range(40, 45)])
    found = same(stack, service, "diff", "aggregates", "--assume", "with=@more/late.jsonl", "--format", "json")
    assert found.code == 1
    states = [line.rpartition(": ")[2] for line in notes(found.err)]
    assert states[1:] == ["queued", "pending", "scheduled", "running", "success"]
    [entry] = left(service, bucket)
    assert entry.startswith("entry-")
    asked = service.job.asked
    assert asked["jobDriver"]["sparkSubmit"]["entryPoint"] == f"s3://{bucket}/jobs/pik-jobs/{entry}"
    [defaults] = asked["configurationOverrides"]["applicationConfiguration"]
    assert defaults["properties"]["spark.driver.extraJavaOptions"] == "-Da='b c' -Dd=$e"
    named = {one for actions in policy("caller").values() for one in actions}
    assert called == named - {"emr-serverless:CancelJobRun", "iam:PassRole"}
    assert policy("role").keys() == {"FetchArchive", "ShareFilesOfJobs", "FindArchive"}


@pytest.mark.slow
@pytest.mark.xdist_group("spark alone")
def test_a_job_on_spark_says_the_same(stack: Pik, service: Emr) -> None:
    service.start = on_spark
    assert same(stack, service, "diff", "aggregates", "--format", "json").code == 1


@pytest.mark.slow
def test_settings_and_now_are_those_of_the_caller(
    stack: Pik, service: Emr, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of the store, which hints repeat; format, zone and moment."""
    text = Path("pik.toml").read_text()
    Path("pik.toml").write_text(f'{text}[stores]\nprod = "{url}"\n')
    monkeypatch.setattr("pik.cli.command.now", lambda: 1_770_000_000_000_000_000)
    for name, value in {"PIK_FORMAT": "md", "PIK_DISPLAY_TIMEZONE": "Europe/Berlin"}.items():
        monkeypatch.setenv(name, value)
    found = same(stack, service, "--store", "prod", "diff", "aggregates", "--since", "365d")
    assert "pik --store prod replay" in found.out


@pytest.mark.slow
def test_an_ingest_reads_as_pik_toml_says(
    stack: Pik, service: Emr, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"who": f"a{number}", "at": f"2026-02-01T00:00:0{number}Z"} for number in range(5)]
    lines = "\n".join([*map(json.dumps, records), '{"who": 1}'])
    service.clients.client("s3").put_object(Bucket=bucket, Key="in/a.jsonl", Body=lines.encode())
    with Path("pik.toml").open("a") as file:
        file.write('[ingest.map]\nsource = "\'sh\\"op\'"\nevent_type = "\'o\'"\nentity_id = "who"\n')
        file.write('event_time = "at"\npayload = "@"\n')
    monkeypatch.setenv("PIK_ACTOR", "ana@example.com")
    done = stack("ingest", f"s3://{bucket}/in/*", "--on", LOCATION, "--format", "json", "--quiet")
    assert done.code == 3, done.err
    assert not notes(done.err)
    batch = done.json()
    assert (batch["accepted"], batch["rejected"]) == (5, 1)
    shown = stack("batches", batch["batch_id"], "--format", "json").json()
    assert "ana@example.com" in json.dumps(shown)
    assert 'sh\\"op' in stack("events", "--entity", "a0", "--format", "json").out


@pytest.mark.slow
def test_a_replay_is_confirmed_before_it_starts(stack: Pik, service: Emr, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("replay", "--all", "--promote", "--on", LOCATION, "--format", "json")
    for on_terminal in (False, True):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda on_terminal=on_terminal: on_terminal))
        refused = stack(*words)
        assert (refused.code, service.calls) == (2, [])
        assert "confirmation required" in refused.err
    done = stack(*words, "--yes")
    assert (done.code, done.json()["resumed"]) == (0, False), done.err


@pytest.mark.slow
@pytest.mark.parametrize("state", [*BEFORE, "RUNNING"])
def test_ctrl_c_cancels_in_every_state(
    stack: Pik, service: Emr, bucket: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.hold = state

    def interrupted(seconds: float) -> None:
        if service.job.state == state and "CancelJobRun" not in service.calls:
            raise KeyboardInterrupt
        time.sleep(min(seconds, 0.01))

    monkeypatch.setattr("pik.stores.aws.emr.sleep", interrupted)
    ended = stack("lag", "--on", LOCATION)
    assert (ended.code, ended.out, service.job.state) == (130, "", "CANCELLED")
    assert ended.err.splitlines()[-1] == "interrupted; run the same command again"
    assert all(one.startswith("entry-") for one in left(service, bucket))


@pytest.mark.slow
def test_ctrl_c_while_it_starts_cancels_it(stack: Pik, service: Emr, monkeypatch: pytest.MonkeyPatch) -> None:
    real = emr._Job._call
    monkeypatch.setattr("pik.stores.aws.emr.sleep", lambda _: None)

    def call(job: Any, operation: str, **request: Any) -> Any:
        answer = real(job, operation, **request)
        if service.calls == ["StartJobRun"]:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(emr._Job, "_call", call)
    assert stack("lag", "--on", LOCATION).code == 130
    assert service.calls[:3] == ["StartJobRun", "StartJobRun", "CancelJobRun"]
    assert service.job.state == "CANCELLED"


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["StartJobRun", "GetJobRun", "CancelJobRun"])
def test_a_missing_permission_is_named(
    stack: Pik, service: Emr, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = f"User: arn:aws:iam::123456789012:user/ana is not authorized to perform: emr-serverless:{operation}"
    service.refused[operation] = Refusal("AccessDeniedException", denied, 403)
    if operation == "CancelJobRun":
        monkeypatch.setattr("pik.stores.aws.emr.sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        ended = stack("lag", "--on", LOCATION)
        assert ended.code == 130
        assert "was not cancelled, and goes on: emr-serverless:CancelJobRun is denied" in ended.err
        return
    ended = stack("lag", "--on", LOCATION)
    assert ended.code == 4
    assert f"EMR Serverless denies {operation}" in ended.err
    assert f"hint: it takes emr-serverless:{operation} on" in ended.err
    assert ("CancelJobRun" in service.calls) == (operation == "GetJobRun")


@pytest.mark.slow
def test_a_job_that_fails_before_pik_runs_says_why(stack: Pik, service: Emr, bucket: str) -> None:
    service.fails = "Job failed, please check complete logs in configured logging destination. ExitCode: 1."
    ended = stack("lag", "--on", LOCATION)
    assert ended.code == 4
    assert f"ended without a result (FAILED): {service.fails}" in ended.err
    assert f"get-dashboard-for-job-run --region {REGION} --application-id {APPLICATION} --job-run-id" in ended.err
    assert all(one.startswith("entry-") for one in left(service, bucket))


@pytest.mark.slow
def test_what_a_job_printed_is_kept_where_this_disk_is_full(
    stack: Pik, service: Emr, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    printed = stack("lag", "--format", "json").out
    monkeypatch.setattr("pik.stores.aws.emr_job.JobFiles.download", full)
    ended = stack("lag", "--format", "json", "--on", LOCATION)
    assert (ended.code, ended.out) == (4, "")
    assert "set TMPDIR to another directory" in ended.err
    [kept] = re.findall(r"s3://\S+/(jobs/\S+) stays: it is what the job printed", ended.err)
    assert service.clients.client("s3").get_object(Bucket=bucket, Key=kept)["Body"].read().decode() == printed


def test_output_of_a_job_that_fits_into_a_buffer_is_not_lost_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stdout").write_bytes(b"{}\n")
    full = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - what is left in its buffer cannot be written
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(StoreError, match="standard output: No space left on device"):
        jobs._write_output(tmp_path / "stdout")
    monkeypatch.undo()
    with suppress(OSError):
        full.close()


@pytest.mark.slow
def test_other_versions_are_refused(stack: Pik, service: Emr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pik.fleets.versions", lambda: "pik 0")
    ended = stack("lag", "--on", LOCATION)
    assert ended.code == 4
    assert "the archive has other versions than this process: pik 0.1" in ended.err
    assert service.job.state == "SUCCESS"


@pytest.mark.slow
def test_an_application_that_is_not_there(stack: Pik, service: Emr) -> None:
    ended = stack("lag", "--on", f"emr-serverless://00unknown?role={ROLE}")
    assert ended.code == 4
    assert f"error: there is no EMR Serverless application 00unknown in {REGION}" in ended.err
    assert service.calls == ["StartJobRun"]


ARCHIVE = '[cluster]\narchive = "s3://no-such-bucket-of-tests/pik.tar.gz"\n'
AWS = ("--store", "aws://pik?region=eu-central-1")
DIFF = ("diff", "aggregates")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lag",), "a job cannot reach the store ./.pik, which is on this machine"),
        (("lag", *AWS, "--skew"), "--skew does not go with --on"),
        (("ingest", *AWS, "here.jsonl"), "here.jsonl is on this machine"),
        (("ingest", *AWS, "-"), "can be read only once"),
        (("export", *AWS, "--out", "there"), "share no directory"),
        ((*DIFF, *AWS, "--against", "-"), "standard input does not go to a job"),
        ((*DIFF, *AWS, "--assume", "without=@/dev/null"), "/dev/null"),
        ((*DIFF, *AWS, "--left", "file:../pik.toml"), "only files below the current directory go to a job"),
    ],
)
def test_what_a_job_cannot_do_is_refused_at_once(pik: Pik, words: tuple[str, ...], said: str) -> None:
    Path("here.jsonl").write_text("{}\n")
    Path("pik.toml").write_text(ARCHIVE)
    Path("../pik.toml").touch()
    refused = pik(*words, "--on", LOCATION)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert "hint: " in refused.err


def test_settings_that_name_another_place_are_refused(pik: Pik) -> None:
    Path("pik.toml").write_text(f'{ARCHIVE}[cluster.spark]\n"spark.master" = "local"\n')
    refused = pik("lag", *AWS, "--on", LOCATION)
    assert (refused.code, "spark.master is what --on says" in refused.err) == (2, True), refused.err


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (None, "cluster.archive is not set"),
        ("pik.tar.gz", "is not an object that jobs of EMR Serverless can fetch"),
        ("s3://bucket", "is not an object that jobs of EMR Serverless can fetch"),
    ],
)
def test_an_archive_that_is_none_is_refused_before_the_stack_is_looked_for(
    pik: Pik, archive: str | None, said: str
) -> None:
    Path("pik.toml").write_text("" if archive is None else f'[cluster]\narchive = "{archive}"\n')
    refused = pik("lag", *AWS, "--on", LOCATION)
    assert (refused.code, said in refused.err) == (2, True), refused.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "code", "said"),
    [
        ("s3://no-such-bucket-of-tests/pik.tar.gz", 4, "cluster.archive: there is no object s3://no-such-bucket"),
        ("s3://BUCKET/jobs/other.tar.gz", 4, "/jobs/other.tar.gz"),
    ],
)
def test_an_archive_that_jobs_cannot_have(
    stack: Pik, url: str, bucket: str, archive: str, code: int, said: str
) -> None:
    line = f'[cluster]\narchive = "{archive.replace("BUCKET", bucket)}"\n'
    Path("pik.toml").write_text(f'store = "{url}"\n{line}')
    refused = stack("lag", "--on", LOCATION)
    assert (refused.code, said in refused.err) == (code, True), refused.err


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "code"), [(emr.LOST_ANSWERS, 0), (emr.LOST_ANSWERS + 1, 4)])
def test_answers_that_are_lost_do_not_end_a_job_soon(
    stack: Pik, service: Emr, lost: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = emr._Job._call, iter(range(lost))
    monkeypatch.setattr("pik.stores.aws.emr.FIRST_WAIT", 0.001)
    monkeypatch.setattr("pik.stores.aws.emr.LONGEST_WAIT", 0.05)

    def call(job: Any, operation: str, **request: Any) -> Any:
        if operation == "get_job_run" and next(left, None) is not None:
            raise StoreError("cannot reach EMR Serverless")
        return real(job, operation, **request)

    monkeypatch.setattr(emr._Job, "_call", call)
    ended = stack("lag", "--on", LOCATION, "--format", "json")
    assert ended.code == code, ended.err
    assert service.job.state == ("SUCCESS" if code == 0 else "CANCELLED")
