"""Ingests: of files, tables, documents, folders, and into stores that grow."""

import sys
from functools import partial
from pathlib import Path

from bench.case import Pair, Step, peer_step
from bench.documents import FIELDS as DOCUMENT_FIELDS
from bench.measure import CommandFailed
from bench.workspace import Workspace, copy, remove


def ingest(ws: Workspace, events: Path, *options: str, onto: Path | None = None, name: str = "store") -> Step:
    """Ingest into a fresh store, or into a copy of `onto`; the number of accepted events must be in the output."""
    store = ws.path(name)
    accepted = ws.summary(events).distinct

    def check(stdout: str) -> None:
        if str(accepted) not in stdout.replace(",", ""):
            raise CommandFailed(f"the ingest should have accepted {accepted} events, and said:\n{stdout.strip()}")

    before = partial(copy, onto, store) if onto else partial(ws.new_store, store)
    return Step(ws.pik("ingest", *options, events, store=store), before, check)


def ingest_duckdb(ws: Workspace) -> Pair:
    return Pair(
        ours=ingest(ws, ws.events()),
        peer=peer_step("duckdb_insert.py", ws.events_with_id(), ws.path("events.duckdb")),
    )


def ingest_same_job(ws: Workspace) -> Pair:
    return Pair(ours=ingest(ws, ws.events()), peer=peer_step("duckdb_same_job.py", ws.events(), ws.path("same-job")))


def ingest_sqlite_utils(ws: Workspace) -> Pair:
    program, database = Path(sys.executable).with_name("sqlite-utils"), ws.path("events.db")
    argv = (program, "insert", database, "events", ws.events_with_id(), "--nl", "--pk", "id", "--ignore")
    return Pair(ours=ingest(ws, ws.events()), peer=Step(tuple(map(str, argv)), partial(remove, database)))


def ingest_again(ws: Workspace) -> Pair:
    first = ingest(ws, ws.events())
    return Pair(ours=Step(ws.pik("ingest", "--again", ws.events(), store=ws.path("store"))), peer=first)


def ingest_exact(ws: Workspace) -> Pair:
    return Pair(ours=ingest(ws, ws.events(exact=True), name="store-exact"), peer=ingest(ws, ws.events()))


def ingest_mapped(ws: Workspace) -> Pair:
    fields = ("source", "event_type", "entity_id", "event_time", "payload")
    options = [word for field in fields for word in ("--map", f"{field}={field}")]
    return Pair(ours=ingest(ws, ws.events(), *options, name="store-mapped"), peer=ingest(ws, ws.events()))


def ingest_table(ws: Workspace, *, ending: str) -> Pair:
    """An ingest of a table against one of the same rows as JSON lines."""

    def step(kind: str) -> Step:
        store = ws.path(f"store-{kind}")

        def check(stdout: str) -> None:
            if str(ws.rows) not in stdout.replace(",", ""):
                raise CommandFailed(f"the ingest should have accepted {ws.rows} rows, and said:\n{stdout.strip()}")

        options = [word for field in TABLE_FIELDS for word in ("--map", field)]
        argv = ws.pik("ingest", ws.table(kind), *options, store=store)
        return Step(argv, partial(ws.new_store, store), check)

    return Pair(ours=step(ending), peer=step("jsonl"))


def ingest_document(ws: Workspace, *, records: int) -> Pair:
    """An ingest of the records in a document against one of the same records as JSON lines."""

    def step(name: str, *options: str, as_lines: bool) -> Step:
        store = ws.path(f"store-{name}")

        def check(stdout: str) -> None:
            if str(records) not in stdout.replace(",", ""):
                raise CommandFailed(f"the ingest should have accepted {records} records, and said:\n{stdout.strip()}")

        maps = [word for field in DOCUMENT_FIELDS for word in ("--map", field)]
        argv = ws.pik("ingest", ws.records(records, as_lines=as_lines), *options, *maps, store=store)
        return Step(argv, partial(ws.new_store, store), check)

    document = step("document", "--records", "Records[]", as_lines=False)
    return Pair(ours=document, peer=step("lines", as_lines=True))


def ingest_memory(ws: Workspace, *, lines: int, one_day: bool = False) -> Pair:
    return Pair(ours=ingest(ws, ws.events(lines, one_day=one_day)))


def _durable(ws: Workspace, inputs: tuple[str | Path, ...], accepted: int, objects: int) -> Pair:
    """An ingest that creates so many objects, and a loop that creates as many files."""
    store = ws.path("store")

    def check(stdout: str) -> None:
        if f"{accepted:,}" not in stdout:
            raise CommandFailed(f"the ingest should have accepted {accepted} events, and said:\n{stdout[-2000:]}")

    return Pair(
        ours=Step(ws.pik("ingest", *inputs, store=store), partial(ws.new_store, store), check),
        peer=peer_step("create_files.py", str(objects), ws.path("files")),
    )


def ingest_days(ws: Workspace, *, days: int) -> Pair:
    return _durable(ws, (ws.days(days),), days, objects=days)


def ingest_tiny(ws: Workspace, *, files: int) -> Pair:
    return _durable(ws, (f"{ws.tiny(files)}/*.jsonl",), 3 * files, objects=2 * files)  # a segment and a record each


def ingest_folder(ws: Workspace, *, files: int, lines: int) -> Pair:
    """A folder as one batch, and the same lines in one file."""
    folder = ws.tiny(files, lines)

    def step(name: str, *arguments: str | Path) -> Step:
        store, accepted = ws.path(f"store-{name}"), f"{files * lines:,}"

        def check(stdout: str) -> None:
            if accepted not in stdout:
                raise CommandFailed(f"the ingest should have accepted {accepted} events, and said:\n{stdout[-2000:]}")

        return Step(ws.pik("ingest", *arguments, store=store), partial(ws.new_store, store), check)

    return Pair(ours=step("folder", folder, "--one-batch"), peer=step("file", ws.joined(folder)))


def ingest_growth(ws: Workspace) -> Pair:
    tenth = ingest(ws, ws.events(seed=110), onto=ws.grown(9), name="tenth")
    return Pair(ours=tenth, peer=ingest(ws, ws.events(seed=101)))


TABLE_FIELDS = ("source=source", "event_type=event_type", "entity_id=entity_id", "event_time=event_time", "payload=@")
