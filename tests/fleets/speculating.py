"""A bulk ingest and an export of which one task hangs when its work is done, on a cluster that then runs it again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pik.engine import DuckEngine
from pik.exporters import exporter
from pik.fleets.session import open_session
from pik.fleets.spark import SparkFleet
from pik.inputs.source import file_source, stop
from pik.model.cluster import Cluster
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.exporter import Layout
from pik.ports.fleet import Body, Keyed, Merge
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.export import fleet as export_fleet
from pik.usecases.ingest import bulk
from pik.usecases.ingest.batch_ingest import IngestOptions
from tests.support.spark import TOP, require_spark

HANGS = 300
"""Seconds, longer than the test may take."""

SPECULATING = {
    "spark.executorEnv.PYTHONPATH": str(TOP),
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.1",
}


def hanging(body: Body[Any, Any], calls: str, store: Any, engine: Any, item: Any) -> Iterator[Any]:
    """Do what there is to do for an item; the first who does it for one of them then gives no result."""
    done = list(body(store, engine, item))
    with open(calls, "a") as file:
        file.write(".")
    try:
        os.close(os.open(f"{calls}-hung", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        yield from done
    else:
        time.sleep(HANGS)


class Hanging:
    """A fleet of which one task hangs, of those that run this function."""

    def __init__(self, fleet: SparkFleet, function: str, calls: Path) -> None:
        self.fleet, self.function, self.calls, self.slots = fleet, function, calls, fleet.slots
        self.items = 0

    def map(self, body: Body[Any, Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield the results of each item."""
        if getattr(body, "func", body).__name__ != self.function:
            return self.fleet.map(body, items)
        return self.fleet.map(partial(hanging, body, str(self.calls)), self._counted(items))

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.items += 1
            yield item

    def map_reduce(self, body: Body[Any, Keyed], items: Iterable[Any], merge: Merge[Any], keys: int) -> Iterator[Any]:
        """Not needed."""
        raise NotImplementedError

    def expect_repeated(self) -> None:
        """Fail unless an item was done twice, and another one not."""
        assert self.items > 1
        assert len(self.calls.read_text()) > self.items


def say(_text: str) -> None:
    """Nobody looks on."""


def main(location: str, directory: Path) -> None:
    """Ingest the files of the directory into a store there, and export that."""
    require_spark()
    store, engine = open_store(str(directory / "store"), create=True), DuckEngine(threads=1)
    several = patch.object(bulk, "TOGETHER", 1), patch.object(export_fleet, "TASK_BYTES", 20_000)  # tasks
    with several[0], several[1], open_session(location, Cluster(spark=SPECULATING), say) as session:
        spark = SparkFleet(session, location, store, engine)
        fleet = Hanging(spark, "build", directory / "built")
        sources = [file_source(str(path)) for path in sorted(directory.glob("*.jsonl"))]
        options = IngestOptions(Reading(1 << 20, mixed=True))
        assert len(list(bulk.ingest_in_bulk(store, fleet, sources, options, SILENT, stop, say))) == len(sources)
        fleet.expect_repeated()
        fleet = Hanging(spark, "_export_part", directory / "exported")
        layout = Layout(Filter(ALL_TIME))
        export_fleet.export_on(fleet, store, exporter, layout, directory / "out", SILENT)
        fleet.expect_repeated()
