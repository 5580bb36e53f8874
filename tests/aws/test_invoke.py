"""Calling a function without waiting for it."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path

import pytest

from pik import lambdas
from pik.stores.aws.clients import Clients, Refused

CODE = """
import json
def handler(event, context):
    with open(event["path"], "w") as file:
        json.dump(event, file)
"""


def test_a_function_calls_itself_again(aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("function.py", CODE)
    aws.client("lambda").create_function(
        FunctionName="itself",
        Runtime="python3.13",
        Role="arn:aws:iam::000000000000:role/r",
        Handler="function.handler",
        Code={"ZipFile": packed.getvalue()},
    )
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "itself")
    event = {"path": str(tmp_path / "event"), "later": {"run_id": "é"}}
    lambdas.call_again(event)
    until = time.monotonic() + 300
    while not ((tmp_path / "event").exists() and (tmp_path / "event").read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    assert json.loads((tmp_path / "event").read_text()) == event


def test_a_denied_call_is_reported(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "nobody")
    with pytest.raises(Refused, match="Lambda refused Invoke"):
        lambdas.call_again({})
