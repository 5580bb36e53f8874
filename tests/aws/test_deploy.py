"""The template deploys as SAM deploys it, and what it makes is what the kit expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pik
from pik.stores.aws.clients import Clients
from pik.stores.aws.deployed_stack import describe_stack
from tests.support.aws.deployed import Deployed, send

FUNCTIONS = ("IngestFunction", "RecorderFunction", "ReplayFunction", "ProcessorFunction")

pytestmark = pytest.mark.xdist_group("deployed")


def test_a_store_is_found_by_the_stacks_outputs(deployed: Deployed) -> None:
    assert deployed.stack.version == pik.__version__
    assert deployed.stack.raw_bucket.startswith("pik-test-")


def test_a_request_without_signature_reaches_no_function(deployed: Deployed) -> None:
    for method, path in [("POST", "/ingest"), ("POST", "/replay"), ("GET", "/replay/01M846YB26N4C30W9ABZEXB4WG")]:
        status, answer = send(method, deployed.api + path, b"{}" if method == "POST" else None)
        assert (status, answer) == (403, {"message": "Missing Authentication Token"}), path


def test_a_signed_request_reaches_the_packaged_handler(deployed: Deployed) -> None:
    status, answer = deployed.call("POST", "/replay", b'{"entity_id": "customer-17"}')
    assert (status, answer["field"]) == (400, "start_time")


def test_a_package_fits_into_lambda_and_has_no_command_line(built: Path) -> None:
    for function in FUNCTIONS:
        package = built.parent / function
        assert sum(file.stat().st_size for file in package.rglob("*") if file.is_file()) < 250_000_000, function
        inside = {path.name for path in package.iterdir()}
        assert not {"typer", "rich", "pyarrow"} & inside, function
        assert not (package / "pik/cli").exists(), function


@pytest.mark.parametrize(
    ("table", "indexes"), [("index_table", []), ("state_table", [("by_bucket", ["bucket_key", "version_key"], "ALL")])]
)
def test_tables_have_the_keys_and_indexes_of_the_layout(deployed, aws, table, indexes) -> None:
    made = aws.client("dynamodb").describe_table(TableName=getattr(deployed.stack, table))["Table"]
    assert [key["AttributeName"] for key in made["KeySchema"]] == ["pk", "sk"]
    assert indexes == [
        (one["IndexName"], [key["AttributeName"] for key in one["KeySchema"]], one["Projection"]["ProjectionType"])
        for one in made.get("GlobalSecondaryIndexes", [])
    ]


def test_the_replay_queue_leads_to_the_dead_letters(deployed, aws) -> None:
    def attribute(url: str, name: str) -> str:
        return str(aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    redrive = json.loads(attribute(deployed.stack.queue_url, "RedrivePolicy"))
    assert redrive["deadLetterTargetArn"] == attribute(deployed.stack.dead_letter_queue_url, "QueueArn")


def test_functions_know_their_stack_and_write_to_its_logs(deployed: Deployed, aws: Clients) -> None:
    for function in FUNCTIONS:
        made = aws.client("lambda").get_function_configuration(FunctionName=deployed.outputs[function])
        assert made["Environment"]["Variables"]["PIK_STACK"] == deployed.stack.name
        assert made["LoggingConfig"]["LogGroup"] == f"/pik/{deployed.stack.name}/{function[:-8].lower()}"


def test_what_sam_deployed_works(deployed: Deployed, aws: Clients) -> None:
    """But for what the emulator's CloudFormation leaves out, and for the second step, deletion protection."""
    found = {part.name: part for part in describe_stack(aws, deployed.stack.name).parts()}
    well = {name for name, part in found.items() if part.healthy}
    assert {*FUNCTIONS, "stack", "processor", "dry run"} <= well
    off = {name for name in found if "recovery" in name or "protection" in name}
    assert found.keys() - well == {name for name in off if "recovery" in name}
    wrong = {one.name for one in describe_stack(aws, deployed.stack.name).settings() if one.right is not True}
    assert wrong == off | {"Object Lock of the bucket"}
