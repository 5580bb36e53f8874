"""Promise 1 on a cluster: a task that Spark runs a second time, because the first one is slow, counts once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pik.exporters import exporter
from pik.inputs.source import file_source, stop
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.exporter import Layout
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.export.export import export
from pik.usecases.ingest.batch_ingest import IngestOptions
from pik.usecases.ingest.many_inputs import ingest_all
from tests.support.exports import rows_of
from tests.support.snapshot import assert_sound, snapshot
from tests.support.spark import TOP, packages
from tests.support.spark_servers import standalone_cluster
from tests.usecases.test_bulk import event

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark_faults")]

PROGRAM = """
import sys
from pathlib import Path
from tests.fleets.speculating import main
main(sys.argv[1], Path(sys.argv[2]))
"""

HOSTS = ("127.0.0.2", "127.0.0.3")
"""Spark runs a task a second time on another host only."""


def test_promise_1_tasks_that_run_twice(tmp_path: Path) -> None:
    packages("spark")
    work = tmp_path / "work"
    work.mkdir()
    for number in range(6):  # more than what is read in this process
        lines = [event(800 * number + n, 1 + n % 3) for n in range(1000)]
        (work / f"{number}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with standalone_cluster(tmp_path, HOSTS) as location:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, location, str(work)], cwd=TOP, capture_output=True, text=True
        )
    assert ran.returncode == 0, ran.stderr
    plain, speculated = open_store(str(tmp_path / "plain"), create=True), open_store(str(work / "store"))
    sources = [file_source(str(path)) for path in sorted(work.glob("*.jsonl"))]
    list(ingest_all(plain, sources, IngestOptions(Reading(1 << 20, mixed=True), workers=0), SILENT, stop))
    assert snapshot(speculated) == snapshot(plain)
    assert_sound(speculated)
    export(speculated, exporter(Layout(Filter(ALL_TIME))), tmp_path / "out", SILENT, directory=True)
    assert rows_of(work / "out", "parquet") == rows_of(tmp_path / "out", "parquet")
