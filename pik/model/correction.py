"""Corrections: recorded statements that certain deliveries do not count, that others do, or when they happened.

A correction is an assumption of a scenario that was recorded: its kind and its text are those of `--assume`. A rebuild
of the index that changes which delivery of an event counts records that as a correction, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from pik.model.batch import Frame


class CorrectionKind(StrEnum):
    """What a correction changes."""

    VERDICT = "verdict"
    """Which delivery of an event counts, by a rebuild of the index."""
    WITHOUT_BATCH = "without-batch"
    DELIVERY = "delivery"
    CONFLICTS = "conflicts"
    WITHOUT = "without"
    SHIFT = "shift"
    ZONE = "zone"
    REVOCATION = "revocation"

    @property
    def chooses(self) -> bool:
        """Whether its lists say which delivery of an event counts."""
        return self in (CorrectionKind.DELIVERY, CorrectionKind.CONFLICTS)

    @property
    def moves(self) -> bool:
        """Whether its lists say when deliveries happened."""
        return self in (CorrectionKind.SHIFT, CorrectionKind.ZONE)

    @property
    def removes(self) -> bool:
        """Whether its lists say which events do not count."""
        return self is CorrectionKind.WITHOUT


class ListedDelivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a list: a delivery that a correction is about.

    `event_time` is when it happened as raw has it (RFC 3339, nine digits, UTC). A correction that moves says `time`,
    when it happened, written likewise; one that chooses says whether the delivery `counts`. One that takes events out
    lists every delivery of the event that was known.
    """

    event_id: str
    entity_id: str
    batch_id: str
    seq: int
    event_time: str
    time: str | None = None
    counts: bool | None = None


class CorrectionList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An object with the listed deliveries of one UTC day of raw, sorted by entity, time, batch and seq, in frames like
    those of a segment.

    `day` (since 1970-01-01) is that of the deliveries' segments, `first_event` and `last_event` (nanoseconds) are the
    earliest and the latest time at which they happened according to the correction. `frames` is empty in the index; the
    correction's own object has them.
    """

    key: str
    day: int
    first_event: int
    last_event: int
    deliveries: int
    size: int
    digest: str
    frames: tuple[Frame, ...] = ()


class Correction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="correction"):
    """A correction: what was corrected, when (nanoseconds), by whom and why.

    `statement` is the assumption that was recorded, resolved, as it is typed; `typed` is how it was. Deliveries
    were selected among those recorded until `selected_until`. A withdrawn batch is named by `batch_id`, a revoked
    correction by `revokes`, and by `like` the one that it records again for what had come since. `events` counts
    the events that it is about. `lists` have its deliveries by the day of raw; the withdrawal of a batch, a
    revocation, and a rebuild have none. `group` has the ids of all corrections that were recorded together, by one
    command: they hold all or not at all. It is empty where the command recorded one.
    """

    format: int
    correction_id: str
    kind: CorrectionKind
    recorded_at: int
    actor: str = ""
    reason: str
    statement: str = ""
    typed: str = ""
    like: str = ""
    selected_until: int = 0
    batch_id: str = ""
    revokes: str = ""
    events: int
    lists: tuple[CorrectionList, ...] = ()
    group: tuple[str, ...] = ()

    @property
    def has_selection(self) -> bool:
        """Whether its statement selects deliveries, so that it may hit some that come later."""
        if self.kind is CorrectionKind.WITHOUT:
            return self.statement.startswith(("without=selected,", "without=suspects"))
        return self.kind.moves or self.kind is CorrectionKind.CONFLICTS

    @property
    def deliveries(self) -> int:
        """How many deliveries it lists."""
        return sum(each.deliveries for each in self.lists)


def log_order(correction: Correction) -> tuple[int, str]:
    """Return what the log of corrections is sorted by."""
    return correction.recorded_at, correction.correction_id


def revoked(corrections: Iterable[Correction]) -> dict[str, str]:
    """Return the corrections and revocations that are revoked, each with the id of the revocation. They are given in
    the order of the log.

    A correction holds unless an active revocation names it. A revocation is revoked by a later one, so what was
    recorded before holds again.
    """
    found: dict[str, str] = {}
    for one in reversed(list(corrections)):
        if one.kind is CorrectionKind.REVOCATION and one.correction_id not in found:
            found.setdefault(one.revokes, one.correction_id)
    return found


def active(corrections: Iterable[Correction], until: int | None = None) -> list[Correction]:
    """Return those of the corrections, given in the order of the log, that hold at this moment (nanoseconds; None:
    now), without revocations and those of rebuilds."""
    known = [one for one in corrections if until is None or one.recorded_at <= until]
    passive, gone = (CorrectionKind.REVOCATION, CorrectionKind.VERDICT), revoked(known)
    return [one for one in known if one.kind not in passive and one.correction_id not in gone]
