"""A function whose call stalls gives up on it within seconds and sends it again: there is an answer in time."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from pik.errors import StoreError
from pik.model.window import ALL_TIME
from pik.ports.remote import RecordStatus
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.care.verify import verify
from pik.usecases.ingest.api_request import record_request
from tests.support.aws.calls import SERVICES, hooked
from tests.support.aws.emulator import REGION, make_stack, publish
from tests.support.stores import PlainEngine

BODY = b'{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}'
ANSWERED_WITHIN = 29
"""Seconds for which the API waits for a function."""


@pytest.fixture
def in_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "ingest")


@pytest.mark.usefixtures("in_function")
def test_all_attempts_at_a_call_that_stalls_fit_into_the_time_of_a_function() -> None:
    for service in SERVICES:
        config = Clients(REGION).client(service).meta.config
        assert config.connect_timeout + config.read_timeout <= 7
        assert config.retries["total_max_attempts"] * config.read_timeout < ANSWERED_WITHIN


def test_other_processes_wait_for_longer() -> None:
    config: Any = Clients(REGION).client("s3").meta.config
    assert config.read_timeout == 30


@pytest.mark.usefixtures("in_function")
@pytest.mark.parametrize("operation", ["PutObject", "TransactWriteItems"])
def test_a_stalled_call_is_sent_again(aws: Clients, operation: str) -> None:
    store = open_store(publish(aws, make_stack(aws)))
    stalled: list[str] = []

    def stall(request: Any, event_name: str, **_: object) -> None:
        if event_name.endswith(operation) and len(stalled) < 2:
            stalled.append(event_name)
            raise ReadTimeoutError(endpoint_url=request.url)

    with hooked(store, "before-send", stall):
        assert [result.status for result in record_request(store, BODY).results] == [RecordStatus.ACCEPTED]
    assert len(stalled) == 2


@pytest.mark.usefixtures("in_function")
def test_what_was_refused_after_its_object_is_unacknowledged_and_no_damage(aws: Clients) -> None:
    store = open_store(publish(aws, make_stack(aws)))

    def stall(request: Any, event_name: str, **_: object) -> None:
        if event_name.endswith("TransactWriteItems"):
            raise ReadTimeoutError(endpoint_url=request.url)

    with hooked(store, "before-send", stall), pytest.raises(StoreError):
        record_request(store, BODY)
    found = verify(store, PlainEngine(), ALL_TIME, SILENT)
    assert list(found) == []
    assert (found.summary.unacknowledged, found.summary.damage) == (1, 0)
    assert [result.status for result in record_request(store, BODY).results] == [RecordStatus.ACCEPTED]
