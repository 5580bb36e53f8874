"""What is in a bundle: the names of its members, and what its manifest says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from pik.errors import InputError, Invalid, UsageError
from pik.model.instant import parse_instant
from pik.model.metric import Metric
from pik.model.window import Window
from pik.ports.raw import RawKey, RawKind
from pik.ports.state import Metrics

FORMAT = 1
"""The version of the format; docs/bundle.md specifies it."""

MANIFEST = "MANIFEST.json"
README = "README.txt"
SUMS = "SHA256SUMS"
DOCUMENTS = "documents/"
METRICS, VERSIONS, RUNS, PROMOTIONS = (f"rows/{name}.jsonl" for name in ("metrics", "versions", "runs", "promotions"))
REDACTED = "rows/redacted.jsonl"
ROWS = (METRICS, VERSIONS, RUNS, PROMOTIONS, REDACTED)

_INCIDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DOCUMENT = re.compile(rf"{DOCUMENTS}[a-z][a-z-]{{0,30}}\.json|{DOCUMENTS}report\.html", re.ASCII)
_RAW = {RawKind.SEGMENT, RawKind.REJECTS, RawKind.PULL, RawKind.CORRECTION, RawKind.LIST}


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What a bundle is of: a window that is over, some entities (none: all) and, for what is computed, some metrics
    (none: all). Raises UsageError where that is not so; `now` in nanoseconds."""

    incident: str
    window: Window
    entities: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def expect_over(self, now: int) -> None:
        """Raise UsageError for a window that has no beginning, no end, or goes on: the same command would not write the
        same bytes again."""
        start, end = self.window.from_text, self.window.to_text
        if start is None or end is None:
            missing = "--from" if start is None else "--to"
            raise UsageError(
                f"a bundle is of a window with both ends, and {missing} is missing", hint="--from TIME --to TIME"
            )
        if self.window.end > now:
            raise UsageError(
                f"the window {self.window} is not over, so the same command would not write the same bytes again",
                hint="a --to that is not in the future",
            )


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A member that a command wrote from what the bundle holds: the command, and its exit code."""

    name: str
    command: str
    exit_code: int


class ProblemLine(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be taken into the bundle, and why."""

    kind: str
    what: str
    detail: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename={"start": "from", "end": "to"}):
    """MANIFEST.json. `known_until` is the last recording that the bundle knows of: the clock is nowhere in it. Values
    at the `redacted` paths are hashes, and metrics that read them are `not_recomputable`, and left out."""

    bundle_format: int
    store_format: int
    incident: str
    start: str
    end: str
    entities: tuple[str, ...]
    metrics: tuple[str, ...]
    effective_from: str
    effective_to: str
    known_until: str | None
    environment: dict[str, str]
    problems: tuple[ProblemLine, ...]
    redacted: tuple[str, ...]
    not_recomputable: tuple[str, ...]
    documents: tuple[Document, ...]

    @property
    def request(self) -> BundleRequest:
        """What it is a bundle of. Raises InputError."""
        try:
            return BundleRequest(
                expect_incident(self.incident),
                Window(parse_instant(self.start), parse_instant(self.end)),
                self.entities,
                self.metrics,
            )
        except (Invalid, UsageError) as error:
            raise InputError(f"the bundle's {MANIFEST} is not one that pik wrote: {error.message}") from None


def expect_incident(name: str) -> str:
    """Return the name. Raises UsageError for one that cannot be the name of a directory."""
    if not _INCIDENT.fullmatch(name):
        raise UsageError(
            f"invalid name of an incident {name!r}: it has letters, digits, '.', '_' and '-', at most 64, and begins"
            " with a letter or a digit",
            hint="--incident INC-1234",
        )
    return name


def is_member(name: str) -> bool:
    """Return whether a bundle may have a member of this name, below its prefix."""
    if name in (MANIFEST, README, SUMS, *ROWS) or _DOCUMENT.fullmatch(name):
        return True
    key = RawKey.parse(name)
    return key is not None and key.kind in _RAW


def scopes(metrics: Metrics | Iterable[Metric], window: Window) -> Mapping[str, Window]:
    """Return the buckets of each metric whose values a bundle of the window holds."""
    latest: Sequence[Metric] = list(metrics) if isinstance(metrics, Iterable) else metrics.latest()
    return {metric.name: metric.buckets.widened(window) for metric in latest}
