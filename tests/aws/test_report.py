"""The report of an incident has the same JSON whether the store is local or a stack's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from time import time_ns
from typing import Any

from msgspec import json as msgspec_json

from pik.cli.commands.care.report_parts import shown_parts
from pik.cli.output import json_text
from pik.engine import DuckEngine
from pik.model.instant import parse_instant
from pik.model.run import RunRequest
from pik.model.window import Window
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from pik.usecases.report.incident import Question, report
from tests.support.aws.emulator import make_stack, publish
from tests.survival.conftest import ingest

WINDOW = Window(parse_instant("2026-01-31T00:00:00Z"), parse_instant("2026-02-01T00:00:00Z"))
OWN = re.compile(r"01[0-9A-HJKMNP-TV-Z]{24}|(?!2026-0[12])\d{4}-\d\d-\d\dT[\d:.]+Z")
"""What is another one in each store: ids, and times of recording."""


def _ingest(store: Store, directory: Path, name: str, hours: list[int], value: int) -> None:
    lines = [
        {
            "source": "shop",
            "event_type": "order",
            "entity_id": f"customer-{hour % 2}",
            "event_time": f"2026-01-31T{hour:02}:00:00Z",
            "received_time": f"2026-01-31T{hour:02}:00:05Z",
            "idempotency_key": str(hour),
            "payload": {"v": value},
        }
        for hour in hours
    ]
    path = directory / name
    path.write_bytes(b"".join(msgspec_json.encode(line) + b"\n" for line in lines))
    ingest(store, path)


def _documents(store: Store, directory: Path) -> dict[str, Any]:
    _ingest(store, directory, "day.jsonl", list(range(12)), 1)
    plan = plan_replay(store, DuckEngine(), RunRequest(start=WINDOW.start, end=WINDOW.end), time_ns())
    run_id = start(store, plan).run_id
    run_locally(store, DuckEngine(), run_id, Pace(workers=0), SILENT)
    promote(store, run_id, time_ns(), "")
    _ingest(store, directory, "again.jsonl", [2, 3], 1)
    _ingest(store, directory, "conflict.jsonl", [4], 2)
    _ingest(store, directory, "late.jsonl", [13, 14], 1)
    fresh = open_store(store.url)
    found = report(fresh, DuckEngine(), Question(WINDOW))
    assert found.is_complete
    arrivals = found.arrivals.value
    assert arrivals is not None
    documents = {
        part.name: json.loads(OWN.sub("its own", json_text(part.document)))
        for part in shown_parts(fresh, found)
        if part.document is not None
    }
    return {**documents, "volume": [repr(one) for one in arrivals.timeline.volumes], "found": found.found}


def test_a_stack_has_the_report_of_a_local_store(aws: Clients, tmp_path: Path) -> None:
    deployed = open_store(publish(aws, make_stack(aws)))
    deployed.requests.expect_ready()
    local = open_store(str(tmp_path / "local"), create=True)
    mine, others = _documents(local, tmp_path), _documents(deployed, tmp_path)
    assert mine["found"] is True
    for one in (mine, others):  # only S3 can answer for digests
        for name in ("check", "checked_by_s3", "segments_read"):
            del one["verify"][name]
    assert {name for name in mine if mine[name] != others[name]} == set()
    [total] = mine["totals"]["totals"]
    assert (total["current"], total["recomputed"], [one["cause"] for one in total["causes"]]) == (12, 14, ["late"])
