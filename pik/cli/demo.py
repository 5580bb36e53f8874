"""`pik demo`: one small incident, played with the real commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pik.cli.command import FOUND, Commands
from pik.cli.context import Context
from pik.errors import AlreadyExists, PikError

commands = Commands()

_DAY = "--from 2026-03-02 --to 2026-03-03"
_EVENING = "--from 2026-03-02T19:00:00Z --to 2026-03-02T22:00:00Z"
_READER_LEFT = 141


@dataclass(frozen=True, slots=True)
class Step:
    """What happens, what is typed then, and the exit code that it must have. RUN stands for the newest run."""

    story: str
    line: str
    code: int = 0


STEPS = (
    Step("Monday, 2 March: a shop's events, as the pipeline received them.", "pik ingest monday.jsonl"),
    Step("What is computed from them: event_count is built in, revenue is ours.", "pik metrics apply metrics.toml"),
    Step(
        "The numbers of the day, computed and made current.",
        f"pik replay --all {_DAY} --reason 'numbers of 2 March' --promote --yes",
    ),
    Step(
        "Tuesday, 06:00: a producer retries for half an hour, and an app that was offline sends what it kept.",
        "pik ingest tuesday-morning.jsonl",
    ),
    Step("How bad were the retries? None of them counts twice.", f"pik duplicates {_DAY} --by type"),
    Step(
        "Three came back with another amount under the same key.",
        f"pik duplicates {_DAY} --class conflict --show-payload-diff",
    ),
    Step(
        "Are Monday's numbers still right? They are not: exit code 1.",
        f"pik diff aggregates {_DAY} --changed-only",
        FOUND,
    ),
    Step("Which events explain it? Those that came ten hours late.", f"pik events --entity customer-17 {_EVENING}"),
    Step(
        "Compute the day again, beside what is current.",
        f"pik replay --all {_DAY} --reason 'late events of 2 March'",
    ),
    Step("It says what we expect: make it current.", "pik promote RUN --reason 'late events of 2 March' --yes"),
    Step("Now the numbers are right: exit code 0.", f"pik diff aggregates {_DAY} --changed-only"),
    Step("The day's events for the post-mortem.", f"pik export --out post-mortem {_DAY}"),
    Step("And everything in the store is what it was when it was written.", "pik verify"),
)

_NEXT = """
That was all. The demo's store stays in {directory}; look around with

  cd {directory}
  pik show ba221f70                      a payment that came six times, once with another amount
  pik aggregates --entity customer-17 --history

Next, on a file of your own:

  pik ingest events.jsonl                one JSON object a line: source, event_type, entity_id, event_time, payload
  pik ingest --help                      ... or any other fields, with --map
  pik status                             what the store holds
  pik events --entity ID --since 2h      what really arrived
"""


@commands.add(
    "demo",
    examples="""
    pik demo
    pik demo --dir ./pik-demo
    """,
)
def demo(
    cli: Context,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Play in this new directory, not in a temporary one.")
    ] = None,
) -> int:
    """Play one small incident end to end: numbers, a retry storm, late events, the difference, the repair.

    Every line that begins with $ is a real command, and what follows is what it prints. Nothing of yours is touched:
    the store lives in a new directory.
    """
    from pik.cli.demo_data import write

    place = _new(directory)
    write(place)
    print(f"A demo in {place}")
    for step in STEPS:
        print(f"\n# {step.story}")
        line = step.line.replace("RUN", _newest_run(place)) if "RUN" in step.line else step.line
        print(f"$ {line}", flush=True)
        code = _run(line, place, cli.settings.format).returncode
        if code == _READER_LEFT:
            return code
        if code != step.code:
            raise PikError(f"`{line}` ended with exit code {code}, not {step.code}", hint=f"it ran in {place}")
        if code:
            print(f"(exit code {code})")
    print(_NEXT.format(directory=place))
    return 0


def _new(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="pik-demo-"))
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise AlreadyExists(f"{directory} is there already", hint="--dir names a directory to be made") from None
    return directory


def _run(line: str, place: Path, form: str, *, capture: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a user would, in the demo's directory, with none of the caller's settings but the format."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")} | {"PIK_FORMAT": form}
    command = [sys.executable, "-m", *shlex.split(line)]
    return subprocess.run(command, cwd=place, env=ours, stdout=subprocess.PIPE if capture else None, check=False)


def _newest_run(place: Path) -> str:
    listed = _run("pik runs list", place, "json", capture=True)
    return str(json.loads(listed.stdout)["runs"][0]["run_id"])
