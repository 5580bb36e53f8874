"""The fields of the objects around each record of a block, for a mapping that uses them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pik.inputs.blocks import Block
from pik.model.event import Event
from pik.model.identity import check_json, exact_number


class Parents:
    """Finds the fields around records, asked for in the order of the records."""

    def __init__(self, block: Block) -> None:
        self._parts = iter(block.parents)
        self._last_seq = block.first_seq - 1
        self._extra = b""
        self._found: tuple[Mapping[str, Any], ...] = ()

    def of(self, seq: int) -> tuple[Mapping[str, Any], ...]:
        """Return the fields around a record, numbers exact: one object, or none without any."""
        while seq > self._last_seq and (part := next(self._parts, None)) is not None:
            self._last_seq = part.last_seq
            if seq <= part.last_seq:
                self._extra = b'{"parents":%b}' % part.fields
                self._found = (json.loads(part.fields, parse_float=exact_number, parse_int=exact_number),)
        return self._found

    def add_to(self, event: Event) -> None:
        """Keep the fields around the last record with its event, beside those that the record itself has. Raises
        Invalid where they cannot be kept."""
        if self._found:
            check_json(self._extra, "a field around the record")
            event.extra = self._extra
