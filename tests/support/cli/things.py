"""Commands that exist for tests only: `things` shows what it is told to, `fail` fails as it is told to."""

from __future__ import annotations

import errno
import os
import time
from decimal import Decimal
from typing import Annotated, Literal

import typer

from pik.cli import options
from pik.cli.command import FOUND, CommandGroup, cli_command
from pik.cli.context import Context
from pik.cli.document import Column, Document, Table
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
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="Where they are.")] = None,
    entity: options.Entities = None,
    limit: options.Limit = 3,
    kind: Annotated[
        Literal["exact", "conflict"] | None, typer.Option("--class", metavar="CLASS", help="Which.")
    ] = None,
    share: Annotated[Decimal | None, typer.Option("--share", metavar="N", help="How much.")] = None,
) -> int | None:
    """Show things.

    As many as you like.
    """
    rows = ({"id": f"{n:032x}", "at": n, "lag": -n} for n in range(limit or 0))
    cli.show(
        Document(
            head={"store": cli.settings.store, "files": files, "entity": entity, "class": kind, "share": share},
            tables=[Table("things", [Column("id"), Column("at", Instant), Column("lag", Lag)], rows)],
        )
    )
    cli.note("that was all")
    return FOUND if kind == "conflict" else None


fail = CommandGroup("Ways to go wrong.")


@fail.add("how", examples="pik fail how bug")
def how(
    _cli: Context,
    way: Annotated[
        Literal["bug", "absent", "full", "sleep", "interrupt", "memory"],
        typer.Argument(metavar="WAY", help="Which way."),
    ],
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
