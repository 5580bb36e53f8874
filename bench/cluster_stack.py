"""What a Spark cluster, and the process that drives it, take of a stack: `python -m bench.cluster_stack`.

Puts files into MiniStack (`make .venv-ministack`) with one event for each of so many aggregates, ingests them on
`local-cluster` (`make .venv-spark`; Java 17) into a local store and into a stack, computes the stack's aggregates there
and promotes them. Prints for each step the seconds, those of the driver's processor (of Python: this process), the
calls of AWS that the driver and the executors made, and the most memory of the driver until then.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.counting import CountingFleet, Counts, TaskCost, calls_of, memory
from pik.engine import DuckEngine
from pik.fleets.session import Session, driver
from pik.fleets.spark import SparkFleet
from pik.inputs.paths import sources_of
from pik.inputs.source import stop
from pik.model.run import Run, RunRequest, RunState
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_foreign, open_store
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.batch_ingest import IngestOptions
from pik.usecases.ingest.bulk import ingest_in_bulk
from pik.usecases.replay.execute import Pace, execute_run
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote
from tests.support.aws.emulator import ENVIRONMENT, REGION, make_stack, ministack, publish
from tests.support.spark import CLUSTER, LOCATION, require_spark

DAYS = 10
"""Of the events: buckets of each entity."""

FILES = 8


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aggregates", type=int, default=200_000)
    count = parser.parse_args().aggregates
    require_spark()
    with tempfile.TemporaryDirectory() as directory, ministack(Path(directory)) as url:
        os.environ.update({**ENVIRONMENT, "AWS_ENDPOINT_URL": url})  # which executors inherit
        clients = Clients(REGION)
        archive = put_files(clients, count)
        local = open_store(f"{directory}/store", create=True)
        stack = open_store(publish(clients, make_stack(clients)))
        print(f"{'':20} {'seconds':>8} {'driver s':>8} {'µs each':>8} {'calls':>8} {'executors':>9} {'memory':>9}")
        with driver(LOCATION, CLUSTER) as session:
            show("ingest, local store", ingested(local, session, archive), count)
            show("ingest, stack", ingested(stack, session, archive), count)
            run_id, planned, executed = replayed(stack, session)
            show("plan", planned, count)
            show("replay", executed, count)
            show("promote", measured(stack, lambda: promote(stack, run_id, time.time_ns(), "")), count)


def put_files(clients: Clients, count: int) -> str:
    """Return what stands for files in a new bucket: one event of each entity and day."""
    s3, bucket = clients.client("s3"), "archive"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for number in range(FILES):
        lines = map(event, range(number * count // FILES, (number + 1) * count // FILES))
        s3.put_object(Bucket=bucket, Key=f"{number}.jsonl", Body="".join(lines).encode())
    return f"s3://{bucket}/*"


def event(number: int) -> str:
    """Return the line of an event of one of ten days."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number % DAYS, seconds=number % 86_400)
    fields = {"source": "s", "event_type": "t", "entity_id": f"customer-{number // DAYS:08}"}
    return json.dumps({**fields, "event_time": at.isoformat(), "payload": {"number": number}}) + "\n"


class Step(NamedTuple):
    """What a step took: seconds, those of the driver's processor, the driver's calls, the most memory of the driver so
    far in MiB, and its tasks."""

    seconds: float
    processor: float
    made: Counter[str]
    memory: float
    tasks: list[TaskCost]


def measured(store: Store, work: Callable[[], object], tasks: list[TaskCost] | None = None) -> Step:
    """Do the work on a store; return what it took."""
    calls = Counts()
    with calls_of(store, calls):
        begun, processor = time.monotonic(), time.process_time()
        work()
        processor, seconds = time.process_time() - processor, time.monotonic() - begun
    return Step(seconds, processor, calls.made, memory(), tasks or [])


def fleet_of(store: Store, session: Session) -> CountingFleet:
    """Return the fleet of the session."""
    return CountingFleet(SparkFleet(session, LOCATION, store, DuckEngine(threads=1)))


def ingested(store: Store, session: Session, archive: str) -> Step:
    """Ingest the files on the cluster."""
    sources: Any = sources_of([archive], lambda: open_foreign("aws://archive"), print)
    fleet = fleet_of(store, session)
    reports = partial(ingest_in_bulk, store, fleet, sources, IngestOptions(Reading(1 << 20)), SILENT)
    return measured(store, lambda: list(reports(stop, print)), fleet.tasks)


def replayed(store: Store, session: Session) -> tuple[str, Step, Step]:
    """Replay everything on the cluster; return the run, and what its plan and its execution took."""
    engine, fleet, runs = DuckEngine(), fleet_of(store, session), list[Run]()
    request = RunRequest(start=ALL_TIME.start, end=ALL_TIME.end)

    def plan() -> None:
        runs.append(start(store, plan_replay(store, engine, request, time.time_ns())))

    def execute() -> None:
        runs.append(execute_run(store, engine, runs[0].run_id, Pace(), SILENT, fleet))

    planned, executed = measured(store, plan), measured(store, execute, fleet.tasks)
    assert runs[1].state == RunState.COMPLETED, runs[1]
    return runs[1].run_id, planned, executed


def show(name: str, step: Step, count: int) -> None:
    """Print a row of the table, and below it the tasks."""
    here, there = step.made.total(), sum(task.made.total() for task in step.tasks)
    each = 1e6 * step.processor / count
    print(
        f"{name:20} {step.seconds:8.1f} {step.processor:8.1f} {each:8.1f} {here:8,} {there:9,} {step.memory:5.0f} MiB",
        flush=True,
    )
    if items := [task.items for task in step.tasks if task.items]:
        most = max(step.tasks, key=lambda task: task.items)
        print(
            f"  {len(items)} tasks wrote {min(items):,} to {max(items):,} items each,"
            f" the largest in {most.seconds:.1f} s and {most.memory:.0f} MiB;"
            f" {(here + there) / sum(items):.3f} calls an item"
        )


if __name__ == "__main__":
    main()
