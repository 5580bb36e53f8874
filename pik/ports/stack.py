"""What can be told about a deployed stack itself: whether it is well, what the caller may do, how it is set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which stack it is, and what it was deployed with. `version` is that of its functions, empty if it says none."""

    name: str
    region: str
    account: str
    version: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the stack as it was found. `healthy` is None, and `detail` says why, where that cannot be known."""

    name: str
    state: str | None
    healthy: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many tasks wait, are being worked on, are to wait a little longer, and are among the dead letters; all about,
    as SQS counts. `oldest` is the age of the oldest one in seconds, None if none is there, or if it is `hidden`."""

    visible: int
    in_flight: int
    delayed: int
    dead: int
    oldest: int | None
    hidden: str = ""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm of the stack. `state` is OK, ALARM or INSUFFICIENT_DATA; `since` in nanoseconds."""

    name: str
    state: str
    since: int
    reason: str


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether the caller may do one action on one resource (an ARN), which somebody of that level needs.

    `how` is tried, or simulated where trying would leave a trace. `allowed` is None, `how` empty, and `detail` says
    why, where neither tells. With `forbidden` a policy denies it explicitly, so that allowing it mends nothing.
    """

    level: str
    action: str
    resource: str
    allowed: bool | None
    how: str
    detail: str = ""
    forbidden: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """How one thing is set, how the kit needs it, and the command that makes it so. `right` is None, and `found` says
    why, where that cannot be told."""

    name: str
    right: bool | None
    found: str
    needed: str
    command: str


class StackHealth(Protocol):
    """Looks and changes nothing: no event, task, object or item is written, removed or hidden from others."""

    def deployment(self) -> Deployment:
        """What the stack says about itself. Raises NotFound, StoreError."""

    def parts(self) -> Iterator[Part]:
        """Every part whose state tells whether the stack works."""

    def depth(self) -> Depth:
        """What is in the queues. Raises StoreError."""

    def alarms(self) -> list[Alarm]:
        """The stack's alarms by name. Raises StoreError."""

    def permissions(self) -> Iterator[Permission]:
        """Everything that the levels of docs/iam.md need, by level."""

    def settings(self) -> Iterator[Setting]:
        """Every setting that the kit relies on."""
