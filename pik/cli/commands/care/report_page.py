"""A report as a page: the documents of its parts as facts and tables, with the figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from pik import __version__
from pik.cli.commands.care.report_figures import figures, moved
from pik.cli.commands.inspect.corrected import effect_words
from pik.cli.table import facts, grid
from pik.errors import command, number_of
from pik.model.instant import display_instant
from pik.model.visible import visible
from pik.ports.report import Figure, Grid, Heading, Page, Section
from pik.usecases.metrics.definitions import pin
from pik.usecases.report.incident import definition_digest
from pik.usecases.report.numbers import METRICS

if TYPE_CHECKING:
    from pik.cli.commands.care.report_parts import ShownPart
    from pik.cli.document import Advice, Document
    from pik.usecases.report.incident import Report

_SECTIONS = (
    ("findings", "What is wrong", ("findings",)),
    ("volume", "What arrived", ()),
    ("lag", "How long it took to arrive", ("lag",)),
    ("numbers", "Current against recomputed numbers", ("totals", "buckets", "values")),
    ("duplicates", "Where duplicates come from", ("duplicates",)),
    ("history", "What changed the numbers, and who did it", ("history",)),
    ("corrections", "Corrections", ("corrections",)),
    ("runs", "Runs and what they changed", ("runs",)),
    ("verify", "Whether the store is as it was written", ("verify",)),
)
"""The sections: anchor, title, and the parts in it."""

_TITLES = {
    "findings": "Findings",
    "checks": "Checks",
    "groups": "By source",
    "histogram": "Distribution",
    "totals": "Totals over the window",
    "buckets": "Totals by bucket",
    "differences": "Values that differ",
}

_SAID_ELSEWHERE = frozenset(
    {"next", "window", "requested", "entity", "entities", "truncated", "by", "metrics_left_out"}
)
"""Fields of documents that the page says once, or in other words."""

_WITHOUT_TABLE = frozenset({"histogram", "buckets"})
"""Tables that stand behind a figure."""

_FOLDED = frozenset({"checks"})
"""Tables for reference: the rule of each check, whether it found anything or not."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What only the command line knows: the name of the incident, and in which zone times are shown."""

    incident: str
    zone: str
    command: str


def page(report: Report, parts: Sequence[ShownPart], labels: Labels, advice: Advice) -> Page:
    """Return the report as a page."""
    by_name = {part.name: part for part in parts}
    shown = figures(report)
    sections = [
        _section(anchor, title, [by_name[name] for name in names], shown.get(anchor, []), report, advice)
        for anchor, title, names in _SECTIONS
    ]
    commands = dict.fromkeys(part.command for part in parts if not part.nothing)
    return Page(
        f"Incident {labels.incident}",
        _subtitle(report),
        list(_summary(report, parts)),
        [*sections, _about(report, labels), _again(list(commands), labels, advice)],
    )


def _subtitle(report: Report) -> str:
    asked = report.question
    names = ", ".join(map(visible, asked.entities[:_NAMED]))
    more = f" and {len(asked.entities) - _NAMED:,} more" if len(asked.entities) > _NAMED else ""
    whose = f"{names}{more}" if asked.entities else "all entities"
    until = f", with what was recorded until {display_instant(report.known_until)}" if report.known_until else ""
    return f"{asked.window} of {whose}{until}"


_NAMED = 5
"""Entities that are named in a sentence."""


def _summary(report: Report, parts: Sequence[ShownPart]) -> Iterator[tuple[str, str, bool]]:
    found = len(report.triage.findings)
    yield "findings", f"{found:,}", bool(found)
    if (arrivals := report.arrivals.value) is not None:
        names = ("accepted", "late", "exact", "conflicts")
        late, exact, conflicts = (arrivals.total(name) for name in names[1:])
        yield "deliveries", f"{sum(arrivals.total(name) for name in names):,}", False
        yield "late", f"{late:,}" if arrivals.metrics else "no current value", bool(late)
        yield "exact duplicates", f"{exact:,}", False
        yield "conflicts", f"{conflicts:,}", bool(conflicts)
    totals = () if report.sums.value is None else report.sums.value.totals
    for one in totals:
        if one.delta is None:
            yield one.metric, "not known", True
        elif one.delta or one.different:
            now = "none" if one.current is None else f"{one.current:,f}"
            yield one.metric, f"{now} → {one.recomputed or Decimal(0):,f} ({moved(one.delta, one.current)})", True
    if (checked := report.verify.value) is not None:
        damage = checked.summary.damage
        yield "damage", number_of(damage, "problem") if damage else "none found", bool(damage)
    failed = [part.name for part in parts if part.failure] + [one.check for one in report.triage.checks if one.failure]
    if failed:
        yield "not looked at in full", ", ".join(dict.fromkeys(failed)), True


def _section(
    anchor: str,
    title: str,
    parts: Sequence[ShownPart],
    shown: Sequence[Figure],
    report: Report,
    advice: Advice,
) -> Section:
    text, found, tables = list(_text(anchor, report)), list[tuple[str, str]](), list[tuple[str, Grid]]()
    for part in parts:
        if part.failure:
            text.append(f"Not known ({part.name}): {advice(part.failure)}")
        elif part.document is None:
            text.append(f"{part.nothing[:1].upper()}{part.nothing[1:]}.")
        else:
            document = part.document.ready(advice)
            more = advice(part.note)
            tables += _tables(document, part, more)
            found += [fact for fact in _facts(document) if part.name != "verify" or fact[1] != "0"]
    figure_parts = [advice(part.note) for part in parts if part.name == "buckets"]
    if anchor == "numbers" and figure_parts and figure_parts[0]:
        text.append(f"Totals by bucket are shortened: {figure_parts[0]}")
    lines = [part.command for part in parts if not part.nothing] or list(_commands_of(anchor, report))
    return Section(
        *(anchor, title, text),
        facts=list(dict.fromkeys(found)),
        figures=shown,
        tables=tables,
        command=_pasted(lines, advice),
    )


def _pasted(commands: Iterable[str], advice: Advice) -> str:
    """Return the commands as text, each once, on lines."""
    return "\n".join(visible(line) for text in dict.fromkeys(commands) for line in advice(text).split("\n"))


def _tables(document: Document, part: ShownPart, more: str) -> Iterator[tuple[str, Grid]]:
    for number, table in enumerate(document.tables):
        if table.name in _WITHOUT_TABLE or part.name in _WITHOUT_TABLE:
            continue
        one = replace(grid(table), folded=table.name in _FOLDED)
        title = _TITLES.get(table.name, table.name.replace("_", " ").capitalize())
        yield title, replace(one, left_out=more) if number == 0 and more else one


def _facts(document: Document) -> list[tuple[str, str]]:
    fields = {**document.head, **document.end()}
    return facts({name: value for name, value in fields.items() if name not in _SAID_ELSEWHERE})


def _text(anchor: str, report: Report) -> Iterator[str]:
    """Yield what a section says beside its figures and tables."""
    if anchor == "volume":
        if (arrivals := report.arrivals.value) is None:
            yield f"Not known (volume): {report.arrivals.failure or report.arrivals.nothing}"
        elif not arrivals.timeline.volumes:
            yield "No delivery has an event time in the window."
        elif arrivals.metrics:
            yield (
                "Each delivery is in one count. Late are those that count in a current value of"
                f" {', '.join(arrivals.metrics)} and were recorded after what that value knew."
            )
        if arrivals is not None and arrivals.effects:
            yield (
                f"By corrections: {effect_words(arrivals.effects)}. What was accepted, and does not count any more, is"
                " still among the accepted deliveries."
            )
    if anchor == "numbers":
        if report.shown.more:
            yield (
                f"The first {METRICS} metrics by name are shown, without"
                f" {', '.join(report.shown.more)}; the findings are about all of them."
            )
        if report.shown.left_out:
            yield f"Over all entities, and so left out: {', '.join(report.shown.left_out)}."
    if anchor == "history" and (len(report.question.entities) > 1 or len(report.question.metrics) > 1):
        yield "Of all entities or metrics: the history can be limited to one."


def _commands_of(anchor: str, report: Report) -> Iterator[str]:
    """Yield the commands that show what is not the document of a part."""
    if anchor == "volume":
        from pik.cli.commands.care.report_parts import Words

        words = Words(report)
        yield words.of_each("events", "--by", "hour")
        yield words.of_each("duplicates", "--by", "hour")
        yield words.of_each("lag", "--late")


def _about(report: Report, labels: Labels) -> Section:
    asked = report.question
    definitions = [
        (pin(one), one.definition.value, one.definition.where or "-", definition_digest(one))
        for one in report.definitions
    ]
    headings = [Heading(name) for name in ("metric", "value", "where", "SHA-256 of the definition")]
    return Section(
        "about",
        "What this was made from",
        facts=[
            ("window", str(asked.window)),
            ("entities", ", ".join(map(visible, asked.entities)) or "all"),
            ("metrics", ", ".join(asked.metrics) or "all"),
            ("known until", display_instant(report.known_until) if report.known_until else "nothing was recorded"),
            ("times are in", labels.zone),
            ("computed by", ", ".join(report.programs)),
            ("format of the store", str(report.store_format)),
            ("report by", f"pik {__version__}"),
        ],
        tables=[
            ("Definitions", Grid(headings, [[visible(text) for text in row] for row in definitions], empty="no metric"))
        ],
        command=command("metrics", "list"),
    )


def _again(commands: Sequence[str], labels: Labels, advice: Advice) -> Section:
    return Section(
        "commands",
        "How to see it again",
        ["The first command makes this report again: the same bytes from the same store. The others show its parts."],
        command=_pasted([labels.command, *commands], advice),
    )
