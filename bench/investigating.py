"""Commands on a store: what is compared, verified, replayed, exported and explained."""

import shlex
from functools import partial

from bench.case import Pair, Step, peer_step
from bench.measure import CommandFailed
from bench.workspace import Workspace, copy, remove


def _diff(ws: Workspace, *, exact: bool = False) -> Step:
    return Step(ws.pik("diff", "aggregates", store=ws.aggregated(exact=exact)))


def diff(ws: Workspace) -> Pair:
    return Pair(ours=_diff(ws), peer=peer_step("duckdb_aggregate.py", ws.events()))


def diff_exact(ws: Workspace) -> Pair:
    return Pair(ours=_diff(ws, exact=True), peer=_diff(ws))


def of_many_entities(ws: Workspace, *, command: tuple[str, ...], entities: int) -> Pair:
    return Pair(ours=Step(ws.pik(*command, store=ws.many_entities(entities))))


def verify(ws: Workspace) -> Pair:
    return Pair(ours=Step(ws.pik("verify", "--full", store=ws.aggregated())), peer=_diff(ws))


def replay(ws: Workspace) -> Pair:
    store = ws.path("replayed")
    argv = ws.pik("replay", "--all", "--promote", "--yes", "--reason", "bench", store=store)
    return Pair(ours=Step(argv, partial(copy, ws.ingested(), store)), peer=_diff(ws))


def export(ws: Workspace) -> Pair:
    out = ws.path("events.parquet")
    manifest = out.with_name(f"{out.name}.manifest.json")

    def check(_stdout: str) -> None:
        if not out.is_file():
            raise CommandFailed("the export wrote no file")

    return Pair(
        ours=Step(ws.pik("export", "--out", out, store=ws.ingested()), partial(remove, out, manifest), check),
        peer=peer_step("duckdb_parquet.py", ws.events(), ws.path("peer.parquet")),
    )


def events(ws: Workspace) -> Pair:
    summary = ws.summary(ws.events())

    def check(stdout: str) -> None:
        if stdout.count("\n") < summary.entity_events:
            raise CommandFailed(f"only {stdout.count(chr(10))} lines for {summary.entity_events} events")

    window = ("--from", "2026-01-01", "--to", "2026-02-01")
    argv = ws.pik("events", "--entity", summary.entity, *window, store=ws.ingested())
    return Pair(ours=Step(argv, check=check), peer=typer_help())


def of_late(ws: Workspace, *, command: str, peer: str) -> Pair:
    """A command on a store into which late events came, against another one there or DuckDB's group-by. ENTITY and DAY
    stand for an entity with many events, and the bounds of one day."""
    entity = ws.summary(ws.events()).entity

    def step(line: str) -> Step:
        words = line.replace("DAY", "--from 2026-01-15 --to 2026-01-16").replace("ENTITY", entity).split()
        return Step(ws.pik(*words, store=ws.late()), codes=(0, 1))

    return Pair(ours=step(command), peer=step(peer) if peer else peer_step("duckdb_aggregate.py", ws.events()))


def diff_differing(ws: Workspace) -> Pair:
    argv = ws.pik("diff", "aggregates", "--limit", "5", store=ws.differing())
    return Pair(ours=Step(argv, codes=(1,)), peer=_diff(ws))


def triage_whole(ws: Workspace) -> Pair:
    """The checks of `triage`, against the same by commands of their own, one after the other."""
    store = ws.late()
    parts = [shlex.join(ws.pik(*part.split(), store=store)) for part in TRIAGE_PARTS]
    script = "; ".join(f"{part} || test $? -eq 1 || exit 4" for part in parts)
    return Pair(
        ours=Step(ws.pik("triage", store=store), codes=(0, 1)),
        peer=Step(("sh", "-c", script)),
    )


def of_million(ws: Workspace, *, command: str) -> Pair:
    """A command on the store with late events; FILE stands for what was ingested first."""
    argv = ws.pik(*(str(ws.events()) if word == "FILE" else word for word in shlex.split(command)), store=ws.late())
    return Pair(ours=Step(argv, codes=(0, 1)))


def explain_bucket(ws: Workspace, *, options: str) -> Pair:
    argv = ws.pik("explain", "all_events", "2026-01-01", *options.split(), store=ws.one_bucket())
    return Pair(ours=Step(argv, codes=(1,)))


TRIAGE_PARTS = ("diff aggregates --limit 5", "lag", "gaps", "duplicates --class suspect --limit 5", "verify --quick")

MILLION = {
    "diff-events": "diff events FILE",
    "sql": "sql \"SELECT source, count(*), sum((payload->>'value')::DECIMAL(18,6)) FROM events GROUP BY 1\"",
    "history": "history",
}
"""Commands whose time has no bar, and whose memory has."""


def typer_help() -> Step:
    return peer_step("typer_app.py", "--help")
