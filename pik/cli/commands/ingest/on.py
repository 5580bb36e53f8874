"""`pik ingest --on`: files that the machines of a cluster read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pik.cli import options
from pik.cli.context import Context
from pik.errors import UsageError

if TYPE_CHECKING:
    from pik.inputs.source import Input, Refuse, Source
    from pik.ports.store import Store
    from pik.usecases.ingest.batch_ingest import IngestOptions, IngestReport


def expect_possible_on(
    cli: Context, on: str, sources: Sequence[Source], local: Mapping[str, bool], workers: int | None
) -> None:
    """Raise UsageError for what a cluster does not do: a `local` option that is given, or an input that only this
    process can read; and where there can be none."""
    here = "it is for this process alone; leave one of the two out"
    refused = {name: (given, here) for name, given in local.items()}
    refused["--workers"] = workers is not None, "how many tasks run at a time is up to the cluster"
    options.not_beside(f"--on {on}", refused)
    for source in sources:
        if source.is_stream:
            raise UsageError(
                f"{source.name} can be read only once, and by this process alone",
                hint=f"write it to a file that the machines of {on} see, or leave out --on",
            )
    cli.expect_fleet(on)


def reports_on(
    cli: Context, on: str, store: Store, inputs: Sequence[Input], chosen: IngestOptions, refuse: Refuse
) -> Iterator[IngestReport]:
    """Yield what became of the inputs, which a cluster reads."""
    from pik.inputs.source import Source
    from pik.usecases.ingest.bulk import ingest_in_bulk

    sources = [one for one in inputs if isinstance(one, Source)]
    return ingest_in_bulk(store, cli.fleet(on, store), sources, chosen, cli.progress, refuse, cli.note)
