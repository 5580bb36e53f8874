"""What the recorded corrections come to: which batches are withdrawn, which deliveries count, which events are out, and
which deliveries happened at another time. The steps are those of docs/investigating.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pik.model.batch import Location, Verdict
from pik.model.correction import Correction, CorrectionKind, CorrectionList, ListedDelivery, active
from pik.model.instant import day_of
from pik.model.window import Window
from pik.ports.store import Store
from pik.rawlog.corrections import read_list, with_frames

_BLOCK = 1 << 12
"""Seqs that are marked in one piece."""


class Marks(Mapping[int, bool]):
    """Which of a batch's deliveries count, by seq, where that is not what their verdict says: a byte for each, in
    blocks of neighbours."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}

    def mark(self, seq: int, counts: bool) -> None:
        """Say whether a delivery counts. The last call holds."""
        block, place = divmod(seq, _BLOCK)
        if block not in self._blocks:
            self._blocks[block] = bytearray(_BLOCK)
        self._blocks[block][place] = 2 if counts else 1

    def add(self, other: Mapping[int, bool]) -> None:
        """Add the marks of another batch's mapping; where both have one, that of the other holds."""
        for seq, counts in other.items():
            self.mark(seq, counts)

    def copy(self) -> Marks:
        """Return a copy."""
        made = Marks()
        made._blocks = {number: bytearray(block) for number, block in self._blocks.items()}
        return made

    def __getitem__(self, seq: int) -> bool:
        block, place = divmod(seq, _BLOCK)
        marked = self._blocks[block][place] if block in self._blocks else 0
        if not marked:
            raise KeyError(seq)
        return marked == 2

    def get(self, seq: int, default: bool = False) -> bool:  # type: ignore[override]
        """Return whether the delivery counts; the default where it has no mark."""
        block = self._blocks.get(seq // _BLOCK)
        marked = block[seq % _BLOCK] if block is not None else 0
        return marked == 2 if marked else default

    def __iter__(self) -> Iterator[int]:
        for number, block in sorted(self._blocks.items()):
            yield from (number * _BLOCK + place for place, marked in enumerate(block) if marked)

    def __len__(self) -> int:
        return sum(len(block) - block.count(0) for block in self._blocks.values())


NONE: Mapping[str, Mapping[int, bool]] = {}


@dataclass(frozen=True, slots=True)
class Days:
    """Days of raw (since 1970-01-01): those that the window touches, and `others`."""

    window: Window
    others: frozenset[int] = frozenset()

    def __contains__(self, day: int) -> bool:
        first, last = self.window.days
        return first <= day <= last or day in self.others

    @property
    def bounds(self) -> tuple[int, int]:
        """The first and the last one."""
        first, last = self.window.days
        return min(first, *self.others, first), max(last, *self.others, last)

    def windows(self) -> Iterator[Window]:
        """Yield windows that cover them, in order."""
        first, last = self.window.days
        yield from map(Window.of_day, sorted(day for day in self.others if day < first))
        yield self.window
        yield from map(Window.of_day, sorted(day for day in self.others if day > last))


class Choice(NamedTuple):
    """A delivery of which a correction says whether it counts."""

    batch_id: str
    seq: int
    counts: bool
    correction_id: str


def withdrawn_by(corrections: Sequence[Correction]) -> dict[str, str]:
    """Return the batches that corrections withdraw, each with the id of the last one that does."""
    return {one.batch_id: one.correction_id for one in corrections if one.kind is CorrectionKind.WITHOUT_BATCH}


def first_known(deliveries: Sequence[Location], withdrawn: Collection[str], until: int | None) -> Location | None:
    """Return the first of an event's deliveries, in recording order, that is known and of no withdrawn batch."""
    for one in deliveries:
        is_known = (until is None or one.recorded_at <= until) and one.kind != Verdict.UNRECORDED
        if is_known and one.batch_id not in withdrawn:
            return one
    return None


@dataclass(slots=True, eq=False)
class Corrected:
    """The corrections that hold, `active` ones in the order of the log. Those that it has read of raw are kept."""

    store: Store
    active: Sequence[Correction] = ()
    _frames: dict[str, Correction] = field(default_factory=dict, repr=False)
    _heirs: tuple[object, Mapping[str, Mapping[str, Marks]]] | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.active)

    @property
    def withdrawn(self) -> Mapping[str, str]:
        """The batches that are withdrawn, each with the id of the correction."""
        return withdrawn_by(self.active)

    @property
    def chooses(self) -> bool:
        """Whether any of them changes which delivery of an event counts."""
        return any(one.kind.chooses or one.kind is CorrectionKind.WITHOUT_BATCH for one in self.active)

    @property
    def removes_anywhere(self) -> bool:
        """Whether events that are out may have another delivery that would count, on a day on which none is listed."""
        return bool(self.removing) and (self.chooses or _is_revised(self.store.corrections.recorded()))

    @property
    def choosing(self) -> Sequence[Correction]:
        """Those that say which delivery of an event counts."""
        return [one for one in self.active if one.kind.chooses]

    @property
    def moving(self) -> Sequence[Correction]:
        """Those that say when deliveries happened."""
        return [one for one in self.active if one.kind.moves]

    @property
    def removing(self) -> Sequence[Correction]:
        """Those that take events out."""
        return [one for one in self.active if one.kind is CorrectionKind.WITHOUT]

    def concerns(self, window: Window, *, duplicates: bool) -> bool:
        """Return whether any of them may be about what counts in the window or, with `duplicates`, about these: of an
        event that is out, conflicts that came since may be on any day."""
        return (duplicates and bool(self.removing)) or bool(concerning(self.store, self.active, window))

    def may_take_out_elsewhere(self, verdicts: Collection[Verdict], recorded_at: int) -> bool:
        """Return whether a segment may have deliveries of events that are out which no list of its day has: those that
        came since, with the key of an event of another day."""
        return Verdict.CONFLICT in verdicts and any(one.selected_until < recorded_at for one in self.removing)

    def entered(self, window: Window) -> frozenset[int]:
        """Return the days of raw from which deliveries move into the window, or within it."""
        return frozenset(listed.day for one in self.moving for listed in one.lists if meets(listed, window))

    def reached(self, window: Window) -> set[int]:
        """Return the days of the window to which deliveries may move."""
        first, last = window.days
        found: set[int] = set()
        for listed in (listed for one in self.moving for listed in one.lists):
            found.update(range(max(first, day_of(listed.first_event)), min(last, day_of(listed.last_event)) + 1))
        return found

    def widened(self, window: Window) -> Window:
        """Return the window and all times to which deliveries move."""
        lists = [listed for one in self.moving for listed in one.lists]
        start = min((listed.first_event for listed in lists), default=window.start)
        end = max((listed.last_event + 1 for listed in lists), default=window.end)
        return Window(min(window.start, start), max(window.end, end))

    def lists(
        self, corrections: Sequence[Correction], days: Days | None, entities: Sequence[str]
    ) -> Iterator[tuple[Correction, list[CorrectionList]]]:
        """Yield those of the corrections that have lists for these days of raw (None: all), with these. Where entities
        are named, they have their frames. Raises Damaged."""
        for one in corrections:
            numbers = [n for n, listed in enumerate(one.lists) if days is None or listed.day in days]
            if numbers:
                lists = (self.with_frames(one) if entities else one).lists
                yield one, [lists[n] for n in numbers]

    def with_frames(self, correction: Correction) -> Correction:
        """Return a correction with the frames of its lists. Raises Damaged."""
        if all(listed.frames for listed in correction.lists):
            return correction
        found = self._frames.get(correction.correction_id)
        if found is None:
            found = self._frames[correction.correction_id] = with_frames(self.store.raw, correction)
        return found

    def listed(
        self, corrections: Sequence[Correction], days: Days | None, entities: Sequence[str]
    ) -> Iterator[tuple[int, ListedDelivery]]:
        """Yield what these corrections list for the days and entities, each with the number of its correction among
        them. Raises Damaged."""
        for number, one in enumerate(corrections):
            for listed in self.with_frames(one).lists if one.lists else ():
                if days is None or listed.day in days:
                    for delivery in read_list(self.store.raw, listed, entities):
                        yield number, delivery

    def heirs(
        self, days: Days, withdrawn: Mapping[str, str], until: int | None = None
    ) -> Mapping[str, Mapping[str, Marks]]:
        """Return the deliveries of these days, at least, that count since the batch of the accepted one of their event
        is withdrawn, of each event the first one left: by the id of the correction, with which the `withdrawn` batches
        come, and by batch."""
        key = days.bounds, frozenset(withdrawn), until
        if self._heirs is None or self._heirs[0] != key:
            found: dict[str, dict[str, Marks]] = {}
            for batch_id, correction_id in sorted(withdrawn.items()):
                for deliveries in self.store.repeats.repeated_from(batch_id, days.bounds):
                    heir = first_known(deliveries, withdrawn, until)
                    if heir is not None:
                        of_batch = found.setdefault(correction_id, {}).setdefault(heir.batch_id, Marks())
                        of_batch.mark(heir.seq, True)
            self._heirs = key, found
        return self._heirs[1]

    def counting(
        self,
        days: Days,
        entities: Sequence[str],
        until: int | None = None,
        more: Mapping[str, Mapping[int, bool]] = NONE,
    ) -> dict[str, Marks]:
        """Return the deliveries of these days, by batch and seq, of which corrections say whether they count, and on
        top of them `more`. Raises Damaged."""
        withdrawn, found = self.withdrawn, dict[str, Marks]()
        for of_batches in self.heirs(days, withdrawn, until).values():
            for batch_id, marks in of_batches.items():
                if batch_id in found:
                    found[batch_id].add(marks)
                else:
                    found[batch_id] = marks.copy()
        for one in self.choices(days, entities, withdrawn):
            found.setdefault(one.batch_id, Marks()).mark(one.seq, one.counts)
        for batch_id, seqs in more.items():
            found.setdefault(batch_id, Marks()).add(seqs)
        return found

    def choices(self, days: Days, entities: Sequence[str], withdrawn: Collection[str]) -> Iterator[Choice]:
        """Yield the deliveries of these days of raw of which a correction says whether they count. Of several about one
        event the last one holds; none where the delivery that it chose is of a withdrawn batch. Raises Damaged."""
        choosing = self.choosing
        if not choosing:
            return
        last: dict[str, tuple[int, bool]] = {}  # of each event: the correction that holds, and whether it has one left
        if withdrawn:
            for number, one in self.listed(choosing, None, entities):
                if one.counts:
                    last[one.event_id] = number, one.batch_id not in withdrawn
        for number, one in self.listed(choosing, days, entities):
            if not withdrawn or last.get(one.event_id) == (number, True):
                yield Choice(one.batch_id, one.seq, bool(one.counts), choosing[number].correction_id)


def corrected_until(store: Store, until: int | None = None, without: Collection[str] = ()) -> Corrected:
    """Return the corrections that hold at this moment (nanoseconds; None: now), as if some had never been recorded."""
    if until is not None and until <= 0:
        return Corrected(store)
    log = [one for one in store.corrections.recorded() if one.correction_id not in without]
    return Corrected(store, active(log, until))


def ever_moved(store: Store) -> Corrected:
    """Return all corrections that have moved deliveries, revoked ones too: with these, the days of a window are all
    those from which its deliveries can be."""
    return Corrected(store, [one for one in store.corrections.recorded() if one.kind.moves])


def _is_revised(log: Iterable[Correction]) -> bool:
    """Return whether a rebuild of the index has changed which delivery of an event counts."""
    return any(one.kind is CorrectionKind.VERDICT and one.events for one in log)


def concerning(store: Store, log: Sequence[Correction], window: Window) -> list[Correction]:
    """Return those of some corrections, in the order of the log, that may change what counts in the window; of a batch
    that is withdrawn that is not known without reading, so all of those do. What rebuilds changed is not among them."""
    if not log:
        return []
    lists = (listed for one in log if one.kind.moves for listed in one.lists)
    days = Days(window, frozenset(listed.day for listed in lists if meets(listed, window)))
    choose = _is_revised(store.corrections.recorded()) or any(
        one.kind.chooses or one.kind is CorrectionKind.WITHOUT_BATCH for one in log
    )
    found: dict[str, Correction] = {}
    for one in log:
        match one.kind:
            case CorrectionKind.VERDICT:
                concerns = False
            case CorrectionKind.REVOCATION:
                concerns = one.revokes in found
            case CorrectionKind.WITHOUT_BATCH:
                concerns = True
            case kind:
                everywhere = choose and kind is CorrectionKind.WITHOUT  # a delivery of any day may be chosen
                concerns = everywhere or any(listed.day in days for listed in one.lists)
        if concerns:
            found[one.correction_id] = one
    return list(found.values())


def meets(listed: CorrectionList, window: Window) -> bool:
    """Return whether deliveries of the list may have happened in the window, according to the correction."""
    return listed.first_event < window.end and listed.last_event >= window.start
