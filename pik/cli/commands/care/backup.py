"""`pik backup`, `pik restore`: the state, which raw does not hold, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pik.cli import options
from pik.cli.command import PARTLY, cli_command
from pik.cli.context import Context
from pik.cli.document import Field, Schema
from pik.cli.options import argument
from pik.cli.values import Count, Instant, Shown
from pik.errors import number_of
from pik.model.instant import display_instant

if TYPE_CHECKING:
    from pik.usecases.care.backup import BackupReport


_NAMES = {
    "metric": "definition",
    "run": "run",
    "task": "task",
    "version": "version",
    "promotion": "promotion",
    "current": "current value",
    "letter": "dead letter",
    "republish": "republish",
    "refusal": "refusal",
}

_NewFile = Annotated[Path, argument("FILE", "The file to create.", show_default=False)]


@cli_command(
    "backup",
    examples="""
    # every night, while others write; back up raw by copying its files
    pik backup state-$(date +%F).backup

    # a stack
    pik --store aws://pik-prod backup pik-prod.backup
    """,
)
def backup(cli: Context, file: _NewFile) -> int | None:
    """Write the state to a new file: metric definitions, runs, aggregates, promotions, republishes.

    It contains no events: back up raw by copying its objects; the index can be rebuilt from raw. The file is created
    completely or not at all, and never overwritten. If damaged versions that are not current are left out, the exit
    code is 3.
    """
    from pik.usecases.care.backup import backup as write

    done = write(cli.open_store(), file, cli.progress)
    cli.show(BACKUP, done, outcome="backed up")
    return PARTLY if done.omitted else None


def _omitted(report: BackupReport) -> list[str]:
    return [
        f"version of {one.metric} of {one.entity} in {display_instant(one.bucket)} by run {one.run_id}"
        for one in report.omitted
    ]


def _holds(report: BackupReport) -> Shown:
    holds = {_NAMES[kind]: count for kind, count in report.rows.items()}
    text = ", ".join(number_of(count, name) for name, count in holds.items())
    return Shown(holds, text.replace("republishs", "republishes"))


BACKUP = Schema(
    "pik backup, pik restore",
    Field("file", str, get="path"),
    Field("outcome", str, "`backed up`, `restored`; `nothing, a dry run`, and whether the store would refuse it"),
    Field("source", str, "the store that was backed up"),
    Field("made_at", Instant, "when"),
    Field("made_by", str, "by which program"),
    Field("bytes", Count, "of the file", get="size"),
    Field("digest", str, "SHA-256 of what it holds, as its seal has it"),
    Field("omitted_versions", list[str] | None, "damaged ones that are not current: not in the backup", get=_omitted),
    Field(
        "lacking", list[str] | None, "in files of `state/`, not in the backup; the files are now in `state/replaced/`"
    ),
    Field(
        "holds",
        dict[str, int],
        "by kind: `definition` (of metrics, each version), `run`, `task`, `version` (of aggregates), `promotion`"
        " (rollbacks too), `current value`, `dead letter` (purged ones too), `republish`, `refusal` (what a target did"
        " not take)",
        get=_holds,
    ),
)

_BackupFile = Annotated[Path, argument("FILE", "The backup.", show_default=False)]


@cli_command(
    "restore",
    examples="""
    # is the file complete, and what does it contain?
    pik restore state-2026-03-02.backup --dry-run

    # into a store whose state was lost, or into a new one, here or in AWS
    pik restore state-2026-03-02.backup
    """,
)
def restore(cli: Context, file: _BackupFile, dry_run: options.DryRun = False) -> int | None:
    """Restore a backup into a store without state. After an interruption, the same command continues.

    A store that has state is refused; --dry-run reads the file all the same, with exit code 3. The file is checked
    before anything is written, and the state afterwards. Definitions and promotions that the files in `state/` show to
    be newer than the backup are listed: exit code 3.
    """
    from pik.usecases.care.backup import restore as take

    done = take(cli.open_store(), file, cli.progress, dry_run=dry_run)
    outcome = "nothing, a dry run" if dry_run else "restored"
    if done.refused:
        outcome += "; this store has state, so it would be refused"
    cli.show(BACKUP, done, outcome=outcome)
    return PARTLY if done.lacking or done.refused else None
