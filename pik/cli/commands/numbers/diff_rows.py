"""What `pik diff aggregates` shows: its rows, its totals, and notes on what was not compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pik.cli import options
from pik.cli.buckets import bucket_column, local_column
from pik.cli.commands.repair.runs import WHOLE
from pik.cli.document import NEXT, TRUNCATED, Column, Field, Object, Rows, Schema, or_null
from pik.cli.values import Bucket, Count, Entity, Instant
from pik.errors import command, number_of
from pik.model.instant import display_instant, format_instant
from pik.model.run import KEPT_FAILURES
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.model.aggregate import Failure
    from pik.model.run import Run
    from pik.ports.engine import NumbersExtent
    from pik.usecases.metrics.comparison import Difference
    from pik.usecases.metrics.diff import Diff
    from pik.usecases.metrics.file_numbers import FileNumbers
    from pik.usecases.metrics.totals import TotalDifference


REMEDIES = 3


class ShortenedRows:
    """The first rows, `limit` of them; `number` counts all, once they are read, and `failed` those that could not be
    computed; `remedy` is what to type about those, for each metric, the most frequent first, REMEDIES at most.
    `outside` counts those before and after the buckets of a file, in its `extent`. `corrections` are those behind all
    differences, where these have been `explained` and have no other cause, REMEDIES at most. `before` is what is
    compared with: the versions, by run, and buckets without one. `alike` are two entities that look the
    same, where a file is compared."""

    def __init__(self, rows: Iterable[Difference], limit: int | None, extent: NumbersExtent | None = None) -> None:
        from pik.usecases.metrics.alike import AlikeEntities
        from pik.usecases.metrics.corrected_since import DifferingValues

        self._rows, self._limit, self._extent = rows, limit, extent
        self.number = self.failed = self.outside = 0
        self._failures: Counter[tuple[str, bool, bool]] = Counter()
        self._commands: dict[tuple[str, bool, bool], str] = {}
        self._corrections: dict[str, None] = {}
        self._has_other_causes = self.explained = False
        self.before = DifferingValues()
        self.alike = AlikeEntities()

    def __iter__(self) -> Iterator[Difference]:
        for row in self._rows:
            self.number += 1
            self.explained |= bool(row.causes)
            self.before.add(row)
            if self._extent is not None and not self._extent.first <= row.bucket <= self._extent.last:
                self.outside += 1
            if self._extent is not None and None in (row.current, row.recomputed):
                self.alike.add(row.entity_id)
            if row.failure is not None:
                self.failed += 1
                kind = row.metric, bool(row.failure.event_ids), row.failure.damage
                self._failures[kind] += 1
                self._commands.setdefault(kind, _remedy(row.failure, row))
            elif all(cause == "corrected" for cause, _ in row.causes):
                self._corrections |= dict.fromkeys(row.corrections)
                self._has_other_causes |= not row.corrections
            else:
                self._has_other_causes = True
            if not self.truncated:
                yield row

    @property
    def truncated(self) -> bool:
        """Whether the limit left rows out."""
        return self._limit is not None and self.number > self._limit

    @property
    def remedy(self) -> str | None:
        """Where to look first, for what could not be computed."""
        found = dict.fromkeys(self._commands[kind] for kind, _ in self._failures.most_common())
        return "\n".join(islice(found, REMEDIES)) if found else None

    @property
    def corrections(self) -> list[str]:
        found = self._corrections
        return [] if self._has_other_causes or len(found) > REMEDIES else list(found)

    @property
    def different(self) -> int:
        """The number of rows that are differences of values."""
        return self.number - self.failed


def _remedy(failure: Failure, row: Difference) -> str:
    """Where to look first, for a row that could not be computed."""
    if failure.event_ids:
        return command("show", failure.event_ids[0])
    return WHOLE if failure.damage else command("metrics", "show", row.metric)


def not_compared(diff: Diff) -> Iterator[str]:
    """Yield a note on the values that the compared runs should have and that are not among the rows."""
    if diff.unlisted:
        listed = number_of(KEPT_FAILURES, "failed aggregate")
        yield f"{diff.unlisted:,} more could not be computed; a run keeps the first {listed}"
    for run in compared_runs(diff):
        if run.failed:
            failed = f"{run.failed:,} of its {number_of(run.tasks, 'task')} failed"
            letters = command("dlq", "list", "--run", run.run_id)
            yield f"{failed}, and only what was written is compared; {letters}"
        if run.is_active:
            yield f"run {run.run_id} is {run.state}: {run.done:,} of {number_of(run.tasks, 'task')} done so far"
    if diff.left is not None and diff.left.run is not None and (failures := diff.left.run.failed_aggregates):
        yield f"run {diff.left.run.run_id} could not compute {number_of(failures, 'value')}, which it lacks"


def compared_runs(diff: Diff) -> list[Run]:
    """Return the runs that are compared."""
    before = diff.left.run if diff.left is not None else None
    return [run for run in (before, diff.run) if run is not None]


def _no_differences(diff: Diff) -> str:
    stats = diff.stats
    within = f", {stats.tolerated:,} of them within tolerance" if stats.tolerated else ""
    left_out = stats.added + stats.removed
    others = f"; --changed-only leaves out {left_out:,} that only one side has" if left_out else ""
    return f"no differences in {number_of(stats.compared, 'value')}{within}{others}"


def _taken(diff: Diff) -> str | None:
    """Return what was taken from the file, for people."""
    if diff.file is None:
        return None
    extent = diff.file.extent
    span = f"{display_instant(extent.first)} to {display_instant(extent.last)}"
    return f"{diff.file.name} ({diff.file.columns}): {number_of(extent.values, 'number')} {whose(extent)}, {span}"


def whose(extent: NumbersExtent) -> str:
    """Return of how many entities the numbers of a file are."""
    if not extent.entities:
        return "over all entities"
    return f"of {number_of(extent.entities, 'entity')}"


def file_notes(file: FileNumbers, outside: int) -> Iterator[str]:
    """Yield what was not compared, or not as it is written; and that `outside` rows are not in the buckets of the
    file."""
    if file.left_out:
        yield f"{number_of(file.left_out, 'number')} of {file.name} outside the window or the entities left out"
    if file.other_metrics:
        yield f"{number_of(file.other_metrics, 'number')} of {file.name} of other metrics left out"
    for column in file.approximate:
        yield f"{column} is floating point: each number is the shortest decimal that reads back as the same double"
    if outside:
        end = max(metric.buckets.end_of(file.extent.last) for metric in file.metrics)
        within = f"--from {format_instant(file.extent.first)} --to {format_instant(end)}"
        yield f"{number_of(outside, 'value')} of the store before or after those of {file.name}; without: {within}"


def side_labels(diff: Diff) -> dict[str, str]:
    """Return the headings of the two sides for people, where they are not what their names in JSON say."""
    labels = {} if diff.file is None and _left(diff) is None else {"current": "left"}
    return labels if diff.right is None or diff.run is not None else labels | {"recomputed": "right"}


def _left(diff: Diff) -> str | None:
    return None if diff.left is None or str(diff.left) == "current" else str(diff.left)


def _right(diff: Diff) -> str | None:
    return None if diff.right is None else str(diff.right)


def _of_failure(name: str, kind: object, about: str, get: str = "", **shown: Any) -> Column:
    """Return a column of what is known about a row that could not be computed."""
    found = lambda row: None if row.failure is None else getattr(row.failure, get or name) or None  # noqa: E731
    return Column(name, kind, about, found, **shown)


def _causes(row: Difference | TotalDifference) -> list[dict[str, object]] | None:
    return [{"cause": cause, "share": share} for cause, share in row.causes] or None


def _causes_text(row: Difference | TotalDifference) -> str | None:
    certainty = "" if row.proven or not row.causes else " (inferred)"
    return ", ".join(f"{cause} {share:+f}" for cause, share in row.causes) + certainty or None


_CAUSES = (
    Column(
        "causes",
        Object(Field("cause", str), Field("share", Decimal), many=True, null=True),
        "with `--explain`: they add up to the delta",
        get=_causes,
        text=_causes_text,
        wrap=True,
        rare=True,
    ),
    Column("proven", bool | None, "with `--explain`: whether the causes are", detail=True),
)

DIFFERENCES = Schema(
    "pik diff aggregates",
    Field("requested", Window, get="window"),
    Field("effective", Window),
    Field(
        "assumed", list[str] | None, "the scenario, resolved; null: what counts today", get=or_null("scenario.texts")
    ),
    Field("left_side", str | None, "`current@TIME` or `run:ID`; null: current, or the file of `against`", get=_left),
    Field("right_side", str | None, "`current`, `current@TIME` or `run:ID`; null: recomputed", get=_right),
    Field(
        "against",
        Object(
            Field("file", str, get="name"),
            Field("bucket", str, "the column of buckets", get="columns.bucket"),
            Field("entity", str | None, "the column of entities; null: all are over all", get="columns.entity"),
            Field("metric", str | None, "the column that names the metric of each row", get="columns.metric"),
            Field(
                "value_columns",
                Object(
                    Field("metric", str | None, get=lambda pair: pair[0]),
                    Field("column", str, get=itemgetter(1)),
                    many=True,
                ),
                "the columns of values",
                get=lambda file: file.columns.values.items(),
            ),
            Field("numbers", Count, "that were compared", get="extent.values"),
            Field("first", Bucket, "the first bucket", get="extent.first"),
            Field("last", Bucket, "the last bucket", get="extent.last"),
            Field("of_entities", Count, get="extent.entities"),
            Field("left_out", Count, "numbers outside the window or the entities"),
            Field("other_metrics", Count, "numbers of metrics that are not compared"),
            Field(
                "approximate",
                list[str],
                "columns of floating point, each number taken as its shortest decimal",
                get=lambda file: list(file.approximate),
            ),
            null=True,
        ),
        "with `--against`: what was taken from the file; else null",
        get="file",
        text=_taken,
    ),
    Rows(
        "differences",
        "by metric, bucket, entity",
        Column(
            "op",
            str,
            "`~` changed value, `+` not current yet, `-` current value without events, `!` cannot be computed",
        ),
        Column("metric", str),
        bucket_column(),
        Column(
            "entity_id",
            Entity | None,
            "null: the metric is over all entities, or raw of the whole bucket is damaged",
            get=lambda row: None if row.failure is not None and row.failure.damage else row.entity_id,
            cut=24,
        ),
        Column("current", Decimal | None, "the left side"),
        Column("recomputed", Decimal | None, "the right side"),
        Column("delta", Decimal | None, "recomputed - current; null where one is missing"),
        Column("percent", Decimal | None, "of the current value, to six digits; null also where that is 0", drop=1),
        *_CAUSES,
        Column("inputs_before", Count | None, "null: a number from a file, an import, or damaged raw", drop=3),
        Column("inputs_after", Count | None, "null: an import, or damaged raw", drop=2),
        _of_failure("reason", str | None, "why it cannot be computed; it may quote a payload", wrap=True, rare=True),
        _of_failure("events_to_blame", Count | None, "that fail when computed alone", get="events", detail=True),
        _of_failure("event_ids", list[str] | None, "the first of these", rare=True, drop=1),
        local_column(),
        empty=_no_differences,
    ),
    options.LEFT_OUT,
    Field("compared", Count, "pairs of values, those that cannot be computed not counted", get="stats.compared"),
    Field("different", Count, "rows but those that cannot be computed, shown or not"),
    Field("failed", Count, "rows that cannot be computed; then the exit code is 3"),
    Field("failed_not_listed", Count | None, "with `--run`: failures beyond the first 100", get=or_null("unlisted")),
    Field(
        "failed_tasks",
        Count | None,
        "with `--run`: its failed tasks; what they did not write is not compared",
        get=lambda diff: (diff.run and diff.run.failed) or None,
    ),
    Field(
        "metrics",
        list[str],
        "NAME@VERSION: what the right side was computed with",
        get=lambda diff: sorted(diff.basis.versions),
    ),
    Field(
        "known_until", Instant | None, "the last recording that the right side knew", get=or_null("basis.known_until")
    ),
    Field(
        "entities_without_value",
        list[str] | None,
        "named entities of which neither side has a value; null: none",
        get=lambda diff: sorted(diff.basis.without_value),
    ),
    TRUNCATED,
    Field(
        "stats",
        Object(
            Field("equal", Count),
            Field("other_inputs", Count, "of the equal values, those that count other events"),
            Field("tolerated", Count, "different, within tolerance"),
            Field("changed", Count, "`~`"),
            Field("added", Count, "`+`"),
            Field("removed", Count, "`-`"),
        ),
        only="with `--stats`",
    ),
    NEXT,
)

_TOTAL_ROWS = Rows(
    "totals",
    "by metric, then bucket or run",
    Column("metric", str),
    bucket_column(only="with `--by bucket`"),
    Column("run_id", str | None, "that wrote the left values; null: there are none", only="with `--by run`"),
    Column("combination", str, "`sum`, or `min` or `max`: the least or greatest value", drop=1),
    Column("current", Decimal | None, "the total of the left side"),
    Column("recomputed", Decimal | None, "the total of the right side; null also where values cannot be computed"),
    Column("delta", Decimal | None, "recomputed - current, exactly; a missing sum counts as 0"),
    Column("of_values", Count, "pairs of values in it", get="compared"),
    Column("differing", Count, "those that differ by more than is tolerated", get="different"),
    Column("not_computed", Count, "values that cannot be computed", get="failed", drop=2),
    *_CAUSES,
    local_column(only="with `--by bucket`"),
)

TOTALS = Schema(
    "pik diff aggregates --total",
    *(_TOTAL_ROWS if part.name == "differences" else part for part in DIFFERENCES.parts if part.name != "stats"),
)
