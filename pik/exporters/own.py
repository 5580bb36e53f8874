"""The values of one's own columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pik.errors import Invalid, UsageError, command
from pik.model.column import OwnColumn, read_exactly, read_plainly


def own_values(
    columns: Sequence[OwnColumn], event_id: str, payload: bytes | msgspec.Raw | str, *, exactly: bool
) -> list[Any]:
    """Each column's value. `exactly` is needed for payloads with a `payload_text`, and slow.

    Raises UsageError naming the event and the column whose type does not hold the value.
    """
    text = payload.encode() if isinstance(payload, str) else payload
    value = read_exactly(text) if exactly else read_plainly(text)
    found: list[Any] = []
    for column in columns:
        try:
            found.append(column.value(value, len(text)))
        except Invalid as error:
            raise UsageError(
                f"--column {column.name}: event {event_id}: {error.message}",
                hint=f"string takes texts and numbers as they are; for its payload: {command('show', event_id)}",
            ) from None
    return found
