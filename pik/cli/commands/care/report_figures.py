"""The figures of a report: each a chart under the sentence that says what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, TypeVar

from pik.cli.commands.inspect.lag import lag_bounds
from pik.errors import number_of
from pik.model.duration import format_duration
from pik.model.instant import DAY, MIN_INSTANT, display_instant
from pik.model.visible import visible
from pik.ports.report import Bars, Figure, Grid, Heading, Histogram, Values, Volume, Waterfall
from pik.usecases.report.kept import ROWS

if TYPE_CHECKING:
    from pik.model.calendar import Buckets
    from pik.usecases.metrics.totals import TotalDifference
    from pik.usecases.report.arrivals import Arrivals
    from pik.usecases.report.incident import Report
    from pik.usecases.report.numbers import Course, Point

_WIDE = Context(prec=300)
_ZERO = Decimal(0)
_Item = TypeVar("_Item")


def bucket_text(start: int, *, by_hour: bool) -> str:
    """Return the start of a bucket: a date where that is enough, as it is for days in UTC."""
    text = display_instant(max(start, MIN_INSTANT))
    return text if by_hour else text.removesuffix("T00:00:00Z")


def moved(part: Decimal, whole: Decimal | None) -> str:
    """Return a difference in percent of the whole, with its sign, to a tenth; by itself where there is no whole, or it
    is less than that."""
    if whole:
        share = _WIDE.divide(_WIDE.multiply(part, Decimal(100)), whole.copy_abs())
        tenth = share.quantize(Decimal("0.1"), ROUND_HALF_EVEN, context=_WIDE)
        if tenth or not part:
            return f"{tenth:+,f} %"
    return f"{part:+,f}"


def figures(report: Report) -> dict[str, list[Figure]]:
    """Return the figures by the name of the section that they stand in."""
    found: dict[str, list[Figure]] = {"volume": [], "lag": [], "numbers": [], "duplicates": []}
    arrivals = report.arrivals.value
    if arrivals is not None and arrivals.timeline.volumes:
        found["volume"].append(_timeline(report, arrivals))
    if arrivals is not None and arrivals.lag.total is not None:
        found["lag"].append(_histogram(arrivals))
    found["numbers"] += _numbers(report)
    if report.duplicates.value is not None and report.duplicates.value.rows:
        found["duplicates"].append(_duplicates(report))
    return found


def _data(headings: Sequence[Heading], rows: Sequence[_Item], row: Callable[[_Item], Sequence[str]]) -> Grid:
    more = len(rows) - ROWS
    left_out = f"{more:,} more are in the JSON of this report" if more > 0 else ""
    return Grid(headings, [row(one) for one in rows[:ROWS]], left_out)


def _timeline(report: Report, arrivals: Arrivals) -> Figure:
    timeline = arrivals.timeline
    volumes, by_hour = timeline.volumes, timeline.bucket == "1h"
    most = max(volumes, key=_deliveries)
    total = sum(map(_deliveries, volumes))
    alternative = (
        f"Bars of deliveries by {_SIZES[timeline.bucket]}: {number_of(total, 'delivery')} in"
        f" {number_of(len(volumes), 'bucket')} from {bucket_text(volumes[0].start, by_hour=by_hour)} to"
        f" {bucket_text(volumes[-1].start, by_hour=by_hour)}; the fullest has {_deliveries(most):,},"
        f" {bucket_text(most.start, by_hour=by_hour)}. {_kinds(arrivals)}."
    )
    numbers = ("accepted", "late", "exact", "conflicts")
    return Figure(
        _volume_title(report, arrivals),
        alternative,
        timeline,
        _data(
            [Heading("bucket"), *(Heading(name, numeric=True) for name in (*numbers, "deliveries"))],
            volumes,
            lambda one: [
                bucket_text(one.start, by_hour=by_hour),
                *(f"{getattr(one, name):,}" for name in numbers),
                f"{_deliveries(one):,}",
            ],
        ),
    )


_SIZES = {"1h": "hour", "1d": "day", "1w": "week", "364d": "52 weeks"}


def _deliveries(one: Volume) -> int:
    return one.accepted + one.late + one.exact + one.conflicts


def _kinds(arrivals: Arrivals) -> str:
    """Return how many deliveries there are of each kind."""
    exact, conflicts = arrivals.total("exact"), arrivals.total("conflicts")
    parts = [f"{arrivals.total('late'):,} late"] if arrivals.metrics else []
    return ", ".join([*parts, number_of(exact, "exact duplicate"), number_of(conflicts, "conflict")])


def _volume_title(report: Report, arrivals: Arrivals) -> str:
    volumes, late = arrivals.timeline.volumes, arrivals.total("late")
    total = number_of(sum(map(_deliveries, volumes)), "delivery")
    others = ", ".join(
        number_of(count, noun)
        for count, noun in ((arrivals.total("exact"), "exact duplicate"), (arrivals.total("conflicts"), "conflict"))
        if count
    )
    if not arrivals.metrics:
        return f"{total}{f', with {others}' if others else ''}; no value is current, so none can be late"
    if not late:
        return f"{total}, none of them late{f'; {others}' if others else ''}"
    most = max(volumes, key=lambda one: one.late)
    when = _when(most.start, arrivals.timeline.bucket)
    where = f" {when}" if most.late == late else f", {most.late:,} of them {when},"
    return f"{_late(late)}{where} {_effect_of_late(report)}{f'; {others}' if others else ''}"


def _late(count: int) -> str:
    return f"{count:,} late deliver{'y' if count == 1 else 'ies'}"


def _when(start: int, bucket: str) -> str:
    if bucket == "1h":
        return f"in the hour from {bucket_text(start, by_hour=True)}"
    return (
        f"on {bucket_text(start, by_hour=False)}" if bucket == "1d" else f"from {bucket_text(start, by_hour=False)} on"
    )


def _effect_of_late(report: Report) -> str:
    """Return what late deliveries do to the metric that they move most."""
    if report.sums.value is None or not report.sums.value.totals:
        return "came after the current values were computed"
    totals = [one for one in report.sums.value.totals if one.delta is not None]
    shares = [(dict(one.causes).get("late", _ZERO), one) for one in totals]
    if len(totals) < len(report.sums.value.totals) and not any(share for share, _ in shares):
        return "came after the current values were computed; by how much they move them is not known"
    share, one = max(shares, key=lambda pair: _weight(*pair))
    if not share:
        return "move no total"
    inferred = "" if one.proven else " (inferred)"
    return f"would move {one.metric} by {moved(share, one.current)}{inferred}"


def _weight(share: Decimal, one: TotalDifference) -> tuple[bool, Decimal]:
    """Order by the part of the current total that a share is; what has no total is more than any part."""
    if not one.current:
        return bool(share), share.copy_abs()
    return False, _WIDE.divide(share, one.current).copy_abs()


def _histogram(arrivals: Arrivals) -> Figure:
    total, bars = arrivals.lag.total, arrivals.lag.histogram
    assert total is not None
    if total.p50 < 0:  # before it happened, by the clocks: nothing arrives within that
        title = (
            f"The lag of half of the events is {format_duration(total.p50)} or less, of 99 %"
            f" {format_duration(total.p99)} or less; the greatest is {format_duration(total.most)}"
        )
    elif total.events == 1:
        title = f"The only event arrived after {format_duration(total.most)}"
    else:
        title = (
            f"Half of the events arrived within {format_duration(total.p50)}, 99 % within {format_duration(total.p99)};"
            f" the slowest took {format_duration(total.most)}"
        )
    if total.negative:
        has = "has" if total.negative == 1 else "have"
        title += f"; {number_of(total.negative, 'event')} {has} a lag below 0"
    rows = [(lag_bounds((arrivals.lag, bar)), bar.events) for bar in bars]
    fullest = max(rows, key=lambda one: one[1])
    return Figure(
        title,
        f"Bars of {number_of(total.events, 'event')} by how long they took, from {rows[0][0]} up to {rows[-1][0]}; most"
        f" ({fullest[1]:,}) took {fullest[0]}.",
        Histogram("events", rows),
        _data([Heading("lag"), Heading("events", numeric=True)], rows, lambda one: [one[0], f"{one[1]:,}"]),
    )


def _numbers(report: Report) -> Iterator[Figure]:
    """Yield for each metric its values over time, and the way from the current total to the recomputed one."""
    buckets = {metric.name: metric.buckets for metric in report.shown.all}
    if (sums := report.sums.value) is not None:
        totals = {one.metric: one for one in sums.totals}
        for course in sums.courses:
            is_moved = bool(totals[course.metric].delta)
            if course.buckets > 1 or not is_moved:  # of a single bucket the next figure says the same
                yield _values(course, buckets[course.metric], "" if _is_single(report) else "the total of")
            if is_moved:
                yield _waterfall(totals[course.metric])
    if (values := report.values.value) is not None:
        for course in values.courses:
            if course.points:
                yield _values(course, buckets[course.metric], "")


def _is_single(report: Report) -> bool:
    return len(report.question.entities) == 1


def course_title(course: Course, by_hour: bool, what: str = "") -> str:
    """Return how the values of a metric over time compare."""
    name = f"{what} {course.metric}".strip()
    unknown = course.buckets - course.known
    if not course.known:
        title = f"{name} is not known: values cannot be computed"
    elif not course.different:
        every = f"all {course.known:,} buckets" if course.known > 1 else "the only bucket"
        title = f"{name}: current and recomputed values agree in {every}{' that can be compared' if unknown else ''}"
    else:
        most = max((point for point in course.points if point.known), key=lambda point: point.distance)
        by = _WIDE.subtract(most.recomputed or _ZERO, most.current or _ZERO)
        where = f"in {bucket_text(most.bucket, by_hour=by_hour)}"
        title = f"{name} differs in {course.different:,} of {number_of(course.buckets, 'bucket')}"
        if by:
            title += f", by {by:+,f} {where}" if course.different == 1 else f", most {where} (by {by:+,f})"
    if course.known and unknown:
        title += f"; {unknown:,} cannot be computed"
    return title[0].upper() + title[1:] if what else title


def _values(course: Course, buckets: Buckets, what: str) -> Figure:
    points = course.points
    by_hour = buckets.size < DAY or any(point.bucket % DAY for point in points)
    number = number_of(course.buckets, "bucket")
    shown = "" if len(points) == course.buckets else f" The {len(points):,} that differ most, or are latest, are shown."
    return Figure(
        course_title(course, by_hour, what),
        f"Lines of the current and the recomputed values of {course.metric} in {number}, from"
        f" {bucket_text(points[0].bucket, by_hour=by_hour)} to {bucket_text(points[-1].bucket, by_hour=by_hour)};"
        f" {course.known:,} can be compared, {course.different:,} of these differ.{shown}",
        Values(course.metric, [(point.bucket, point.current, point.recomputed) for point in points]),
        _data(
            [Heading("bucket"), *(Heading(text, numeric=True) for text in ("current", "recomputed", "delta"))],
            points,
            lambda point: [
                bucket_text(point.bucket, by_hour=by_hour),
                *map(_number, (point.current, point.recomputed, _delta(point))),
            ],
        ),
    )


def _delta(point: Point) -> Decimal | None:
    if point.current is None or point.recomputed is None:
        return None
    return _WIDE.subtract(point.recomputed, point.current)


def _number(value: Decimal | None) -> str:
    return "-" if value is None else f"{value:f}"


def _waterfall(one: TotalDifference) -> Figure:
    left, right = one.current or _ZERO, one.recomputed or _ZERO
    causes = sorted(one.causes, key=lambda pair: -pair[1].copy_abs())
    inferred = "" if one.proven else " (inferred)"
    parts = ", ".join(f"{cause} {share:+,f}" for cause, share in causes)
    assert one.delta is not None
    is_now = f"is {left:,f}" if one.current is not None else "has no current value"
    title = f"{one.metric} {is_now} and should be {right:,f} ({moved(one.delta, one.current)}): {parts}{inferred}"
    if dict(one.causes).get("unexplained"):
        title += "; a part is unexplained"
    steps = [(cause, share, bool(one.proven) and cause != "unexplained") for cause, share in one.causes]
    certain = {True: "proven", False: "inferred"}
    rows = [("current", left, ""), *((cause, share, certain[known]) for cause, share, known in steps)]
    rows = [*rows, ("recomputed", right, "")]
    return Figure(
        title,
        f"Steps from the current total of {one.metric}, {left:,f}, to the recomputed one, {right:,f}: {parts}.",
        Waterfall(one.metric, left, steps, right),
        _data(
            [Heading("step"), Heading("value", numeric=True), Heading("certainty")],
            rows,
            lambda row: [row[0], f"{row[1]:f}", row[2] if row[0] != "unexplained" else "not explained"],
        ),
    )


def _duplicates(report: Report) -> Figure:
    found = report.duplicates.value
    assert found is not None
    rows, total = found.rows, found.summary.duplicates
    first = rows[0]
    source = visible(first.group)
    if len(rows) == 1:
        every = "The only duplicate" if total == 1 else f"All {total:,} duplicates"
        title = f"{every} came from {source}"
    else:
        title = f"{source} sent {first.duplicates:,} of {number_of(total, 'duplicate')}"
    return Figure(
        title,
        f"Bars of {number_of(total, 'duplicate')} by source, the most first: {source} with {first.duplicates:,}.",
        Bars("duplicates", [(visible(row.group), row.duplicates) for row in rows[:_BARS]]),
        _data(
            [Heading("source"), *(Heading(name, numeric=True) for name in ("duplicates", "exact", "conflict"))],
            rows,
            lambda row: [visible(row.group), f"{row.duplicates:,}", f"{row.exact:,}", f"{row.conflict:,}"],
        ),
    )


_BARS = 20
"""Bars of a chart by source; the table has the others."""
