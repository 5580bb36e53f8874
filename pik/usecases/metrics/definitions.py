"""Metric definitions and their values: applied as versions, found by name, listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import chain

import msgspec

from pik.errors import Invalid, NotFound, NothingSelected, UsageError, command
from pik.model.aggregate import Aggregate, with_scale
from pik.model.instant import SECOND, display_instant
from pik.model.metric import Definition, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.state import Metrics
from pik.ports.store import Store
from pik.usecases.availability import expect_pulled
from pik.usecases.metrics.computation import sound, widest


@dataclass(frozen=True, slots=True)
class AppliedMetric:
    """A metric as the store has it now. `before` is the version that was the latest, None for a new metric; `changed`:
    this one is another."""

    metric: Metric
    before: Metric | None
    changed: bool


def apply(
    metrics: Metrics,
    engine: Engine,
    definitions: Sequence[Definition],
    applied_at: int,
    *,
    actor: str = "",
    reason: str = "",
    dry_run: bool = False,
) -> list[AppliedMetric]:
    """Add the definitions as the latest versions, if all of them pass the engine's check. Raises Invalid, and
    UsageError for another definition of a retired metric."""
    scales = [engine.check(definition) for definition in definitions]
    for definition in definitions:
        _expect_applicable(next(reversed(metrics.versions(definition.name)), None), definition)
    return [
        add_version(metrics, definition, applied_at, scale, actor=actor, reason=reason, dry_run=dry_run)
        for definition, scale in zip(definitions, scales, strict=True)
    ]


def add_version(
    metrics: Metrics,
    definition: Definition,
    applied_at: int,
    scale: int = 0,
    *,
    actor: str = "",
    reason: str = "",
    dry_run: bool = False,
) -> AppliedMetric:
    """Add a checked definition, and the scale of its values, as the next version of its name, unless the latest version
    is equal to it. Raises Invalid for one that is per something else than the latest, and UsageError where that is
    retired."""

    def latest_version() -> Metric | None:
        return next(reversed(metrics.versions(definition.name)), None)

    before = latest = latest_version()
    while latest is None or latest.definition != definition:
        _expect_applicable(latest, definition)
        version = latest.version + 1 if latest else 1
        metric = Metric(
            definition=definition,
            version=version,
            applied_at=applied_at,
            scale=scale,
            actor=actor,
            reason=reason,
        )
        # Where another writer made this version meanwhile, or this process did and the answer was lost: look again.
        latest = metric if dry_run or metrics.append(metric) else latest_version()
    return AppliedMetric(latest, before, changed=latest is not before)


def _expect_applicable(latest: Metric | None, definition: Definition) -> None:
    """Raise UsageError for another definition of a retired metric, and Invalid for one that is per something else:
    values of single entities and values over all could otherwise be current side by side, under one name."""
    if latest is not None and latest.retired and latest.definition != definition:
        raise UsageError(
            f"{latest.name} {retirement(latest)}, and this is another definition of it",
            hint=f"first: {command('metrics', 'reinstate', latest.name)}",
        )
    if latest is not None and latest.definition.per != definition.per:
        raise Invalid(
            f'{definition.name} is per = "{latest.definition.per}" in its version {latest.version}, and a metric keeps'
            " that: it has values of single entities or values over all, not both",
            field="per",
            hint=f"another name, such as {definition.name}_{definition.per}",
        )


def expect_computed(metric: Metric) -> None:
    """Raise UsageError for a retired metric."""
    if metric.retired:
        raise UsageError(
            f"{metric.name} {retirement(metric)}; nothing computes or compares it",
            hint=f"its values: `{command('aggregates', '--metric', metric.name)}`;"
            f" to compute it again: {command('metrics', 'reinstate', metric.name)}",
        )


def retirement(metric: Metric) -> str:
    """Return since when a retired metric is retired, by whom and why: `is retired since T, by ana (…)`."""
    at = display_instant(metric.applied_at - metric.applied_at % SECOND)
    return f"is retired since {at}, by {metric.actor or 'somebody'} ({metric.reason})"


def computed(metrics: Metrics) -> list[Metric]:
    """Return the latest version of each metric that is not retired, ordered by name."""
    return [metric for metric in metrics.latest() if not metric.retired]


def of_entities(metrics: Sequence[Metric], entities: Sequence[str]) -> tuple[list[Metric], tuple[str, ...]]:
    """Return the metrics that have values of single entities, if some are named, and the names of those over all, which
    are left out then. Raises UsageError where that leaves none."""
    if not entities:
        return list(metrics), ()
    kept = [metric for metric in metrics if not metric.is_over_all]
    left_out = tuple(metric.name for metric in metrics if metric.is_over_all)
    if left_out and not kept:
        what = f"{', '.join(left_out)} {'is' if len(left_out) == 1 else 'are'} over all entities"
        raise UsageError(
            f"{what}, so there is no value of {', '.join(map(repr, entities[:5]))}",
            hint="leave --entity out",
        )
    return kept, left_out


def versions(metrics: Metrics, name: str) -> list[Metric]:
    """Return every version of a metric, the oldest first. Raises NotFound."""
    found = metrics.versions(name)
    if not found:
        raise _unknown(name, (metric.name for metric in metrics.latest()))
    return found


def known(metrics: Metrics, names: Iterable[str]) -> list[Metric]:
    """Return the latest versions of these metrics, or of all of them, ordered by name; retired ones are among them.
    Raises NotFound."""
    latest = {metric.name: metric for metric in metrics.latest()}
    wanted = set(names) or set(latest)
    if unknown := sorted(wanted - set(latest)):
        raise _unknown(unknown[0], latest)
    return [latest[name] for name in sorted(wanted)]


def chosen(metrics: Metrics, names: Iterable[str]) -> list[Metric]:
    """Return the latest versions of these metrics, or of all that are not retired, ordered by name. Raises NotFound,
    and UsageError for a retired one that is named."""
    named = set(names)
    found = known(metrics, named)
    for metric in found if named else ():
        expect_computed(metric)
    return [metric for metric in found if not metric.retired]


def defined_by(metrics: Metrics, texts: Sequence[str]) -> list[Metric]:
    """Return the definitions that are asked for: NAME is the latest, NAME@VERSION another (none named: all), ordered by
    name; those of retired metrics are among them. Raises NotFound, and UsageError where one metric is named in two
    ways."""
    named = {text.partition("@")[0]: text for text in texts}
    if twice := next((text for text in texts if named[text.partition("@")[0]] != text), None):
        both = f"{twice} and {named[twice.partition('@')[0]]}"
        raise UsageError(f"--metric: {both} are one metric, computed by two definitions", hint="one at a time")
    latest = {metric.name: metric for metric in known(metrics, named)}
    return [pinned(metrics, text) if "@" in (text := named.get(name, "")) else latest[name] for name in latest]


def computed_by(metrics: Metrics, texts: Sequence[str]) -> list[Metric]:
    """Return the definitions by which metrics are computed, as `defined_by` does, without retired metrics. Raises
    UsageError for a retired one that is named, too."""
    found = defined_by(metrics, texts)
    names = {metric.name for metric in chosen(metrics, [metric.name for metric in found] if texts else ())}
    return [metric for metric in found if metric.name in names]


def stored(metrics: Metrics, texts: Sequence[str]) -> tuple[list[Metric], Mapping[str, Collection[int]]]:
    """Return the metrics whose stored values are asked for by NAME or NAME@VERSION (none named: all), one of each name,
    and by name the versions that alone are asked for. Raises NotFound."""
    names = [text.partition("@")[0] for text in texts]
    found, versions = {metric.name: metric for metric in known(metrics, names)}, defaultdict[str, set[int]](set)
    for name, text in zip(names, texts, strict=True):
        if name not in texts:  # else all of its versions are
            metric = pinned(metrics, text)
            largest_yet = found[name] if versions[name] else metric
            found[name] = max(largest_yet, metric, key=lambda one: one.buckets.order)
            versions[name].add(metric.version)
    return list(found.values()), versions


def comparable(metrics: Metrics, texts: Sequence[str]) -> tuple[list[Metric], Mapping[str, Collection[int]]]:
    """Return what `stored` does, without retired metrics. Raises NotFound, and UsageError for a retired one that is
    named."""
    found, versions = stored(metrics, texts)
    latest = {metric.name: metric for metric in known(metrics, [metric.name for metric in found])}
    for metric in latest.values() if texts else ():
        expect_computed(metric)
    return some([metric for metric in found if not latest[metric.name].retired]), versions


def some(metrics: list[Metric]) -> list[Metric]:
    """Return the metrics, those that are not retired. Raises NothingSelected if there are none."""
    if not metrics:
        raise NothingSelected("every metric is retired, so there is nothing to compute or compare", hint=_LIST)
    return metrics


def pinned(metrics: Metrics, text: str) -> Metric:
    """Return the metric that a task names, `NAME@VERSION`. Raises NotFound."""
    name, _, version = text.partition("@")
    for metric in metrics.versions(name):
        if str(metric.version) == version:
            return metric
    raise NotFound(f"there is no metric {text}", hint=command("metrics", "show", name))


def pin(metric: Metric) -> str:
    """Return `NAME@VERSION`, the definition that a task keeps to; `NAME@file` for one that is only assumed."""
    return f"{metric.name}@{metric.version or 'file'}"


class Scales:
    """Gives stored values, which are kept as short as possible, the digits of the metric version that made them."""

    def __init__(self, metrics: Metrics) -> None:
        def read(name: str) -> tuple[Mapping[int, int], int]:
            versions = metrics.versions(name)
            retired_at = versions[-1].applied_at if versions and versions[-1].retired else 0
            return {metric.version: metric.scale for metric in versions}, retired_at

        self._read = cache(read)

    def shown(self, aggregate: Aggregate) -> Aggregate:
        """Return the aggregate as it is printed; one of a retired metric knows since when it is retired."""
        computed = aggregate.computed
        scales, retired_at = self._read(computed.metric)
        if computed.value is not None:
            value = with_scale(computed.value, scales.get(aggregate.metric_version, 0))
            computed = msgspec.structs.replace(computed, value=value)
        return msgspec.structs.replace(aggregate, computed=computed, retired_at=retired_at)


_LIST = command("metrics", "list")


def _unknown(name: str, known: Iterable[str] = ()) -> NothingSelected:
    alike = get_close_matches(name, list(known), n=3)
    hint = f"did you mean {' or '.join(alike)}? all of them: pik metrics list" if alike else "pik metrics list"
    return NothingSelected(f"there is no metric {name!r}", hint=hint)


@dataclass(frozen=True, slots=True)
class AggregateList:
    """Aggregates of the buckets that the window touches; `effective` is what these cover. Ordered by metric, bucket,
    entity, and run where there are several versions. `metrics` are the NAMEs and NAME@VERSIONs asked for; `left_out`
    are over all entities, where some were named; `retired` are those of them that are."""

    window: Window
    effective: Window
    metrics: Sequence[str]
    rows: Iterator[Aggregate]
    left_out: tuple[str, ...] = ()
    retired: tuple[Metric, ...] = ()


def list_aggregates(
    store: Store,
    window: Window,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    history: bool = False,
) -> AggregateList:
    """List current versions, or with `history` all of them; iterating raises Damaged at one that is not as it was
    written. NAME@VERSION restricts a metric to values that this definition made. Raises NotFound for an unknown metric,
    NotHeld where the store is a copy that does not hold all of it."""
    named, versions = stored(store.metrics, metrics)
    wanted, left_out = of_entities(named, entities)
    effective = widest(window, wanted)
    expect_pulled(store, effective, entities)
    windows = ((metric.name, metric.buckets.widened(window)) for metric in wanted)
    read = store.aggregates.versions if history else store.aggregates.current
    rows = chain.from_iterable(sound(read(name, within, entities, checked=True)) for name, within in windows)
    asked_for = (
        row
        for row in rows
        if row.computed.metric not in versions or row.metric_version in versions[row.computed.metric]
    )
    retired = tuple(metric for metric in known(store.metrics, [one.name for one in wanted]) if metric.retired)
    shown = map(Scales(store.metrics).shown, asked_for)
    return AggregateList(window, effective, tuple(metrics), shown, left_out, retired)
