"""What a redacted bundle holds: raw without the redacted values, and the values that can still be recomputed from it.

A metric that reads a redacted path is left out with all of its values: a sum over one event is that event's amount. Its
definition is left out too, for it may name values. Which metrics these are is known from their definitions, and tried:
whatever the redacted raw gives another value of is left out.

The digests of a version's inputs are hashes of what was redacted. A version whose digests are those of what raw holds
gets the digests of the redacted inputs, so that it is proven as before; another one gets keyed hashes, and is as little
proven as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import structs

from pik.errors import StoreError, number_of
from pik.model.aggregate import Aggregate, Computed
from pik.model.metric import EVENT_COUNT, Metric
from pik.model.run import Run
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.rawlog.objects import read_rejects, unpacked
from pik.rawlog.sealed_records import PulledBatch, SegmentLine
from pik.rawlog.selection import Selection
from pik.runtime.storage import sort_bounded
from pik.usecases.bundle.contents import REDACTED, BundleRequest, scopes
from pik.usecases.bundle.opening import write_rows
from pik.usecases.bundle.redaction import RedactedEvent, Redaction
from pik.usecases.metrics.computation import ComputedStretch, recompute, sound
from pik.usecases.metrics.scenario import applied
from pik.usecases.pull.pull import PullReport

Key = tuple[int, str]
"""The key of a value of one metric: its bucket, and its entity as the bundle has it."""


def refuse_unredactable(pulled: Store, done: PullReport) -> None:
    """Raise StoreError for what this cannot redact: corrections, and objects that the source does not have."""
    if corrections := len(pulled.corrections.recorded()):
        raise StoreError(
            f"the window has {number_of(corrections, 'correction')}, whose statements and lists may name redacted"
            " values, and are not redacted yet",
            hint="a bundle without --redact, or of a window and entities without corrections",
        )
    if done.problems:
        one = done.problems[0]
        raise StoreError(
            f"{one.what} is {one.kind} in the source, and what is not there cannot be redacted",
            hint="what is damaged, and what repairs it: pik verify",
        )


def redact_raw(
    pulled: Store, root: Path, segments: Sequence[SegmentLine], batches: Sequence[PulledBatch], redaction: Redaction
) -> tuple[list[SegmentLine], list[PulledBatch]]:
    """Write the segments and rejects below `root`, and what became of ids; return the lines of the record. Memory: one
    segment."""
    lines: list[SegmentLine] = []

    def events() -> Iterator[RedactedEvent]:
        for line in segments:
            key = line.segment.key
            segment, data, found = redaction.segment(line.segment, unpacked(key, pulled.raw.read(key)))
            _write(root / key, data)
            lines.append(structs.replace(line, segment=segment))
            yield from (one for one in found if one.original)

    write_rows(root / REDACTED, events())
    kept: list[PulledBatch] = []
    for batch in batches:
        rejects = []
        for file in batch.rejects:
            made, data = redaction.rejects(file, read_rejects(pulled.raw, file.key))
            _write(root / file.key, data)
            rejects.append(made)
        kept.append(structs.replace(batch, origin=redaction.origin(batch.origin), rejects=tuple(rejects)))
    return lines, kept


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def redacted_run(run: Run, redaction: Redaction) -> Run:
    """Return a run without what may name redacted values: why values failed, and the file of an import."""
    request = run.request
    file = request.file and structs.replace(
        request.file,
        name=redaction.hashed("file", request.file.name.encode()),
        digest=redaction.digest("content", request.file.digest.encode()),
    )
    entities = tuple(sorted(map(redaction.entity, request.entities)))
    return structs.replace(run, request=structs.replace(request, file=file, entities=entities), failures=())


def redacted_promotion(promotion: Promotion, redaction: Redaction) -> Promotion:
    """Return a promotion without the digest of what it moved, from which entities could be guessed."""
    return structs.replace(promotion, pointers_xor=redaction.digest("pointers", promotion.pointers_xor.encode()))


def redacted_request(request: BundleRequest, redaction: Redaction) -> BundleRequest:
    """Return the request with its entities as the bundle has them."""
    return replace(request, entities=tuple(sorted(map(redaction.entity, request.entities))))


@dataclass(frozen=True, slots=True)
class RedactedValues:
    """The values of a window, of which some cannot be recomputed any more. `before` is the store with all, `after` the
    one with redacted raw."""

    before: Store
    after: Store
    engine: Engine
    request: BundleRequest
    redaction: Redaction

    def recomputable(self) -> tuple[list[str], list[str]]:
        """Return the metrics that can be recomputed, and those that cannot."""
        kept: list[str] = []
        withheld: list[str] = []
        for metric in self.before.metrics.latest():
            versions = self.before.metrics.versions(metric.name)
            is_kept = not any(map(self._reads, versions)) and self._recomputed(metric, PLAIN) is not None
            is_kept = is_kept and all(
                self._recomputed(versions[version - 1], Scenario(as_of=known)) is not None
                for version, known in self._computations(metric.name)
            )
            (kept if is_kept else withheld).append(metric.name)
        return kept, withheld

    def versions(self, name: str) -> Iterator[Aggregate]:
        """Yield the versions of a metric that can be recomputed."""
        # Sorted anew: the order must not tell what redacted entities were called.
        yield from sort_bounded(self._versions(name), _order)

    def _versions(self, name: str) -> Iterator[Aggregate]:
        versions = self.before.metrics.versions(name)
        for version, known_until in self._computations(name):
            found = self._recomputed(versions[version - 1], Scenario(as_of=known_until)) or {}
            for row in self._rows(name):
                if (row.metric_version, row.known_until) == (version, known_until) and row.computed.inputs is not None:
                    yield structs.replace(row, computed=self._redacted(row.computed, found))
        for row in self._rows(name):
            if row.computed.inputs is None:
                yield structs.replace(row, computed=self._redacted(row.computed, {}))

    def _rows(self, name: str) -> Iterator[Aggregate]:
        window = scopes(self.before.metrics, self.request.window)[name]
        return sound(self.before.aggregates.versions(name, window, self.request.entities, checked=True))

    def _computations(self, name: str) -> list[tuple[int, int]]:
        """Return what the metric's versions were computed with: the definition, and the last known recording."""
        rows = (row for row in self._rows(name) if row.computed.inputs is not None)
        return sorted({(row.metric_version, row.known_until) for row in rows})

    def _reads(self, metric: Metric) -> bool:
        """Return whether a definition seems to read what is redacted: it has the last name of a path in it."""
        if metric == EVENT_COUNT:
            return False
        text = f"{metric.definition.where} {metric.definition.value} {metric.definition.description}".casefold()
        return any(name.casefold() in text for name in self.redaction.names)  # SQL's names have no case

    def _redacted(self, row: Computed, found: dict[Key, tuple[Computed, Computed]]) -> Computed:
        entity = self.redaction.entity(row.entity_id)
        before, after = found.get((row.bucket, entity), (None, None))
        ids, contents = row.input_ids, row.input_contents
        if before is not None and after is not None and _digests(before) == _digests(row):
            ids, contents = after.input_ids, after.input_contents
        elif row.inputs != 0:
            ids = self.redaction.digest("input ids", ids.encode())
            contents = self.redaction.digest("input contents", contents.encode())
        return structs.replace(row, entity_id=entity, input_ids=ids, input_contents=contents)

    def _recomputed(self, metric: Metric, scenario: Scenario) -> dict[Key, tuple[Computed, Computed]] | None:
        """Return the metric's values from both stores, by bucket and entity; None where they are not the same.

        Memory: the values of one metric, as one run computed them.
        """
        window = metric.buckets.widened(self.request.window)
        mine = {
            (row.bucket, self.redaction.entity(row.entity_id)): row
            for row in self._values(self.before, metric, window, scenario, self.request.entities)
        }
        entities = redacted_request(self.request, self.redaction).entities
        both: dict[Key, tuple[Computed, Computed]] = {}
        for row in self._values(self.after, metric, window, scenario, entities):
            before = mine.pop((row.bucket, row.entity_id), None)
            if before is None or (before.value, before.inputs) != (row.value, row.inputs):
                return None
            if (before.failure is None) != (row.failure is None):
                return None
            both[row.bucket, row.entity_id] = before, row
        return None if mine else both

    def _values(
        self, store: Store, metric: Metric, window: Window, scenario: Scenario, entities: Sequence[str]
    ) -> Iterator[Computed]:
        with applied(store, self.engine, scenario, window, entities) as overrides:
            for part in recompute(Selection(store, window, entities, overrides), self.engine, [metric]):
                yield from _rows_of(part)


def _rows_of(part: ComputedStretch) -> Iterator[Computed]:
    if isinstance(part.computed, Exception):
        raise part.computed
    return part.computed.rows()


def _digests(row: Computed) -> tuple[int | None, str, str]:
    return row.inputs, row.input_ids, row.input_contents


def _order(row: Aggregate) -> tuple[int, str, str]:
    return row.computed.bucket, row.computed.entity_id, row.run_id
