"""Commands as jobs of EMR Serverless: started there, followed, and what they say fetched from S3.

A job is the same command line in an application of EMR Serverless. Its driver runs from the archive of `pik cluster
pack`, and finds in S3, beside that archive, what it is to do (`emr_job.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import sleep
from typing import Any

from ulid import ULID

from pik.errors import NotFound, StoreError, UsageError, command
from pik.model.cluster import Application, Cluster
from pik.runtime.storage import scratch
from pik.stores.aws.clients import THROTTLED, Clients, Refused, briefly, denied, translated
from pik.stores.aws.emr_job import FILES, REQUEST, RESULT, STDERR, STDOUT, JobFiles
from pik.stores.aws.s3 import S3Files
from pik.stores.aws.stack import direct_url, find_stack, located

FOLDER = "pik-jobs/"
"""Where the files of jobs are, beside the archive."""

ENTRY = """import sys

from pik.__main__ import program
from pik.cli.options import at_one_time
from pik.fleets import versions
from pik.stores.aws.emr_job import run

run(*sys.argv[1:], versions=versions(), program=program, at_one_time=at_one_time)
"""
"""What Spark starts. It is an object named by its digest, the same for all jobs."""

ENDED = {"SUCCESS", "FAILED", "CANCELLED"}

FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0
"""Seconds between two questions about a job: the second is that of a job that has run for a minute."""

LOST_ANSWERS = 20
"""Questions in a row that may remain without an answer."""

CANCELLED_WITHIN = 30
"""Questions, one per second, until a job that was cancelled counts as ended anyway."""

LONGEST_JOB = 7 * 24 * 60
"""Minutes, as many as EMR lets a job run: without, it would end after 12 hours."""

_PYTHON = "./pik/bin/python"
_PASSING = THROTTLED | {"InternalServerException", "InternalError", "ServiceUnavailable"}


@dataclass(frozen=True, slots=True)
class Request:
    """A command for a job: the words after `pik`, the pik.toml and variables that hold there, the moment that `now` in
    the words means, the versions of what computes here, and files by the paths that the words name them by."""

    title: str
    arguments: list[str]
    settings: str
    environment: Mapping[str, str]
    now: int
    versions: str
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Console:
    """What a job says is written to: notes about it, standard error, and the file that is its standard output."""

    note: Callable[[str], object]
    error: Callable[[bytes], object]
    output: Callable[[Path], object]


def portable_url(url: str) -> str:
    """Return the URL of a deployed store as a job opens it: with its region, and without a profile or CloudFormation,
    which jobs without a network of their own do not reach. Raises UsageError, NotFound, StoreError."""
    where = located(url)
    return direct_url(find_stack(*where), where.clients.client("emr-serverless").meta.region_name)


def expect_archive(cluster: Cluster) -> str:
    """Return the URL of the archive that jobs run from. Raises UsageError where it can be none."""
    archive = cluster.archive
    if archive is None or not re.fullmatch(r"s3://[^\s#'\"\\*?\[/]+/[^\s#'\"\\*?\[]+", archive):
        what = "is not set" if archive is None else f"{archive} is not an object that jobs of EMR Serverless can fetch"
        raise UsageError(f"cluster.archive {what}", hint='pik.toml: [cluster] archive = "s3://BUCKET/pik.tar.gz"')
    return archive


def run_job(store: str, where: Application, cluster: Cluster, request: Request, console: Console) -> int:
    """Run a command as a job, with the region and profile of a deployed store's URL, and return its exit code. What
    ends this process's part early, such as Ctrl-C, cancels the job. Raises UsageError for an archive that jobs cannot
    have, NotFound for an unknown application, StoreError."""
    clients = located(store).clients
    bucket, folder = _place(clients, expect_archive(cluster))
    s3 = clients.client("s3")
    entry = _share(JobFiles(s3, bucket, folder))
    token = str(ULID())
    files = JobFiles(s3, bucket, f"{folder}{token}/")
    job = _Job(clients, where, files, console)
    try:
        with _allowed("s3:PutObject", f"{files.url}*"):
            for number, name in enumerate(request.files):
                files.upload(f"{FILES}{number}", Path(name))
            files.put(REQUEST, json.dumps(_document(request)).encode())
        job.run(_start(where, token, request.title, entry, files, job.region, cluster))
        return _result(job, files, request.versions, console)
    finally:
        job.clear()


def _place(clients: Clients, archive: str) -> tuple[str, str]:
    """Return the bucket of the archive, and the prefix of the files of jobs in it."""
    try:
        S3Files(clients).find(archive)
    except Exception as error:
        if isinstance(error, StoreError | UsageError):
            raise
        made = f"`{command('cluster', 'pack', '-o', 'pik.tar.gz')}`, then `aws s3 cp pik.tar.gz {archive}`"
        raise NotFound(f"cluster.archive: there is no object {archive}", hint=made) from None
    bucket, _, key = archive.removeprefix("s3://").partition("/")
    return bucket, f"{key.rpartition('/')[0]}/{FOLDER}".lstrip("/")


def _share(files: JobFiles) -> str:
    """Return the URL of the entry point, which is created unless it is there."""
    name = f"entry-{sha256(ENTRY.encode()).hexdigest()[:16]}.py"
    try:
        with _allowed("s3:PutObject", f"{files.url}*"), translated("s3"):
            files.s3.put_object(Bucket=files.bucket, Key=files.prefix + name, Body=ENTRY.encode(), IfNoneMatch="*")
    except Refused as error:
        if error.code not in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
            raise
    return files.url + name


def _document(request: Request) -> dict[str, Any]:
    names = ("arguments", "settings", "environment", "now", "versions", "files")
    return {name: getattr(request, name) for name in names}


def _start(
    where: Application, token: str, title: str, entry: str, files: JobFiles, region: str, cluster: Cluster
) -> dict[str, Any]:
    """Return the request that starts a job. Settings of Spark are no words of a command line, which would have to be
    quoted."""
    driver = "spark.emr-serverless.driverEnv."
    variables = (f"{driver}PYSPARK_DRIVER_PYTHON", f"{driver}PYSPARK_PYTHON", "spark.executorEnv.PYSPARK_PYTHON")
    words = [f"--archives {cluster.archive}#pik", *(f"--conf {name}={_PYTHON}" for name in variables)]
    defaults = [{"classification": "spark-defaults", "properties": dict(cluster.spark)}] if cluster.spark else []
    return {
        "applicationId": where.id,
        "clientToken": token,
        "executionRoleArn": where.role,
        "name": title,
        "executionTimeoutMinutes": LONGEST_JOB,
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": entry,
                "entryPointArguments": [files.url, region],
                "sparkSubmitParameters": " ".join(words),
            }
        },
        **({"configurationOverrides": {"applicationConfiguration": defaults}} if defaults else {}),
    }


class _Job:
    """A job from its start to its end."""

    def __init__(self, clients: Clients, where: Application, files: JobFiles, console: Console) -> None:
        self._emr, self._where, self._files, self._console = clients.client("emr-serverless"), where, files, console
        self.run_id = ""
        self.state = ""
        self.details = ""
        self.is_unread = False
        self._read = STDERR

    @property
    def region(self) -> str:
        """The region of the application."""
        return str(self._emr.meta.region_name)

    @property
    def logs(self) -> str:
        """What shows its logs, which EMR keeps for 30 days."""
        ids = f"--application-id {self._where.id} --job-run-id {self.run_id}"
        return f"its logs: aws emr-serverless get-dashboard-for-job-run --region {self.region} {ids}"

    def run(self, start: Mapping[str, Any]) -> None:
        """Start it, and follow it until it ends. Raises NotFound, StoreError."""
        try:
            self._begin(start)
            self._follow()
        except BaseException as error:
            if not self.run_id and isinstance(error, KeyboardInterrupt):
                with suppress(StoreError):
                    self._begin(start)  # perhaps it was started: the token is the same, and so is the job
            if self.run_id and self.state not in ENDED:
                self._cancel()
            raise

    def clear(self) -> None:
        """Remove its files, unless it may still run, or what it said has reached nobody."""
        if self.run_id and self.state not in ENDED:
            self._console.note(f"{self._files.url} stays: job {self.run_id} may still need it")
            return
        if self.is_unread:
            self._console.note(f"{self._files.url}{STDOUT} stays: it is what the job printed")
            return
        try:
            self._files.remove()
        except StoreError as error:
            self._console.note(f"{self._files.url} was not removed: {briefly(error)}")

    def _begin(self, start: Mapping[str, Any]) -> None:
        try:
            with _allowed("emr-serverless:StartJobRun", "the application", f"iam:PassRole on {self._where.role}"):
                self.run_id = self._call("start_job_run", **start)["jobRunId"]
        except Refused as error:
            if error.code != "ResourceNotFoundException":
                raise
            raise NotFound(
                f"there is no EMR Serverless application {self._where.id} in {self.region}",
                hint=f"aws emr-serverless list-applications --region {self.region}",
            ) from None
        self._console.note(f"job {self.run_id} of application {self._where.id}: Ctrl-C cancels it")

    def _follow(self) -> None:
        wait, lost = FIRST_WAIT, 0
        while self.state not in ENDED:
            sleep(wait)
            wait = min(wait * 1.3, LONGEST_WAIT)
            try:
                self._ask()
                self._show_error()
                lost = 0
            except StoreError as error:
                lost += 1
                if lost > LOST_ANSWERS or (isinstance(error, Refused) and error.code not in _PASSING):
                    raise

    def _ask(self) -> None:
        before = self.state
        with _allowed("emr-serverless:GetJobRun", "the application's jobs"):
            found = self._call("get_job_run", applicationId=self._where.id, jobRunId=self.run_id)["jobRun"]
        self.state, self.details = found["state"], found["stateDetails"]
        if self.state != before:
            self._console.note(f"job {self.run_id}: {self.state.lower()}")

    def _show_error(self) -> None:
        """Give out what has come of its standard error."""
        with _allowed("s3:GetObject", f"{self._files.url}*", "s3:ListBucket on the bucket"):
            for name in self._files.names(STDERR, after=self._read):
                self._console.error(self._files.read(name) or b"")
                self._read = name

    def _cancel(self) -> None:
        try:
            with _allowed("emr-serverless:CancelJobRun", "the application's jobs"):
                self._call("cancel_job_run", applicationId=self._where.id, jobRunId=self.run_id)
            self._console.note(f"job {self.run_id}: cancelling")
            self.state = "CANCELLING"
            for _ in range(CANCELLED_WITHIN):
                self._ask()
                if self.state in ENDED:
                    return
                sleep(1)
        except StoreError as error:
            if self.state != "CANCELLING":
                self._console.note(f"job {self.run_id} was not cancelled, and goes on: {briefly(error)}")

    def _call(self, operation: str, **request: Any) -> Any:
        with translated("emr-serverless"):
            return getattr(self._emr, operation)(**request)


def _result(job: _Job, files: JobFiles, versions: str, console: Console) -> int:
    """Give out the standard output of a job that has ended, and return its exit code."""
    with _allowed("s3:GetObject", f"{files.url}*"):
        found = files.read(RESULT)
        if found is None:
            raise StoreError(f"job {job.run_id} ended without a result ({job.state}): {job.details}", hint=job.logs)
        result = json.loads(found)
        if result["versions"] != versions:
            raise StoreError(
                f"the archive has other versions than this process: {result['versions']}, here it is {versions}",
                hint=f"pack this one: {command('cluster', 'pack', '-o', 'pik.tar.gz')}",
            )
        try:
            with scratch() as directory:
                files.download(STDOUT, directory / "stdout")
                console.output(directory / "stdout")
        except StoreError:  # such as a full disk here
            job.is_unread = True
            raise
    return int(result["exit_code"])


@contextmanager
def _allowed(action: str, resource: str, *more: str) -> Iterator[None]:
    """Say which permission is missing where a call is denied."""
    try:
        yield
    except Refused as error:
        if denied(error):
            error.hint = f"it takes {', '.join((f'{action} on {resource}', *more))}: docs/iam.md"
        raise
