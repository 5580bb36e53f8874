"""`pik demo`: one small incident, played with the real commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pik.cli.command import Commands
from pik.cli.context import Context
from pik.cli.demo.story import NEXT, STEPS
from pik.errors import AlreadyExists, PikError

commands = Commands()

_READER_LEFT = 141


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
    from pik.cli.demo.data import write

    place = _new(directory)
    write(place)
    print(f"A demo in {place}")
    _run("pik init --store .pik", place, "json", capture=True)  # the demo must not use a store of a parent directory
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
    print(NEXT.format(directory=shlex.quote(str(place))))
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
