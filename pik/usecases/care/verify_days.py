"""Verifying raw day by day: which parts are checked one after the other, or on several machines, and what they come to.

A part is some days, or a share of the segments of one day. What its segments are is asked where it is checked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

from pik.model.instant import day_text
from pik.model.share import WHOLE, Share
from pik.model.window import Window
from pik.ports.raw import RawKey, RawKind
from pik.ports.store import Store
from pik.usecases.care.verify_continue import Earlier, Listed
from pik.usecases.care.verify_findings import Depth, Problem, ProblemKind
from pik.usecases.care.verify_objects import unlisted_problems
from pik.usecases.care.verify_run import Findings, PartCheck, Verification
from pik.usecases.care.verify_segments import segment_problems

_SEGMENTS_AT_ONCE, _DELIVERIES_AT_ONCE = 200, 200_000
"""Segments that are compared with the index at once, at most, and about how many deliveries of theirs."""

_SHARE_BYTES, _SHARE_OBJECTS = 256 << 20, 50_000
"""How much raw of a day is a part, about, at most."""


_KEYS_AT_ONCE = 50_000
"""Segments whose rows are added up at a time."""


class Days(NamedTuple):
    """A share of the segments of some days. Raw has objects of one of the days only (None: of none)."""

    window: Window
    day: int | None = None
    share: Share = WHOLE


class _Scope(NamedTuple):
    """What is the same for all parts."""

    depth: Depth
    earlier: Earlier | None


def day_problems(run: Verification) -> Iterator[Problem]:
    """Check the days of the window: of each all objects in raw and all segments of the index."""
    for found in run.each(partial(_check, _Scope(run.depth, run.earlier)), _days(run)):
        run.add(found)
        yield from found.problems
    if not run.quick:
        yield from _row_problems(run)


def _days(run: Verification) -> Iterator[Days]:
    """Yield parts that cover the window, by what raw has of each day."""
    reached, last, shares = run.window.start, None, 1
    for day, sizes in groupby(_objects(run.store, run.window), key=itemgetter(0)):
        if last is not None:
            start = Window.of_day(day).start
            yield from _shares(Days(Window(reached, start), last), shares)
            reached = start
        count = size = 0
        for _, each in sizes:
            count, size = count + 1, size + each
        last, shares = day, 1 + max(size // _SHARE_BYTES, count // _SHARE_OBJECTS)
    yield from _shares(Days(Window(reached, run.window.end), last), shares)


def _shares(days: Days, count: int) -> Iterator[Days]:
    return (days._replace(share=Share(number, count)) for number in range(count))


def _objects(store: Store, window: Window) -> Iterator[tuple[int, int]]:
    """Yield day and size of each object of a segment."""
    first, last = window.days
    for found in store.raw.objects(RawKind.SEGMENT):
        key = RawKey.parse(found.key)
        if key is not None and key.day is not None and first <= key.day <= last:
            yield key.day, found.size


def _check(scope: _Scope, store: Store, days: Days) -> Iterator[Findings]:
    """Check a part, some segments after the other.

    What is listed in raw is read first, and then the index: so an object that is recorded meanwhile is known by then.
    """
    sizes = {} if days.day is None else _sizes(store, days.day, days.share)
    segments = (segment for segment in store.index.segments(days.window) if days.share.has(segment.key))
    for day, of_day in groupby(segments, key=attrgetter("day")):
        if sizes and days.day is not None and day > days.day:
            yield _found(scope, store, partial(_unlisted, sizes=sizes))
            sizes = {}
        for listed in _together((segment, sizes.pop(segment.key, None)) for segment in of_day):
            yield _found(scope, store, partial(segment_problems, listed=listed))
    if sizes:
        yield _found(scope, store, partial(_unlisted, sizes=sizes))


def _sizes(store: Store, day: int, share: Share) -> dict[str, int]:
    """Return the sizes of the objects of a day, by key."""
    objects = store.raw.objects(f"{RawKind.SEGMENT}{day_text(day)}/")
    return {one.key: one.size for one in objects if share.has(one.key) and RawKey.parse(one.key) is not None}


def _found(scope: _Scope, store: Store, check: Callable[[PartCheck], Iterable[Problem]]) -> Findings:
    part = PartCheck(store, scope.depth, scope.earlier)
    return part.findings(list(check(part)))


def _together(segments: Iterable[Listed]) -> Iterator[list[Listed]]:
    """Yield segments that are compared with the index at once."""
    listed: list[Listed] = []
    deliveries = 0
    for each in segments:
        listed.append(each)
        deliveries += each[0].deliveries
        if len(listed) >= _SEGMENTS_AT_ONCE or deliveries >= _DELIVERIES_AT_ONCE:
            yield listed
            listed, deliveries = [], 0
    if listed:
        yield listed


def _unlisted(part: PartCheck, sizes: dict[str, int]) -> Iterator[Problem]:
    """Check objects of one day that the index did not list. It is asked once more: they may be recorded by now."""
    names = {key: RawKey.of(key) for key in sizes}
    batches = {name.id: part.find_batch(name.id) for name in names.values()}
    keys, listed = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    late: list[Listed] = []
    for segment in part.store.index.segments(Window.of_day(next(iter(names.values())).day or 0)):
        if segment.key in names:
            del names[segment.key]
            late.append((segment, sizes[segment.key]))
        elif segment.batch_id in batches:
            listed[segment.batch_id].append(segment.key)
    for key, name in names.items():
        keys[name.id].append(key)
    yield from segment_problems(part, late)
    for batch_id, batch in batches.items():
        yield from unlisted_problems(part, batch, keys[batch_id], listed[batch_id])


def _rows(run: Verification) -> Iterator[tuple[str, int | None]]:
    """Yield how many rows the index has of segments, as `Audit.rows` does."""
    shares = 1 if run.fleet is None else run.fleet.slots
    return run.each(_counted_rows, (Share(number, shares) for number in range(shares)))


def _counted_rows(store: Store, share: Share) -> Iterator[tuple[str, int | None]]:
    counts: Counter[str] = Counter()
    for key, rows in store.audit.rows(share):
        if rows is None:
            yield key, None
            continue
        counts[key] += rows
        if len(counts) == _KEYS_AT_ONCE:
            yield from counts.items()
            counts.clear()
    yield from counts.items()


def _row_problems(run: Verification) -> Iterator[Problem]:
    """Find rows of the index for which there is no delivery; counted twice, as they may be being recorded."""
    other = [
        (key, deliveries, rows)
        for key, deliveries, rows in run.ledger.differing_rows(_rows(run))
        if deliveries or _is_of_nothing(run, key)
    ]
    again = set(run.ledger.differing_rows(_rows(run))) if other else ()
    for key, deliveries, rows in other:
        if (key, deliveries, rows) in again:
            run.counts["valid"] -= deliveries > 0
            detail = f"the index has {rows} rows for {deliveries} deliveries"
            yield Problem(ProblemKind.INDEX, key, detail, _day(key))


def _day(key: str) -> str:
    return key.removeprefix(RawKind.SEGMENT)[:10]


def _is_of_nothing(run: Verification, key: str) -> bool:
    """Return whether rows are of a segment in the window that neither raw nor the index has. Others that no sound
    segment explains were recorded later, or have been reported."""
    first, last = map(day_text, run.window.days)
    if not first <= _day(key) <= last or run.store.raw.size(key) is not None:
        return False
    match = RawKey.parse(key)
    of_day = run.store.index.segments(Window.of_day(match.day or 0), batch_id=match.id) if match else ()
    return all(segment.key != key for segment in of_day)
