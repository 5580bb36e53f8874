"""The parts of a report: each the JSON of a command, with that command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pik.cli.commands.care.verify import VERIFY, next_steps
from pik.cli.commands.inspect.corrected import effects_note, effects_of, notes
from pik.cli.commands.inspect.duplicates import DUPLICATES_BY
from pik.cli.commands.inspect.groups import shown_group
from pik.cli.commands.inspect.lag import LAG, OF_LIMITS, lag_note
from pik.cli.commands.numbers.aggregates import TOTAL_COLUMNS
from pik.cli.commands.numbers.diff_rows import DIFFERENCES, TOTALS
from pik.cli.commands.numbers.history import CHECKED, HISTORY, history_note
from pik.cli.commands.numbers.triage import TRIAGE
from pik.cli.commands.repair.corrections import CORRECTIONS
from pik.cli.commands.repair.runs import RUNS, WHOLE, replay_command
from pik.cli.document import Document, Schema
from pik.errors import command
from pik.model.run import RunRequest
from pik.usecases.report.incident import history_window, only
from pik.usecases.report.kept import ROWS

if TYPE_CHECKING:
    from pik.model.metric import Metric
    from pik.model.window import Window
    from pik.ports.store import Store
    from pik.usecases.metrics.diff import Diff
    from pik.usecases.metrics.totals import TotalDifference
    from pik.usecases.report.arrivals import Arrivals
    from pik.usecases.report.incident import Report, ReportPart


def _totals(by: str | None) -> Schema:
    others = [columns for name, columns in TOTAL_COLUMNS.items() if name != by]
    return TOTALS.without(*(f"totals.{column}" for columns in others for column in columns))


SCHEMAS: dict[str, Schema] = {
    "findings": TRIAGE.without("known"),
    "lag": LAG.without(*OF_LIMITS),
    "totals": _totals(None),
    "buckets": _totals("bucket"),
    "values": DIFFERENCES.without("stats"),
    "duplicates": shown_group(DUPLICATES_BY, "source"),
    "history": HISTORY.without(*CHECKED),
    "corrections": CORRECTIONS,
    "runs": RUNS,
    "verify": VERIFY,
}
"""What the document of each part is, by its name."""


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A part as it is shown: what the `command` shows as a `document`. Without one, there is `nothing` to show, or it
    could not be looked at, because of the `failure`. `left_out` rows are missing in it (None: some, not counted)."""

    name: str
    command: str
    document: Document | None
    failure: str = ""
    nothing: str = ""
    left_out: int | None = 0

    @property
    def note(self) -> str:
        """What is missing in its table, with the command that lists all; an empty text where nothing is."""
        if self.left_out == 0:
            return ""
        rows = "more rows" if self.left_out is None else f"{self.left_out:,} more row{'s'[: self.left_out != 1]}"
        return f"{rows}: {self.command}"


class Words:
    """The scope of a report as it is typed."""

    def __init__(self, report: Report) -> None:
        asked = report.question
        self.window = asked.window
        self.entities = [word for entity in asked.entities for word in ("--entity", entity)]
        self.times = self.times_of(asked.window)
        self.all = self.entities + self.times

    @staticmethod
    def times_of(window: Window) -> list[str]:
        """Return a window as it is typed."""
        pairs = (("--from", window.from_text), ("--to", window.to_text))
        return [word for name, text in pairs if text for word in (name, text)]

    def of_each(self, *words: str, times: Sequence[str] | None = None) -> str:
        """Return the commands for one that takes a single entity: one for each, on lines."""
        entities = [self.entities[at : at + 2] for at in range(0, len(self.entities), 2)] or [[]]
        return "\n".join(command(*words, *one, *(self.times if times is None else times)) for one in entities)


def shown_parts(store: Store, report: Report) -> list[ShownPart]:
    """Return the parts of a report, in their order."""
    words, asked = Words(report), report.question
    sums, others = report.sums, report.values

    def of_sums(rows: Callable[[Any], Sequence[TotalDifference]], schema: Schema) -> Callable[[Any], Document]:
        return lambda found: schema.document(
            found.diff,
            totals=rows(found)[:ROWS],
            **_counted(report, found.diff, found.different, found.failed, report.shown.sums),
            truncated=len(rows(found)) > ROWS,
        )

    return [
        _findings(report, words),
        _part(
            "lag",
            report.arrivals,
            words.of_each("lag"),
            lambda found: _lag(report, found),
            lambda found: found.sources.left_out,
        ),
        _part(
            "totals",
            sums,
            _diff(words, report.shown.sums, "--total", "--explain"),
            of_sums(lambda found: found.totals, SCHEMAS["totals"]),
        ),
        _part(
            "buckets",
            sums,
            _diff(words, report.shown.sums, "--by", "bucket", "--explain"),
            of_sums(lambda found: found.buckets, SCHEMAS["buckets"]),
            lambda found: max(len(found.buckets) - ROWS, 0),
        ),
        _part(
            "values",
            others,
            _diff(words, report.shown.others),
            lambda found: SCHEMAS["values"].document(
                found.diff,
                differences=found.rows,
                truncated=found.different + found.failed > len(found.rows),
                **_counted(report, found.diff, found.different, found.failed, report.shown.others),
            ),
            lambda found: found.different + found.failed - len(found.rows),
        ),
        _part(
            "duplicates",
            report.duplicates,
            words.of_each("duplicates", "--by", "source"),
            lambda found: SCHEMAS["duplicates"].document(
                {"window": asked.window, "entity": only(asked.entities), "by": "source"},
                groups=found.rows,
                duplicates=found.summary.duplicates,
                truncated=found.truncated,
                corrected=effects_of(_effects(report)),
                note=effects_note(_effects(report)),
            ),
            lambda found: found.left_out,
        ),
        _part(
            "history",
            report.history,
            _history(report, words),
            lambda found: SCHEMAS["history"].document(
                found.summary, history=found.rows, truncated=found.truncated, note=history_note(store)
            ),
            lambda found: found.left_out,
        ),
        _part(
            "corrections",
            report.corrections,
            command("corrections", "list"),
            lambda found: CORRECTIONS.document(corrections=found.rows, truncated=found.truncated),
            lambda found: found.left_out,
        ),
        _part(
            "runs",
            report.runs,
            command("runs", "list"),
            lambda found: RUNS.document(runs=found.rows, truncated=found.truncated),
            lambda found: found.left_out,
        ),
        _part(
            "verify",
            report.verify,
            command("verify", *words.times),
            lambda found: _verify(store, found, asked.window),
            lambda found: found.left_out,
        ),
    ]


def _part(
    name: str,
    part: ReportPart[Any],
    shown: str,
    document: Callable[[Any], Document],
    left_out: Callable[[Any], int | None] = lambda _: 0,
) -> ShownPart:
    if part.value is None:
        return ShownPart(name, shown, None, part.failure, part.nothing)
    return ShownPart(name, shown, document(part.value), left_out=left_out(part.value))


def _findings(report: Report, words: Words) -> ShownPart:
    found = report.triage
    commands = dict.fromkeys(one.command for one in found.findings[:ROWS])
    document = SCHEMAS["findings"].document(found, findings=found.findings[:ROWS], next="\n".join(commands) or None)
    return ShownPart("findings", command("triage", *words.all), document, left_out=max(len(found.findings) - ROWS, 0))


def _effects(report: Report) -> Any:
    return None if report.arrivals.value is None else report.arrivals.value.effects


def _lag(report: Report, found: Arrivals) -> Document:
    return SCHEMAS["lag"].document(
        {
            "window": report.question.window,
            "entity": only(report.question.entities),
            "by": "source",
            "rule": None,
            "all": found.lag.total,
        },
        groups=[("source", one) for one in found.sources],
        histogram=[(found.lag, bar) for bar in found.lag.histogram],
        truncated=found.sources.truncated,
        corrected=effects_of(found.effects),
        note=notes(lag_note(found.lag), effects_note(found.effects)),
    )


def _diff(words: Words, metrics: Iterable[Metric], *options: str) -> str:
    named = [word for metric in metrics for word in ("--metric", metric.name)]
    return command("diff", "aggregates", *named, *words.all, *options)


def _counted(report: Report, diff: Diff, different: int, failed: int, metrics: Sequence[Metric]) -> dict[str, object]:
    """Return the fields that the rows of a diff come to."""
    asked = report.question
    line = None
    if different:
        line = replay_command(
            RunRequest(
                start=asked.window.start,
                end=asked.window.end,
                entities=asked.entities,
                metrics=tuple(metric.name for metric in metrics),
            )
        )
        if diff.stats.removed:
            line = f"{WHOLE} && {line}"
    return {"different": different, "failed": failed, "next": line}


def _history(report: Report, words: Words) -> str:
    asked = report.question
    one, metric = only(asked.entities), only(asked.metrics)
    options = [*(("--entity", one) if one else ()), *(("--metric", metric) if metric else ())]
    return command("history", *options, *words.times_of(history_window(asked.window)))


def _verify(store: Store, found: Any, window: Window) -> Document:
    copy_of = store.copy.source if store.copy else None
    remedies = dict.fromkeys(one.remedy for one in found.rows if one.remedy)
    note, line = (None, None) if store.sealed else next_steps(found.summary, remedies, copy_of)
    return VERIFY.document(
        found, window=window, check="full", copy_of=copy_of, problems=found.rows, note=note, next=line
    )
