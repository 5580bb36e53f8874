"""What a shell offers when TAB is pressed after an option or argument: names and ids of this store, and of pik.toml.

It looks at local stores and files only: a deployed store would be asked over the network with each key. Whatever goes
wrong, nothing is offered and nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pik.cli.context import Context
from pik.errors import NotFound

if TYPE_CHECKING:
    from pik.ports.store import Store

_MOST = 50
"""The newest runs or batches, or segments whose entities are looked at."""

_PLAIN = re.compile(r"[\w.@/+=-]+")
"""What every shell takes as one word, without quotes; others are not offered."""

Offered = str | tuple[str, str]
"""A word, or a word and what it is."""

Completion = Callable[..., list[Offered]]


def _silent(offer: Callable[[typer.Context], Iterable[Offered]]) -> Completion:
    """Return a function as Typer wants it: what is offered for the beginning of a word, and nothing after an error."""

    def complete(ctx: typer.Context, incomplete: str) -> list[Offered]:
        try:
            names = dict.fromkeys(offer(ctx))
            return [one for one in names if _name(one).startswith(incomplete) and _PLAIN.fullmatch(_name(one))]
        except Exception:  # noqa: BLE001 - a message would land in the middle of the line that is being typed
            return []

    return complete


def _name(offered: Offered) -> str:
    return offered if isinstance(offered, str) else offered[0]


def _context(ctx: Any) -> Context:
    """Return the context of a command, with the --store that stands furthest right so far."""
    return Context(ctx.params.get("store") or (_context(ctx.parent).store_option if ctx.parent is not None else None))


def _store(ctx: typer.Context) -> Store:
    """Open the store, if it is a local one. Raises PikError and OSError."""
    cli = _context(ctx)
    if not Path(cli.settings.store).expanduser().is_dir():  # a URL, or a bundle, which takes long to open
        raise NotFound("no local store")
    return cli.open_store()


@_silent
def stores(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Yield the named stores of pik.toml."""
    yield from _context(ctx).settings.stores.items()


@_silent
def mappings(ctx: typer.Context) -> Iterator[str]:
    """Yield the mappings of pik.toml, and those that are shipped."""
    from pik.inputs.named_mappings import shipped_mappings

    yield from _context(ctx).settings.mappings
    yield from shipped_mappings()


@_silent
def metrics(ctx: typer.Context) -> Iterator[str]:
    """Yield the metrics of the store."""
    yield from (one.name for one in _store(ctx).metrics.latest())


@_silent
def runs(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Yield the newest runs, with what they were."""
    yield "latest", "the newest run"
    for one in islice(_store(ctx).runs.newest_first(), _MOST):
        yield one.run_id, f"{one.kind} {one.state}"


@_silent
def batches(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Yield the newest batches, with where they came from."""
    yield "latest", "the newest batch"
    for one in islice(_store(ctx).index.batches(), _MOST):
        yield one.batch_id, re.sub(r"[^\w.-]", "_", one.origin.name.rpartition("/")[2])


@_silent
def corrections(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Yield the newest corrections, with their kind."""
    yield "latest", "the newest correction"
    for one in islice(reversed(_store(ctx).corrections.recorded()), _MOST):
        yield one.correction_id, str(one.kind)


@_silent
def sources(ctx: typer.Context) -> Iterator[str]:
    """Yield the sources of the newest batches."""
    yield from (name for one in islice(_store(ctx).index.batches(), _MOST) for name in one.sources)


@_silent
def entities(ctx: typer.Context) -> Iterator[str]:
    """Some entities: those at which the frames of some segments begin and end, which the index knows."""
    from pik.model.window import ALL_TIME

    for segment in islice(_store(ctx).index.segments(ALL_TIME), _MOST):
        for frame in segment.frames:
            yield from (frame.first, frame.last)


_OFFERS: Mapping[str, Completion] = {
    "--store": stores,
    "--mapping": mappings,
    "--metric": metrics,
    "METRIC": metrics,
    "--not-counted": metrics,
    "--run": runs,
    "RUN": runs,
    "--batch": batches,
    "BATCH": batches,
    "CORRECTION": corrections,
    "--correction": corrections,
    "--source": sources,
    "--entity": entities,
}


def completed(name: str) -> dict[str, Any]:
    """Return the setting of Typer for an option of that name, or an argument shown so, if it is one of these."""
    return {"autocompletion": _OFFERS[name]} if name in _OFFERS else {}
