"""What a person is told who cannot open a deployed store: what is missing, and what to do about it (exit code 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from pik.stores import open_store
from pik.stores.aws import open_deployed
from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import find_stack, located
from tests.cli.conftest import pik
from tests.support.aws.emulator import REGION, make_stack, publish
from tests.support.aws.processor import environment
from tests.support.aws.refusing import refusing

__all__ = ["pik"]


@pytest.fixture
def refuse(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str, str], None]]:
    """Makes AWS answer every call with this status, code and message."""
    with ExitStack() as stack:

        def refuse(*answer: Any) -> None:
            monkeypatch.setenv("AWS_ENDPOINT_URL", stack.enter_context(refusing(*answer)))
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

        yield refuse


def said(pik, *arguments: str) -> tuple[int, str]:
    result = pik("status", *arguments)
    assert result.out == ""
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 2, result.err
    return result.code, result.err


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("ExpiredToken", "The security token included in the request is expired", "credentials have expired"),
        ("InvalidClientTokenId", "The security token included in the request is invalid.", "does not know these"),
        (
            "AccessDenied",
            "User: arn:aws:iam::1:user/ann is not authorized to perform: cloudformation:DescribeStacks",
            "not authorized to perform: cloudformation:DescribeStacks",
        ),
        ("ValidationError", "Stack with id prod does not exist", "there is no stack prod"),
    ],
)
def test_a_refusal_names_what_is_missing(pik, refuse, code: str, message: str, expected: str) -> None:
    refuse(400 if code == "ValidationError" else 403, code, message)
    ended, error = said(pik, "--store", "aws://prod")
    assert (ended, expected in error) == (4, True), error


def test_who_may_not_find_the_stack_is_not_sent_in_a_circle(pik, refuse) -> None:
    refuse(403, "AccessDenied", "no")
    for command in (["status"], ["stack", "status"], ["stack", "doctor"]):
        result = pik(*command, "--store", "aws://prod")
        assert (result.code, "it takes cloudformation:DescribeStacks" in result.err) == (4, True), result.err


def test_without_credentials(pik, aws, monkeypatch, tmp_path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    ended, error = said(pik, "--store", "aws://prod")
    assert (ended, "no usable AWS credentials" in error) == (4, True), error


def test_without_a_region(pik, aws, monkeypatch, tmp_path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    ended, error = said(pik, "--store", "aws://prod")
    assert (ended, "no AWS region" in error) == (4, True), error


def test_each_way_to_name_a_region(aws, monkeypatch, tmp_path) -> None:
    (tmp_path / "config").write_text("[profile ops]\nregion = eu-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    def region(of_url: str | None, profile: str) -> str:
        return str(Clients(of_url, profile).client("sqs").meta.region_name)

    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert (region("eu-west-3", "ops"), region(None, "ops")) == ("eu-west-3", "eu-west-1")
    monkeypatch.delenv("AWS_REGION")
    assert region(None, "ops") == "eu-west-2"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert region(None, "ops") == "eu-south-1"


def test_an_unknown_profile(pik, aws) -> None:
    ended, error = said(pik, "--store", "aws://prod?profile=nobody")
    assert (ended, "nobody" in error) == (4, True), error


@pytest.mark.usefixtures("no_delays")
def test_an_api_that_does_not_answer_is_reported(pik, aws, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ended, error = said(pik, "--store", "aws://prod")
    assert (ended, "cannot reach CloudFormation" in error) == (4, True), error


_NOT_STORES = [
    "aws://",
    "aws://prod/x",
    "aws://prod?zone=1",
    "gs://x",
    "aws://p?state_table=",
    "aws://p?raw_retention_days=x",
]


@pytest.mark.parametrize("url", _NOT_STORES)
def test_a_wrong_url(pik, url: str) -> None:
    assert said(pik, "--store", url)[0] == 2


def test_a_stack_that_is_not_piks(pik, aws: Clients) -> None:
    template = {
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {"QueueUrl": {"Value": {"Ref": "Queue"}}},
    }
    aws.client("cloudformation").create_stack(StackName="other", TemplateBody=json.dumps(template))
    ended, error = said(pik, "--store", "aws://other")
    assert (ended, "no output RawBucket, IndexTable, StateTable" in error) == (4, True), error


def test_a_stack_is_found_by_its_outputs(aws: Clients) -> None:
    names = ["RawBucket", "IndexTable", "StateTable", "QueueUrl", "DeadLetterQueueUrl", "ApiUrl", "Version"]
    template = {
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {name: {"Value": f"the {name}"} for name in names},
    }
    aws.client("cloudformation").create_stack(StackName="pik-found", TemplateBody=json.dumps(template))
    found = find_stack(aws, "pik-found")
    assert (found.raw_bucket, found.dead_letter_queue_url) == ("the RawBucket", "the DeadLetterQueueUrl")


def test_a_store_knows_after_how_many_days_its_raw_expires(aws: Clients) -> None:
    stack = make_stack(aws)
    assert open_store(publish(aws, stack)).retention_days is None
    kept = replace(stack, name=f"{stack.name}-kept", raw_retention_days="30")
    assert open_store(publish(aws, kept)).retention_days == 30
    assert open_deployed(environment(kept)).retention_days == 30


def test_a_url_that_names_bucket_and_tables_needs_no_stack(pik, aws: Clients) -> None:
    stack = make_stack(aws)
    named = {name: getattr(stack, name) for name in ("raw_bucket", "index_table", "state_table")}
    url = f"aws://{stack.name}?{urlencode(named)}"
    assert pik("--store", url, "status").code == 0
    assert pik("--store", url, "backup", "state.backup").code == 0
    refused = pik("--store", url, "dlq", "list")
    assert (refused.code, "no dead_letter_queue_url" in refused.err) == (4, True), refused.err
    queues = {name: getattr(stack, name) for name in ("queue_url", "dead_letter_queue_url")}
    assert pik("--store", f"{url}&{urlencode(queues)}", "dlq", "list").code == 0


def test_what_a_url_names_takes_the_place_of_the_stacks(aws: Clients) -> None:
    stack = make_stack(aws)
    where = located(f"{publish(aws, stack)}?state_table=restored&raw_retention_days=7")
    assert find_stack(*where) == replace(stack, state_table="restored", raw_retention_days="7")


@pytest.mark.usefixtures("no_delays")
def test_a_throttled_question_is_asked_again(aws: Clients) -> None:
    url, throttled = publish(aws, make_stack(aws)), [400, 400]

    def answer(request: AWSPreparedRequest, **_: object) -> Any:
        if not throttled:
            return None
        body = b"<ErrorResponse><Error><Code>Throttling</Code><Message>slow down</Message></Error></ErrorResponse>"
        return AWSResponse(request.url, throttled.pop(), HTTPHeaders(), _Body(body))

    clients = Clients(REGION)
    clients.client("cloudformation").meta.events.register("before-send.cloudformation", answer)
    assert find_stack(clients, located(url).name).raw_bucket
    assert throttled == []


@pytest.mark.usefixtures("no_delays")
def test_one_that_stays_throttled_names_what_asks_nothing(pik, refuse) -> None:
    refuse(400, "Throttling", "Rate exceeded")
    ended, error = said(pik, "--store", "aws://prod")
    assert (ended, "Rate exceeded" in error, "URL that names the resources" in error) == (4, True, True), error


class _Body(BytesIO):
    """A body as urllib3 gives it."""

    def stream(self, amount: int = 1 << 16, **_: object) -> Iterator[bytes]:
        yield self.read(amount)
