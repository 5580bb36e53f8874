"""`pik demo`: one small incident, played with the real commands."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pik.cli.command import FOUND, cli_command
from pik.cli.context import Context
from pik.cli.demo.incidents import INCIDENTS, Incident
from pik.cli.demo.player import Scene, Step, new_directory, play, run
from pik.cli.demo.shop import write_data
from pik.cli.options import option
from pik.errors import UsageError


@cli_command(
    "demo",
    examples="""
    pik demo
    pik demo --dir ./pik-demo

    # a store that is broken in one way, to play a runbook on it
    pik demo --list
    pik demo --incident late-events --dir ./incident
    """,
)
def demo(
    cli: Context,
    directory: Annotated[
        Path | None, option("--dir DIR", "Play in this new directory, not in a temporary one.")
    ] = None,
    incident: Annotated[
        str | None, option("--incident NAME", "Make a store that is broken in one way, and leave it so; see --list.")
    ] = None,
    listed: Annotated[bool, option("--list", "List the incidents, with their symptoms.")] = False,
) -> int:
    """Play one small incident end to end: numbers, a retry storm, late events, the difference, the repair.

    Every line that begins with $ is a real command, and what follows is what it prints. Nothing of yours is touched:
    the store lives in a new directory.

    With --incident a store is made that is broken in one way, and nothing is repaired: that is for you, with the
    runbook of the same name in docs/runbooks. The first command to type is printed.
    """
    if listed:
        width = max(map(len, INCIDENTS))
        print("\n".join(f"{one.name:{width}}  {one.symptom}" for one in INCIDENTS.values()))
        return 0
    if incident is not None:
        return _make(_known(incident), directory)
    place = new_directory(directory)
    write_data(place)
    print(f"A demo in {place}")
    run("pik init --store .pik", place, "json", {}, capture=True)  # the demo must not use a store of a parent directory
    code = play(STEPS, place, cli.settings.format, {})
    if code:
        return code
    print(NEXT.format(directory=shlex.quote(str(place)), report=REPORT), end="")
    return 0


def _known(name: str) -> Incident:
    if name not in INCIDENTS:
        raise UsageError(f"unknown incident '{name}'; there are {', '.join(INCIDENTS)}", hint="pik demo --list")
    return INCIDENTS[name]


def _make(incident: Incident, directory: Path | None) -> int:
    place = new_directory(directory)
    scene = Scene(place)
    scene.pik("nightly", "init --store .pik")  # it must not use a store of a parent directory
    incident.make(scene)
    print(MADE.format(incident=incident, directory=shlex.quote(str(place))))
    return 0


_DAY = "--from 2026-03-02 --to 2026-03-03"
_EVENING = "--from 2026-03-02T19:00:00Z --to 2026-03-02T22:00:00Z"


REPORT = "report.html" if find_spec("vl_convert") else "report.md"
"""The report of the incident; as a page it needs the extra `report`."""


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
        "All of it on one page, for the incident document.",
        f"pik report --incident late-events {_DAY} --out {REPORT} --quiet",
        FOUND,
    ),
    Step(
        "Compute the day again, beside what is current.", f"pik replay --all {_DAY} --reason 'late events of 2 March'"
    ),
    Step("It says what we expect: make it current.", "pik promote RUN --reason 'late events of 2 March' --yes"),
    Step("Now the numbers are right: exit code 0.", f"pik diff aggregates {_DAY} --changed-only"),
    Step("The day's events for the post-mortem.", f"pik export --out post-mortem {_DAY}"),
    Step("And everything in the store is what it was when it was written.", "pik verify"),
)

MADE = """\
{incident.symptom}

Type this first:

  cd {directory}
  {incident.first}

Then follow docs/runbooks/{incident.name}.md.
Whatever you do, you cannot break more than this directory."""
"""What is said of an incident that was made."""

NEXT = """
That was all. The demo's store stays in {directory}; look around with

  cd {directory}
  pik show ba221f70                      # a payment that came six times, once with another amount
  pik aggregates --entity customer-17 --history

Next, on a file of your own:

  pik ingest events.jsonl                # one JSON object a line: source, event_type, entity_id, event_time, payload
  pik ingest --help                      # ... or any other fields, with --map
  pik status                             # what the store holds
  pik events --entity ID --since 2h      # what really arrived

The report of the incident, made before the repair, is a file for the post-mortem:

  {directory}/{report}
"""
"""The words at the end; `directory` is where it was played, `report` the name of the report."""
