"""What to type next about a run."""

from __future__ import annotations

from pik.errors import after_success, command, in_turn
from pik.model.run import Run, RunRequest, RunState

WHOLE = command("verify", "--full")
"""Comes before a repair that removes values: lost raw looks as if there had been no events."""


def next_command(run: Run) -> str | None:
    """Return what to type next about a run. That ends somewhere: a dead letter says what helps, a promotion is last."""
    if run.state in (RunState.PLANNED, RunState.RUNNING):
        return command("runs", "resume", run.run_id)
    if run.state == RunState.CANCELLED:
        return replay_command(run.request)
    if run.failed:
        return command("dlq", "list", "--run", run.run_id)
    if run.promoted >= run.values or not run.new + run.changed + run.removed:
        return None
    diff = command("diff", "aggregates", "--run", run.run_id)
    if run.removed:
        diff = after_success(WHOLE, diff)
    return diff if run.request.include_duplicates else in_turn(diff, command("promote", run.run_id))


def replay_command(request: RunRequest) -> str:
    """The command that computes the same again."""
    words = ["replay"]
    filters = {"--source": request.source, "--type": request.event_type}
    for entity in request.entities:
        words += ["--entity", entity]
    if not request.entities and not any(filters.values()):
        words.append("--all")
    times = {"--from": request.window.from_text, "--to": request.window.to_text}
    for option, text in {**times, **filters}.items():
        words += [option, text] if text else []
    for metric in request.metrics:
        words += ["--metric", metric]
    if request.include_duplicates:
        words.append("--include-duplicates")
    return command(*words)
