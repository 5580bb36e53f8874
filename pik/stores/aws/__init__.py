"""The store in a deployed stack: raw in S3, the index and the state in two DynamoDB tables, the queue in SQS."""

from __future__ import annotations

from collections.abc import Mapping

from pik.ports.store import Store
from pik.rawlog.replacements import ReplacingRaw
from pik.stores import FORMAT
from pik.stores.aws.catalog.assignments import AwsAssignments
from pik.stores.aws.catalog.audit import AwsAudit
from pik.stores.aws.catalog.batches import AwsBatches
from pik.stores.aws.catalog.compaction import AwsCompaction
from pik.stores.aws.catalog.corrections import AwsCorrections
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.catalog.repeats import AwsRepeats
from pik.stores.aws.clients import Clients
from pik.stores.aws.http_api import open_api
from pik.stores.aws.queue import AwsBuffer, AwsQueue, invoke_later
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.stack import Stack, find_stack, located, stack_of
from pik.stores.aws.state.aggregates import AwsAggregates, AwsMetrics
from pik.stores.aws.state.audit import AwsStateAudit
from pik.stores.aws.state.backup import AwsBackup
from pik.stores.aws.state.idempotency_keys import AwsIdempotencyKeys
from pik.stores.aws.state.republishes import AwsRepublishes
from pik.stores.aws.state.runs import AwsRuns
from pik.stores.aws.table import Table
from pik.stores.partials import ObjectPartials

__all__ = ["AwsBuffer", "invoke_later", "open_api", "open_aws", "open_buffer", "open_deployed"]


def open_aws(url: str) -> Store:
    """Open the store `aws://STACK?region=…&profile=…`, found by its stack's outputs unless the URL names its resources.
    Raises UsageError, NotFound, StoreError."""
    where = located(url)
    clients, stack = where.clients, find_stack(*where)
    generation = Generation(Table(clients, stack.index_table), url)
    generation.current()  # refuses another format, also for commands that read nothing but the state
    return _assemble(url, clients, stack, generation)


def open_deployed(environment: Mapping[str, str]) -> Store:
    """Open the store of the stack that this function is part of. Raises StoreError."""
    stack = stack_of(environment)
    clients, url = Clients(), f"aws://{stack.name}"
    return _assemble(url, clients, stack, Generation(Table(clients, stack.index_table), url))


def open_buffer(url: str) -> AwsBuffer:
    """Open the queue of buffered requests."""
    return AwsBuffer(Clients(), url)


def _assemble(url: str, clients: Clients, stack: Stack, generation: Generation) -> Store:
    index_table, state_table = generation.table, Table(clients, stack.state_table)
    raw = AwsRaw(clients, stack.raw_bucket)
    index = AwsIndex(index_table, raw, generation)
    queue = AwsQueue(clients, stack, state_table)
    batches, aggregates = AwsBatches(index_table, raw, generation), AwsAggregates(state_table)
    return Store(
        url=url,
        format_version=FORMAT,
        raw=ReplacingRaw(raw),
        batches=batches,
        requests=batches,
        index=index,
        overview=index,
        repeats=AwsRepeats(index_table, raw, generation),
        assignments=AwsAssignments(index_table),
        audit=AwsAudit(index),
        corrections=AwsCorrections(index_table, generation),
        metrics=AwsMetrics(state_table),
        runs=AwsRuns(state_table),
        idempotency_keys=AwsIdempotencyKeys(state_table),
        queue=queue,
        dead_letters=queue,
        partials=ObjectPartials(raw),
        aggregates=aggregates,
        promotions=aggregates,
        republishes=AwsRepublishes(state_table),
        state_audit=AwsStateAudit(state_table),
        backup=AwsBackup(state_table, queue, has_queue=bool(stack.dead_letter_queue_url)),
        compaction=AwsCompaction(index_table, raw, generation, stack.retention_days),
        deployed=True,
        retention_days=stack.retention_days,
        caller=clients.caller,
    )
