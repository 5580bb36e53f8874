"""EMR Serverless as far as jobs go: each request is held against botocore's model, each job is a process here.

Nothing of AWS's is in it: it answers as the model and the documentation of the service say.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3

from pik.stores.aws.clients import Clients
from tests.support.spark import TOP, packages

APPLICATION, ROLE = "00f1abcdexample1", "arn:aws:iam::123456789012:role/pik-jobs"
LOCATION = f"emr-serverless://{APPLICATION}?role={ROLE}"
BEFORE = ("SUBMITTED", "QUEUED", "PENDING", "SCHEDULED")
"""States of a job before it runs."""

_HERE = """
import runpy, sys
from contextlib import contextmanager
import pik.fleets
from pik.fleets.here import Here

@contextmanager
def open_fleet(location, store, engine, *_):
    yield Here(store, engine, slots=2)

pik.fleets.open_fleet = open_fleet
pik.fleets.expect_usable = lambda *_: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Refusal(Exception):
    """What the service answers a request with that it does not accept."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


Start = Callable[[Path, list[str], Mapping[str, str]], tuple[list[str], Mapping[str, str]]]
"""From an entry point's file, its arguments and Spark's settings, the command and the variables of its process."""


def in_this_process(entry: Path, arguments: list[str], _: Mapping[str, str]) -> tuple[list[str], Mapping[str, str]]:
    """A job whose fleet is its own process."""
    return [sys.executable, "-c", _HERE, str(entry), *arguments], {"PYSPARK_GATEWAY_PORT": "1"}


def on_spark(entry: Path, arguments: list[str], conf: Mapping[str, str]) -> tuple[list[str], Mapping[str, str]]:
    """A job that spark-submit starts, on two executors, with the Python of this process instead of the archive's."""
    home = packages("spark") / "pyspark"
    given = {name: value for name, value in conf.items() if "PYTHON" not in name}
    given["spark.executorEnv.PYTHONPATH"] = str(TOP)
    words = [word for name, value in given.items() for word in ("--conf", f"{name}={value}")]
    submit = [str(home / "bin/spark-submit"), "--master", "local-cluster[2,1,1024]", *words, str(entry), *arguments]
    return submit, {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(TOP)}


@dataclass
class Job:
    """A job: what was asked for, the states that are still before it, and its process."""

    asked: Mapping[str, Any]
    state: str = BEFORE[0]
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path()


@dataclass
class Emr:
    """The service. `refused` has what it answers an operation with; a job stays in the state `hold`; `begun` is called
    with each operation before it is carried out, `done` after it."""

    clients: Clients
    directory: Path
    start: Start = in_this_process
    refused: dict[str, Refusal] = field(default_factory=dict)
    hold: str = ""
    fails: str = ""
    done: Callable[[str], object] = str
    jobs: dict[str, Job] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    model: Any = field(default_factory=lambda: _client().meta.service_model)

    @property
    def job(self) -> Job:
        """The only job."""
        [found] = self.jobs.values()
        return found

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """Carry out an operation. Raises Refusal."""
        self.calls.append(operation)
        shape = self.model.operation_model(operation)
        if problems := list(_problems(shape.input_shape, given, operation)):
            raise Refusal("ValidationException", "; ".join(problems))
        if operation in self.refused:
            raise self.refused[operation]
        if given["applicationId"] != APPLICATION:
            raise Refusal("ResourceNotFoundException", f"Application {given['applicationId']} does not exist", 404)
        result: dict[str, Any] = getattr(self, f"_{operation}")(given)
        assert not list(_problems(shape.output_shape, result, operation))
        self.done(operation)
        return result

    def _StartJobRun(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - the operation's name
        token = given["clientToken"]
        if token in self.jobs and self.jobs[token].asked != given:
            raise Refusal("ConflictException", "the token was used with other parameters", 409)
        self.jobs.setdefault(token, Job(given))
        return {"applicationId": APPLICATION, "jobRunId": _id(token), "arn": _arn(token)}

    def _GetJobRun(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        [token] = [one for one in self.jobs if _id(one) == given["jobRunId"]]
        job = self.jobs[token]
        if job.state == "CANCELLING":
            job.state = "CANCELLED"
        elif job.state in BEFORE and job.state != self.hold:
            job.state = (*BEFORE, "RUNNING")[BEFORE.index(job.state) + 1]
            if job.state == "RUNNING":
                self._run(job)
        elif job.state == "RUNNING" and job.process is not None and self.hold != "RUNNING":
            code = job.process.poll()
            job.state = "RUNNING" if code is None else "FAILED" if code else "SUCCESS"
        if self.fails:
            job.state = "FAILED"
        return {
            "jobRun": {
                **{name: job.asked[name] for name in ("applicationId", "name", "jobDriver")},
                "jobRunId": _id(token),
                "arn": _arn(token),
                "createdBy": ROLE,
                "createdAt": 0,
                "updatedAt": 0,
                "executionRole": ROLE,
                "state": job.state,
                "stateDetails": self.fails or job.log.name or "-",
                "releaseLabel": "emr-7.9.0",
            }
        }

    def _CancelJobRun(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        [job] = [one for token, one in self.jobs.items() if _id(token) == given["jobRunId"]]
        assert job.state not in ("SUCCESS", "FAILED", "CANCELLED")
        job.state = "CANCELLING"
        if job.process is not None:
            job.process.kill()
            job.process.wait()
        return {"applicationId": APPLICATION, "jobRunId": given["jobRunId"]}

    def _run(self, job: Job) -> None:
        spark = job.asked["jobDriver"]["sparkSubmit"]
        bucket, _, key = spark["entryPoint"].removeprefix("s3://").partition("/")
        entry = self.directory / "entry.py"
        entry.write_bytes(self.clients.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
        command, variables = self.start(entry, spark["entryPointArguments"], _conf(job.asked))
        job.log = self.directory / "log"
        with job.log.open("wb") as log:
            job.process = subprocess.Popen(
                command, cwd=self.directory, env={**os.environ, **variables}, stdout=log, stderr=log
            )


@contextmanager
def emr_serverless(clients: Clients, directory: Path) -> Iterator[Emr]:
    """Provide the service at an address that the environment names, for boto3."""
    service = Emr(clients, directory)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            found = re.fullmatch(r"/applications/([^/]+)/jobruns(?:/([^/?]+))?(\?.*)?", self.path)
            operation = {"POST": "StartJobRun", "GET": "GetJobRun", "DELETE": "CancelJobRun"}[self.command]
            assert found is not None
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            given = {"applicationId": found[1], **({"jobRunId": found[2]} if found[2] else {}), **body}
            try:
                status, kind, answer = 200, "", service.answer(operation, given)
            except Refusal as refusal:
                status, kind, answer = refusal.status, refusal.code, {"message": refusal.message}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if kind:
                self.send_header("x-amzn-ErrorType", kind)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET = do_DELETE = _answer  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    name = "AWS_ENDPOINT_URL_EMR_SERVERLESS"
    os.environ[name] = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        del os.environ[name]
        server.shutdown()
        thread.join()
        server.server_close()
        for job in service.jobs.values():
            if job.process is not None:
                job.process.kill()
                job.process.wait()


def _conf(asked: Mapping[str, Any]) -> dict[str, str]:
    """Spark's settings: the defaults of the request, and over them those of its parameters."""
    overrides = asked.get("configurationOverrides", {}).get("applicationConfiguration", [])
    conf = {name: value for one in overrides for name, value in one["properties"].items()}
    words = shlex.split(asked["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"])
    for option, value in zip(words[::2], words[1::2], strict=True):
        assert option in ("--archives", "--conf")
        if option == "--conf":
            name, _, text = value.partition("=")
            conf[name] = text
    return conf


_KINDS: Mapping[str, Any] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "integer": int,
    "long": int,
    "timestamp": int,
}


def _problems(shape: Any, value: Any, path: str) -> Iterator[str]:
    """What is wrong with a value, by the model: names, types, lengths and patterns."""
    limits, kind = shape.metadata, shape.type_name
    if not isinstance(value, _KINDS[kind]):
        yield f"{path}: {value!r} is not a {kind}"
        return
    if kind in ("string", "list", "map") and not limits.get("min", 0) <= len(value) <= limits.get("max", len(value)):
        yield f"{path}: a length of {len(value)}"
    if kind == "structure":
        yield from (f"{path}: {name} is missing" for name in shape.required_members if name not in value)
        yield from (f"{path}: {name} is unknown" for name in value if name not in shape.members)
        for name in value.keys() & shape.members.keys():
            yield from _problems(shape.members[name], value[name], f"{path}.{name}")
    elif kind == "list":
        for inner in value:
            yield from _problems(shape.member, inner, f"{path}[]")
    elif kind == "map":
        for name, inner in value.items():
            yield from _problems(shape.key, name, path)
            yield from _problems(shape.value, inner, f"{path}.{name}")
    elif kind == "string":
        if "pattern" in limits and not re.fullmatch(limits["pattern"], value, re.DOTALL):
            yield f"{path}: {value!r} is not as {limits['pattern']}"
        if value not in getattr(shape, "enum", [value]) and shape.enum:
            yield f"{path}: {value!r} is not one of {shape.enum}"


def _id(token: str) -> str:
    return f"00{token.lower()[:14]}"


def _arn(token: str) -> str:
    return f"arn:aws:emr-serverless:eu-central-1:123456789012:/applications/{APPLICATION}/jobruns/{_id(token)}"


def _client() -> Any:
    return boto3.Session("testing", "testing", region_name="eu-central-1").client("emr-serverless")
