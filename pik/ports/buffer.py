"""Buffered ingest: the queue of requests, and which batch records each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Buffer(Protocol):
    """A queue that delivers each message at least once, in no order."""

    def put(self, message: str) -> None:
        """Put a text of at most MAX_MESSAGE bytes into the queue, which has it when this returns. Raises StoreError."""

    def release(self, receipt: str, delay: float) -> None:
        """Let a message that was delivered come again after so many seconds. Raises StoreError."""


class Assignments(Protocol):
    """Which batch records a buffered request, which its message may bring several times: at most one at any moment.

    Requests are given by their ids, or, to be found, by what follows the time in these. What is kept survives a rebuild
    of the index, and ends some time after `until` (seconds since the epoch).
    """

    def assign(self, requests: Sequence[str], batch_id: str, until: int) -> list[str]:
        """Assign the requests to a batch, except those that are assigned already; return the batch of each."""

    def move(self, request: str, before: str, after: str) -> bool:
        """Assign a request to the batch `after` in place of `before`; return whether it is assigned to `after` now."""

    def batch_of(self, digits: str) -> str | None:
        """Return the batch to which the request with these digits (see `request_digits`) is assigned; None: to none."""
