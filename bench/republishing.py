"""Cases of republish."""

import sys
from functools import partial

from bench.case import PEERS, Pair, Step
from bench.measure import CommandFailed
from bench.workspace import Workspace, copy, remove


def _steps(ws: Workspace, lines: int, ours: str, peer: str) -> tuple[Step, Step]:
    """The republish of a file's events to a target, and the same by hand to another one; the number of distinct events
    must be in their output."""
    events, store = ws.events(lines), ws.path("to-republish")
    distinct = f"{ws.summary(events).distinct:,}"

    def check(stdout: str) -> None:
        if distinct not in stdout:
            raise CommandFailed(f"{distinct} events should have been sent; the output was:\n{stdout.strip()}")

    def before(target: str) -> None:
        copy(ws.only_ingested(lines), store)
        remove(ws.path(target))

    argv = ws.pik("republish", "--all", "--yes", "--reason", "bench", "--target", ours, store=store)
    by_hand = (sys.executable, str(PEERS / "send_lines.py"), str(events), peer)
    return Step(argv, partial(before, ours), check), Step(by_hand, partial(remove, ws.path(peer)), check)


def republish_file(ws: Workspace, *, lines: int) -> Pair:
    """Send events to a file."""
    ours, peer = _steps(ws, lines, str(ws.path("sent.ndjson")), str(ws.path("sent-by-hand.ndjson")))
    return Pair(ours=ours, peer=peer)


def republish_http(ws: Workspace, *, lines: int) -> Pair:
    """Send events to a service on this machine."""
    ours, peer = (
        Step((sys.executable, str(PEERS / "with_http.py"), *step.argv), step.before, step.check)
        for step in _steps(ws, lines, "URL", "URL")
    )
    return Pair(ours=ours, peer=peer)
