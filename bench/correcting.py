"""Cases of corrections."""

from functools import partial

from bench.case import Pair, Step
from bench.workspace import Workspace, copy


def correct(ws: Workspace, ingest: Step) -> Pair:
    """Record a correction of all events, without its plan, against their ingest."""
    store = ws.path("to-correct")
    argv = ws.pik("correct", "--assume", "shift=1h,from=2020-01-01", "--reason", "bench", store=store)
    before = partial(copy, ws.aggregated(), store)
    plan = Step((*argv, "--dry-run"), before)
    return Pair(ours=Step((*argv, "--yes"), before, less=plan), peer=ingest)


def diff_corrected(ws: Workspace, *, everything: bool = False) -> Pair:
    def diff(store: str) -> Step:
        argv = ws.pik("diff", "aggregates", "--limit", "5", store=ws.path(store))
        return Step(argv, codes=(1,))

    if everything:
        ws.corrected("shift=1h,from=2020-01-01", "corrected-all")
        return Pair(ours=diff("corrected-all"))
    ws.corrected(A_TENTH, "corrected")
    ws.differing_like("corrected")
    return Pair(ours=diff("corrected"), peer=diff("differing-like-corrected"))


A_TENTH = "shift=1d,from=2026-01-10,to=2026-01-13"


def events_corrected(ws: Workspace) -> Pair:
    """An entity's window reads only what concerns it."""
    ws.corrected("shift=1h,from=2020-01-01", "corrected-all")
    entity = ws.summary(ws.events()).entity
    window = ("--from", "2026-01-15", "--to", "2026-01-16")
    ours, peer = (
        Step(ws.pik("events", "--entity", entity, *window, store=store))
        for store in (ws.path("corrected-all"), ws.aggregated())
    )
    return Pair(ours=ours, peer=peer)
