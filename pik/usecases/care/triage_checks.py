"""The checks of a triage that look at deliveries, batches, runs and raw. They move no number themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from time import time_ns

from msgspec import structs

from pik.errors import command, number_of
from pik.model.batch import Batch, BatchState, Segment, Verdict
from pik.model.delivery import Filter
from pik.model.ids import MILLISECOND, TIME_DIGITS, digits
from pik.model.instant import DAY, MIN_INSTANT, MINUTE, day_text, parse_instant
from pik.model.republish import Republish, RepublishRequest, RepublishState
from pik.model.run import PromotionKind, Run, RunKind, RunState
from pik.model.window import ALL_TIME, Window
from pik.rawlog.corrected import corrected_until
from pik.rawlog.selection import Selection
from pik.usecases.care import triage_batches, triage_corrections, triage_statistics
from pik.usecases.care.triage_batches import IngestedTwice
from pik.usecases.care.triage_findings import Finding, Scope, by_source, only_one
from pik.usecases.care.verify_findings import Depth
from pik.usecases.inspect.batches import with_closing
from pik.usecases.inspect.duplicates import DuplicateFilter, selected_duplicates


def _conflicts(scope: Scope) -> Iterator[Finding]:
    wanted = DuplicateFilter(Filter(scope.window, scope.entities), Verdict.CONFLICT)
    found = selected_duplicates(scope.readable("conflicts"), wanted, scope.progress)
    sources = by_source((delivery.source, delivery.event_instant) for delivery, _ in found)
    differing = [] if scope.unreadable else ["--show-payload-diff"]  # which takes all of raw
    since = min((one.since for _, one in sources if one.since is not None), default=0)
    words = ["duplicates", "--class", "conflict", *differing, *only_one(sources), *_without_lost(scope, since)]
    for source, one in sources:
        number = number_of(one.events, "delivery")
        yield Finding(
            "conflicts",
            f"{number} from {source} repeat{'s' if one.events == 1 else ''} an idempotency key with other content",
            command(*words),
            scope=source,
            since=one.since,
            events=one.events,
        )


def _without_lost(scope: Scope, since: int) -> list[str]:
    """Return the scope as it is typed, from the first conflict until the next day with one that cannot be read."""
    skipped = scope.store.index.skipped
    lost = {one.day for one, _ in scope.unreadable.values() if Verdict.CONFLICT in skipped(one).values()}
    day = min((day for day in lost if day * DAY > since), default=None)
    if day is None and not any((day + 1) * DAY <= since for day in lost):
        return scope.options_of_one
    window = scope.window
    start = window.from_text if window.start >= since // DAY * DAY else day_text(since // DAY)
    end = window.to_text if day is None else day_text(day)
    times = [word for name, text in (("--from", start), ("--to", end)) if text for word in (name, text)]
    return [*scope.options_of_one[: len(scope.options_of_one) - len(scope.times)], *times]


def _batches(scope: Scope) -> Iterator[Finding]:
    """Yield the batches with rejects, those that were not read to their end and are not withdrawn, and the files that
    count twice."""
    twice, withdrawn = IngestedTwice(scope), corrected_until(scope.store).withdrawn
    if scope.entities:
        scope.notes["rejects"] = (
            "looks at batches with events of these entities; whose a rejected record is, is unknown"
        )
    for batch in _batches_within(scope):
        since, of_batch, counts = batch.started_at, batch.batch_id, batch.counts
        if counts.rejected:
            what = f"{counts.rejected:,} of {counts.read:,} records of {batch.origin.name} were rejected"
            shown = command("batches", of_batch, "--rejects")
            yield Finding("rejects", what, shown, scope=of_batch, since=since, events=counts.rejected)
        if of_batch not in withdrawn and with_closing(scope.store, batch).state == BatchState.INTERRUPTED:
            what = f"{batch.origin.name} was not ingested to its end: {counts.read:,} records are recorded"
            shown = command("batches", of_batch)
            yield Finding("interrupted batches", what, shown, scope=of_batch, since=since, events=counts.read)
        yield from twice.with_batch(batch)


def _batches_within(scope: Scope) -> Iterator[Batch]:
    """Yield the batches with events in the window (of the entities), and, unless entities were named, those begun in it
    that have no event at all; of a window without a beginning all batches."""
    index, window = scope.store.index, scope.window
    if window == ALL_TIME and not scope.entities:
        yield from index.batches()
        return
    with_events = {needed.segment.batch_id for needed in _selection(scope).needed()}
    for prefix in () if scope.entities else id_prefixes(window):
        for batch in index.batches(prefix):
            is_empty = batch.counts.read == batch.counts.rejected and batch.started_at in window
            if is_empty or batch.batch_id in with_events:
                with_events.discard(batch.batch_id)
                yield batch
    for prefix, of_prefix in groupby(sorted(with_events), key=lambda one: one[:_TOGETHER]):
        ids = list(of_prefix)
        for asked in [prefix] if len(ids) > _FEW else ids:
            yield from (batch for batch in index.batches(asked) if batch.batch_id in with_events)


_SENT_WITHIN = 15 * MINUTE
"""Nanoseconds within which a stack sends the tasks of a run that it planned, or gives that up."""

_PREFIXES = 4
"""Prefixes of ids that cover a window, at most."""

_TOGETHER = 6
"""Digits that the ids of batches of about a quarter of an hour share: where there are more than a `_FEW`, all of these
are read."""

_FEW = 16


def id_prefixes(window: Window) -> list[str]:
    """Return prefixes that the ids of all batches begun in the window have, and few others."""
    if window.start <= MIN_INSTANT:
        return [""]
    first, last = (max(0, end // MILLISECOND) for end in (window.start - MINUTE, min(window.end, time_ns()) + MINUTE))
    size = 0
    while last // 32**size - first // 32**size >= _PREFIXES:
        size += 1
    return [digits(number, TIME_DIGITS - size) for number in range(first // 32**size, last // 32**size + 1)]


def _selection(scope: Scope) -> Selection:
    return Selection(scope.store, scope.window, scope.entities)


def _runs(scope: Scope) -> Iterator[Finding]:
    """Yield runs that did not compute all they should have, unless a newer one did whose values were promoted."""
    moves, newer = scope.moves, list[Run]()
    for run in scope.store.runs.newest_first():
        if run.created_at < scope.began:
            return
        last = moves.last.get(run.run_id)
        cause, what = _about(scope, run)
        if cause and scope.meets(run.request.entities, run.effective):
            if not any(_covers(one, run) for one in newer):
                shown = command("runs", "show", run.run_id)
                yield Finding("runs", what, shown, cause=cause, scope=run.run_id, since=run.created_at)
        elif last is not None and last.kind == PromotionKind.PROMOTE and not last.conflicts:
            newer.append(run)


def _about(scope: Scope, run: Run) -> tuple[str, str]:
    """Return what is wrong with a run, and a sentence about it; nothing of one that is executed or was cancelled."""
    if run.planning_failure:
        return "failed", f"run {run.run_id} is {run.state}: {run.planning_failure}"
    if run.state in (RunState.PARTIAL, RunState.FAILED):
        what = f"run {run.run_id} is {run.state}: {run.failed:,} tasks and {run.failed_aggregates:,} values failed"
        return "failed", what
    if not run.is_active:
        return "", ""
    from pik.usecases.replay.wait import is_executing  # imports what replays

    is_sent_now = scope.store.deployed and time_ns() - run.created_at < _SENT_WITHIN
    if is_sent_now or is_executing(scope.store, run):
        return "", ""
    return (
        "unfinished",
        f"run {run.run_id} is {run.state} with {run.done:,} of {run.tasks:,} tasks done: no process works on it",
    )


def _covers(newer: Run, run: Run) -> bool:
    """Return whether a run computed all values that another one should have; an import computes none."""
    return (
        newer.kind == RunKind.REPLAY
        and newer.effective_start <= run.effective_start
        and newer.effective_end >= run.effective_end
        and newer.request.source is newer.request.event_type is None
        and _includes(newer.request.entities, run.request.entities)
        and _includes(newer.request.metrics, run.request.metrics)
    )


def _includes(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether these names include the others, where none means all."""
    return not names or (bool(others) and set(names) >= set(others))


def _republishes(scope: Scope) -> Iterator[Finding]:
    """Yield republishes that did not send all they should have, unless a newer one sent the same."""
    sent = set[RepublishRequest]()
    for one in scope.store.republishes.newest_first():
        if one.created_at < scope.began:
            return
        request = structs.replace(one.request, reason="")
        if one.state == RepublishState.COMPLETED:
            sent.add(request)
        if not one.can_be_resumed or request in sent or not scope.meets(request.entities, request.window):
            continue
        from pik.usecases.republish.send import is_sending  # imports what sends

        if not is_sending(scope.store, one):
            cause = "refused" if one.state == RepublishState.PARTIAL else "unfinished"
            yield Finding(
                "republishes",
                _about_republish(one),
                command("republish", "show", one.republish_id),
                cause=cause,
                scope=one.republish_id,
                since=one.created_at,
                events=one.events - one.taken,
            )


def _about_republish(one: Republish) -> str:
    """Return what is wrong with a republish, in words."""
    target, because = one.request.target, one.stopped_because
    to = "" if target in because else f" to {target}"
    refused = f", {one.refused:,} refused" if one.refused else ""
    return (
        f"republish {one.republish_id}{to} is {one.state} with {one.taken:,} of {one.events:,} messages taken{refused}"
        + (f": {because}" if because else "")
    )


def _dead_letters(scope: Scope) -> Iterator[Finding]:
    for letter in scope.store.dead_letters.letters():
        task = letter.task
        is_apart = bool(scope.entities) and not any(entity in task.entity_range for entity in scope.entities)
        if scope.meets(task.entities, task.window) and not is_apart:
            yield Finding(
                "dead letters",
                f"a task of run {task.run_id} failed {letter.attempts:,} times: {letter.reason}",
                command("dlq", "show", letter.letter_id),
                scope=letter.letter_id,
                since=letter.failed_at,
            )


def _damage(scope: Scope) -> Iterator[Finding]:
    """Yield what `verify --quick` finds, and the other objects because of which values could not be computed."""
    found = set[str]()
    for one in _damaged_objects(scope) if scope.entities else _quick_problems(scope):
        found.add(one.scope)
        yield one
    for key, (segment, damage) in scope.unreadable.items():
        if key not in found:
            yield _damaged(segment, damage)


def _quick_problems(scope: Scope) -> Iterator[Finding]:
    from pik.usecases.care.verify import verify  # imports all of it

    for problem in verify(scope.store, scope.engine, scope.window, scope.progress, Depth.QUICK):
        yield Finding(
            "damage",
            f"{problem.what}: {problem.detail}",
            command("verify", "--quick", *scope.times),
            cause=problem.kind,
            scope=problem.what,
            since=None if problem.day is None else parse_instant(problem.day, date_only=True),
        )


def _damaged_objects(scope: Scope) -> Iterator[Finding]:
    """Yield the objects with events of the entities that are missing or have another size."""
    for segment, _ in _selection(scope).needed():
        size = scope.store.raw.size(segment.key)
        if size != segment.size:
            yield _damaged(segment, "it is missing" if size is None else f"it has {size:,} bytes, not {segment.size:,}")


def _damaged(segment: Segment, reason: str) -> Finding:
    days = ("--from", day_text(segment.day), "--to", day_text(segment.day + 1))
    return Finding(
        "damage",
        f"{segment.key}: {reason}",
        command("verify", *days),
        scope=segment.key,
        since=segment.day * DAY,
        events=segment.deliveries,
    )


Search = tuple[Mapping[str, str], Callable[[Scope], Iterator[Finding]]]
"""Checks with their rules, and what looks for all of them."""

SEARCHES: tuple[Search, ...] = (
    ({"conflicts": "deliveries with the idempotency key of an earlier one and other content"}, _conflicts),
    (triage_statistics.RULES, triage_statistics.search),
    (
        {
            "rejects": "batches with records that are not valid events",
            "interrupted batches": "batches that were not read to their end, nor replaced or withdrawn since",
            triage_batches.CHECK: triage_batches.RULE,
        },
        _batches,
    ),
    ({"runs": "runs that failed, in part or whole, or were left unfinished, and that no later one replaces"}, _runs),
    (
        {
            "republishes": (
                "republishes that stopped half-way, or whose target refused messages, and that no later one replaces"
            )
        },
        _republishes,
    ),
    ({"dead letters": "tasks of replays that failed too often"}, _dead_letters),
    ({triage_corrections.CHECK: triage_corrections.RULE}, triage_corrections.uncorrected),
    ({"damage": "objects of raw that are missing, of another size (verify --quick), or that cannot be read"}, _damage),
)
"""What is looked for beside values."""
