"""`pik init`: create an empty store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pik.cli.command import cli_command
from pik.cli.context import Context
from pik.cli.document import Field, Schema
from pik.errors import NotFound, UsageError, command

if TYPE_CHECKING:
    pass


@cli_command(
    "init",
    examples="""
    pik init
    pik init --store ~/incidents/2026-01-31
    PIK_STORE=~/incidents/2026-01-31 pik init
    """,
)
def init(cli: Context) -> None:
    """Create the store that --store, PIK_STORE or pik.toml names, or else ./.pik; leave it as it is if it exists.

    The first ingest creates ./.pik. No other command creates a store that --store names, so that a misspelled name is
    an error.
    """
    place = cli.settings.default_store or cli.settings.store
    if place.startswith("aws://"):
        raise UsageError(f"{place} is a deployed stack", hint="sam deploy creates one (docs/deploy.md)")
    created = False
    try:
        store = cli.open_store(place)
    except NotFound:
        store, created = cli.open_store(place, create=True), True
    named = () if cli.settings.default_store else ("--store", place)
    line = command(*named, *(("ingest", "FILE") if created else ("status",)))
    cli.show(INIT, store, created=created, next=line)


INIT = Schema(
    "pik init",
    Field("store", str, "the directory", get="url"),
    Field("created", bool, "false if the store already existed; then nothing was changed"),
    Field("store_format", int, "the version of its layout", get="format_version"),
    Field("next", str),
)
