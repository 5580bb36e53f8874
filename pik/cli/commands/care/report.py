"""`pik report`: the page of an incident, for those who were not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, cli_command
from pik.cli.context import Context
from pik.cli.document import Column, Field, Rows, Schema, or_null
from pik.cli.options import option
from pik.cli.values import Count, Instant, Json
from pik.errors import StoreError, UsageError, command, number_of
from pik.model.instant import displayed_in
from pik.model.metric import Metric
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.cli.commands.care.report_parts import ShownPart
    from pik.model.zone import Zone
    from pik.ports.store import Store
    from pik.usecases.report.incident import Question, Report

STDOUT = "-"


@cli_command(
    "report",
    examples="""
    # a page for the post-mortem, to be opened in a browser
    pik report --incident INC-1234 --from 2026-03-02 --to 2026-03-03 --out inc-1234.html

    # one customer's revenue, for the wiki
    pik report --incident INC-1234 --entity customer-17 --metric revenue --out inc-1234.md

    # for another program
    pik report --incident INC-1234 --since 2d --out - --as json | jq '.findings'
    """,
)
def report(
    cli: Context,
    incident: Annotated[str, option("--incident NAME", "What the report is called, such as INC-1234.")],
    out: Annotated[str, option("--out FILE", "FILE.html, FILE.md or FILE.json. - is standard output.")],
    as_: Annotated[
        Literal["html", "md", "json"] | None,
        option("--as FORMAT", "html, md or json. Default: by the name of --out."),
    ] = None,
    entity: options.Entities = None,
    metric: Annotated[list[str] | None, option("--metric NAME", "Show this metric's numbers (repeatable).")] = None,
    *,
    period: options.WindowOptions,
    force: Annotated[bool, option("--force", "Replace FILE if it exists.")] = False,
    dry_run: options.DryRun = False,
) -> int | None:
    """Write what an investigation finds in a window to one file, for people who have no pik.

    It has what arrived and when, how long it took, current against recomputed numbers with the causes of their
    differences, the findings of `pik triage`, duplicates by source, the history since the window began, corrections,
    runs, what `pik verify` says of the window, the commands that show each part, and the versions of everything. An
    HTML page needs no other file and no network. A part that could not be looked at says so.

    The same store and arguments make the same bytes: the time of writing is not in them, and `now` (in --since 2d,
    yesterday, now-2h) is the last recording of the store. A table has the first 200 rows, and says what it leaves out.
    --metric chooses whose numbers are shown (without it at most 12 metrics'); findings are always about all of them.
    The window's raw is read several times. The file appears when it is complete; one that exists is only replaced with
    --force. Exit codes: 0 nothing found, 1 something found, 2 there is nothing in the window, 3 a part could not look
    at everything.
    """
    from pik.usecases.report.incident import Question, last_recording
    from pik.usecases.report.incident import report as make

    _expect_name(incident)
    form = _format(out, as_)
    if out != STDOUT:
        _expect_writable(Path(out), replace=force)
    if form == "html":
        cli.html_report()  # that it is not installed is said before all of the work
    store = cli.open_store()
    with options.at_one_time(last_recording(store)) if _is_relative(period) else nullcontext():
        window = period.window()
    asked = Question(window, tuple(dict.fromkeys(entity or ())), tuple(dict.fromkeys(metric or ())))
    with displayed_in(None if form == "json" else cli.settings.display_zone):
        found: Report = cli.made_once(asked, lambda: make(store, cli.engine(), asked, cli.progress))
        content, parts = _content(cli, store, found, incident, form)
    if out == STDOUT and not dry_run:
        _write_out(content)
        cli.note(_summary(found))
    else:
        if not dry_run:
            _write(Path(out), content, replace=force)
        cli.show(
            SUMMARY,
            found,
            incident=incident,
            dry_run=dry_run or None,
            out=out,
            format=form,
            bytes=len(content),
            failed_parts=[part.name for part in parts if part.failure] or None,
        )
    if not found.is_complete:
        return PARTLY
    return FOUND if found.found else None


def _is_relative(period: options.WindowOptions) -> bool:
    """Return whether the window depends on what `now` is."""
    return any(text and not text[0].isdigit() for text in (period.from_, period.to)) or period.since is not None


def _expect_name(incident: str) -> None:
    if not incident.strip() or len(incident) > _LONGEST or not incident.isprintable():
        raise UsageError(
            f"--incident: invalid name {incident!r}",
            hint=f"1 to {_LONGEST} printable characters, such as INC-1234",
        )


_LONGEST = 100


def _format(out: str, as_: str | None) -> str:
    """Return html, md or json. Raises UsageError."""
    if as_ is not None:
        return as_
    if out == STDOUT:
        raise UsageError("--out -: which format?", hint="--as html, --as md or --as json")
    suffix = Path(out).suffix.lower()
    if suffix not in (".html", ".md", ".json"):
        raise UsageError(
            f"--out {out}: a report is a .html, .md or .json file", hint="give it such a name, or add --as FORMAT"
        )
    return suffix[1:]


def _expect_writable(path: Path, *, replace: bool) -> None:
    """Raise UsageError for a target that cannot be written, before all of the work."""
    from pik.runtime.new_file import expect_directory

    if path.is_dir():
        raise UsageError(f"--out {path}: that is a directory", hint=f"name a file: --out {path / 'report.html'}")
    expect_directory(path, f"--out {path}: ")
    if path.exists() and not replace:
        raise UsageError(f"{str(path)!r} exists already", hint="give another name, or replace it with --force")


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    from pik.runtime.new_file import created_whole

    with created_whole(path, "--out", replace=replace) as file:
        file.write(content)


def _write_out(content: bytes) -> None:
    if sys.stdout is None:
        raise StoreError("standard output is closed, so the report cannot be written")
    text = content.decode()
    if sys.stdout.isatty():
        from pik.model.visible import visible_lines

        text = visible_lines(text)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(f"standard output: {error.strerror}") from error


def _content(cli: Context, store: Store, found: Report, incident: str, form: str) -> tuple[bytes, Sequence[ShownPart]]:
    """Return the report in its format, and its parts."""
    from pik.cli.commands.care.report_page import Labels, page
    from pik.cli.commands.care.report_parts import shown_parts

    parts = shown_parts(store, found)
    if form == "json":
        return _json(cli, found, parts, incident), parts
    zone = cli.settings.display_zone
    again = _same_command(found.question, incident, form, zone)
    labels = Labels(incident, "UTC" if zone is None else zone.name, again)
    shown = page(found, parts, labels, cli.advice)
    if form == "html":
        return cli.html_report()(shown), parts
    from pik.cli.commands.care.report_markdown import markdown

    return markdown(shown), parts


def _same_command(asked: Question, incident: str, form: str, zone: Zone | None) -> str:
    """Return the command that makes the report again, its times resolved."""
    words = [word for entity in asked.entities for word in ("--entity", entity)]
    words += [word for metric in asked.metrics for word in ("--metric", metric)]
    times = (("--from", asked.window.from_text), ("--to", asked.window.to_text))
    words += [word for name, text in times if text for word in (name, text)]
    words += [] if zone is None else ["--display-timezone", zone.name]
    return command("report", "--incident", incident, *words, "--out", "-", "--as", form)


def _json(cli: Context, found: Report, parts: Sequence[ShownPart], incident: str) -> bytes:
    from pik.cli.output import json_text

    rows = [
        (part, json_text(part.document.ready(cli.advice)).rstrip().encode() if part.document else None)
        for part in parts
    ]
    document = REPORT.document(found, incident=incident, parts=rows)
    return json_text(document.ready(cli.advice)).encode()


def _summary(found: Report) -> str:
    findings = number_of(len(found.triage.findings), "finding")
    return findings if found.is_complete else f"{findings}; not everything could be looked at"


def _volumes(found: Report) -> object:
    return None if found.arrivals.value is None else found.arrivals.value.timeline.volumes


def _digest(metric: Metric) -> str:
    from pik.usecases.report.incident import definition_digest

    return definition_digest(metric)


def _of_part(name: str) -> Callable[[tuple[ShownPart, bytes | None]], object]:
    return lambda row: getattr(row[0], name) or None


_ASKED = (
    Field("incident", str),
    Field("window", Window, "resolved", get="question.window"),
    Field("entities", list[str] | None, "null: all", get=lambda found: list(found.question.entities)),
    Field(
        "metrics",
        list[str] | None,
        "those named, whose numbers are shown; null: none",
        get=lambda found: list(found.question.metrics),
    ),
    Field("findings", Count, "those of `pik triage`", get=lambda found: len(found.triage.findings)),
    Field("complete", bool, "whether all could be looked at; if not, the exit code is 3", get="is_complete"),
    Field("known_until", Instant | None, "the last recording of the window's days", get=or_null("known_until")),
)

SUMMARY = Schema(
    "pik report",
    Field("dry_run", bool | None, "true, or null"),
    Field("out", str),
    Field("format", str, "`html`, `md` or `json`"),
    Field("bytes", Count, "of the file"),
    *_ASKED,
    Field("failed_parts", list[str] | None, "parts that could not be looked at; null: none"),
)

REPORT = Schema(
    "pik report --as json",
    *_ASKED,
    Field("store_format", int, "the version of the store's layout"),
    Field("computed_by", list[str], "the programs and their versions", get=lambda found: list(found.programs)),
    Field(
        "volume_bucket",
        str | None,
        "the size of the buckets of `volume`: `1h`, `1d`, `1w` or `364d`; null: not known",
        get=lambda found: None if found.arrivals.value is None else found.arrivals.value.timeline.bucket,
    ),
    Rows(
        "volume",
        "deliveries by their event time, each in one count; buckets without any are left out; null: not known",
        Column("start", Instant, "of the bucket"),
        Column("accepted", Count, "and not late"),
        Column("late", Count, "count in a current value, and were recorded after its known until"),
        Column("exact", Count, "exact duplicates"),
        Column("conflicts", Count, "same idempotency key, other content"),
        get=_volumes,  # type: ignore[arg-type]
        absent="not known",
    ),
    Rows(
        "parts",
        "what other commands show",
        Column("part", str, get=_of_part("name")),
        Column(
            "command", str, "that shows it; for several entities one line each", get=_of_part("command"), advice=True
        ),
        Column("failure", str | None, "why it could not be looked at", get=_of_part("failure"), advice=True),
        Column("nothing", str | None, "why there is nothing to show", get=_of_part("nothing")),
        Column(
            "left_out",
            Count | None,
            "rows that are missing after the first 200; null: some, not counted",
            get=lambda row: row[0].left_out,
        ),
        Column("document", Json | None, "the JSON of the command; null: there is none", get=lambda row: row[1]),
    ),
    Rows(
        "definitions",
        "the latest of each metric",
        Column("metric", str, "NAME@VERSION", get=lambda metric: f"{metric.name}@{metric.version}"),
        Column("definition_digest", str, "SHA-256 of what it computes", get=_digest),
    ),
)
