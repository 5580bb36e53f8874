"""Targets of `republish`, chosen by the scheme of a URL: a file, an HTTP service, services of AWS, Kafka."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pik.errors import UsageError
from pik.ports.target import Target, shown_url

KNOWN = "FILE, https://…, sqs://QUEUE, sns://TOPIC, events://BUS, kafka://BROKERS/TOPIC"
"""The targets that there are, as they are typed."""


def target_of(url: str, *, begun: bool = False, environment: Mapping[str, str] = os.environ) -> Target:
    """Return the target of a URL, or of a path. Its driver is imported now, and nothing is opened or sent.

    `begun` says that an earlier attempt of the same republish may have sent to it: a file is then written on, otherwise
    it must not exist. Raises UsageError.
    """
    scheme, found, _ = url.partition("://")
    if not found:
        from pik.targets.file import FileTarget

        return FileTarget(Path(url), begun=begun)
    if scheme in ("http", "https"):
        from pik.targets.http import http_target

        return http_target(url, environment)
    if scheme in ("sqs", "sns", "events"):
        from pik.targets.aws import aws_target

        return aws_target(url)
    if scheme == "kafka":
        from pik.targets.kafka import kafka_target

        return kafka_target(url, environment)
    raise UsageError(f"--target {shown_url(url)}: unknown scheme {scheme!r}", hint=f"--target {KNOWN}")
