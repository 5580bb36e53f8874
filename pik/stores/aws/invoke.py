"""Calling a function of the stack without waiting for it."""

from __future__ import annotations

from typing import Any

import msgspec

from pik.stores.aws.clients import Clients
from pik.stores.aws.errors import translated


def invoke_later(function: str, event: dict[str, Any]) -> None:
    """Have Lambda call the function with `event`, again if it fails. Raises StoreError."""
    with translated("lambda"):
        Clients().client("lambda").invoke(
            FunctionName=function, InvocationType="Event", Payload=msgspec.json.encode(event)
        )
