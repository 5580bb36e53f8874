"""The real template, built and deployed to the emulator with SAM, as a user would do it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack, find_stack
from tests.support.aws.emulator import ENVIRONMENT, PROGRAM, REGION

ROOT = Path(__file__).resolve().parents[3]
SAM = ROOT / ".venv-sam/bin/sam"
ARCHITECTURE = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A stack in the emulator."""

    stack: Stack
    outputs: dict[str, str]
    api: str
    """Where the API is: the emulator serves it under another URL than the output says."""

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of a signed request."""
        request = AWSRequest(method, self.api + path, {"Content-Type": "application/json", **headers}, body)
        credentials = Credentials(ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"])
        SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
        return send(method, self.api + path, body, **dict(request.headers.items()))


def build(directory: Path) -> Path:
    """Build the functions for this machine and the emulator's Python, which is what runs them; the built template."""
    python = _run([PROGRAM.with_name("python"), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    _sam(
        ["build", "--build-dir", directory, "--parameter-overrides", f"Architecture={ARCHITECTURE}"],
        LAMBDA_PYTHON=python.strip(),
    )
    return directory / "template.yaml"


def deploy(clients: Clients, template: Path, name: str, **parameters: str) -> Deployed:
    """Deploy a built template under this name, or update the stack that has it."""
    overrides = [f"{key}={value}" for key, value in {"Architecture": ARCHITECTURE, **parameters}.items()]
    where: list[str | Path] = ["--config-file", ROOT / "samconfig.toml", "--template-file", template]
    asking_nothing = ["--no-confirm-changeset", "--no-progressbar"]
    _sam(["deploy", *where, *asking_nothing, "--stack-name", name, "--parameter-overrides", *overrides])
    _repair(clients)
    described = clients.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    api_id, stage = outputs["ApiUrl"].removeprefix("https://").partition(".")[0], outputs["ApiUrl"].rpartition("/")[2]
    api = f"{os.environ['AWS_ENDPOINT_URL']}/restapis/{api_id}/{stage}/_user_request_"
    return Deployed(find_stack(clients, name), outputs, api)


def send(method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a request as it is."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def _repair(clients: Clients) -> None:
    """MiniStack leaves Number parameters text, and its poller of queues fails on a concurrency of that kind."""
    functions = clients.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig=mapping["ScalingConfig"])


def _sam(arguments: list[str | Path], **environment: str) -> str:
    return _run([SAM, *arguments], SAM_CLI_TELEMETRY="0", **environment)


def _run(command: list[str | Path], **environment: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
