"""`pik verify`: is everything as it was written?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.buckets import shown_bucket
from pik.cli.command import FOUND, PARTLY, cli_command
from pik.cli.commands.care.problems import IN_QUESTION, PROBLEMS
from pik.cli.commands.care.verify_continue import TAKEN_OVER, keeping_checks
from pik.cli.commands.care.verify_rebuild import rebuild
from pik.cli.commands.care.verify_restore import restore as restore_objects
from pik.cli.context import Context
from pik.cli.document import NEXT, NOTE, Field, Object, Rows, Schema, or_null
from pik.cli.options import argument, option
from pik.cli.values import Bucket, Count
from pik.config import Format
from pik.errors import UsageError, command, number_of
from pik.model.instant import display_instant
from pik.model.window import Window
from pik.ports.fleet import LOCAL

if TYPE_CHECKING:
    from pik.usecases import Listing
    from pik.usecases.care.verify_findings import Problem, VerifyReport


@cli_command(
    "verify",
    examples="""
    # is everything as it was written? exit code 1 if anything differs
    pik verify

    # read every byte in a stack, too, instead of taking S3's word for it
    pik verify --full

    # it was interrupted after two hours: go on
    pik verify --full --continue

    # read a year of raw on a Spark cluster
    pik verify --full --from 2025-01-01 --to 2026-01-01 --on spark://spark-master:7077

    # sizes and presence only, of one day
    pik verify --quick --from 2026-01-31 --to 2026-02-01

    # the index is lost or differs: rebuild it from raw
    pik verify --rebuild-index

    # is an evidence bundle whole, and do its numbers come out again?
    pik verify INC-1234.tar.zst

    # objects are missing or modified: create them again from a copy of the store
    pik verify --restore backup/raw --dry-run
    pik verify --restore s3://backups/pik
    """,
)
def verify(
    cli: Context,
    bundle: Annotated[
        Path | None, argument("[BUNDLE]", "The file of an evidence bundle, instead of a store.", show_default=False)
    ] = None,
    quick: Annotated[bool, option("--quick", "Presence and sizes only.")] = False,
    full: Annotated[bool, option("--full", "Read every byte, even of objects whose SHA-256 S3 keeps.")] = False,
    rebuild_index: Annotated[bool, option("--rebuild-index", "Rebuild the index from raw.")] = False,
    restore: Annotated[
        str | None,
        option("--restore SOURCE", "Create missing and modified objects again from a file, a directory, or s3://… ."),
    ] = None,
    dry_run: Annotated[bool, option("--dry-run", "With --restore: only show what it would do.")] = False,
    resume: Annotated[
        bool, option("--continue", "Take over what the same command had checked before it was interrupted.")
    ] = False,
    *,
    period: options.WindowOptions,
    on: options.On = LOCAL,
) -> int | None:
    """Check each segment's digest, each index row against raw and back, and each aggregate's inputs.

    Every byte is read. In a stack, segments are not read whose SHA-256 S3 keeps: it computed that when they were
    stored, and checks them against it. The result says how many they are; --full reads them, too.

    A window limits the check to the days that it touches. Others may write during the check. Four kinds of objects are
    not damage: superseded ones (copies of recorded deliveries, left by a crash), unacknowledged ones (no sender was
    told that they were recorded), those of batches in progress, and expired ones (the store keeps raw only for a
    number of days). Nor are current values that were imported: they are listed as not provable.

    --continue goes on after an interruption: segments that the same command found to be sound in the last 24 hours, and
    that the index still lists in the same way, are not looked at again. The result says how many, of which days, and
    when they were checked; all else is checked anew. They are kept in $XDG_CACHE_HOME/pik (~/.cache/pik) once a
    verification has taken 10 seconds, until it ends or the index is rebuilt, but not of one on a cluster (--on).

    With BUNDLE the file of `pik bundle` is checked instead: every byte, and what is computed from what it holds.

    --restore looks in SOURCE (a copy of raw, or some of its objects) for what is missing or modified. A copy is an
    object with the recorded SHA-256 or, for records, which have a seal, an intact one that agrees with the index. A
    missing object is created again. A modified one is never overwritten: its copy is created under another name, and
    read in its place from then on.
    """
    if bundle is not None:
        if quick or full or rebuild_index or restore or dry_run or resume or period.given or on != LOCAL:
            raise UsageError("a bundle is checked as a whole", hint=command("verify", str(bundle)))
        from pik.cli.commands.care.bundle import check as check_bundle

        return check_bundle(cli, bundle)
    if quick and full:
        raise UsageError("--quick and --full exclude each other", hint="leave one of them out")
    if resume and (quick or rebuild_index or restore):
        raise UsageError("--continue is for a check that reads: not for --quick, --restore or --rebuild-index")
    if on != LOCAL and (rebuild_index or restore):
        raise UsageError("--restore and --rebuild-index write, which one process does", hint="leave --on out")
    if on != LOCAL and resume:
        raise UsageError(
            "--continue does not go with --on: what was checked is kept in a file here, which a cluster does not read",
            hint="leave one of them out",
        )
    window = period.window()
    if dry_run and restore is None:
        raise UsageError("--dry-run is for --restore: nothing else of this command writes to raw", hint="leave it out")
    if restore is not None and not rebuild_index:
        return restore_objects(cli, restore, window, quick=quick, full=full, dry_run=dry_run)
    if rebuild_index:
        if quick or full or period.given or restore:
            raise UsageError("--rebuild-index takes no other option: it rebuilds all of the index")
        return rebuild(cli)
    from pik.usecases.care.verify import verify as check
    from pik.usecases.care.verify_findings import depth_of

    store = cli.open_store()
    depth = depth_of(quick=quick, full=full or not store.deployed)
    remedies: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    copy_of = store.copy.source if store.copy else None
    is_kept = not quick and on == LOCAL
    fleet = cli.fleet(on, store)
    with keeping_checks(cli, store, window, depth, resume=resume) if is_kept else nullcontext() as earlier:
        problems = check(store, cli.engine(), window, cli.progress, depth, earlier, fleet)
        cli.show(
            VERIFY,
            problems,
            window=window,
            check=depth,
            copy_of=copy_of,
            problems=_noting(problems, remedies, left_out, cli.settings.format),
            note=lambda: None if store.sealed else next_steps(problems.summary, remedies, copy_of)[0],
            next=lambda: None if store.sealed else next_steps(problems.summary, remedies, copy_of)[1],
        )
    found = problems.summary
    if not quick and found.aggregates is None:
        cli.note("aggregates were not checked: what the index or the state lacks would make them look wrong")
    if left_out:
        rows = number_of(left_out.total(), "more value")
        cli.note(f"{rows} in question not shown: --format jsonl, csv or json has all")
    if not quick and found.expired_days:
        days = number_of(found.expired_days, "day")
        cli.note(f"aggregates of {days} were not checked: raw that they were made of has expired")
    if "unreadable" in found.kinds:
        return PARTLY
    return FOUND if found.damage else None


_SHOWN_VALUES = 50
"""Values in question that a table shows."""


def _noting(
    problems: Iterable[Problem], remedies: dict[str, None], left_out: Counter[str], shown_as: Format
) -> Iterator[Problem]:
    """Yield the problems, and note their remedies and how many values in question a table leaves out."""
    values = 0
    for problem in problems:
        if problem.remedy:
            remedies[problem.remedy] = None
        if problem.value is not None and shown_as in (Format.TABLE, Format.MD):
            values += 1
            if values > _SHOWN_VALUES:
                left_out[problem.kind] += 1
                continue
        yield problem


def next_steps(found: VerifyReport, remedies: Iterable[str], copy_of: str | None) -> tuple[str | None, str | None]:
    """Return what to do first, and what to type next. Remedies stand below the table, too: a cell breaks them."""
    from pik.usecases.care.verify_findings import ProblemKind

    note, line = None, None
    if ProblemKind.UNREADABLE in found.kinds:
        note = "objects are there and could not be read: give this user the right to, or restore them from a copy"
        line = command("verify")
    elif copy_of and found.kinds & {ProblemKind.MISSING, ProblemKind.MODIFIED}:
        note = "pull the same window again, into a new directory if objects of this one are modified"
        line = command("pull", "--store", copy_of, "--into", "DIR")
    elif found.kinds & {ProblemKind.MISSING, ProblemKind.MODIFIED}:
        note = "restore the named objects from a copy of the store first (raw is immutable: any copy will do)"
        line = command("verify", "--restore", "SOURCE")
    elif ProblemKind.INDEX in found.kinds:
        line = f"{command('verify', '--rebuild-index')}\n{command('verify')}"
    elif ProblemKind.UNKNOWN in found.kinds:
        note = "look at the unknown objects; pik neither wrote them nor reads them, and may be too old to know them"
    elif ProblemKind.STATE in found.kinds:
        note = "\n".join(remedies) or None
    elif ProblemKind.AGGREGATE in found.kinds:
        note = "the diff shows what the aggregates should be; replay and promote to correct them"
        line = command("diff", "aggregates")
    return note, line


def _no_problem(problems: Listing[Problem, VerifyReport]) -> str:
    """Return what was looked at."""
    found = problems.summary
    segments = number_of(found.segments, "segment")
    if found.depth == "quick":
        return f"no problem found in {segments}, of which presence and size were looked at"
    aggregates = "" if found.aggregates is None else f" and {number_of(found.aggregates, 'aggregate')}"
    earlier = f"; {number_of(found.taken_over.segments, 'segment')} checked earlier" if found.taken_over else ""
    return f"no problem found in {segments}{aggregates}{earlier}"


def _vouched(segments: int) -> str | None:
    return f"{segments:,}; their bytes were not read, --full reads them" if segments else None


def _result(problems: Listing[Problem, VerifyReport]) -> str:
    found = problems.summary
    text = f"{found.valid} of {found.segments} segments valid, {found.missing} missing, {found.modified} modified"
    unreadable = f", {found.unreadable} unreadable" if found.unreadable else ""
    expired = f", {found.expired} expired" if found.expired else ""
    return f"{text}{unreadable}, {found.not_indexed} not indexed{expired}"


def _not_provable(problems: Listing[Problem, VerifyReport]) -> str | None:
    lines = (
        f"{number_of(one.values, 'value')} of {one.metric}, {display_instant(one.first)} to"
        f" {display_instant(one.last)}, imported from {one.name or 'a file'} by run {one.run_id}"
        for one in problems.summary.not_provable
    )
    return "\n".join(lines) or None


def _found(name: str, about: str = "", get: str = "") -> Field:
    return Field(name, Count, about, get=f"summary.{get or name}")


VERIFY = Schema(
    "pik verify",
    Field("window", Window),
    Field(
        "check",
        str,
        "`full` (every byte is read; the default in a directory), `stored` (S3's own SHA-256 is taken where it keeps"
        " one; the default in a stack) or `quick`",
    ),
    Field("copy_of", str | None, "the store that this one is a copy of"),
    Rows("problems", "what is not as it was written", *PROBLEMS, *IN_QUESTION, empty=_no_problem),
    Field("result", str, "for people", get=_result),
    _found("segments", "segments of the window's days"),
    Field(
        "checked_by_s3",
        Count | None,
        "of these: S3's own SHA-256 is the recorded one, their bytes were not read; null: none",
        get=or_null("summary.vouched"),
        text=lambda problems: _vouched(problems.summary.vouched),
    ),
    Field(
        "segments_read",
        Count | None,
        "of these: every byte was read; null: see `check`",
        get=lambda problems: problems.summary.read if problems.summary.vouched else None,
    ),
    TAKEN_OVER,
    _found("valid"),
    _found("missing"),
    _found("expired", "expired, because the store keeps raw for a limited number of days; not damage"),
    _found("modified"),
    _found("unreadable", "there, but could not be read: no permission, a disk that fails"),
    _found("not_indexed", "raw objects that the index has lost"),
    _found("superseded", "objects that a crash left, whose deliveries are all indexed elsewhere; harmless"),
    _found(
        "unacknowledged",
        "objects whose deliveries were never acknowledged to a sender, or parts of corrections that were never"
        " recorded; harmless",
    ),
    _found("in_progress", "objects of batches that are being written"),
    Field(
        "replaced_objects",
        list[str] | None,
        "damaged objects of which a whole copy is read (`--restore`); harmless",
        get="summary.replaced",
    ),
    _found("deliveries", "in the segments"),
    Field(
        "aggregates",
        Count | None,
        "current ones that were checked; null: none, with `--quick` or where the index or the state lacks something",
        get="summary.aggregates",
        text=lambda problems: "not checked" if problems.summary.aggregates is None else None,
    ),
    Field(
        "proven_aggregates",
        Count | None,
        "of these: raw still holds exactly the inputs that it counted",
        get="summary.proven",
    ),
    _found("unproven_aggregates", "of these: raw has lost inputs", get="unproven"),
    _found(
        "uncertain_aggregates",
        "of these: what it counted is not certain, because others recorded while it was computed, or because which of "
        "equal deliveries counted was lost with the index; not damage",
        get="uncertain",
    ),
    _found(
        "incomplete_values",
        "of these: raw has lost deliveries that were recorded after it was computed, so that what it should be is"
        " not known; what it counted may be proven",
        get="incomplete",
    ),
    Field(
        "metrics_retired",
        list[str] | None,
        "metrics whose aggregates are not checked, because they are retired; null: none",
        get="summary.retired",
    ),
    _found("damage", "problems, without values in question"),
    Field(
        "not_provable",
        Object(
            Field("run_id", str),
            Field("metric", str),
            Field("of_values", Count, get="values"),
            Field("first", Bucket, "the first bucket", get=lambda one: shown_bucket(one.metric, one.first)),
            Field("last", Bucket, "the last bucket", get=lambda one: shown_bucket(one.metric, one.last)),
            Field("file", str | None, "its name; null: this is a copy, which has no runs", get="name"),
            Field("file_digest", str, "the SHA-256 of the file"),
            many=True,
            null=True,
        ),
        "current values that were imported, so it is not known what they count; not damage",
        get="summary.not_provable",
        text=_not_provable,
    ),
    NOTE,
    NEXT,
)
