"""Opening the store of a deployed stack."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from pik.errors import UsageError
from pik.ports.store import Store
from pik.stores import FORMAT
from pik.stores.aws.catalog.audit import AwsAudit
from pik.stores.aws.catalog.batches import AwsBatches
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.clients import Clients
from pik.stores.aws.queue import AwsQueue
from pik.stores.aws.raw import AwsRaw
from pik.stores.aws.stack import Stack, find_stack, stack_of
from pik.stores.aws.state.aggregates import AwsAggregates, AwsMetrics
from pik.stores.aws.state.audit import AwsStateAudit
from pik.stores.aws.state.backup import AwsBackup
from pik.stores.aws.state.runs import AwsRuns
from pik.stores.aws.table import Table


def open_aws(url: str) -> Store:
    """Open the store `aws://STACK?region=…&profile=…`, found by its stack's outputs. Raises UsageError, NotFound,
    StoreError."""
    clients, name = located(url)
    stack = find_stack(clients, name)
    generation = Generation(Table(clients, stack.index_table), url)
    generation.current()  # refuses another format, also for commands that read nothing but the state
    return _assemble(url, clients, stack, generation)


def located(url: str) -> tuple[Clients, str]:
    """Return clients for the region and account of the stack in a URL, and its name. Raises UsageError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if not parts.netloc or parts.path.strip("/") or options.keys() - {"region", "profile"}:
        raise UsageError(f"{url!r} is not a store", hint="aws://STACK or aws://STACK?region=eu-central-1&profile=NAME")
    return Clients(options.get("region"), options.get("profile")), parts.netloc


def open_deployed(environment: Mapping[str, str]) -> Store:
    """Open the store of the stack that this function is part of. Raises StoreError."""
    stack = stack_of(environment)
    clients, url = Clients(), f"aws://{stack.name}"
    return _assemble(url, clients, stack, Generation(Table(clients, stack.index_table), url))


def _assemble(url: str, clients: Clients, stack: Stack, generation: Generation) -> Store:
    index_table, state_table = generation.table, Table(clients, stack.state_table)
    raw = AwsRaw(clients, stack.raw_bucket)
    index = AwsIndex(index_table, raw, generation)
    queue = AwsQueue(clients, stack, state_table)
    batches, aggregates = AwsBatches(index_table, raw, generation), AwsAggregates(state_table)
    return Store(
        url=url,
        format_version=FORMAT,
        raw=raw,
        batches=batches,
        requests=batches,
        index=index,
        audit=AwsAudit(index),
        metrics=AwsMetrics(state_table),
        runs=AwsRuns(state_table),
        queue=queue,
        dead_letters=queue,
        aggregates=aggregates,
        promotions=aggregates,
        state_audit=AwsStateAudit(state_table),
        backup=AwsBackup(state_table, queue),
        deployed=True,
        retention_days=stack.retention_days,
    )
