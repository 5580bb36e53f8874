"""Metric definitions and the values that they have: read, checked and applied; found by name; listed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pik.errors import InputError, Invalid, NotFound, NothingSelected, command
from pik.model.metric import Aggregate, Definition, Metric, read_definition, with_scale
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.state import Metrics
from pik.ports.store import Store
from pik.usecases.availability import expect_pulled
from pik.usecases.metrics.computation import sound, widest


@dataclass(frozen=True, slots=True)
class Applied:
    """A metric as the store has it now. `before` is the version that was the latest, None for a new metric; `changed`
    tells whether this one is another."""

    metric: Metric
    before: Metric | None
    changed: bool


def read_definitions(path: Path) -> list[Definition]:
    """The definitions in a TOML file: one, or several as [[metric]] tables. Raises InputError and Invalid."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    definitions = [read_definition(table, origin) for origin, table in _tables(document, str(path))]
    names = [definition.name for definition in definitions]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise Invalid(f"{path} defines {repeated} twice", hint="a file has one definition of a metric")
    return definitions


def _tables(document: dict[str, Any], origin: str) -> list[tuple[str, dict[str, Any]]]:
    if "metric" not in document:
        return [(origin, document)]
    tables = document["metric"]
    if len(document) > 1 or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Invalid(f"{origin}: beside [[metric]] tables there is nothing else", hint="docs/metrics.md has examples")
    return [(f"{origin}, metric {number}", table) for number, table in enumerate(tables, start=1)]


def apply(
    metrics: Metrics, engine: Engine, definitions: Sequence[Definition], applied_at: int, *, dry_run: bool = False
) -> list[Applied]:
    """Keep the definitions as the latest versions, if all of them pass the engine's check. Raises Invalid."""
    scales = [engine.check(definition) for definition in definitions]
    return [
        add_version(metrics, definition, applied_at, scale, dry_run=dry_run)
        for definition, scale in zip(definitions, scales, strict=True)
    ]


def add_version(
    metrics: Metrics, definition: Definition, applied_at: int, scale: int = 0, *, dry_run: bool = False
) -> Applied:
    """Keep a checked definition, and the scale of its values, as the next version of its name, unless the latest
    version is equal to it."""
    before = latest = _latest(metrics, definition.name)
    while latest is None or latest.definition != definition:
        version = latest.version + 1 if latest else 1
        metric = Metric(definition=definition, version=version, applied_at=applied_at, scale=scale)
        # Where another writer made this version meanwhile, or this process did and the answer was lost: look again.
        latest = metric if dry_run or metrics.append(metric) else _latest(metrics, definition.name)
    return Applied(latest, before, changed=latest is not before)


def _latest(metrics: Metrics, name: str) -> Metric | None:
    return next(reversed(metrics.versions(name)), None)


def versions(metrics: Metrics, name: str) -> list[Metric]:
    """Every version of a metric, the oldest first. Raises NotFound."""
    found = metrics.versions(name)
    if not found:
        raise _unknown(name, (metric.name for metric in metrics.latest()))
    return found


def chosen(metrics: Metrics, names: Iterable[str]) -> list[Metric]:
    """The latest versions of these metrics, or of all of them, ordered by name. Raises NotFound."""
    latest = {metric.name: metric for metric in metrics.latest()}
    wanted = set(names) or set(latest)
    if unknown := sorted(wanted - set(latest)):
        raise _unknown(unknown[0], latest)
    return [latest[name] for name in sorted(wanted)]


def pinned(metrics: Metrics, text: str) -> Metric:
    """The metric that a task names, `NAME@VERSION`. Raises NotFound."""
    name, _, version = text.partition("@")
    for metric in metrics.versions(name):
        if str(metric.version) == version:
            return metric
    raise NotFound(f"there is no metric {text}", hint=command("metrics", "show", name))


def pin(metric: Metric) -> str:
    """`NAME@VERSION`: a task keeps to the definitions that it was planned with."""
    return f"{metric.name}@{metric.version}"


class Scales:
    """Gives stored values, which are kept as short as possible, the digits of the metric version that made them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: dict[str, dict[int, int]] = {}

    def shown(self, aggregate: Aggregate) -> Aggregate:
        """The aggregate as it is printed."""
        computed = aggregate.computed
        if computed.value is None:
            return aggregate
        if computed.metric not in self._known:
            versions = self._metrics.versions(computed.metric)
            self._known[computed.metric] = {metric.version: metric.scale for metric in versions}
        scale = self._known[computed.metric].get(aggregate.metric_version, 0)
        value = with_scale(computed.value, scale)
        return msgspec.structs.replace(aggregate, computed=msgspec.structs.replace(computed, value=value))


def _unknown(name: str, known: Iterable[str] = ()) -> NothingSelected:
    alike = get_close_matches(name, list(known), n=3)
    hint = f"did you mean {' or '.join(alike)}? all of them: pik metrics list" if alike else "pik metrics list"
    return NothingSelected(f"there is no metric {name!r}", hint=hint)


@dataclass(frozen=True, slots=True)
class Listing:
    """Aggregates of the buckets that the window touches; `effective` is what these cover. Ordered by metric, bucket,
    entity, and run where there are several versions."""

    window: Window
    effective: Window
    rows: Iterator[Aggregate]


def list_aggregates(
    store: Store,
    window: Window,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    history: bool = False,
) -> Listing:
    """Current versions, or with `history` all of them; iterating raises Damaged at one that is not as it was written.
    Raises NotFound for a metric that there is not, NotHeld where the store is a copy of which that is no part."""
    wanted = chosen(store.metrics, metrics)
    effective = widest(window, wanted)
    expect_pulled(store, effective, entities)
    rows = chain.from_iterable(
        sound(store.aggregates.current(name, within, entities, history=history, checked=True))
        for name, within in ((metric.name, window.widened(metric.bucket_size)) for metric in wanted)
    )
    return Listing(window, effective, map(Scales(store.metrics).shown, rows))
