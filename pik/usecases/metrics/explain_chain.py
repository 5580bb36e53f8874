"""The states of a value from the left side of a comparison to the right, and the shares of the causes between them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from pik.errors import number_of
from pik.model.correction import Correction
from pik.model.instant import display_instant
from pik.model.metric import Metric
from pik.model.scenario import Scenario
from pik.ports.store import Store
from pik.runtime.storage import Spool
from pik.usecases.metrics.chain import EXACT, Cause, Knowledge, counts_same, inputs_of, is_short, steps, value_of
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.explanation import Explanation, Share
from pik.usecases.metrics.side_values import SideValue
from pik.usecases.metrics.states import NOTHING, Change, State, States
from pik.usecases.metrics.unread import NOTHING_UNREAD
from pik.usecases.metrics.winners import Winners
from pik.usecases.metrics.zones import MovedZones


class Chain:
    """The states of a value from the left side to the right, and the shares between them."""

    def __init__(
        self,
        store: Store,
        states: States,
        winners: Winners,
        left: SideValue,
        right: SideValue | None,
        target: Knowledge,
        *,
        with_events: bool,
    ) -> None:
        """`target` is what the right value is computed from."""
        self.store, self.states, self.winners = store, states, winners
        self.left, self.right, self.target = left, right, target
        self.shares: list[Share] = []
        self._moved = MovedZones(store)
        self._with_events = with_events
        self._last: State | None = None

    def compare(self) -> None:
        """Add the shares between the two sides, before assumptions."""
        left, right = self.left, self.right
        if right is not None and right.knowledge is None:
            self._without_inputs(right)
            return
        last = self._last = self.states.at(self.target.metric, self.target.scenario)
        if right is not None and right.computed is not None:
            self.right = right = replace(right, proven=counts_same(last.computed, right.computed))
        is_right = right is None or right.proven
        if left.knowledge is not None and left.computed is not None:
            self._computed(left, left.knowledge, is_right=is_right)
        elif left.is_outside:
            delta = EXACT.subtract(last.value, left.value)
            self.shares.append(Share(Cause.IMPORTED, delta, False, left.origin, None, side=left))
        elif last.computed is not None:
            share = self._share(Cause.NOT_COMPUTED, NOTHING, last, is_right, left.origin)
            self.shares.append(replace(share, side=left))
        if right is not None and right.computed is not None and is_short(last.computed, right.computed):
            self._lose(right, EXACT.subtract(right.value, last.value), _lost(last, right, "the right side"))

    def _without_inputs(self, right: SideValue) -> None:
        """Add the one share of a right side that has no version, or one that was imported."""
        left, share = self.left, EXACT.subtract(right.value, self.left.value)
        if left.knowledge is not None and left.computed is not None:
            found = self.states.at(left.knowledge.metric, left.knowledge.scenario).computed
            self.left = left = replace(left, proven=counts_same(found, left.computed))
        if left.version is None and right.version is None:
            return
        if right.version is not None and (left.version is not None or left.is_file):
            self.shares.append(Share(Cause.IMPORTED, share, False, right.origin, None, side=right))
            return
        missing = right if right.version is None else left
        detail = f"{missing.name}: {missing.origin}"
        self.shares.append(Share(Cause.NOT_COMPUTED, share, True, detail, None, side=missing))

    def _computed(self, left: SideValue, knowledge: Knowledge, *, is_right: bool) -> None:
        """Add the shares between a computed left version and what the right side is computed from."""
        at, version = self.states.at(knowledge.metric, knowledge.scenario), left.computed
        assert version is not None
        is_left = counts_same(at.computed, version)
        self.left = left = replace(left, proven=is_left)
        moved = None if is_left else self._moved.of(left.run_id, knowledge.metric, version.bucket)
        if moved is not None:
            delta = EXACT.subtract(at.value, left.value)
            self.shares.append(Share(Cause.DEFINITION, delta, False, moved, None, side=left))
        elif not is_left and is_short(at.computed, version):
            self._lose(left, EXACT.subtract(at.value, left.value), _lost(at, left, "it"))
        before = knowledge
        for cause, known in steps(knowledge, self.target, self.winners):
            after, correction = self.states.at(known.metric, known.scenario), None
            if cause == Cause.DUPLICATES:
                detail = _duplicates(self.states, at, after, left, self.right)
            elif cause == Cause.DEFINITION:
                detail = f"computed with {pin(knowledge.metric)}; {self._defined(known.metric)}"
                if at.value != after.value and not self.states.changed(at, after):
                    detail += f", from the same {number_of(inputs_of(after.computed), 'event')}"
            elif at.value == after.value and not self.states.changed(at, after):
                detail = ""
            elif cause == Cause.VERDICT:
                correction = self.winners.change(max(before.corrected, known.corrected))
                detail = _verdict(correction, self.states.changed_events(at, after))
            elif cause == Cause.CORRECTED:
                correction = self.winners.correction(max(before.corrections, known.corrections))
                detail = _corrected(correction)
            else:
                detail = _late(self.store, self.states, at, after, knowledge, known)
            if detail:
                is_proven = is_left and (is_right or known != self.target)
                share = self._share(cause, at, after, is_proven, detail)
                self.shares.append(replace(share, side=left, correction=correction))
            at, before = after, known

    def _defined(self, metric: Metric) -> str:
        return f"recomputed with {pin(metric)}" if self.right is None else f"{self.right.name} with {pin(metric)}"

    def _lose(self, side: SideValue, share: Decimal, detail: str) -> None:
        """Add what a side counted and raw does not hold any more. Its events are not known."""
        if self.shares and self.shares[0].cause == Cause.LOST:
            first = self.shares.pop(0)
            share, detail = EXACT.add(first.share, share), f"{first.detail}; {detail}"
        self.shares.insert(0, Share(Cause.LOST, share, False, detail, None, side=side))

    def assume(self, text: str, metric: Metric, scenario: Scenario) -> None:
        """Add the share of an assumption, the last one of the scenario."""
        before = self._last
        assert before is not None
        self._last = self.states.at(metric, scenario)
        self.shares.append(self._share(Cause.ASSUMED, before, self._last, True, text))

    def explanation(self, entity: str, bucket: int, scenario: Scenario, metric: Metric) -> Explanation:
        """Return the explanation: what is left is unexplained."""
        last = NOTHING if self._last is None else self._last
        recomputed = last.computed if self.right is None else self.right.computed
        rest = EXACT.subtract(value_of(recomputed), self.left.value)
        for one in self.shares:
            rest = EXACT.subtract(rest, one.share)
        is_proven = self.left.proven and (self.right is None or self.right.proven)
        unread = self.states.unread if self.right is None else NOTHING_UNREAD
        if unread.segments:  # what would count of them may belong to any cause
            self.shares = [replace(one, proven=False) for one in self.shares]
        certain = (is_proven or not rest) and not unread.segments and all(one.proven for one in self.shares)
        unexplained = Share(Cause.UNEXPLAINED, rest, certain, "what no cause accounts for")
        return Explanation(
            *(entity, bucket, scenario, metric, self.left, self.right, recomputed),
            (*self.shares, unexplained),
            self.states.unreadable,
            last.moves,
            unread,
        )

    def _share(self, cause: Cause, before: State, after: State, proven: bool, detail: str) -> Share:
        changed = self.states.changed(before, after)
        changes = Spool(Change, self.states.changes(before, after)) if self._with_events and changed else ()
        return Share(cause, EXACT.subtract(after.value, before.value), proven, detail, changed, changes)


def _verdict(change: Correction, count: int) -> str:
    by = f" by {change.actor}" if change.actor else ""
    return (
        f"the rebuild of the index {change.correction_id}, {display_instant(change.recorded_at)}{by},"
        f" changed which delivery of {number_of(count, 'event')} counts"
    )


def _corrected(correction: Correction) -> str:
    by = f" by {correction.actor}" if correction.actor else ""
    what = f"revokes {correction.revokes}" if correction.revokes else correction.statement
    at = display_instant(correction.recorded_at)
    return f"correction {correction.correction_id}, {at}{by}: {what} ({correction.reason})"


def _lost(found: State, side: SideValue, counted: str) -> str:
    now, then = inputs_of(found.computed), inputs_of(side.computed)
    return f"{then - now:,} of the {then:,} deliveries that {counted} counted are not in raw any more"


def _duplicates(states: States, before: State, after: State, left: SideValue, right: SideValue | None) -> str:
    """Return which side counted duplicates, and how many."""
    more, side = (before, left) if left.knowledge and left.knowledge.duplicates else (after, right)
    less = after if more is before else before
    assert side is not None
    only_there = sum(count for _, count in states.batches_of_new(less, more))
    return f"{side.name} counted {only_there:,} duplicates"


_NAMED = 3
"""Batches of late deliveries that are named, at most."""


def _late(store: Store, states: States, before: State, after: State, left: Knowledge, right: Knowledge) -> str:
    """Return when the deliveries were recorded that one side knew and the other did not, and in which batches."""
    if right.until is None or (left.until is not None and left.until < right.until):
        since, batches = left.until, states.batches_of_new(before, after)
        not_known = ""
    else:
        since, batches = right.until, states.batches_of_new(after, before)
        not_known = ", which the right side does not know"
    assert since is not None
    named = ", ".join(
        f"{batch_id} ({next(store.index.batches(batch_id)).origin.name})" for batch_id, _ in batches[:_NAMED]
    )
    if len(batches) > _NAMED:
        named += f" and {len(batches) - _NAMED:,} more batches"
    among = f" in {named}" if batches else " among them"
    when = f"after {display_instant(since)}" if since else "where nothing had been recorded before"
    return f"{sum(count for _, count in batches):,} recorded {when},{among}{not_known}"
