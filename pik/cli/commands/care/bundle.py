"""`pik bundle`: the evidence of an incident in one file; and what `pik verify BUNDLE` shows of one."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import FOUND, PARTLY, cli_command
from pik.cli.context import Context
from pik.cli.document import Column, Field, Rows, Schema
from pik.cli.options import option
from pik.cli.values import Count, Instant
from pik.errors import UsageError, command, number_of
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.usecases.bundle.check import BundleCheck
    from pik.usecases.bundle.contents import BundleRequest


@cli_command(
    "bundle",
    examples="""
    # the evidence of an incident, to keep with its post-mortem
    pik bundle --incident INC-1234 --from 2026-01-30 --to 2026-01-31 --out INC-1234.tar.zst

    # one customer's, from production
    pik bundle --store aws://prod --incident INC-1234 --entity customer-17 \\
        --from 2026-01-30 --to 2026-01-31 --out INC-1234.tar.zst

    # evidence that leaves the company
    head -c 32 /dev/urandom > redact.key
    pik bundle --incident INC-1234 --from 2026-01-30 --to 2026-01-31 --redact payload.email \\
        --redact-key redact.key --out INC-1234-redacted.tar.zst

    # check it, anywhere; and ask it questions
    pik verify INC-1234.tar.zst
    pik --store INC-1234.tar.zst events --entity customer-17 --from 2026-01-30 --to 2026-01-31
    """,
)
def bundle(
    cli: Context,
    incident: Annotated[str, option("--incident NAME", "What to call it: the directory in the file.")],
    out: Annotated[Path, option("--out FILE", "A new file; its name usually ends in .tar.zst.")],
    entity: options.Entities = None,
    metric: options.Metrics = None,
    *,
    period: options.WindowOptions,
    redact: Annotated[
        list[str] | None,
        option("--redact PATH", "Replace values at this path (payload.email, entity_id) by keyed hashes (repeatable)."),
    ] = None,
    redact_key: Annotated[Path | None, option("--redact-key FILE", "The key of the hashes, 16 bytes or more.")] = None,
    dry_run: options.DryRun = False,
) -> int | None:
    """Write the evidence of a window to one file: raw, index, values, corrections, and what pik makes of them.

    The file is a tar archive, which other programs can read, too. It holds what `pik pull` would copy, the runs and
    promotions of the window's values, the report, and the results of triage, diff, explain, replay --dry-run,
    duplicates, lag, history and verify, computed from what is in the file. --metric limits the diff, the explanation,
    the plan and the report.

    --redact replaces payload values, or entity ids, by hashes that no one can guess without the key; metrics that read
    them are left out. So is what may repeat a value: original records, unknown fields, keys, file names, rejects.

    The same store and arguments give the same bytes, whatever the file's name and the day. `pik verify FILE` checks
    every byte and computes the results again; `pik --store FILE …` reads it as a store that nothing can be written to.
    The window must be over. What is missing or damaged in the source is listed, with exit code 3. So is a redacted path
    that hits nothing, and each place where the same delivery holds a redacted value once more. Other deliveries, and
    other spellings of the value, are not searched.
    """
    from pik.cli.recorder import write_documents
    from pik.runtime.new_file import expect_new
    from pik.usecases.bundle.contents import BundleRequest, expect_incident
    from pik.usecases.bundle.pack import make_bundle
    from pik.usecases.bundle.redaction import read_redaction
    from pik.usecases.pull.pull import PullRequest, plan_pull

    request = BundleRequest(
        expect_incident(incident),
        period.window(),
        tuple(sorted(set(entity or ()))),
        tuple(sorted(set(metric or ()))),
    )
    request.expect_over(time.time_ns())
    redaction = read_redaction(redact or (), redact_key)
    if str(out) == "-":
        raise UsageError("--out -: a bundle is a file", hint=f"--out {incident}.tar.zst")
    expect_new(out, "--out")
    source = cli.open_store()
    if dry_run:
        plan = plan_pull(source, None, PullRequest(request.window, request.entities))
        cli.show(BUNDLE_DRY_RUN, plan, **_head(request), dry_run=True)
        return None
    done = make_bundle(
        source,
        request,
        out,
        redaction,
        cli.make_copy,
        partial(write_documents, cli, with_page=True),
        cli.engine(),
        cli.progress,
    )
    cli.show(BUNDLE, done, **_head(request), out=str(out), next=command("verify", str(out)))
    for path in () if redaction is None else redaction.missed:
        cli.note(
            f"--redact {path}: no delivery in the bundle has a value there, so nothing was replaced; is it mistyped?"
        )
    for place, deliveries in () if redaction is None else redaction.most_left(_LEFT):
        cli.note(
            f"what is redacted stays in clear in {number_of(deliveries, 'delivery')} in another place: {place}"
            " (--redact can name that place, or what it is part of)"
        )
    return PARTLY if done.problems or (redaction and (redaction.missed or redaction.left)) else None


_LEFT = 10
"""Places where redacted values stay in clear that are named."""


def _head(request: BundleRequest) -> dict[str, object]:
    return {
        "incident": request.incident,
        "requested": request.window,
        "entities": request.entities,
        "metrics_compared": request.metrics,
    }


def check(cli: Context, path: Path) -> int | None:
    """Check a bundle, and show what was found."""
    from pik.cli.recorder import write_documents
    from pik.usecases.bundle.check import check_bundle
    from pik.usecases.bundle.pack import environment_of

    environment = environment_of(cli.engine().version)
    found = check_bundle(path, cli.make_copy, partial(write_documents, cli), environment, cli.progress)
    cli.show(BUNDLE_CHECK, found, bundle=str(path))
    return FOUND if found.problems else None


def _recomputed(found: BundleCheck) -> str | None:
    return "nothing: what is damaged would make it look wrong" if found.recomputed is None else None


_DOCUMENTS = Rows(
    "documents",
    "what was computed from the bundle, which is in it",
    Column("name", str),
    Column("exit_code", int, "of the command"),
    Column("command", str, wrap=True),
)

_PROBLEMS = Rows(
    "problems",
    "what the source does not have as it was recorded, and the bundle lacks",
    Column("kind", str, "as in `pik pull`"),
    Column("what", str),
    Column("detail", str, wrap=True),
    empty="everything could be copied",
)

_HEAD = (
    Field("incident", str),
    Field("requested", Window),
    Field("entities", list[str] | None, "null: all"),
    Field("metrics_compared", list[str] | None, "of the diff, the explanation, the plan and the report; null: all"),
    Field("effective", Window, "the window that is in it: whole days and buckets"),
)

BUNDLE = Schema(
    "pik bundle",
    *_HEAD,
    Field("out", str, "the file"),
    Field("bytes", Count, get="size"),
    Field("sha256", str, "of the file", get="digest"),
    Field("known_until", Instant | None, "the last recording that is in it"),
    _PROBLEMS,
    _DOCUMENTS,
    Field("redacted", list[str] | None, "paths whose values are keyed hashes"),
    Field("not_recomputable", list[str] | None, "metrics that read them, which are left out with all of their values"),
    Field("members", Count, "files in it"),
    Field("segments", Count),
    Field("deliveries", Count, "in the segments"),
    Field("batches", Count, "that these deliveries are of"),
    Field("corrections_held", Count, "corrections that are in it", get="corrections"),
    Field("metrics", Count, "definitions, the built-in one included"),
    Field("aggregates", Count, "current ones of the window"),
    Field("next", str),
)

BUNDLE_DRY_RUN = Schema(
    "pik bundle --dry-run",
    Field("dry_run", bool, "true"),
    *_HEAD,
    Field("segments", Count, "of the window; whether others are needed shows when these are read"),
    Field("bytes", Count, "of these segments", get="size"),
)

BUNDLE_CHECK = Schema(
    "pik verify BUNDLE",
    Field("bundle", str, "the file"),
    Field("incident", str | None, get=lambda found: found.manifest and found.manifest.incident),
    Field("bytes", Count, get="size"),
    Field("sha256", str, "of the file, to compare with the one that `pik bundle` printed", get="digest"),
    Rows(
        "problems",
        "members that are not as they were written",
        Column("member", str),
        Column(
            "state",
            str,
            "`damaged`: its bytes are not as they were written; `differs`: what the bundle holds gives another result",
        ),
        Column("detail", str, wrap=True),
        empty="every byte is as it was written, and every result can be computed again",
    ),
    Field("members", Count, "files in it"),
    Field(
        "recomputed_documents",
        Count | None,
        "those that were computed again and compared; null: none, because of damage",
        get="recomputed",
        text=_recomputed,
    ),
    Field(
        "lacking_objects",
        Count,
        "objects that the source did not have as they were recorded when the bundle was made",
        get=lambda found: len(found.manifest.problems) if found.manifest else 0,
    ),
)
