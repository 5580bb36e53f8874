"""`pik events --follow`: deliveries as they are recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from time import sleep
from typing import TYPE_CHECKING

from pik.cli.context import Context
from pik.cli.document import Rows, Schema
from pik.config import Format
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.model.delivery import Filter
    from pik.ports.store import Store
    from pik.usecases.inspect.conditions import Conditions
    from pik.usecases.inspect.events import EventRow

SECONDS = 2.0
"""Between two looks."""


def expect_followable(cli: Context, others: Sequence[str]) -> None:
    """Raise UsageError for options, or a format, that need all rows at once."""
    if others:
        raise UsageError(f"--follow does not go with {others[0]}", hint="to select further: --format jsonl, and jq")
    if cli.settings.format not in (Format.TABLE, Format.JSONL):
        raise UsageError(
            f"--follow writes rows as they come, which {cli.settings.format} cannot", hint="--format jsonl, or table"
        )


def show_as_recorded(
    cli: Context, store: Store, wanted: Filter, conditions: Conditions, schema: Schema, limit: int | None
) -> None:
    """Show deliveries as they are recorded, until Ctrl-C, or until so many are shown."""
    from pik.usecases.inspect.follow import Follower

    rows = Schema(schema.title, *(part for part in schema.parts if isinstance(part, Rows)))
    rows = rows.without("events.deliveries")
    follower = Follower(store, wanted, conditions)
    cli.paged = False  # rows are seen as they come
    cli.note("waiting for deliveries; Ctrl-C ends it")
    while limit is None or limit > 0:
        found = follower.new()
        for first in found:
            shown = CountedRows(chain([first], islice(found, None if limit is None else limit - 1)))
            cli.show(rows, {}, events=shown)
            sys.stdout.flush()
            limit = None if limit is None else limit - shown.number
            if limit == 0:
                return
        sleep(SECONDS)


class CountedRows:
    """Rows, of which `number` were read."""

    def __init__(self, rows: Iterable[EventRow]) -> None:
        self._rows, self.number = rows, 0

    def __iter__(self) -> Iterator[EventRow]:
        for row in self._rows:
            self.number += 1
            yield row
