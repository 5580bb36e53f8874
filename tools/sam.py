"""The template, built and deployed to MiniStack with SAM as to AWS, with what the emulator needs beyond that."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from pik.stores.aws.clients import Clients
from tools.ministack import PROGRAM, ROOT, Failed

CONFIG = ROOT / "tools/samconfig.toml"
"""Not the one of ROOT, in which `sam deploy --guided` saves the answers for somebody's own stack."""

SAM = ROOT / ".venv-sam/bin/sam"
ARCHITECTURE = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")


def build(directory: Path) -> Path:
    """Build the functions for this machine and the emulator's Python, which runs them; return the built template.
    Raises Failed."""
    python = _run([PROGRAM.with_name("python"), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    where: list[str | Path] = [
        "--config-file",
        CONFIG,
        "--build-dir",
        directory,
        "--parameter-overrides",
        f"Architecture={ARCHITECTURE}",
    ]
    _sam("build", *where, LAMBDA_PYTHON=python.strip())
    return directory / "template.yaml"


def deploy(clients: Clients, template: Path, name: str, **parameters: str) -> dict[str, str]:
    """Deploy a built template under this name, or update the stack that has it; return the stack's outputs.
    Raises Failed."""
    overrides = [f"{key}={value}" for key, value in {"Architecture": ARCHITECTURE, **parameters}.items()]
    where: list[str | Path] = ["--config-file", CONFIG, "--template-file", template]
    asking_nothing = ["--no-confirm-changeset", "--no-progressbar"]
    _sam("deploy", *where, *asking_nothing, "--stack-name", name, "--parameter-overrides", *overrides)
    _repair(clients)
    described = clients.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


def api_url(outputs: dict[str, str], endpoint: str) -> str:
    """Return where the emulator serves the API: nothing answers at the address that the output ApiUrl has."""
    api_id, stage = outputs["ApiUrl"].removeprefix("https://").partition(".")[0], outputs["ApiUrl"].rpartition("/")[2]
    return f"{endpoint}/_aws/execute-api/{api_id}/{stage}"


def _repair(clients: Clients) -> None:
    """MiniStack leaves Number parameters text, and its poller of queues fails on a concurrency of that kind."""
    functions = clients.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig=mapping["ScalingConfig"])


def _sam(*arguments: str | Path, **environment: str) -> str:
    return _run([SAM, *arguments], SAM_CLI_TELEMETRY="0", **environment)


def _run(command: list[str | Path], **environment: str) -> str:
    """Return what a command prints. Whatever ends the wait ends the command, with all that it started."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        words = " ".join([Path(command[0]).name, *map(str, command[1:])])
        raise Failed(f"`{words}` ended with exit code {process.returncode}:\n{said.rstrip()}")
    return said
