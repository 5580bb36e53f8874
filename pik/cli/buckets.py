"""Starts of buckets as people read them: of a metric with a timezone in that zone."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pik.cli.document import Column
from pik.cli.values import Bucket

if TYPE_CHECKING:
    from pik.ports.state import Metrics

_local_text: ContextVar[Callable[[str, int], str | None] | None] = ContextVar("local_text", default=None)


def show_buckets_of(metrics: Metrics) -> None:
    """Take the zones of buckets from these metrics from here on."""

    @cache
    def latest() -> dict[str, Any]:
        return {metric.name: metric.buckets for metric in metrics.latest()}

    def local_text(metric: str, start: int) -> str | None:
        buckets = latest().get(metric)
        return None if buckets is None else buckets.local_text(start)

    _local_text.set(local_text)


def local_bucket(metric: str, start: int) -> str | None:
    """Return the local text of a bucket's start; None where its metric has no timezone, or none of its buckets begins
    there."""
    find = _local_text.get()
    return None if find is None else find(metric, start)


def shown_bucket(metric: str, start: int) -> Bucket:
    """Return the start of a bucket, in the zone of the metric for people."""
    return Bucket(start, local_bucket(metric, start))


def bucket_column(*, of: str = "", only: str = "") -> Column:
    """Return the column of a bucket's start. `of` is the path of what has the metric and the bucket."""
    place = attrgetter(f"{of}metric", f"{of}bucket")
    return Column("bucket", Bucket, "its start", get=lambda row: shown_bucket(*place(row)), only=only)


def local_column(*, of: str = "", only: str = "") -> Column:
    """Return the column of a bucket's start in its metric's timezone, for programs. It is the last one of a table."""
    place = attrgetter(f"{of}metric", f"{of}bucket")
    about = "`bucket` with the date or time in the metric's timezone; null: it has none"
    return Column("bucket_local", str | None, about, get=lambda row: local_bucket(*place(row)), detail=True, only=only)
