"""docs/scale.md: its settings are settings, its job is a request that AWS takes, its locations are those there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import boto3
from botocore.stub import Stubber

from pik.cli.app import root_command
from pik.cli.clusters import without_cluster
from pik.config import settings
from pik.model.cluster import LOCATIONS
from tests.support.docs.console import REPOSITORY

PAGE = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")


def test_its_pik_toml_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "pik.toml").write_text(text, encoding="utf-8")
    found = settings(environment={}, directory=tmp_path).cluster
    assert found.archive == tomllib.loads(text)["cluster"]["archive"]
    assert found.spark["spark.executor.memoryOverhead"] == "8g"


def test_its_job_is_as_the_model_of_emr_serverless_has_it() -> None:
    (text,) = re.findall(r"<!-- job.json -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    request = json.loads(text)
    client: Any = boto3.Session("testing", "testing", region_name="eu-central-1").client("emr-serverless")
    answer = {"applicationId": request["applicationId"], "jobRunId": "1", "arn": "a" * 60}
    with Stubber(client) as stubber:
        stubber.add_response("start_job_run", answer, {**request, "clientToken": "t"})
        client.start_job_run(**request, clientToken="t")  # which the AWS CLI makes up
    words = request["jobDriver"]["sparkSubmit"]["entryPointArguments"]
    ctx = root_command().make_context("pik", [], resilient_parsing=True)
    diff = root_command().get_command(ctx, "diff").commands["aggregates"]
    assert {word for word in words if word.startswith("--")} <= {name for param in diff.params for name in param.opts}


def test_every_location_is_named_and_no_other() -> None:
    (rows,) = re.findall(r"\| location \|.*?\n\n", PAGE, re.DOTALL)
    table = set(re.findall(r"^\| `([^`]+)` \|", rows, re.MULTILINE))
    kinds = {re.split(r"[:\[]", name)[0] for name in table}
    assert kinds == {re.split(r"[:\[]", name.strip(" '"))[0].split()[0] for name in re.split(r", (?=\D)", LOCATIONS)}


def test_it_names_the_commands_that_have_the_option() -> None:
    (rows,) = re.findall(r"\| command \|.*?\n\n", PAGE, re.DOTALL)
    named = {name for cell in re.findall(r"^\|(.*?)\|", rows, re.M) for name in re.findall("`pik (.*?)`", cell)}
    assert named == set(without_cluster("pik").hint.removeprefix("it goes with ").split(", "))


def test_its_entry_point_is_piks_program() -> None:
    (code,) = re.findall(r"pik_job.py <<'END'\n(.*?)END", PAGE, re.DOTALL)
    assert "from pik.__main__ import program\nsys.exit(program())" in code
