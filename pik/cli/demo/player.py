"""Running real commands in the directory of a demo."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pik.errors import AlreadyExists, PikError

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "pik")
"""What runs a command line."""


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
    line: str, directory: Path, form: str, *, actor: str = "", capture: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a user would, in the demo's directory, with none of the caller's settings but the format, and
    without a pager."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
    ours |= {"PIK_FORMAT": form, "PIK_PAGER": "cat"}
    if actor:
        ours["PIK_ACTOR"] = actor
    command = [*PROGRAM, *shlex.split(line)[1:]]
    output = subprocess.PIPE if capture else None
    return subprocess.run(command, cwd=directory, env=ours, stdout=output, stderr=output, check=False)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an incident happens: its directory, with a store in it."""

    directory: Path

    def pik(self, actor: str, line: str, code: int = 0) -> Any:
        """Run a command of this actor; return its JSON. Raises PikError where it ends with another exit code."""
        done = run(f"pik {line}", self.directory, "json", actor=actor, capture=True)
        if done.returncode != code:
            reason = done.stderr.decode(errors="replace").strip()
            raise PikError(
                f"`pik {line}` ended with exit code {done.returncode}, not {code}: {reason}",
                hint=f"it ran in {self.directory}",
            )
        return json.loads(done.stdout) if done.stdout else None
