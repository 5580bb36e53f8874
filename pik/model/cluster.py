"""Clusters that functions run on: where they are, and what is set about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pik.errors import UsageError

SUBMITTED = "spark-submit"
"""The location that is the session for which spark-submit has started this process, wherever that is."""

JOBS = "emr-serverless:"
"""What a location begins with where a job runs the whole command. Within the job it is the session of that job."""

LOCATIONS = (
    f"local, spark://HOST:PORT, 'local-cluster[2,1,1024]', sc://HOST:PORT, {SUBMITTED} in a job,"
    f" '{JOBS}//APPLICATION?role=ARN'"
)

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

_NOT_STARTED = ("k8s:", "yarn")

_APPLICATION = f"'{JOBS}//00f1abcdexample1?role=arn:aws:iam::123456789012:role/pik-jobs'"


class Application(NamedTuple):
    """An application of EMR Serverless, by its id, and the role that its jobs assume."""

    id: str
    role: str


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
    if location.startswith(JOBS):
        application(location)
        return
    if location.startswith(_NOT_STARTED):
        raise UsageError(
            f"--on: pik does not submit such jobs itself: {location!r}",
            hint=f"start one that runs pik with --on {SUBMITTED}: docs/scale.md shows how",
        )
    raise UsageError(invalid, hint=LOCATIONS)


def expect_no_place(cluster: Cluster, location: str) -> None:
    """Raise UsageError where the settings of Spark name a place, which would be used instead of the location."""
    if "spark.master" in cluster.spark:
        raise UsageError(f"cluster.spark: spark.master is what --on says: {location}", hint="remove it from pik.toml")


def application(location: str) -> Application:
    """Return the application that a location of jobs names. Raises UsageError."""
    parts = urlsplit(location)
    options = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
    what = next((f"unknown parameter {name!r}" for name, _ in options if name != "role"), "")
    role = options[0][1] if len(options) == 1 else ""
    if not re.fullmatch("[0-9a-z]{1,64}", parts.netloc) or parts.path.strip("/") or parts.fragment:
        what = f"{(parts.netloc + parts.path).rstrip('/')!r} is not the id of an application"
    elif not what and not re.fullmatch(r"arn:aws[a-zA-Z0-9-]*:iam::\d{12}:role/.+", role):
        what = f"role={role} is not the ARN of a role" if role else "the role of its jobs is missing"
    if what:
        raise UsageError(f"--on: invalid location {location!r}: {what}", hint=_APPLICATION)
    return Application(parts.netloc, role)
