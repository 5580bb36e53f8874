"""Clusters that functions run on: where they are, and what is set about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pik.errors import UsageError

SUBMITTED = "spark-submit"
"""The location that is the session for which spark-submit has started this process, wherever that is."""

LOCATIONS = f"local, spark://HOST:PORT, 'local-cluster[2,1,1024]', sc://HOST:PORT, {SUBMITTED} in a job"

_HOST = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])"
_PORT = r":([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_NUMBER = r"\s*0*[1-9]\d*\s*"

_FORMS = {
    "local-cluster": (
        rf"local-cluster\[{_NUMBER},{_NUMBER},{_NUMBER}\]",
        "'local-cluster[WORKERS,CORES,MB]', numbers from 1 on",
    ),
    "spark:": (rf"spark://{_HOST}{_PORT}(,{_HOST}{_PORT})*", "spark://HOST:PORT"),
    "sc:": (rf"sc://{_HOST}({_PORT})?(/(;.*)?)?", "sc://HOST:PORT"),
}
"""How locations look that begin so, and how to say it."""

_JOBS = ("emr-serverless:", "k8s:", "yarn")


@dataclass(frozen=True)
class Cluster:
    """`[cluster]` of pik.toml: how many tasks run at a time (None: what the cluster says that it can), the archive of
    `pik cluster pack` that executors run from (None: their Python has pik), and settings of Spark."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    parallelism: int | None = None
    archive: str | None = None
    spark: Mapping[str, str] = field(default_factory=dict)


def expect_cluster(location: str) -> None:
    """Raise UsageError unless a text is the location of a cluster, whether there is one or not."""
    if location == SUBMITTED:
        return
    invalid = f"--on: invalid location {location!r}"
    for start, (form, said) in _FORMS.items():
        if location.startswith(start):
            if re.fullmatch(form, location) is None:
                raise UsageError(f"{invalid}: it is not of the form {said}", hint=LOCATIONS)
            return
    if location.startswith(_JOBS):
        raise UsageError(
            f"--on: pik does not submit jobs itself: {location!r}",
            hint=f"start one that runs pik with --on {SUBMITTED}: docs/scale.md shows how",
        )
    raise UsageError(invalid, hint=LOCATIONS)
