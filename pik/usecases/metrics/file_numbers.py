"""Numbers of a file as one side of a comparison: found columns, what is in scope, sorted on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pik.errors import InputError, NothingSelected, UsageError
from pik.model.aggregate import Aggregate, BucketDigest
from pik.model.instant import display_instant
from pik.model.metric import Metric, entity_text
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import Window
from pik.ports.engine import Engine, Figures, NumbersExtent
from pik.ports.store import Store
from pik.runtime.storage import scratch
from pik.usecases.metrics.definitions import of_entities
from pik.usecases.metrics.scenario import definitions

if TYPE_CHECKING:
    from pik.inputs.figures import Columns, Table
    from pik.inputs.source import Source


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A file of numbers, and the columns that are named: `key` (bucket, entity) and `values` (by metric)."""

    source: Source
    key: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


def read_names(option: str, texts: Sequence[str], known: Sequence[str] = ()) -> dict[str, str]:
    """Return the pairs written as NAME=COLUMN, several with a comma between them. Raises UsageError."""
    found: dict[str, str] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, equals, column = part.partition("=")
        if not equals or not name or not column or (known and name not in known):
            names = " or ".join(known) or "METRIC"
            raise UsageError(f"{option}: invalid {part!r}", hint=f"{option} NAME=COLUMN, where NAME is {names}")
        if name in found:
            raise UsageError(f"{option}: {name} is named twice")
        found[name] = column
    return found


@dataclass(frozen=True, slots=True)
class FileNumbers:
    """The numbers of a file that are in scope. `left_out` are outside the window or the entities, `other_metrics` of
    metrics that are not wanted. `digest` is the SHA-256 of the file, in hex. `approximate` are columns of floating
    point: their numbers are the shortest decimals that read back as the same doubles."""

    name: str
    digest: str
    columns: Columns
    metrics: Sequence[Metric]
    extent: NumbersExtent
    left_out: int
    other_metrics: int
    approximate: Sequence[str]
    figures: Figures

    def current(self, metric: str, window: Window, entities: Sequence[str] = ()) -> Iterator[Aggregate]:  # noqa: ARG002
        """Yield the numbers as `Aggregates.current` does; those of other entities are not among them anyway."""
        version = next(each.version for each in self.metrics if each.name == metric)
        for row in self.figures.rows(metric, window):
            yield Aggregate(row, "", version, 0, "", current=True)

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        """Yield the digests of the values alone."""
        return self.figures.digests(metric, window)


@contextmanager
def file_numbers(
    store: Store,
    engine: Engine,
    request: FileRequest,
    window: Window,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    scenario: Scenario = PLAIN,
) -> Iterator[FileNumbers]:
    """Read the numbers of the buckets that the window touches, and provide them.

    Raises InputError naming the line that cannot be read or repeats another, UsageError where columns are not found,
    NothingSelected where nothing is in scope, NotFound for an unknown metric. Rows of metrics over all entities have
    none; with `entities` they are left out.
    """
    from pik.inputs.figure_files import open_table  # imports csv, gzip and what reads inputs

    known = {one.name: one for one in definitions(store, engine, scenario, metrics or list(request.values))}
    if others := [name for name in request.values if name not in known]:
        column, meant = request.values[others[0]], get_close_matches(others[0].lower(), known, 1) or list(known)[:1]
        raise UsageError(
            f"--value {others[0]}={column}: {others[0]!r} is not a metric of this comparison",
            hint=f"--value {meant[0]}={column}",
        )
    of_entities(list(known.values()), entities)
    over_all = {name for name, one in known.items() if one.is_over_all}
    with ExitStack() as stack:
        path = stack.enter_context(scratch()) / "figures"
        with open_table(request.source) as table, path.open("w", encoding="utf-8", newline="\n") as file:
            columns = table.columns(list(known), request.key, request.values, over_all)
            wanted = known if columns.metric else {name: known[name] for name in columns.values if name in known}
            seen, left_out = set[str](), 0
            scopes = {name: one.buckets.widened(window) for name, one in wanted.items()}
            some = set(entities)
            buckets_of = {name: one.buckets for name, one in wanted.items()}
            for line, metric, bucket, entity, value in table.figures(columns, buckets_of, over_all):
                seen.add(metric)
                if bucket in scopes[metric] and (not some or entity in some):
                    file.write(f"{metric}\t{bucket}\t{entity}\t{value}\t{line}\n")
                else:
                    left_out += 1
        figures = stack.enter_context(engine.figures(path))
        extent = figures.extent()
        if extent is None:
            raise _nothing(table, sorted(wanted), seen, window, entities)
        if repeated := figures.repeated():
            row, first, second = repeated
            raise InputError(
                f"{table.name}, {table.unit} {second:,}: {row.metric} of {entity_text(row.entity_id)} in"
                f" {display_instant(row.bucket)} is already in {table.unit} {first:,}",
                hint="a comparison takes one number for each metric, bucket and entity",
            )
        compared = [one for name, one in wanted.items() if name in seen or metrics]
        yield FileNumbers(
            *(table.name, table.digest, columns, compared, extent, left_out),
            *(table.other_metrics, table.approximate, figures),
        )


def _nothing(
    table: Table, metrics: Sequence[str], seen: set[str], window: Window, entities: Sequence[str]
) -> NothingSelected:
    if not seen:
        return NothingSelected(f"{table.name} has no number of {', '.join(metrics)}")
    of = f" of {', '.join(map(repr, entities[:5]))}" if entities else ""
    return NothingSelected(
        f"{table.name} has no number{of} {window.within}", hint="leave --from, --to, --since or --entity out"
    )
