"""docs/runbooks/busy-stack.md: its commands, on a stack with dead letters of buffered requests."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from pik.model.buffered import BufferedRequest, read_message
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.buffered import record_buffered
from tests.docs.test_runbooks import STACK
from tests.support.aws.bare import deploy_bare
from tests.support.aws.commands import run, section
from tests.support.aws.emulator import REGION
from tests.support.stores import event

REQUEST = BufferedRequest(
    request_id="7c2f5a3e-8d41-4b0a-9a66-0f1c5d2e9b84",
    received_at=1_772_442_000_000_000_000,
    body=json.dumps(event(1, "a", "01T00:00")).encode(),
)


@pytest.mark.slow  # a rebuild waits for more than a minute
def test_the_runbook(aws: Clients, tmp_path: Path) -> None:
    name = f"pik-{uuid4().hex[:8]}"
    deployed = deploy_bare(aws, name)
    sqs, lost = aws.client("sqs"), deployed.resource("IngestDeadLetterQueue")
    url = f"aws://{name}?region={REGION}"

    def play(*headings: str) -> str:
        script = "\n".join(section(STACK, heading) for heading in headings)
        script = script.replace("aws://pik", url).replace("--stack-name pik", f"--stack-name {name}")
        return run(script, tmp_path, PIK_STORE=url)

    sqs.send_message(QueueUrl=lost, MessageBody='{"not": "ours"}')
    assert "lost requests  1 buffered request could not be recorded" in play("1. Look")
    assert "not a request" in play("Repair")
    sqs.send_message(QueueUrl=lost, MessageBody=REQUEST.message())
    said = play("Repair")
    assert REQUEST.request_id in said
    assert '"entity_id"' in said
    (back,) = sqs.receive_message(QueueUrl=deployed.resource("IngestQueue"))["Messages"]
    assert record_buffered(open_store(url), [read_message(back["Body"])]).failure is None
    assert "replaced index" in play("A rebuild in production")
    assert "COMPLETE" in play("Proof")
