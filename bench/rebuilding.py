"""What rebuilding a stack's index costs, in calls of AWS, and how fast it is: `python -m bench.rebuilding`.

Records API requests in MiniStack (`make .venv-ministack`) and rebuilds the index, noting each call. Then the same calls
are sent again, bare: by boto3, from as many threads, in the same order. The ratio of both rates is what the rebuild
costs beside its calls. The times for which a rebuild waits, whatever is stored, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from threading import Lock
from typing import Any

from pik.ports.store import Store
from pik.runtime import SILENT
from pik.runtime.parallel import map_in_threads
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from tests.support.aws.calls import Calls, counting, hooked
from tests.support.aws.emulator import ENVIRONMENT, REGION, make_stack, ministack, publish

Call = tuple[str, str, dict[str, Any]]
"""Service, operation and parameters."""

THREADS = 16
"""That read, or write, at a time."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--events", type=int, default=1, help="of each request")
    parser.add_argument("--days", type=int, default=1, help="of the events of a request")
    options = parser.parse_args()
    generation.NOTICED = 0.001
    with tempfile.TemporaryDirectory() as directory, ministack(Path(directory)) as url:
        os.environ.update({**ENVIRONMENT, "AWS_ENDPOINT_URL": url})
        clients = Clients(REGION)
        store = open_store(publish(clients, make_stack(clients)))
        record(store, options.requests, options.events, options.days)
        seconds, calls, made = rebuild(open_store(store.url))
        bare = send(Clients(REGION), made)
    operations = ", ".join(f"{count:,} {name}" for name, count in calls.made.most_common())
    print(f"{options.requests:,} requests of {options.events}: {calls.total:,} calls ({operations})")
    objects = calls.made["GetObject"]
    print(f"{calls.total / objects:.2f} calls an object; {calls.units / options.requests:.2f} write units a request")
    print(f"{calls.total / seconds:,.0f} calls a second; bare {len(made) / bare:,.0f}; {bare / seconds:.0%}")


def record(store: Store, requests: int, events: int, days: int) -> None:
    """Record requests, every tenth one twice."""

    def send_one(number: int) -> None:
        body = [event(number * events + each, (number + each % days) % 3) for each in range(events)]
        for _ in range(1 if number % 10 else 2):
            record_request(store, json.dumps(body if events > 1 else body[0]).encode())

    for _ in map_in_threads(send_one, range(requests * 10 // 11), THREADS):
        pass


def event(number: int, day: int) -> dict[str, object]:
    """Return an event of one of three days."""
    time_of = f"2026-01-{1 + day:02}T00:00:00Z"
    fields = {"source": "s", "event_type": "t", "entity_id": f"e{number % 97}", "event_time": time_of}
    return {**fields, "payload": {"number": number}}


def rebuild(store: Store) -> tuple[float, Calls, list[Call]]:
    """Return how long a rebuild takes, and its calls."""
    with counting(store) as calls, noting(store) as made:
        began = time.perf_counter()
        rebuild_index(store, SILENT)
        return time.perf_counter() - began, calls, made


@contextmanager
def noting(store: Store) -> Iterator[list[Call]]:
    """Note the store's calls meanwhile."""
    made: list[Call] = []
    lock = Lock()

    def note(params: dict[str, Any], event_name: str, **_: Any) -> None:
        service, operation = event_name.split(".")[1:]
        with lock:
            made.append((service, operation, deepcopy(params)))

    with hooked(store, "provide-client-params", note):
        yield made


def send(clients: Clients, calls: list[Call]) -> float:
    """Return how long it takes to send these calls, whatever is answered."""
    names = {
        service: {operation: name for name, operation in clients.client(service).meta.method_to_api_mapping.items()}
        for service in {service for service, _, _ in calls}
    }

    def send_one(call: Call) -> None:
        service, operation, params = call
        client = clients.client(service)
        try:
            answer = getattr(client, names[service][operation])(**params)
        except client.exceptions.ClientError:
            return
        if "Body" in answer:
            answer["Body"].read()

    began = time.perf_counter()
    for _ in map_in_threads(send_one, calls, THREADS):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
