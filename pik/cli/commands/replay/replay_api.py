"""`pik replay --via api`: the stack replays, this follows."""

from __future__ import annotations

from pik.cli import options
from pik.cli.commands.replay.run_fields import exit_code, outcome_fields, plan_fields
from pik.cli.context import Context
from pik.cli.render import Document
from pik.errors import NothingSelected, UsageError, command
from pik.model.run import Run, RunRequest, RunState


def expect_possible(request: RunRequest, rate: float | None, promote: bool) -> None:
    """Raises UsageError for an option that the API does not have."""
    without = "leave --via out"
    options.unknown_to_the_api(
        {
            "--source": (request.source is not None, f"the API replays all of an entity's buckets; {without}"),
            "--type": (request.event_type is not None, f"the API replays all of an entity's buckets; {without}"),
            "--all": (not request.entities, f"the API replays one --entity; {without} for more"),
            "more than one --entity": (len(request.entities) > 1, "call it once for each entity"),
            "--rate": (rate is not None, "the stack's parameter ProcessorConcurrency limits its processors"),
            "--promote": (promote, "the API promotes nothing; when the run has ended: pik promote RUN"),
            "a window without two ends": (not request.window.bounded, "--from TIME --to TIME"),
        }
    )


def replay(cli: Context, request: RunRequest, *, dry_run: bool, wait: bool) -> int | None:
    """Begin a run, follow it to its end unless told not to, and show what became of it."""
    from pik.usecases.replay.execute import follow

    api = cli.open_api()
    planned = api.replay(request, dry_run=dry_run)
    if planned.events_matched == 0 and dry_run:
        raise _nothing(planned)
    if dry_run:
        if planned.events_matched is None:
            raise UsageError(
                f"{request.window} is too large for the API to count in one call",
                hint="leave --dry-run out to replay it, --via api to count it, or ask for less",
            )
        cli.show(Document(head={**plan_fields(planned), "dry_run": True}))
        return None
    waits = command("runs", "wait", planned.run_id)
    cli.note(f"run {planned.run_id} began; it goes on without this command, and {waits} waits")
    run = follow(api, planned, cli.progress, to_its_end=wait)
    if run.state == RunState.COMPLETED and run.events_matched == 0 and not run.values:
        raise _nothing(run)
    head = {**plan_fields(run), "resumed": False, **outcome_fields(run)}
    cli.show(Document(head=head))
    return None if run.state in (RunState.PLANNED, RunState.RUNNING) else exit_code(run)


def _nothing(run: Run) -> NothingSelected:
    entities = run.request.entities
    whose = f" of {', '.join(map(repr, entities))}" if entities else ""
    return NothingSelected(
        f"nothing to replay: there is no such event{whose} in {run.request.window}",
        hint="its events of all time: pik events --entity ID" if entities else "when there are any: pik status",
    )
