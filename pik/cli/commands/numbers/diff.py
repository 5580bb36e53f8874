"""`pik diff aggregates`: what the numbers should be, against what they are."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, CommandGroup
from pik.cli.commands.numbers.metrics import TOTAL_COLUMNS
from pik.cli.commands.repair.runs import WHOLE, next_command, replay_command
from pik.cli.context import Context
from pik.cli.document import NEXT, TRUNCATED, Column, Field, Object, Rows, Schema, or_null
from pik.cli.options import option
from pik.cli.text import number_of
from pik.cli.values import Bucket, Count, Instant
from pik.errors import UsageError, command
from pik.model.instant import Window, format_instant
from pik.model.metric import KEPT_FAILURES, RunRequest, RunState

if TYPE_CHECKING:
    from pik.model.metric import Failure, Run
    from pik.ports.engine import Extent
    from pik.ports.store import Store
    from pik.usecases.metrics.diff import Diff, Difference
    from pik.usecases.metrics.file_numbers import FileNumbers, FileRequest
    from pik.usecases.metrics.sides import Side
    from pik.usecases.metrics.totals import DiffTotals


diff = CommandGroup("Compare numbers with raw or with what a run wrote, and a log with what arrived.")


@diff.add(
    "aggregates",
    examples="""
    # is anything wrong? exit code 1 if so
    pik diff aggregates --from 2026-01-31 --to 2026-02-01

    # one entity; cents and half a percent of revenue do not matter
    pik diff aggregates --entity user-123 --since 7d --tolerance 0.01 --tolerance revenue=0.5%

    # what if that batch had never arrived?
    pik diff aggregates --from 2026-01-31 --assume without-batch=01J8Z3

    # which numbers of the ledger differ from what raw says?
    pik diff aggregates --against ledger.csv --key bucket=day,entity=customer --value revenue=net

    # why do they differ?
    pik diff aggregates --from 2026-01-31 --explain --limit 20

    # what has changed since Friday evening, by whatever promotion?
    pik diff aggregates --left current@2026-01-30T18:00:00Z --right current

    # by how much do the totals of each day differ from the ledger's?
    pik diff aggregates --against ledger.csv --metric revenue --by bucket

    # what would promoting this run change?
    pik diff aggregates --run 01J8Z3 --limit 20 --stats
    """,
)
def aggregates(
    cli: Context,
    entity: options.Entities = None,
    metric: options.Metrics = None,
    from_: options.From = None,
    to: options.To = None,
    since: options.Since = None,
    against: Annotated[
        str | None,
        option("--against FILE", "Compare with the numbers of this file (CSV, TSV, Parquet, JSON lines; - is stdin)."),
    ] = None,
    key: Annotated[
        list[str] | None,
        option("--key bucket=COLUMN,entity=COLUMN", "With --against: its columns, if they have unusual names."),
    ] = None,
    value: Annotated[
        list[str] | None, option("--value METRIC=COLUMN", "With --against: the column of a metric (repeatable).")
    ] = None,
    left: Annotated[
        str | None,
        option("--left SIDE", "current (default), current@TIME, run:ID, file:PATH (as --against)."),
    ] = None,
    right: Annotated[
        str | None,
        option("--right SIDE", "recomputed (default), current, current@TIME, run:ID (as --run)."),
    ] = None,
    run: Annotated[str | None, option("--run RUN", "Compare what this run wrote; nothing is recomputed.")] = None,
    tolerance: Annotated[
        list[str] | None,
        option(
            "--tolerance [METRIC=]ABS|REL%",
            "Ignore differences up to this (repeatable; one that covers a difference is enough).",
        ),
    ] = None,
    changed_only: Annotated[
        bool, option("--changed-only", "Only changed values (~) and failures (!): leave out + and -.")
    ] = False,
    as_of: options.AsOf = None,
    assume: options.Assume = None,
    explain: Annotated[bool, option("--explain", "Split each difference by cause, as `pik explain` does.")] = False,
    total: options.Total = False,
    by: options.TotalBy = None,
    stats: Annotated[bool, option("--stats", "Also count what was compared.")] = False,
    limit: options.Limit = None,
) -> int | None:
    """Recompute from raw and compare with the current values, without writing anything.

    Each row is a difference: ~ the value changed, + there is no current value yet, - there is a current value but no
    events (check for lost raw with `pik verify --full` first), ! it cannot be computed, with the reason. --limit only
    limits the rows that are shown. Exit codes: 0 no rows, 1 differences, 3 something cannot be computed, 2 nothing to
    compare.

    The digests of current values are checked only with --entity; `pik verify` checks all of them.

    With --against the numbers of the file take the place of the current values. Its columns are found by their usual
    names (bucket, day, date, …; entity_id, customer, …; the name of a metric), and what was taken is printed. Dates and
    times are UTC, and numbers count as they are written; a number that cannot be read or comes twice is an error that
    names the line. The store's values that the file lacks are rows (+) too: --from, --to and --entity set the scope of
    both sides.

    The delta is always right minus left. A run is compared in the values that it wrote. What was current at some time
    follows from the promotions and rollbacks until then.

    --total and --by show the totals of both sides instead, as in `pik aggregates`, and how many of the values differ.
    The exit code is 1 if any of them does, whatever the totals.
    """
    from pik.model.scenario import read_scenario
    from pik.usecases.metrics.causes import with_causes
    from pik.usecases.metrics.diff import diff_aggregates, read_tolerances
    from pik.usecases.metrics.diff_recorded import diff_recorded, run_window
    from pik.usecases.metrics.file_numbers import file_numbers
    from pik.usecases.metrics.scenario import read_event_ids
    from pik.usecases.metrics.sides import LEFT, RIGHT, Recorded, SideKind
    from pik.usecases.metrics.totals import Combinations, DiffTotals

    scenario = read_scenario(as_of, assume or (), read_event_ids)
    sides = _sides(left, right, against, run)
    request = _file_request(sides[0], key or (), value or ())
    window: Window | None = options.window_of(from_, to, since)
    chosen: dict[str, Any] = {"metrics": metric or (), "entities": entity or ()}
    compared: dict[str, Any] = {"tolerances": read_tolerances(tolerance or ()), "changed_only": changed_only}
    is_recomputed = sides[1].kind == SideKind.RECOMPUTED
    if scenario and not is_recomputed:
        given = "--run" if run else f"--right {right}"
        raise UsageError(f"{given} recomputes nothing", hint="leave --as-of and --assume out")
    if SideKind.RUN in (sides[0].kind, sides[1].kind):
        if from_ or to or since:
            raise UsageError(
                f"{'--run' if run else 'a run'} has its own window", hint="leave --from, --to and --since out"
            )
        window = None
    if explain and sides != (LEFT, RIGHT):
        hint = "leave --left, --right, --against and --run out"
        raise UsageError("--explain splits what differs from current values", hint=hint)
    if total or by:
        if stats or explain or changed_only:
            raise UsageError("--total goes with neither --stats, --explain nor --changed-only", hint="leave them out")
        if by == "run" and request is not None:
            raise UsageError("--by run: the numbers of a file have no run", hint="--by bucket")
    store, engine = cli.open_store(), cli.engine()
    if total or by:
        compared["totals"] = DiffTotals(by, Combinations(store, engine))
    with ExitStack() as stack:
        after = None if is_recomputed else Recorded(store, sides[1])
        before = Recorded(store, sides[0]) if request is None else None
        within = window or run_window(before, after) or Window()
        file = None
        if request is not None:
            numbers = file_numbers(store, engine, request, within, scenario=scenario, **chosen)
            file = stack.enter_context(numbers)
        if after is not None:
            diff = diff_recorded(store, file or before or Recorded(store, LEFT), after, window, **chosen, **compared)
        else:
            recorded = None if sides[0] == LEFT else before
            if recorded is not None and recorded.run is not None:
                chosen["entities"] = chosen["entities"] or recorded.run.request.entities
            compared |= {"scenario": scenario, "file": file, "left": recorded}
            diff = diff_aggregates(store, engine, within, **chosen, **compared)
        if explain:
            diff = with_causes(store, engine, diff, metric or ())
        repair: Callable[[], str | None] = lambda: None  # noqa: E731
        if sides == (LEFT, RIGHT) and not scenario:
            repair = partial(_replay, within, entity, metric)
        elif sides[0] == LEFT and diff.run is not None:
            repair = partial(_after_run, store, diff.run.run_id)
        return _shown(cli, store, diff, repair, stats, limit, compared.get("totals"))


def _sides(left: str | None, right: str | None, against: str | None, run: str | None) -> tuple[Side, Side]:
    """Return both sides. Raises UsageError where one is named twice, or not as it should be."""
    from pik.usecases.metrics.sides import LEFT, RIGHT, Side, SideKind, read_side

    if left is not None and against is not None:
        raise UsageError("--against and --left exclude each other: both are the left side")
    if right is not None and run is not None:
        raise UsageError("--run and --right exclude each other: both are the right side")
    one, two = LEFT, RIGHT
    if left is not None:
        one = read_side("--left", left, (SideKind.CURRENT, SideKind.RUN, SideKind.FILE))
    elif against is not None:
        one = Side(SideKind.FILE, against)
    if right is not None:
        two = read_side("--right", right, (SideKind.RECOMPUTED, SideKind.CURRENT, SideKind.RUN))
    elif run is not None:
        two = Side(SideKind.RUN, run)
    if one == two:
        raise UsageError("both sides are the same", hint="--left and --right name them")
    return one, two


def _file_request(left: Side, key: Sequence[str], value: Sequence[str]) -> FileRequest | None:
    from pik.inputs.source import file_source
    from pik.usecases.metrics.file_numbers import FileRequest, read_names
    from pik.usecases.metrics.sides import SideKind

    if left.kind != SideKind.FILE:
        if key or value:
            raise UsageError("--key and --value name columns of a file", hint="add --against FILE")
        return None
    columns = read_names("--key", key, ("bucket", "entity"))
    return FileRequest(file_source(left.name), columns, read_names("--value", value))


def _shown(
    cli: Context,
    store: Store,
    diff: Diff,
    repair: Callable[[], str | None],
    stats: bool,
    limit: int | None,
    totals: DiffTotals | None,
) -> int | None:
    """Show the differences, or totals, and return the exit code."""
    from pik.usecases.inspect.events import without_value

    shown = Shortened(diff.rows, limit, diff.file.extent if diff.file else None)
    counted = {name: partial(getattr, shown, name) for name in ("different", "failed", "truncated")}
    line = lambda: _next(repair, diff, shown)  # noqa: E731
    if totals is None:
        schema = DIFFERENCES if stats else DIFFERENCES.without("stats")
        cli.show(schema, diff, differences=shown, next=line, **counted)
    else:
        deque(shown, maxlen=0)  # all are added first
        rows, more = options.first_rows(iter(totals.rows()), limit)
        left_out = [f"totals.{column}" for name, column in TOTAL_COLUMNS.items() if totals.by != name]
        cli.show(TOTALS.without(*left_out), diff, totals=rows, next=line, **counted | {"truncated": more})
    if diff.basis.without_value:
        cli.note(without_value(store, diff.basis.without_value, diff.effective))
    for missing in not_compared(diff):
        cli.note(missing)
    for missing in _file_notes(diff.file, shown.outside) if diff.file else ():
        cli.note(missing)
    for missing in _uncertain(diff):
        cli.note(missing)
    if shown.failed or diff.unlisted or any(run.failed for run in _runs(diff)):
        return PARTLY
    return FOUND if shown.number else None


def _taken(diff: Diff) -> str | None:
    """Return what was taken from the file, for people."""
    if diff.file is None:
        return None
    extent = diff.file.extent
    numbers, entities = number_of(extent.values, "number"), number_of(extent.entities, "entity").replace("ys", "ies")
    span = f"{format_instant(extent.first)} to {format_instant(extent.last)}"
    return f"{diff.file.name} ({diff.file.columns}): {numbers} of {entities}, {span}"


def _file_notes(file: FileNumbers, outside: int) -> Iterator[str]:
    """Yield what was not compared, or not as it is written; and that `outside` rows are not in the buckets of the
    file."""
    if file.left_out:
        yield f"{number_of(file.left_out, 'number')} of {file.name} outside the window or the entities left out"
    if file.other_metrics:
        yield f"{number_of(file.other_metrics, 'number')} of {file.name} of other metrics left out"
    for column in file.approximate:
        yield f"{column} is floating point: each number is the shortest decimal that reads back as the same double"
    if outside:
        end = file.extent.last + max(metric.bucket_size for metric in file.metrics)
        within = f"--from {format_instant(file.extent.first)} --to {format_instant(end)}"
        yield f"{number_of(outside, 'value')} of the store before or after those of {file.name}; without: {within}"


def _replay(window: Window, entities: list[str] | None, metrics: list[str] | None) -> str:
    """The command that recomputes what was compared."""
    request = RunRequest(
        start=window.start, end=window.end, entities=tuple(entities or ()), metrics=tuple(metrics or ())
    )
    return replay_command(request)


def _after_run(store: Store, run_id: str) -> str | None:
    """Return the command that makes the run's values current: promote, or replay where all of it is out of date."""
    from pik.usecases.replay.runs import promote

    run = store.runs.get(run_id)
    if run.request.counts_duplicates:
        return None
    if run.state in (RunState.PLANNED, RunState.RUNNING, RunState.CANCELLED):
        return next_command(run)
    moved = promote(store, run.run_id, 0, "", dry_run=True).counts.moved
    return command("promote", run.run_id) if moved else replay_command(run.request)


_REMEDIES = 3


class Shortened:
    """The first rows, `limit` of them; `number` counts all, once they are read, and `failed` those that could not be
    computed; `remedy` is what to type about those, for each metric, the most frequent first, _REMEDIES at most.
    `outside` counts those before and after the buckets of a file, in its `extent`."""

    def __init__(self, rows: Iterable[Difference], limit: int | None, extent: Extent | None = None) -> None:
        self._rows, self._limit, self._extent = rows, limit, extent
        self.number = self.failed = self.outside = 0
        self._failures: Counter[tuple[str, bool, bool]] = Counter()
        self._commands: dict[tuple[str, bool, bool], str] = {}

    def __iter__(self) -> Iterator[Difference]:
        for row in self._rows:
            self.number += 1
            if self._extent is not None and not self._extent.first <= row.bucket <= self._extent.last:
                self.outside += 1
            if row.failure is not None:
                self.failed += 1
                kind = row.metric, bool(row.failure.event_ids), bool(row.entity_id)
                self._failures[kind] += 1
                self._commands.setdefault(kind, _remedy(row.failure, row))
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
        return "\n".join(islice(found, _REMEDIES)) if found else None

    @property
    def different(self) -> int:
        """The number of rows that are differences of values."""
        return self.number - self.failed


def _remedy(failure: Failure, row: Difference) -> str:
    """Where to look first, for a row that could not be computed."""
    if failure.event_ids:
        return command("show", failure.event_ids[0])
    return command("metrics", "show", row.metric) if row.entity_id else WHOLE


def not_compared(diff: Diff) -> Iterator[str]:
    """Yield a note on the values that the compared runs should have and that are not among the rows."""
    if diff.unlisted:
        listed = number_of(KEPT_FAILURES, "failed aggregate")
        yield f"{diff.unlisted:,} more could not be computed; a run keeps the first {listed}"
    for run in _runs(diff):
        if run.failed:
            failed = f"{run.failed:,} of its {number_of(run.tasks, 'task')} failed"
            letters = command("dlq", "list", "--run", run.run_id)
            yield f"{failed}, and only what was written is compared; {letters}"
        if run.state in (RunState.PLANNED, RunState.RUNNING):
            yield f"run {run.run_id} is {run.state}: {run.done:,} of {number_of(run.tasks, 'task')} done so far"
    if diff.left is not None and diff.left.run is not None and (failures := diff.left.run.failed_aggregates):
        yield f"run {diff.left.run.run_id} could not compute {number_of(failures, 'value')}, which it lacks"


def _runs(diff: Diff) -> list[Run]:
    """Return the runs that are compared."""
    before = diff.left.run if diff.left is not None else None
    return [run for run in (before, diff.run) if run is not None]


def _uncertain(diff: Diff) -> Iterator[str]:
    """Yield a note on each run of which more may have been written after the moment of a side."""
    for side in (diff.left, diff.right):
        for run_id in sorted(side.uncertain) if side is not None else ():
            yield f"run {run_id} was promoted again after {side}: what it computed in between may be among its values"


def _no_differences(diff: Diff) -> str:
    stats = diff.stats
    within = f", {stats.tolerated:,} of them within tolerance" if stats.tolerated else ""
    left_out = stats.added + stats.removed
    others = f"; --changed-only leaves out {left_out:,} that only one side has" if left_out else ""
    return f"no differences in {number_of(stats.compared, 'value')}{within}{others}"


def _next(repair: Callable[[], str | None], diff: Diff, rows: Shortened) -> str | None:
    """Return what to type next. Where values would be removed, raw must be whole first."""
    if not rows.different:
        return rows.remedy
    line = repair()
    return f"{WHOLE} && {line}" if line and diff.stats.removed else line


def _left(diff: Diff) -> str | None:
    return None if diff.left is None or str(diff.left) == "current" else str(diff.left)


def _right(diff: Diff) -> str | None:
    return None if diff.right is None else str(diff.right)


def _of_failure(name: str, kind: object, about: str, get: str = "", **shown: Any) -> Column:
    """Return a column of what is known about a row that could not be computed."""
    found = lambda row: None if row.failure is None else getattr(row.failure, get or name) or None  # noqa: E731
    return Column(name, kind, about, found, **shown)


def _causes(row: Difference) -> list[dict[str, object]] | None:
    return [{"cause": cause, "share": share} for cause, share in row.causes] or None


def _causes_text(row: Difference) -> str | None:
    certainty = "" if row.proven or not row.causes else " (inferred)"
    return ", ".join(f"{cause} {share:+}" for cause, share in row.causes) + certainty or None


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
            Field("entity", str, "the column of entities", get="columns.entity"),
            Field("metric", str | None, "the column that names the metric of each row", get="columns.metric"),
            Field(
                "value_columns",
                Object(
                    Field("metric", str | None, get=lambda pair: pair[0] or None),
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
        Column("bucket", Bucket, "its start"),
        Column("entity_id", str | None, "null: every entity of the bucket, whose raw is damaged", cut=24),
        Column("current", Decimal | None, "the left side"),
        Column("recomputed", Decimal | None, "the right side"),
        Column("delta", Decimal | None, "recomputed - current; null where one is missing"),
        Column("percent", Decimal | None, "of the current value, to six digits; null also where that is 0", drop=1),
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
        Column("inputs_before", Count | None, "null: those of a file's number are not known", drop=3),
        Column("inputs_after", Count, drop=2),
        _of_failure("reason", str | None, "why it cannot be computed; it may quote a payload", wrap=True, rare=True),
        _of_failure("events_to_blame", Count | None, "that fail when computed alone", get="events", detail=True),
        _of_failure("event_ids", list[str] | None, "the first of these", rare=True, drop=1),
        empty=_no_differences,
    ),
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
    Column("bucket", Bucket, "its start", only="with `--by bucket`"),
    Column("run_id", str | None, "that wrote the left values; null: there are none", only="with `--by run`"),
    Column("combination", str, "`sum`, or `min` or `max`: the least or greatest value", drop=1),
    Column("current", Decimal | None, "the total of the left side"),
    Column("recomputed", Decimal | None, "the total of the right side; null also where values cannot be computed"),
    Column("delta", Decimal | None, "recomputed - current, exactly; a missing sum counts as 0"),
    Column("of_values", Count, "pairs of values in it", get="compared"),
    Column("differing", Count, "those that differ by more than is tolerated", get="different"),
    Column("not_computed", Count, "values that cannot be computed", get="failed", drop=2),
)

TOTALS = Schema(
    "pik diff aggregates --total",
    *(_TOTAL_ROWS if part.name == "differences" else part for part in DIFFERENCES.parts if part.name != "stats"),
)
