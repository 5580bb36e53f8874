"""A stack deployed with other parameters than the defaults; slow, for each deployment takes a while."""

from __future__ import annotations

import json

import pytest

from pik.engine import DuckEngine
from pik.model.instant import parse_instant
from pik.model.run import RunRequest, RunState
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.api_request import record_request
from pik.usecases.replay.execute import enqueue_tasks
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.wait import wait
from tests.support.aws.commands import run, section
from tests.support.aws.deployed import Deployed, deploy, send
from tests.support.aws.emulator import REGION
from tools.template import PATH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployed")]

EVENT = {
    "source": "shop",
    "event_type": "order",
    "entity_id": "switched",
    "event_time": "2026-02-03T01:00:00Z",
    "payload": {},
}


@pytest.fixture(scope="module")
def other(aws: Clients, built) -> Deployed:
    return deploy(aws, built, "pik-other", ApiAuthorization="API_KEY")


def test_with_a_key_instead_of_a_signature_the_key_opens_the_api_and_nothing_else_does(other, aws) -> None:
    url = other.api + "/replay"
    assert send("POST", url, b"{}") == (403, {"message": "Forbidden"})
    assert send("POST", url, b"{}", **{"x-api-key": "guessed"}) == (403, {"message": "Forbidden"})
    key = aws.client("apigateway").get_api_key(apiKey=other.outputs["ApiKeyId"], includeValue=True)["value"]
    assert send("POST", url, b"{}", **{"x-api-key": key})[0] == 400


def test_a_producer_gets_a_key_and_a_rate_of_its_own(other, tmp_path) -> None:
    api_id = other.outputs["ApiUrl"].removeprefix("https://").partition(".")[0]
    key = run(section(PATH.parent / "docs" / "deploy.md", "Parameters"), tmp_path, API_ID=api_id).splitlines()[-1]
    assert send("POST", other.api + "/replay", b"{}", **{"x-api-key": key})[0] == 400


def test_the_kill_switch_is_one_parameter_of_an_update(other, aws, built) -> None:
    def state() -> str:
        mappings = aws.client("lambda").list_event_source_mappings(FunctionName=other.outputs["ProcessorFunction"])
        (mapping,) = mappings["EventSourceMappings"]
        return str(mapping["State"])

    assert state() == "Enabled"
    deploy(aws, built, "pik-other", EnableProcessor="false")
    assert state() == "Disabled"
    store = open_store(f"aws://{other.stack.name}?region={REGION}")
    record_request(store, json.dumps(EVENT).encode())
    asked = RunRequest(start=parse_instant("2026-02-03T00:00:00Z"), end=parse_instant("2026-02-04T00:00:00Z"))
    run = start(store, plan_replay(store, DuckEngine(), asked, 1))
    assert enqueue_tasks(store, run.run_id) == 1
    message = store.queue.receive(run.run_id, 60)
    assert message is not None
    assert message.receives == 1  # nobody took it before
    store.queue.release(message, 0)
    deploy(aws, built, "pik-other", EnableProcessor="true")
    ended = wait(store, run.run_id, SILENT)
    assert (ended.state, ended.new) == (RunState.COMPLETED, 1)
