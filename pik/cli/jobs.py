"""Commands that run as a job: `--on emr-serverless://APPLICATION?role=ARN`.

The command line is checked here first, as for any cluster. What a job could not do as this process would is refused.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pik.cli.context import Checked, Context
from pik.cli.text import writing_output
from pik.errors import UsageError

_NOT_SHARED = "workers of EMR Serverless share no directory, and leave no file here"

_INGESTED = "copy files to S3, and name s3://BUCKET/PREFIX"


def submit(cli: Context, location: str, run: Callable[[], int | None]) -> int | None:
    """Run the command as a job at this location, and return its exit code; `run` runs it here. Raises PikError for what
    is wrong with the command line, and what a job cannot do; and as `Context.run_job`."""
    try:
        with cli.checking():
            return run()
    except Checked:
        pass
    store = cli.settings.store
    if not store.startswith("aws://"):
        raise UsageError(
            f"--on {location}: a job cannot reach the store {store}, which is on this machine",
            hint="--store aws://STACK, or leave --on out",
        )
    _expect_possible(cli, location)
    return cli.run_job(location, list(_files(cli)), _write_error, _write_output)


def _expect_possible(cli: Context, location: str) -> None:
    """Raise UsageError for what a job reads, writes or asks on this machine."""
    if "promote" in cli.typed and not cli.typed.keys() & {"yes", "dry_run"}:
        raise UsageError("confirmation required, which a job cannot ask for", hint="add --yes")
    for name, hint in (("out", "export on an instance in the region"), ("rejects", "`pik batches BATCH` has them")):
        if name in cli.typed:
            option, value = cli.typed[name][:2]
            raise UsageError(f"{option} {value} does not go with --on {location}: {_NOT_SHARED}", hint=hint)
    for one in cli.typed.get("files", ()):
        if not one.startswith("s3://"):
            raise UsageError(f"{one} is on this machine, and --on {location} reads objects in S3", hint=_INGESTED)


def _files(cli: Context) -> Iterator[str]:
    """Yield the files that options name, which go with the job under the same names. Raises UsageError."""
    for path in dict.fromkeys(_named(cli)):
        if path == "-":
            raise UsageError("standard input does not go to a job", hint="write it to a file")
        place = Path(path)
        if not place.exists():
            continue  # the job says so as this process would
        if not place.is_file() or place.is_absolute() or ".." in place.parts:
            raise UsageError(
                f"{path}: only files below the current directory go to a job", hint="copy it here, and name the copy"
            )
        yield path


def _named(cli: Context) -> Iterator[str]:
    """Yield what options name as a file."""
    from pik.model.assumption_text import read_assumption
    from pik.model.scenario import OtherDefinition, With

    yield from cli.typed.get("against", ())[1::2]
    yield from (one.removeprefix("file:") for one in cli.typed.get("left", ())[1::2] if one.startswith("file:"))
    found: list[str] = []

    def ids_in(path: str) -> tuple[str, ...]:
        found.append(path)
        return ()

    for text in cli.typed.get("assume", ())[1::2]:
        assumed = read_assumption(text, ids_in)
        if isinstance(assumed, With | OtherDefinition):
            found.append(assumed.path)
    yield from found


def _write_error(data: bytes) -> None:
    sys.stderr.write(data.decode("utf-8", errors="backslashreplace"))
    sys.stderr.flush()


def _write_output(path: Path) -> None:
    with path.open("rb") as written, writing_output():
        sys.stdout.flush()
        shutil.copyfileobj(written, sys.stdout.buffer)
        sys.stdout.flush()  # a failure shows here at the latest, while the job's files still exist
