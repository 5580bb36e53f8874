"""What the log of corrections says of earlier moments: which delivery of an event counted before a rebuild of the
index changed that, and which other corrections held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pik.errors import NotFound
from pik.model.batch import Verdict
from pik.model.correction import Correction, CorrectionKind
from pik.model.ids import creation_time
from pik.model.instant import SECOND
from pik.model.window import ALL_TIME, Window
from pik.ports.raw import RawKey, RawKind
from pik.ports.store import Store
from pik.rawlog.corrected import concerning
from pik.rawlog.corrections import Place, WinnerLine, correction_keys, read_correction, read_winners

_SLACK = 60 * SECOND
"""By how much the time in a record's id may be earlier than the one that it states."""


@dataclass(slots=True)
class EarlierWinner:
    """The delivery of an event that counted at an earlier moment (None: it is lost), and those that count in its place
    at some moment since."""

    place: Place | None
    later: set[Place] = field(default_factory=set)


@dataclass(slots=True)
class Winners:
    """Reads the records of rebuilds, only those that a question needs. With a window, moments are those of the
    rebuilds, and of other corrections, that changed something in it. With an `event_id` lines are those of the event,
    and each record is read once."""

    store: Store
    window: Window | None = None
    event_id: str | None = None
    _keys: list[str] | None = None
    _moments: list[int] | None = None
    _log: Sequence[Correction] | None = None
    _heads: dict[str, Correction] = field(default_factory=dict)
    _planned: dict[str, int] = field(default_factory=dict)
    _lines: dict[str, list[WinnerLine]] = field(default_factory=dict)

    def changes(self, after: int = 0) -> list[Correction]:
        """Return the records of rebuilds that changed winners, of those recorded after that moment, oldest first.
        Raises Damaged."""
        if self._keys is None:
            recorded = self.store.corrections.recorded()
            others = {one.correction_id for one in recorded if one.kind is not CorrectionKind.VERDICT}
            self._keys = [key for key in correction_keys(self.store.raw) if RawKey.of(key).id not in others]
        found = []
        for key in self._keys:
            if creation_time(RawKey.of(key).id) < after - _SLACK:
                continue
            if key not in self._heads:
                self._heads[key] = read_correction(self.store.raw, key)
            head = self._heads[key]
            if head.kind is CorrectionKind.VERDICT and head.events and head.recorded_at > after:
                found.append(head)
        return sorted(found, key=lambda head: (head.recorded_at, head.correction_id))

    def moment(self, until: int | None) -> int:
        """Return when the last of them until that moment (None: of all) was recorded; 0 if there is none."""
        moments = [moment for moment in self._concerning() if until is None or moment <= until]
        return max(moments, default=0)

    def within(self, window: Window) -> Winners:
        """Return the same with those corrections only that changed something in a window, those of rebuilds aside: to
        know which these are takes reading."""
        log = concerning(self.store, self.corrections(), window)
        return replace(self, _log=log)

    def planned(self, run_id: str) -> int:
        """Return the moment up to which corrections hold in the versions of a run, pinned when it was planned. A copy
        has no runs: there it is the time in the id."""
        if run_id not in self._planned:
            try:
                self._planned[run_id] = self.store.runs.get(run_id).corrections_until
            except NotFound:
                self._planned[run_id] = _time_in(run_id)
        return self._planned[run_id]

    def known_to(self, run_id: str) -> int:
        """Return the moment of the last rebuild that the versions of a run know of."""
        return self.moment(self.planned(run_id))

    def corrections_known_to(self, run_id: str) -> int:
        """Return the moment of the last other correction that the versions of a run know of."""
        return self.correction_moment(self.planned(run_id))

    def correction_moment(self, until: int | None) -> int:
        """Return when the last correction until that moment (None: of all) was recorded, those of rebuilds aside; 0 if
        there is none."""
        moments = [one.recorded_at for one in self.corrections() if until is None or one.recorded_at <= until]
        return max(moments, default=0)

    def correction_moments(self, left: int, right: int) -> list[int]:
        """Return the moments on the way from `left` to `right`, both from `correction_moment`, as `moments` does."""
        return _between([one.recorded_at for one in self.corrections()], left, right)

    def correction(self, moment: int) -> Correction:
        """Return the correction of this moment."""
        return next(one for one in self.corrections() if one.recorded_at == moment)

    def corrections(self) -> Sequence[Correction]:
        """Return the corrections in the order of the log, those of rebuilds aside."""
        if self._log is None:
            self._log = concerning(self.store, self.store.corrections.recorded(), self.window or ALL_TIME)
        return self._log

    def moments(self, left: int, right: int) -> list[int]:
        """Return the moments up to which corrections hold, one after the other, on the way from `left` to `right`, both
        from `moment`."""
        return _between(self._concerning(), left, right)

    def change(self, moment: int) -> Correction:
        """Return the record of this moment."""
        return next(one for one in self.changes() if one.recorded_at == moment)

    def _concerning(self) -> list[int]:
        """Return the moments, in order."""
        if self._moments is None:
            window = self.window
            changes = [one for one in self.changes() if window is None or any(self.lines(one, window))]
            self._moments = [one.recorded_at for one in changes]
        return self._moments

    def lines(self, change: Correction, window: Window) -> Iterator[WinnerLine]:
        """Yield the events of which a delivery on a day of the window counts before or after the change. Raises
        Damaged."""
        first, last = window.days
        for line in self._all_lines(change):
            days = [RawKey.of(key).day or 0 for key in (line.key, line.old_key) if key is not None]
            if any(first <= day <= last for day in days):
                yield line

    def _all_lines(self, change: Correction) -> Iterable[WinnerLine]:
        lines = read_winners(self.store.raw, RawKind.CORRECTION.key(change.correction_id))
        if self.event_id is None:
            return lines
        if change.correction_id not in self._lines:
            self._lines[change.correction_id] = [line for line in lines if line.event_id == self.event_id]
        return self._lines[change.correction_id]

    def before(self, moment: int, window: Window) -> dict[str, EarlierWinner]:
        """Return, by event_id, what counted at that moment on the window's days, where rebuilds have changed that.

        Where the winner was lost and another delivery with the same content took its place, that one stands for it.
        """
        found: dict[str, EarlierWinner] = {}
        for change in self.changes(moment):
            for line in self.lines(change, window):
                winner = found.get(line.event_id)
                if winner is not None:
                    winner.later.add(line.new)
                elif line.old is not None or line.was != Verdict.EXACT:
                    found[line.event_id] = EarlierWinner(line.old, {line.new})
        for event_id, winner in found.items():
            if winner.place is None:
                winner.place = self._restored(event_id, winner)
        return found

    def _restored(self, event_id: str, winner: EarlierWinner) -> Place | None:
        """Return the delivery that counted until it was lost, if it was restored since: the first in recording order.
        An index that was rebuilt without it does not name it."""
        known = (one for one in self.store.index.deliveries(event_id) if one.kind != Verdict.UNRECORDED)
        first = min(known, key=lambda one: one.order, default=None)
        place = None if first is None else (first.batch_id, first.seq)
        return None if place in winner.later else place

    def forgotten(self, after: int) -> Iterator[WinnerLine]:
        """Yield the events whose counting delivery a rebuild after that moment did not find and could not name. Raises
        Damaged."""
        for change in self.changes(after):
            yield from (line for line in self.lines(change, ALL_TIME) if line.old is None)


def _between(moments: Iterable[int], left: int, right: int) -> list[int]:
    """Return the moments on the way from one of them to another one, the last one included."""
    low, high = min(left, right), max(left, right)
    between = [low, *(moment for moment in moments if low < moment <= high)]
    return between[1:] if left <= right else between[-2::-1]


def _time_in(run_id: str) -> int:
    try:
        return creation_time(run_id)
    except ValueError:  # a damaged id
        return 0
