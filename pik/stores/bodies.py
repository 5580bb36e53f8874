"""What stores keep of runs, tasks, dead letters and definitions as JSON: the same texts in each of them."""

from __future__ import annotations

import msgspec

from pik.model.metric import Definition, Metric
from pik.model.run import NO_FAILURES, DeadLetter, FailedAggregate, Failures, Run, RunRequest, Task

read_task = msgspec.json.Decoder(Task).decode
read_run = msgspec.json.Decoder(Run).decode
read_request = msgspec.json.Decoder(RunRequest).decode
read_letter = msgspec.json.Decoder(DeadLetter).decode
read_failed = msgspec.json.Decoder(tuple[FailedAggregate, ...]).decode

_read_definition = msgspec.json.Decoder(Definition).decode


def failures_of(count: int, kept: bytes | str | None) -> Failures:
    """Return the failures of a task, of which `kept` are the first; there are none where the count is 0."""
    return Failures(count=count, kept=read_failed(kept)) if count and kept is not None else NO_FAILURES


def metric_columns(metric: Metric) -> tuple[str, int, str, int, int]:
    """Return the columns of a version of a metric, over which its digest is: name, version, definition, when it was
    applied, and the scale of its values."""
    definition = msgspec.json.encode(metric.definition).decode()
    return metric.name, metric.version, definition, metric.applied_at, metric.scale


def metric_of(version: int, definition: str, applied_at: int, scale: int) -> Metric:
    """Return the version of a metric that has these columns."""
    return Metric(definition=_read_definition(definition), version=version, applied_at=applied_at, scale=scale)
