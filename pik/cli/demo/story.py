"""What `pik demo` plays: the story, step by step."""

from __future__ import annotations

from dataclasses import dataclass

from pik.cli.command import FOUND

_DAY = "--from 2026-03-02 --to 2026-03-03"
_EVENING = "--from 2026-03-02T19:00:00Z --to 2026-03-02T22:00:00Z"


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
"""
"""What is said at the end; `directory` is where it was played."""
