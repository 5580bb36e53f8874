"""What is about to be corrected, in words: for the question before it is recorded, and for notes after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pik.cli.commands.inspect.corrected import effect_words
from pik.errors import number_of

if TYPE_CHECKING:
    from pik.model.correction import Correction
    from pik.usecases.correct.consequences import Facet, Overlap, PlannedCorrection
    from pik.usecases.metrics.impact import Impact

_SHOWN = 5
"""Names of each kind that the question shows."""


def by_whom(correction: Correction) -> str:
    """Return a correction's id, and who recorded it why."""
    about = ", ".join(filter(None, (correction.actor, correction.reason)))
    return f"{correction.correction_id} ({about})" if about else correction.correction_id


def planned_lines(number: int | None, one: PlannedCorrection) -> Iterator[str]:
    """Yield what a correction is about and does; `number` is its place among several."""
    yield f"{'' if number is None else f'{number}. '}{one.assumption}"
    hit = f"{number_of(one.deliveries, 'delivery')} of {number_of(one.events, 'event')}"
    yield f"   hits {hit}: {effect_words(one) or 'nothing changes'}"
    for facet in one.facets:
        yield f"   {facet.by:8}{_facet_text(facet)}"
    for remark in remarks(one):
        yield f"   {remark}"


def impact_lines(impact: Impact) -> Iterator[str]:
    """Yield what becomes of the values of each metric."""
    for metric in impact.metrics:
        total = "" if metric.delta is None else f", their total by {metric.delta:+,f}"
        failed = f"; {number_of(metric.failed, 'value')} cannot be computed" if metric.failed else ""
        yield f"{metric.metric}: {number_of(metric.differing, 'value')} will differ{total}{failed}"


def _facet_text(facet: Facet) -> str:
    shown = [f"{one.name} ({one.deliveries:,})" for one in facet.top[:_SHOWN]]
    left = facet.distinct - len(shown)
    return ", ".join([*shown, *([f"{left:,} more"] if left else [])])


def remarks(one: PlannedCorrection) -> list[str]:
    """Return what may surprise about a planned correction, a sentence each."""
    found = [_overlap(overlap, one) for overlap in one.overlaps]
    if one.collisions:
        equal = "will equal another event (source, type, entity, time and payload); both count"
        found.append(f"{number_of(one.collisions, 'moved event')} {equal}")
    if one.farther:
        away = "would be moved away from when they were received, the others towards it"
        found.append(f"{one.farther:,} of these deliveries {away}: does the selection reach too far?")
    if one.partial:
        found.append(f"of {number_of(one.partial, 'event')} only some deliveries are hit; the others keep their time")
    if one.repeated:
        again = "the delivery that is to count repeats the first one, whose content counts now"
        found.append(f"the content stays for {number_of(one.repeated, 'event')}, since {again}")
    if one.unchanged:
        found.append(f"nothing changes for {number_of(one.unchanged, 'event')}: {_why_unchanged(one)}")
    return found


def _overlap(overlap: Overlap, one: PlannedCorrection) -> str:
    """Return what another correction of the same deliveries means for this one."""
    hit, events = f"{overlap.deliveries:,} of these deliveries", f"{overlap.events:,} of these events"
    if overlap.correction is None:
        other = f"number {overlap.number}"
        if overlap.kind.moves and one.kind.moves:
            return f"{other} moves {hit} as well; of the two this one holds, from the time before both"
        if overlap.kind.chooses and one.kind.chooses:
            return f"{other} says as well which delivery counts of {events}; this one holds"
        if overlap.kind.removes:
            return f"{other} takes out {events}" + (" as well" if one.kind.removes else ", which do not count then")
        return f"{events} are those of {other}; they are taken out"
    other = by_whom(overlap.correction)
    was = "was" if (overlap.events if overlap.kind.removes else overlap.deliveries) == 1 else "were"
    if overlap.kind.removes:
        return f"{events} {was} already taken out by {other}; that stays"
    if overlap.kind.moves:
        return f"{hit} {was} already moved by {other}; this moves them once more, from the corrected time"
    return f"of {events} {other} says already which delivery counts; this one holds from now on"


def _why_unchanged(one: PlannedCorrection) -> str:
    if one.kind.moves:
        return "they do not count, or by a delivery that is not hit, or their time stays"
    if one.kind.chooses:
        return "they do not count, or by this delivery already"
    return "they do not count now" + ("" if one.kind.removes else ", or by a delivery of another batch")
