"""Where the API of a stack is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from pik.errors import StoreError, UsageError
from pik.stores.aws.clients import Clients
from pik.stores.aws.http_api import HttpApi, RetryingApi, open_api

REQUIRED = ("RawBucket", "IndexTable", "StateTable", "QueueUrl", "DeadLetterQueueUrl")


def _deploy(aws: Clients, name: str, **outputs: str) -> None:
    values = {**dict.fromkeys(REQUIRED, "x"), **outputs}
    template = {
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {key: {"Value": value} for key, value in values.items()},
    }
    aws.client("cloudformation").create_stack(StackName=name, TemplateBody=msgspec.json.encode(template).decode())


def opened(url: str, **environment: str) -> HttpApi:
    api = open_api(url, environment)
    assert isinstance(api, RetryingApi)
    assert isinstance(api.api, HttpApi)
    return api.api


def test_the_stack_names_the_url(aws: Clients) -> None:
    _deploy(aws, "with-api", ApiUrl="https://abc.execute-api.eu-central-1.amazonaws.com/v1")
    found = opened("aws://with-api?region=eu-central-1")
    assert (found.url, found.key) == ("https://abc.execute-api.eu-central-1.amazonaws.com/v1", None)
    assert (found.clients.region, found.clients.profile) == ("eu-central-1", None)


def test_the_environment_may_say_otherwise(aws: Clients) -> None:
    found = opened("aws://nowhere", PIK_API_URL="https://events.example.com/", PIK_API_KEY="k")
    assert (found.url, found.key) == ("https://events.example.com", "k")


def test_a_stack_without_api_is_reported(aws: Clients) -> None:
    _deploy(aws, "without-api")
    with pytest.raises(StoreError, match="no output ApiUrl"):
        opened("aws://without-api")


@pytest.mark.parametrize("url", ["events.example.com", "http://events.example.com", "ftp://127.0.0.2", "https://"])
def test_no_key_goes_out_in_the_clear(url: str) -> None:
    with pytest.raises(UsageError, match="https://"):
        opened("aws://pik", PIK_API_URL=url, PIK_API_KEY="k")


def test_a_region_is_found_where_other_tools_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_REGION", raising=False)
    assert Clients().identity()[1] == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert Clients().identity()[1] == "eu-north-1"
    assert Clients("us-east-1").identity()[1] == "us-east-1"


def test_threads_that_ask_at_the_same_time_share_one_client_of_a_service(moto: Clients) -> None:
    services = ["s3", "dynamodb", "sqs", "sts"] * 4
    with ThreadPoolExecutor(len(services)) as pool:
        made = list(pool.map(moto.client, services))
    assert made == [moto.client(service) for service in services]
    assert len(set(map(id, made))) == 4
