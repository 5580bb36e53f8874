"""`pik init`: an empty store, where the user wants it."""

from __future__ import annotations

from pik.cli.command import Commands
from pik.cli.context import Context
from pik.cli.render import Document
from pik.errors import NotFound, UsageError, command

commands = Commands()


@commands.add(
    "init",
    examples="""
    pik init
    pik init --store ~/incidents/2026-01-31
    PIK_STORE=~/incidents/2026-01-31 pik init
    """,
)
def init(cli: Context) -> None:
    """Create the store that --store, PIK_STORE or pik.toml names, or else ./.pik; leave it as it is if it exists.

    Except for ./.pik, which the first ingest creates, no other command creates a store that --store names: a typing
    error in its name is an error.
    """
    place = cli.settings.default_store or cli.settings.store
    if place.startswith("aws://"):
        raise UsageError(f"{place} is a deployed stack", hint="sam deploy creates one (docs/deploy.md)")
    created = False
    try:
        store = cli.open_store_at(place)
    except NotFound:
        store, created = cli.create_store(place), True
    named = () if cli.settings.default_store else ("--store", place)
    cli.show(
        Document(
            head={
                "store": store.url,
                "created": created,
                "store_format": store.format_version,
                "next": command(*named, *(("ingest", "FILE") if created else ("status",))),
            }
        )
    )
