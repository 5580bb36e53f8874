"""Running real commands in the directory of a demo."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pik.errors import AlreadyExists, PikError

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "pik")
"""What runs a command line."""

_READER_LEFT = 141


class Step(NamedTuple):
    """What happens, what is typed then, and the exit code that it must have. RUN stands for the newest run."""

    story: str
    line: str
    code: int = 0


def play(steps: Sequence[Step], directory: Path, form: str, settings: Mapping[str, str]) -> int:
    """Tell and run the steps, as a user with these settings would; return the exit code. Raises PikError where a
    command ends with another one than it must have."""
    for step in steps:
        print(f"\n# {step.story}")
        line = step.line
        if "RUN" in line:
            line = line.replace("RUN", _newest_run(directory, settings))
        print(f"$ {line}", flush=True)
        code = run(line, directory, form, settings).returncode
        if code == _READER_LEFT:
            return code
        if code != step.code:
            raise PikError(f"`{line}` ended with exit code {code}, not {step.code}", hint=f"it ran in {directory}")
        if code:
            print(f"(exit code {code})")
    return 0


def _newest_run(directory: Path, settings: Mapping[str, str]) -> str:
    listed = run("pik runs list", directory, "json", settings, capture=True)
    return str(json.loads(listed.stdout)["runs"][0]["run_id"])


def new_directory(directory: Path | None) -> Path:
    """Create the directory, or a temporary one. Raises AlreadyExists."""
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="pik-demo-"))
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise AlreadyExists(f"{directory} is there already", hint="--dir names a directory to be made") from None
    return directory


def run(
    line: str, directory: Path, form: str, settings: Mapping[str, str], *, capture: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in the demo's directory, as a user with these settings would: with none of the caller's but the
    format, and without a pager."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
    ours |= {"PIK_FORMAT": form, "PIK_PAGER": "cat", **settings}
    command = [*PROGRAM, *shlex.split(line)[1:]]
    output = subprocess.PIPE if capture else None
    return subprocess.run(command, cwd=directory, env=ours, stdout=output, stderr=output, check=False)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an incident happens: its directory, with a store in it."""

    directory: Path

    def pik(self, actor: str, line: str, code: int = 0) -> Any:
        """Run a command of this actor; return its JSON. Raises PikError where it ends with another exit code."""
        done = run(f"pik {line}", self.directory, "json", {"PIK_ACTOR": actor}, capture=True)
        if done.returncode != code:
            reason = done.stderr.decode(errors="replace").strip()
            raise PikError(
                f"`pik {line}` ended with exit code {done.returncode}, not {code}: {reason}",
                hint=f"it ran in {self.directory}",
            )
        return json.loads(done.stdout) if done.stdout else None
