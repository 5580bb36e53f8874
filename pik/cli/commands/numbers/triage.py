"""`pik triage`: every check at once, ranked by how much it moves numbers."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, cli_command
from pik.cli.context import Context
from pik.cli.document import NEXT, Column, Field, Fold, Rows, Schema
from pik.cli.options import option
from pik.cli.text import shortened
from pik.cli.values import Count, Moment
from pik.errors import InputError, Invalid, command, number_of
from pik.model.identity import check_json
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.usecases.care.triage import CheckResult, Triage
    from pik.usecases.care.triage_findings import Finding


class _Finding(msgspec.Struct):
    """What tells one finding of an earlier triage from another."""

    check: str
    metric: str | None = None
    cause: str | None = None
    scope: str | None = None


class _Baseline(msgspec.Struct):
    """The JSON of an earlier triage, as far as it is needed: what it found, and what its own baseline had."""

    findings: list[_Finding]
    known: list[_Finding] = []


@cli_command(
    "triage",
    examples="""
    # what is wrong with yesterday?
    pik triage --from 2026-01-30 --to 2026-01-31

    # one customer
    pik triage --entity customer-17 --since 2d

    # on a schedule: exit code 1 only for what is new since the last time
    pik triage --since 7d --baseline last.json --format json > now.json
    """,
)
def triage(
    cli: Context,
    entity: options.Entities = None,
    *,
    period: options.WindowOptions,
    baseline: Annotated[
        Path | None,
        option("--baseline FILE", "The JSON of an earlier triage: what it found already does not count."),
    ] = None,
) -> int | None:
    """Run every check over a window and list what they find, the worst first; write nothing.

    Findings are ranked by how much they move a metric: the difference over the window, divided by the recomputed total
    (a total of 0 first), then by the numbers of values and of events. Findings that move no number come last, damage
    first among them. The commands that show the findings follow as next, in the same order, then those that compute by
    how much conflicts and suspects move numbers. The rule of every check is listed, whether or not it found anything.
    Exit codes: 0 nothing found, 1 something found, 2 there is nothing in the window, 3 a check could not look at
    everything.
    """
    from pik.usecases.care.triage import triage as run_triage

    known = _known(baseline) if baseline else ()
    window = period.window()
    found = run_triage(cli.open_store(), cli.engine(), window, entity or (), known, cli.progress)
    schema = TRIAGE if baseline else TRIAGE.without("known")
    commands = dict.fromkeys([*(one.command for one in found.findings), *_impacts(found)])
    cli.show(schema, found, next="\n".join(commands) or None)
    if any(check.failure for check in found.checks):
        return PARTLY
    if not found.findings and not found.known:
        cli.note(_NOT_PROVEN)
    return FOUND if found.findings else None


_NOT_PROVEN = "raw agrees with itself; that does not prove that what was sent, or how it was read, is right"
"""What a triage that finds nothing cannot know."""


def _impacts(found: Triage) -> Iterator[str]:
    """Yield the commands that compute by how much conflicts and suspects move numbers, which takes all of raw."""
    failed = {one.check for one in found.checks if one.failure}
    pairs = [("--entity", one) for one in found.entities] if len(found.entities) == 1 else []
    pairs += [
        (name, text) for name, text in (("--from", found.window.from_text), ("--to", found.window.to_text)) if text
    ]
    scope = [word for pair in pairs for word in pair]
    for check, kind in (("conflicts", "conflict"), ("suspects", "suspect")):
        if check not in failed and any(one.check == check for one in found.findings):
            yield command("duplicates", "--class", kind, "--impact", *scope)


def _known(path: Path) -> list[tuple[str, str, str, str]]:
    """Return the identities of the findings in an earlier triage. Raises InputError."""
    from pik.inputs.whole_text import whole_text

    hint = "pik triage --format json > baseline.json"
    text = whole_text(str(path), hint).encode()
    try:
        check_json(text, str(path))
        read = msgspec.json.decode(text, type=_Baseline)
    except (Invalid, msgspec.MsgspecError) as error:
        why = error.message if isinstance(error, Invalid) else f"{path} is not the JSON of a triage"
        raise InputError(why, hint=hint) from None
    return [(one.check, one.metric or "", one.cause or "", one.scope or "") for one in (*read.findings, *read.known)]


def _nothing(found: Triage) -> str:
    if any(check.failure for check in found.checks):
        return "nothing found, but not everything could be looked at"
    return f"nothing found by {number_of(len(found.checks), 'check')}"


def _name_of_clean(check: CheckResult) -> str | None:
    """Return the name of a check that looked at everything, and found nothing."""
    return None if check.findings or check.note or check.failure else check.check


_REASON = 60
"""Columns of a correction's reason in a table, which may have many rows about one. Programs get all of it."""


def _what(found: Finding) -> str:
    whole = f"({found.reason})"
    return found.what.removesuffix(whole) + f"({shortened(found.reason, _REASON)})" if found.reason else found.what


_COLUMNS = (
    Column("check", str),
    Column("what", str, wrap=True, text=_what),
    Column("metric", str | None, detail=True),
    Column("cause", str | None, detail=True),
    Column("scope", str | None, "a source, batch, run, correction, metric version, dead letter or object", detail=True),
    Column("since", Moment | None, "the first bucket, or when it began", drop=2),
    Column("events", Count | None, drop=3),
    Column("buckets", Count | None, "values that it moves", drop=4),
    Column(
        "delta",
        Decimal | None,
        "what it moves the metric by, over the window; null where its values do not add up",
        detail=True,
    ),
    Column("effect", Decimal | None, "|delta| / |recomputed total|; null where that is 0", detail=True),
    Column("command", str, "that shows it; for people all of them are `next`", detail=True, advice=True),
)

TRIAGE = Schema(
    "pik triage",
    Field("window", Window),
    Field("entities", list[str] | None),
    Rows(
        "findings",
        "by effect, buckets and events; those that move no number last, damage first",
        *_COLUMNS,
        empty=_nothing,
    ),
    Rows("known", "what the baseline has already; not counted", *_COLUMNS, only="with `--baseline`"),
    Rows(
        "checks",
        "every check that ran",
        Column("check", str),
        Column("findings", Count, "those of the baseline included"),
        Column("rule", str, wrap=True),
        Column("note", str | None, "what it cannot know", wrap=True, rare=True, drop=2),
        Column(
            "failure", str | None, "why it could not look at everything; then the exit code is 3", wrap=True, rare=True
        ),
        fold=Fold("nothing found by", _name_of_clean),
    ),
    NEXT,
)
