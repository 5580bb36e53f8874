"""The real template, built and deployed to the emulator with SAM, as a user would do it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack, find_stack
from tools import sam
from tools.ministack import ENVIRONMENT, REGION


@dataclass(frozen=True, slots=True)
class Deployed:
    """A stack in the emulator."""

    stack: Stack
    outputs: dict[str, str]
    api: str
    """Where the API is: the emulator serves it under another URL than the output says."""

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of a signed request."""
        request = AWSRequest(method, self.api + path, {"Content-Type": "application/json", **headers}, body)
        credentials = Credentials(ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"])
        SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
        return send(method, self.api + path, body, **dict(request.headers.items()))


def deploy(clients: Clients, template: Path, name: str, **parameters: str) -> Deployed:
    """Deploy a built template under this name, or update the stack that has it."""
    outputs = sam.deploy(clients, template, name, **parameters)
    return Deployed(find_stack(clients, name), outputs, sam.api_url(outputs, os.environ["AWS_ENDPOINT_URL"]))


def send(method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a request as it is."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)
