"""`--on spark-submit`: a job says what this process says, with the same exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docs.console import REPOSITORY
from tests.support.spark import TOP, packages

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark alone")]

EVENT = {"source": "s", "event_type": "t", "event_time": "2026-01-01T00:00:00Z", "payload": {}}


def test_a_job_says_the_same(tmp_path: Path) -> None:
    home = packages("spark") / "pyspark"
    store, events, job = tmp_path / "store", tmp_path / "events.jsonl", tmp_path / "pik_job.py"
    lines = [json.dumps({**EVENT, "entity_id": f"e{number % 7}", "payload": {"n": number}}) for number in range(100)]
    events.write_text("\n".join(lines), encoding="utf-8")
    (code,) = re.findall(r"pik_job.py <<'END'\n(.*?)END", (REPOSITORY / "docs/scale.md").read_text(), re.DOTALL)
    job.write_text(code, encoding="utf-8")
    pik = [sys.executable, "-m", "pik", "--store", str(store)]
    for words in (["init"], ["ingest", str(events)]):
        subprocess.run([*pik, *words], cwd=TOP, check=True, capture_output=True)

    words = ["diff", "aggregates", "--format", "json", "--quiet"]
    here = subprocess.run([*pik, *words], cwd=TOP, capture_output=True, text=True)
    assert here.returncode == 1
    environ = os.environ | {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(TOP)}
    submit = [str(home / "bin/spark-submit"), "--master", "local-cluster[2,1,1024]"]
    given = [*submit, "--conf", f"spark.executorEnv.PYTHONPATH={TOP}", str(job), "--store", str(store), *words]
    there = subprocess.run([*given, "--on", "spark-submit"], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (there.returncode, there.stdout) == (1, here.stdout), there.stderr[-4000:]
