"""Commands that exist for tests only: `things` shows what it is told to, `fail` fails as it is told to."""

from __future__ import annotations

import errno
import os
import time
from decimal import Decimal
from typing import Annotated, Literal

from pik.cli import options
from pik.cli.command import FOUND, CommandGroup, cli_command
from pik.cli.context import Context
from pik.cli.document import Column, Field, Rows, Schema
from pik.cli.options import argument, option
from pik.cli.values import Instant, Lag
from pik.errors import NotFound


@cli_command(
    "things",
    examples="""
    # two of them
    pik things --limit 2   # as written,  spaces too
    """,
)
def things(
    cli: Context,
    files: Annotated[list[str] | None, argument("[FILE]...", "Where they are.")] = None,
    entity: options.Entities = None,
    limit: options.Limit = 3,
    kind: Annotated[Literal["exact", "conflict"] | None, option("--class CLASS", "Which.")] = None,
    share: Annotated[Decimal | None, option("--share N", "How much.")] = None,
) -> int | None:
    """Show things.

    As many as you like.
    """
    rows = ({"id": f"{n:032x}", "at": n, "lag": -n} for n in range(limit or 0))
    chosen = {"store": cli.settings.store, "files": files, "entity": entity, "class": kind, "share": share}
    cli.show(THINGS, chosen, things=rows)
    cli.note("that was all")
    return FOUND if kind == "conflict" else None


THINGS = Schema(
    "pik things",
    *map(Field, ("store", "files", "entity", "class", "share")),
    Rows("things", "", Column("id"), Column("at", Instant), Column("lag", Lag)),
)


fail = CommandGroup("Ways to go wrong.")


@fail.add("how", examples="pik fail how bug")
def how(
    _cli: Context,
    way: Annotated[Literal["bug", "absent", "full", "sleep", "interrupt", "memory"], argument("WAY", "Which way.")],
) -> None:
    """Fail in one way."""
    if way == "sleep":
        os.write(1, b"sleeping\n")
        time.sleep(60)
    raise {
        "bug": ZeroDivisionError("by nothing"),
        "absent": NotFound("there is no store ./x", hint="pik ingest FILE makes one"),
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"),
        "interrupt": KeyboardInterrupt(),
        "memory": MemoryError(),
    }[way]
