"""Reading the deliveries of a window, at the times that corrections give them, or as they came."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence

from pik.model.batch import Segment, Verdict
from pik.model.delivery import Filter, entity_mark, event_id_text, event_time_text, seq_text
from pik.ports.store import Store
from pik.rawlog.corrected_reader import corrected_deliveries
from pik.rawlog.objects import frame_lines, parse
from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES, Bound, RecordedDelivery, Selection
from pik.runtime import SILENT, Progress, showing

_ACCEPTED = Verdict.ACCEPTED  # a member is slow to look up
_DUPLICATES = Verdict.EXACT, Verdict.CONFLICT
_KINDS: Mapping[str | None, Sequence[str]] = {None: (_ACCEPTED, *_DUPLICATES), "duplicate": _DUPLICATES}
"""Verdicts, by what `deliveries` yields."""


def deliveries(
    store: Store,
    wanted: Filter,
    *,
    only: str | None = None,
    progress: Progress = SILENT,
    bound: Bound | None = None,
    holds: Callable[[Segment], bool] | None = None,
    as_received: bool = False,
) -> Generator[RecordedDelivery, None, None]:
    """Yield the deliveries asked for, by the times that corrections give them: day by day, and within a day in no
    particular order; with `only`, just those that count ("accepted"), those that do not, of one other verdict, or all
    such duplicates ("duplicate"). Those after the current `bound` may be left out, and where `holds` chooses segments,
    what is neither in those nor a duplicate of the same day.

    With `as_received` no correction holds, those of rebuilds aside."""
    bound, kinds = bound or Bound(), _KINDS.get(only) or (str(only),)
    marks = [entity_mark(entity) for entity in wanted.entities] if len(wanted.entities) <= 8 else []
    with showing(progress, "reading raw", None, "deliveries"):
        selection = Selection(store, wanted.window, wanted.entities, AS_RECEIVED if as_received else NO_OVERRIDES)
        if selection.corrected.concerns(wanted.window, duplicates=only != _ACCEPTED):
            yield from corrected_deliveries(selection, wanted, kinds, bound, progress)
            return
        days = {segment.day for segment in selection.segments() if holds(segment)} if holds else None
        for segment, frames in selection.needed():
            if bound.excludes(segment) or (days is not None and segment.day not in days):
                continue
            verdicts = store.index.skipped(segment)
            if not verdicts and holds is not None and not holds(segment):
                continue
            skipped = {b"%d" % seq for seq, verdict in verdicts.items() if verdict in kinds}
            if _ACCEPTED not in kinds and not skipped:
                continue
            for frame in frames:
                lines = frame_lines(store.raw, segment, frame)
                if marks:
                    lines = [line for line in lines if any(mark in line for mark in marks)]
                if _ACCEPTED not in kinds:
                    lines = [line for line in lines if seq_text(line) in skipped]
                for line in lines:
                    if bound.excludes_text(segment.day, event_time_text(line), event_id_text(line)):
                        continue
                    delivery = parse(segment.key, line)
                    verdict = verdicts.get(delivery.seq, _ACCEPTED)
                    if verdict not in kinds:
                        continue
                    if wanted.matches(delivery):
                        yield RecordedDelivery(delivery, verdict, segment, line, verdict == _ACCEPTED)
                progress.advance(frame.lines)
