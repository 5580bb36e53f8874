"""What a deployed store costs, in calls of AWS, and how fast it takes a file: `python -m bench.aws`.

Ingests a file without idempotency keys into MiniStack (`make .venv-ministack`), counting what is sent, and in the same
run writes some of its lines as a simple pipeline would: a conditional PutItem and a PutObject for each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path

from bench.gen_events import generate
from pik.inputs.source import file_source
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.stores.aws.stack import Stack
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from tests.support.aws.calls import Calls, counting
from tests.support.aws.emulator import ENVIRONMENT, REGION, make_stack, ministack, publish

SIMPLE = 1000
"""Lines that are written one by one, before and again after the file."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as directory, ministack(Path(directory)) as url:
        os.environ.update({**ENVIRONMENT, "AWS_ENDPOINT_URL": url})
        clients = Clients(REGION)
        path = Path(directory) / "events.jsonl"
        generate(events, path, keys=False)
        with open(path, "rb") as file:
            lines = list(islice(file, 2 * SIMPLE))
        stack = make_stack(clients)
        before = _one_by_one(clients, stack, lines[:SIMPLE])
        seconds, calls = _file(publish(clients, make_stack(clients)), path)
        after = _one_by_one(clients, stack, lines[SIMPLE:])
    operations = ", ".join(f"{count:,} {name}" for name, count in calls.made.most_common())
    simple = 2 * SIMPLE / (before + after)
    print(f"{events:,} events: {calls.total:,} calls ({operations})")
    print(f"{calls.total * 1000 / events:.1f} calls per 1,000 events; {calls.units / events:.3f} write units an event")
    print(f"{events / seconds:,.0f} events a second; one by one {simple:,.0f}; {events / seconds / simple:.1f} times")


def _file(url: str, path: Path) -> tuple[float, Calls]:
    """Seconds and calls of an ingest. Worker processes create segments, and so the objects are counted."""
    store = open_store(url)
    options = IngestOptions(Reading(max_line=1 << 20))
    with counting(store) as calls:
        begun = time.monotonic()
        ingest(store, file_source(str(path)), options, SILENT)
        seconds = time.monotonic() - begun
    calls.made["PutObject"] = sum(1 for _ in store.raw.objects(""))
    return seconds, calls


def _one_by_one(clients: Clients, stack: Stack, lines: Sequence[bytes]) -> float:
    dynamodb, s3 = clients.client("dynamodb"), clients.client("s3")
    begun = time.monotonic()
    for line in lines:
        name = sha256(line).hexdigest()
        key = {"pk": {"S": name}, "sk": {"S": "event"}}
        with suppress(dynamodb.exceptions.ConditionalCheckFailedException):
            dynamodb.put_item(TableName=stack.state_table, Item=key, ConditionExpression="attribute_not_exists(pk)")
        s3.put_object(Bucket=stack.raw_bucket, Key=name, Body=line)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
