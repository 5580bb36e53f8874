"""What an explanation is: a value on the left and on the right, and the causes of the difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from pik.model.aggregate import Computed
from pik.model.correction import Correction
from pik.model.metric import Metric
from pik.model.scenario import Scenario
from pik.usecases.metrics.chain import EXACT, Cause, value_of
from pik.usecases.metrics.side_values import SideValue
from pik.usecases.metrics.states import Change
from pik.usecases.metrics.unread import NO_BOUNDS, NOTHING_UNREAD, Bounds, Unread


@dataclass(frozen=True, slots=True)
class Share:
    """A cause, and by how much it changes the value. `events` is how many deliveries count on one side of it only, or
    at another time; None: they cannot be known. `changes` are these, if they were asked for. A share that is not
    `proven` is inferred. `side` is the one whose version the cause says something about, `correction` the correction,
    revocation or rebuild that is the cause."""

    cause: Cause
    share: Decimal
    proven: bool
    detail: str
    events: int | None = 0
    changes: Iterable[Change] = ()
    side: SideValue | None = None
    correction: Correction | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A metric's value of one entity and bucket (its start, nanoseconds) on the left and on the right, with the causes
    of the difference.

    The right value was recomputed under the scenario by the definition `metric`, unless it is that of the side `right`.
    `unreadable` are the frames of raw that values are computed without, by object and offset; `unread` are the
    deliveries in them that may count in the recomputed value, which is within the `bounds` with them. `moves` is by how
    much (in nanoseconds) the scenario moves deliveries to a later and to an earlier time, at most.
    """

    entity_id: str
    bucket: int
    scenario: Scenario
    metric: Metric
    left: SideValue
    right: SideValue | None
    recomputed: Computed | None
    shares: tuple[Share, ...]
    unreadable: Mapping[str, frozenset[int]]
    moves: tuple[int, int] = (0, 0)
    unread: Unread = NOTHING_UNREAD
    bounds: Bounds = NO_BOUNDS

    @property
    def is_complete(self) -> bool:
        """Whether the right value is known: it is recorded, or nothing that may count in it is unreadable."""
        return not self.unread.segments

    @property
    def unread_since(self) -> int | None:
        """How many of the unread deliveries were recorded after the left version was computed, at most: whether it is
        proven says nothing of them. None: not known."""
        version = self.left.version
        return None if version is None or version.is_imported else self.unread.events(version.known_until)

    @property
    def delta(self) -> Decimal:
        """right - left; a missing value counts as 0. The sum of all shares."""
        return EXACT.subtract(value_of(self.recomputed), self.left.value)

    @property
    def lost(self) -> list[str]:
        """The objects of raw that cannot be read, or frames of them."""
        return sorted(self.unreadable)

    @property
    def proven(self) -> bool | None:
        """Whether the recorded versions counted exactly what raw still holds of what they knew; None: there is none."""
        recorded = [side for side in (self.left, self.right) if side is not None and side.version is not None]
        known = [side.proven for side in recorded if side.version is not None and side.version.run_id]
        return all(known) if known else None
