"""Targets of `republish`, chosen by the scheme of a URL: a file, an HTTP service, services of AWS, Kafka."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pik.errors import UsageError
from pik.ports.target import Target, shown_url

KNOWN = "FILE, https://…, sqs://QUEUE, sns://TOPIC, events://BUS, kafka://BROKERS/TOPIC"
"""The targets that there are, as they are typed."""


_SCHEMES = ("http", "https", "sqs", "sns", "events", "kafka")


def target_of(url: str, *, taken: int | None = None, environment: Mapping[str, str] = os.environ) -> Target:
    """Return the target of a URL, or of a path. Its driver is imported now, and nothing is opened or sent.

    `taken` is how many messages it took in earlier attempts of the same republish; None: there was none. A file is
    written on after one, and must not exist before. Raises UsageError.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return _file(url, taken)
    scheme, shown = scheme.lower(), shown_url(url)
    url = f"{scheme}://{rest}"
    if scheme in ("http", "https"):
        from pik.targets.http import http_target

        return http_target(url, environment)
    if scheme in ("sqs", "sns", "events"):
        from pik.targets.aws import aws_target

        return aws_target(url)
    if scheme == "kafka":
        from pik.targets.kafka import kafka_target

        return kafka_target(url, environment)
    raise UsageError(f"--target {shown}: unknown scheme {scheme!r}", hint=f"--target {KNOWN}")


def _file(path: str, taken: int | None) -> Target:
    from pik.targets.file import FileTarget

    scheme, colon, _ = path.partition(":")
    if colon and scheme.lower() in _SCHEMES:  # what follows may be secret
        raise UsageError(f"--target {scheme}:… is not a URL: // is missing after the colon", hint=f"--target {KNOWN}")
    if path == "-":
        raise UsageError(
            "--target -: events are not sent to standard output", hint="--target FILE, or `pik export --out -`"
        )
    if not path:
        raise UsageError("--target is empty", hint=f"--target {KNOWN}")
    return FileTarget(Path(path), taken)
