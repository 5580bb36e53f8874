"""A stack deployed with other parameters than the defaults; slow, for each deployment takes a while."""

from __future__ import annotations

import pytest

from pik.stores.aws.clients import Clients
from tests.aws.deployed import Deployed, deploy, send

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployed")]


@pytest.fixture(scope="module")
def other(aws: Clients, built) -> Deployed:
    return deploy(aws, built, "pik-other", ApiAuthorization="API_KEY")


def test_with_a_key_instead_of_a_signature_the_key_opens_the_api_and_nothing_else_does(other, aws) -> None:
    url = other.api + "/replay"
    assert send("POST", url, b"{}") == (403, {"message": "Forbidden"})
    assert send("POST", url, b"{}", **{"x-api-key": "guessed"}) == (403, {"message": "Forbidden"})
    key = aws.client("apigateway").get_api_key(apiKey=other.outputs["ApiKeyId"], includeValue=True)["value"]
    assert send("POST", url, b"{}", **{"x-api-key": key})[0] == 400


def test_the_kill_switch_is_one_parameter_of_an_update(other, aws, built) -> None:
    def state() -> str:
        mappings = aws.client("lambda").list_event_source_mappings(FunctionName=other.outputs["ProcessorFunction"])
        (mapping,) = mappings["EventSourceMappings"]
        return str(mapping["State"])

    assert state() == "Enabled"
    deploy(aws, built, "pik-other", ApiAuthorization="API_KEY", EnableProcessor="false")
    assert state() == "Disabled"
