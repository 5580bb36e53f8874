"""`pik cluster pack`: the same bytes each time, and executors run from it with no other Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pik.engine import DuckEngine
from pik.fleets import open_fleet
from pik.fleets.tasks import versions
from pik.model.cluster import Cluster
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.cluster_pack import pack
from tests.support.contracts.fleet import origins
from tests.support.spark import LOCATION, TOP, require_spark

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark alone")]  # the other group keeps its session


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "pik.tar.gz"
    done = pack(path, SILENT)
    assert (done.size, done.packages["pik"]) == (path.stat().st_size, "0.1.0")
    return path


def test_it_runs_wherever_it_is_unpacked(archive: Path, tmp_path: Path) -> None:
    place = tmp_path / "another place"
    shutil.unpack_archive(archive, place, filter="data")
    code = "import boto3, duckdb, pyarrow, ssl; from pik.fleets.tasks import versions; print(versions())"
    words = [str(place / "bin/python"), "-c", code]
    assert (
        subprocess.run(words, env={}, cwd="/", capture_output=True, text=True, check=True).stdout.strip() == versions()
    )


def test_the_same_environment_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    pack(tmp_path / "again.tar.gz", SILENT)
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()


def test_executors_run_from_it(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_spark()
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    cluster = Cluster(archive=str(archive), spark={"spark.executorEnv.PYTHONPATH": str(TOP)})  # this test's functions
    store = open_store(str(tmp_path / "store"), create=True)
    with open_fleet(LOCATION, store, DuckEngine(threads=1), cluster, print) as fleet:
        found = set(fleet.map(origins, range(4)))
    assert len(found) <= 2  # executors, each with its own directory
    for of_pik, prefix in found:
        assert of_pik == f"{prefix}/packages/pik/__init__.py"
        assert prefix.endswith("/pik")
