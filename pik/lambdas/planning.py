"""The calls of the replay function that nobody waits for, and Lambda's record of such a call that failed."""

from __future__ import annotations

from typing import Any

import msgspec

from pik.model.run import Run

_LONGEST = 1000  # characters of an error


class Call(msgspec.Struct, frozen=True):
    """What the function sends to itself: a run that is PLANNING (`later`); or what the stack's schedule sends it: to
    back up the state. No request of API Gateway has such fields."""

    later: Run | None = None
    backup: bool = False


class _Context(msgspec.Struct, frozen=True, rename="camel"):
    condition: str = ""
    approximate_invoke_count: int = 0


class FailedCall(msgspec.Struct, frozen=True, rename="camel"):
    """The record that Lambda writes of an asynchronous call when it gives it up, to the destination OnFailure. Lambda
    writes it whatever became of the function: it raised an error, ran out of time or memory, or was never called."""

    request_payload: Call
    request_context: _Context = _Context()
    response_payload: Any = None

    @property
    def reason(self) -> str:
        """Why it was not done, in words."""
        what = "its planning" if self.request_payload.later else "the backup"
        if self.request_context.condition == "EventAgeExceeded":
            return f"{what} was given up before it could be called often enough (EventAgeExceeded)"
        response = self.response_payload if isinstance(self.response_payload, dict) else {}
        error = ": ".join(str(response[key]) for key in ("errorType", "errorMessage") if response.get(key))
        tried = self.request_context.approximate_invoke_count
        times = f", {tried} times" if tried > 1 else ""
        return f"{what} failed{times}: {' '.join(error.split())[:_LONGEST] or 'no error was recorded'}"
