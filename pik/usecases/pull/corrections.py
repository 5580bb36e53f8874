"""Pull: the corrections of a store, the lists of them that the parts of a copy need, and what moved into these parts.

Every correction is pulled, so that a copy knows which of them hold; a rebuild that changed nothing is left out. Lists
of other days stay in the source, except those that say which delivery of an event counts, or that none does: these may
be about deliveries of any day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pik.errors import Damaged
from pik.model.batch import Segment
from pik.model.correction import Correction, CorrectionKind, CorrectionList
from pik.model.window import PulledWindow, Window
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.corrected import Days, meets
from pik.rawlog.corrections import read_list, with_frames
from pik.usecases.care.verify_findings import Problem, ProblemKind


@dataclass(slots=True)
class PulledCorrections:
    """What there is to pull of a store's corrections, for these parts; `problems` are those that cannot be read.
    `segments` yields the segments of a window that may hold deliveries of some entities."""

    source: Store
    parts: Sequence[PulledWindow]
    segments: Callable[[Window, Sequence[str]], Iterator[Segment]]
    problems: list[Problem] = field(default_factory=list)
    _known: list[Correction] = field(default_factory=list)

    def __post_init__(self) -> None:
        for one in self.source.corrections.recorded():
            try:
                if one.kind is not CorrectionKind.VERDICT or one.events:
                    self._known.append(with_frames(self.source.raw, one))
            except Damaged as error:
                key = RawKind.CORRECTION.key(one.correction_id)
                self.problems.append(Problem(ProblemKind.of(error), key, error.message))

    @property
    def headers(self) -> list[str]:
        """Return the keys of the corrections."""
        return [RawKind.CORRECTION.key(one.correction_id) for one in self._known]

    def lists(self) -> Iterator[CorrectionList]:
        """Yield the lists that are needed."""
        for one in self._known:
            yield from (each for each in one.lists if is_pulled(one, each, self.parts))

    def moved_in(self) -> Iterator[Segment]:
        """Yield the segments of other days that hold deliveries which happened within a part according to a correction,
        each once."""
        found: dict[str, Segment] = {}
        for one in self._known:
            for listed in one.lists if one.kind.moves else ():
                for part in self.parts:
                    if meets(listed, part.window) and listed.day not in Days(part.window):
                        found.update((segment.key, segment) for segment in self._segments(listed, part))
        yield from found.values()

    def _segments(self, listed: CorrectionList, part: PulledWindow) -> Iterator[Segment]:
        batches: set[str] = set()
        with suppress(Damaged):  # which is a problem when the list itself is copied
            batches.update(one.batch_id for one in read_list(self.source.raw, listed, part.entities))
        for segment in self.segments(Window.of_day(listed.day), part.entities):
            if segment.batch_id in batches:
                yield segment


def is_pulled(correction: Correction, listed: CorrectionList, parts: Iterable[PulledWindow]) -> bool:
    """Return whether a copy that holds these parts has a list: one about deliveries that were received in one of them,
    or happened there according to the correction, or one that says which delivery of an event counts, if any."""
    kind = correction.kind
    return (
        kind.chooses
        or kind.removes
        or any(listed.day in Days(part.window) or meets(listed, part.window) for part in parts)
    )
