"""Targets in AWS: queues of SQS, topics of SNS, event buses of EventBridge."""

from __future__ import annotations

from pik.ports.target import Target
from pik.targets.aws import batches, events, service, sns, sqs


def aws_target(url: str) -> Target:
    """Return the target of `sqs://QUEUE`, `sns://TOPIC` or `events://BUS`. Raises UsageError."""
    at = service.address(url)
    scheme = url.partition("://")[0]
    made: batches.Destination
    if scheme == "sqs":
        made = sqs.queue_of(at)
    elif scheme == "sns":
        made = sns.topic_of(at)
    else:
        made = events.bus_of(at)
    return batches.BatchTarget(made, at.shown)
