"""`pik ingest` into a store: what is recorded, or with --dry-run would be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pik.cli.command import PARTLY
from pik.cli.commands.ingest import ingest_fields, ingest_inputs
from pik.cli.context import Context
from pik.errors import NotFound

if TYPE_CHECKING:
    from pik.inputs.source import Source
    from pik.ports.store import Store
    from pik.usecases.ingest.batch_ingest import Ingested, IngestOptions


def ingest(cli: Context, sources: list[Source], chosen: IngestOptions, rejects: Path | None) -> int | None:
    """Record the inputs, and show what became of each."""
    from pik.usecases.ingest.batch_ingest import ALREADY
    from pik.usecases.inspect.batches import write_rejects

    store = _store(cli, sources, chosen)
    done = _record(cli, store, sources, chosen)
    if rejects:
        write_rejects(store, [one.batch for one in done], rejects)
    cli.show(ingest_fields.ingested(done, mapped=chosen.reading.mapping is not None))
    return PARTLY if any(one.batch.counts.rejected for one in done if one.outcome != ALREADY) else None


def check(cli: Context, sources: list[Source], chosen: IngestOptions, rejects: Path | None) -> int | None:
    """Read the inputs, record nothing, and show what would be recorded."""
    from pik.usecases.ingest.batch_ingest import check as checked_input

    with ingest_inputs.rejects_file(rejects) as write:
        checked = [checked_input(source, chosen, cli.progress, write) for source in sources]
    cli.show(ingest_fields.checked(checked, mapped=chosen.reading.mapping is not None))
    return PARTLY if any(one.reasons for one in checked) else None


def _store(cli: Context, sources: list[Source], chosen: IngestOptions) -> Store:
    """Open the store. The default one is created if it is absent, unless an input cannot be read."""
    from pik.usecases.ingest.batch_ingest import probe

    try:
        return cli.create_store(cli.open_store().url)
    except NotFound:
        if cli.settings.default_store is None:
            raise
    for source in sources:
        probe(source, chosen)
    store = cli.create_store(cli.settings.default_store)
    cli.note(f"created a store at {store.url}")
    return store


def _record(cli: Context, store: Store, sources: list[Source], chosen: IngestOptions) -> list[Ingested]:
    """Ingest one after the other; where one fails, tell what became of those before it."""
    from pik.usecases.ingest.many_inputs import ingest_all

    done: list[Ingested] = []
    try:
        for one in ingest_all(store, sources, chosen, cli.progress):
            done.append(one)  # noqa: PERF402 - those before an error are told of
    except BaseException:
        for one in done:
            cli.note(f"{one.source}: {one.outcome}, batch {one.batch.batch_id}")
        raise
    return done
