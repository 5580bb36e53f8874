"""Who changed something in a stack: the caller's ARN, unless a name is given or STS does not tell it."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pik.stores.aws.clients import Clients
from tests.cli.conftest import pik
from tests.support.aws.emulator import make_stack, publish
from tests.support.stores import event
from tests.support.targets import HttpReceiver

__all__ = ["pik"]

DENIED = b"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>not allowed from here</Message></Error></ErrorResponse>"""


def test_what_a_command_changes_in_a_stack_is_recorded_with_the_callers_arn(
    pik: Any, aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where STS denies it, or cannot be reached, the user and the host are, and a note says so."""
    monkeypatch.setattr("pik.stores.aws.catalog.generation.NOTICED", 0.01)
    at = ("--store", publish(aws, make_stack(aws)), "--format", "json")
    (tmp_path / "events.jsonl").write_text(json.dumps(event(1, "a", "01T10:00")))
    arn = aws.client("sts").get_caller_identity()["Arn"]
    assert arn.startswith("arn:aws:")
    assert pik("ingest", "events.jsonl", *at).code == 0
    assert [one["actor"] for one in pik("batches", *at).json()["batches"]] == [arn]

    def corrected(*more: str) -> tuple[str, str]:
        made = pik("correct", "--assume", "shift=1h,entity=a", "--reason", "INC-1", *more, *at)
        assert made.code == 0, made.err
        return made.json()["actor"], made.err

    assert corrected("--yes")[0] == arn
    assert [one["actor"] for one in pik("corrections", "list", *at).json()["corrections"]] == [arn]
    repeated = pik("correct", "--assume", "shift=1h,entity=a", "--reason", "INC-1", "--actor", "ben", "--yes", *at)
    assert (repeated.code, "recorded already" in repeated.err) == (2, True), "another session has another ARN"
    assert corrected("--dry-run", "--actor", "ana")[0] == "ana"
    user = f"{getpass.getuser()}@{os.uname().nodename}"
    with HttpReceiver(lambda _attempt, _body: (403, DENIED)) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        actor, said = corrected("--dry-run")
        assert (actor, f"recorded as {user}, unless --actor says otherwise: STS denies" in said) == (user, True), said
    actor, said = corrected("--dry-run")  # now nothing listens there
    assert (actor, "unless --actor says otherwise: cannot reach STS" in said) == (user, True), said


def test_the_arn_of_a_role_names_the_session(moto: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    role = "arn:aws:iam::123456789012:role/correcting"
    given = moto.client("sts").assume_role(RoleArn=role, RoleSessionName="ana")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
    assert Clients("eu-central-1").caller() == "arn:aws:sts::123456789012:assumed-role/correcting/ana"
