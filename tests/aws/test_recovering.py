"""docs/recovering.md: a deleted stack is made again from what it kept, with the commands of the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Any
from uuid import uuid4

import pytest

from pik.engine import DuckEngine
from pik.model.run import RunRequest
from pik.model.window import ALL_TIME
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack
from pik.usecases.ingest.api_request import record_request
from pik.usecases.replay.execute import run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.cli.conftest import Result, pik
from tests.support.aws.bare import deploy_bare, update_bare
from tests.support.aws.commands import run, section
from tests.support.aws.emulator import REGION
from tests.support.stores import HERE, event
from tools.gen_adopt import PAGE as ADOPT

__all__ = ["pik"]

PAGE = ADOPT.parents[1] / "docs" / "recovering.md"
Pik = Callable[..., Result]


@dataclass(frozen=True, slots=True)
class Lost:
    """A stack that was deleted, with what `pik` said about it before."""

    stack: Stack
    before: dict[str, Any]
    queue: str
    dead: str

    @property
    def variables(self) -> dict[str, str]:
        names = {"BUCKET": self.stack.raw_bucket, "INDEX": self.stack.index_table, "STATE": self.stack.state_table}
        return {**names, "QUEUE": self.queue, "DEAD": self.dead}


def _look(pik: Pik, url: str) -> dict[str, Any]:
    """What the index and the state hold."""
    looks = ("events", "duplicates", "batches", "corrections list", "metrics list", "aggregates", "runs list")
    return {each: pik("--store", url, *each.split(), "--format", "json").json() for each in looks}


def _without_guesses(found: dict[str, Any]) -> dict[str, Any]:
    """The same without what a rebuild from the bucket alone cannot know, and what it records of itself."""
    for one in found["events"]["events"]:
        del one["recorded_at"]  # of a request: when it came
    said = found["corrections list"]["corrections"]
    said[:] = [each for each in said if each["kind"] != "verdict" or each["events"]]
    return found


def _lose(aws: Clients, pik: Pik, directory: Path, *, corrected: bool) -> Lost:
    """Deploy a stack, fill it, back its state up, and delete it as `sam delete` does."""
    name = f"pik-{uuid4().hex[:8]}"
    deployed = deploy_bare(aws, name)
    stack, queue, dead = deployed.stack, *map(deployed.resource, ("IngestQueue", "IngestDeadLetterQueue"))
    url = f"aws://{name}?region={REGION}"
    keyed = [{**event(number, "b", "02T01:00"), "idempotency_key": "k"} for number in (32, 33)]
    lines = [event(1, "a", "01T00:00"), event(2, "a", "01T11:59"), event(1, "a", "01T00:00"), *keyed]
    (directory / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (directory / "total.toml").write_text(
        "name = 'total'\nbucket = '12h'\nvalue = \"sum((payload->>'$.v')::DECIMAL(18, 2))\"\n"
    )
    assert pik("--store", url, "ingest", "events.jsonl").code == 0
    assert pik("--store", url, "metrics", "apply", "total.toml").code == 0
    store = open_store(url)
    record_request(store, json.dumps(event(2, "a", "01T11:59")).encode())
    record_request(store, json.dumps(event(4, "a", "01T12:00")).encode())
    if corrected:
        last = ("--assume", "conflicts=last", "--reason", "the later one is right", "--yes")
        assert pik("--store", url, "correct", *last).code == 0
    done = start(store, plan_replay(store, DuckEngine(), RunRequest(start=ALL_TIME.start, end=ALL_TIME.end), 1))
    run_locally(store, DuckEngine(), done.run_id, HERE, SILENT)
    promote(store, done.run_id, time_ns(), "numbers")
    assert pik("--store", url, "backup", "state.backup").code == 0
    before = _look(pik, url)
    aws.client("cloudformation").delete_stack(StackName=name)
    aws.client("cloudformation").get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return Lost(stack, before, queue, dead)


def test_cloudformation_imports_what_a_deleted_stack_kept(aws, pik, tmp_path) -> None:
    lost = _lose(aws, pik, tmp_path, corrected=False)
    name, cloudformation = lost.stack.name, aws.client("cloudformation")
    adopted = json.loads(ADOPT.read_text())
    physical = dict(zip(adopted["Resources"], lost.variables.values(), strict=True))
    keys = {"AWS::S3::Bucket": "BucketName", "AWS::DynamoDB::Table": "TableName", "AWS::SQS::Queue": "QueueUrl"}
    cloudformation.create_change_set(
        StackName=name,
        ChangeSetName="adopt",
        ChangeSetType="IMPORT",
        TemplateBody=json.dumps(adopted),
        ResourcesToImport=[
            {
                "ResourceType": one["Type"],
                "LogicalResourceId": logical,
                "ResourceIdentifier": {keys[one["Type"]]: physical[logical]},
            }
            for logical, one in adopted["Resources"].items()
        ],
    )
    cloudformation.execute_change_set(StackName=name, ChangeSetName="adopt")
    cloudformation.get_waiter("stack_import_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    made = update_bare(aws, name)
    assert {logical: made.resource(logical) for logical in physical} == physical
    assert _look(pik, f"aws://{name}?region={REGION}") == lost.before


@pytest.mark.slow
def test_bucket_and_tables_become_a_stack_again(aws, pik, tmp_path) -> None:
    lost = _lose(aws, pik, tmp_path, corrected=True)
    run(_for(lost, section(PAGE, "Take them into a new stack")), tmp_path, **lost.variables)
    assert _look(pik, f"aws://{lost.stack.name}?region={REGION}") == lost.before


@pytest.mark.slow
def test_what_a_deleted_stack_kept_is_found_and_read_without_it(aws, pik, tmp_path) -> None:
    lost = _lose(aws, pik, tmp_path, corrected=False)
    find, read = section(PAGE, "Find what is left").split("pik --store", 1)
    find, queues = find.split("aws sqs", 1)
    urls = run(_for(lost, f"aws sqs{queues}"), tmp_path).split()
    assert {Path(url).name for url in urls} == {Path(lost.queue).name, Path(lost.dead).name}
    listed, named = _for(lost, find).split("aws cloudformation describe-stacks", 1)
    (found,) = run(listed, tmp_path).splitlines()
    stack_id = found.rpartition("\t")[2]
    names = run("aws cloudformation describe-stacks" + named.replace("STACK_ID", stack_id), tmp_path)
    assert f"StateTable\t{lost.stack.state_table}" in names.splitlines()
    assert "EnableProcessor\ttrue" in names.splitlines()
    assert "deliveries" in run(_for(lost, "pik --store" + read), tmp_path, **lost.variables)


@pytest.mark.slow
def test_the_bucket_alone_becomes_a_stack_with_the_same_events_and_numbers(aws, pik, tmp_path) -> None:
    lost = _lose(aws, pik, tmp_path, corrected=True)
    for table in (lost.stack.index_table, lost.stack.state_table):
        aws.client("dynamodb").update_table(TableName=table, DeletionProtectionEnabled=False)
        aws.client("dynamodb").delete_table(TableName=table)
    run(_for(lost, section(PAGE, "From the bucket alone")), tmp_path, BUCKET=lost.stack.raw_bucket)
    now = _look(pik, f"aws://{lost.stack.name}?region={REGION}")
    assert _without_guesses(now) == _without_guesses(lost.before)


@pytest.mark.slow
def test_a_copy_of_the_bucket_becomes_a_stack(aws, pik, tmp_path) -> None:
    lost = _lose(aws, pik, tmp_path, corrected=True)
    create, sync = section(PAGE, "In another account or region").split("aws s3 sync")
    bucket = f"{lost.stack.name}-copy"
    run(create, tmp_path, BUCKET=bucket)
    assert "--exclude 'index/*'" in sync
    s3 = aws.client("s3")
    for one in s3.list_objects_v2(Bucket=lost.stack.raw_bucket)["Contents"]:
        if not one["Key"].startswith("index/"):
            s3.copy_object(
                Bucket=bucket, Key=one["Key"], CopySource={"Bucket": lost.stack.raw_bucket, "Key": one["Key"]}
            )
    run(_for(lost, section(PAGE, "From the bucket alone")), tmp_path, BUCKET=bucket)
    now = _look(pik, f"aws://{lost.stack.name}?region={REGION}")
    assert _without_guesses(now) == _without_guesses(lost.before)


def _for(lost: Lost, script: str) -> str:
    """The commands, for this stack. The doctor cannot find out what the emulator's user may do."""
    name, script = lost.stack.name, script.replace("stack doctor", "stack doctor || true")
    for place in ("--stack-name ", "aws://", "StackName==`", "--queue-name-prefix "):
        script = script.replace(f"{place}pik", f"{place}{name}")
    return script
