"""What is measured: each case is a peer's command, ours, and the bar for the ratio of the two."""

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.case import Case, Pair, Step
from bench.correcting import correct, diff_corrected, events_corrected
from bench.documents import FIELDS as DOCUMENT_FIELDS
from bench.measure import CommandFailed
from bench.republishing import republish_file, republish_http
from bench.workspace import Workspace, copy, remove

PEERS = Path(__file__).with_name("peers")
MEMORY_MIB = 400


def _peer(script: str, *args: str | Path, before: Callable[[], None] = lambda: None) -> Step:
    return Step((sys.executable, str(PEERS / script), *map(str, args)), before)


def _ingest(ws: Workspace, events: Path, *options: str, onto: Path | None = None, name: str = "store") -> Step:
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
        ours=_ingest(ws, ws.events()),
        peer=_peer("duckdb_insert.py", ws.events_with_id(), ws.path("events.duckdb")),
    )


def ingest_same_job(ws: Workspace) -> Pair:
    return Pair(ours=_ingest(ws, ws.events()), peer=_peer("duckdb_same_job.py", ws.events(), ws.path("same-job")))


def ingest_sqlite_utils(ws: Workspace) -> Pair:
    program, database = Path(sys.executable).with_name("sqlite-utils"), ws.path("events.db")
    argv = (program, "insert", database, "events", ws.events_with_id(), "--nl", "--pk", "id", "--ignore")
    return Pair(ours=_ingest(ws, ws.events()), peer=Step(tuple(map(str, argv)), partial(remove, database)))


def ingest_again(ws: Workspace) -> Pair:
    first = _ingest(ws, ws.events())
    return Pair(ours=Step(ws.pik("ingest", "--again", ws.events(), store=ws.path("store"))), peer=first)


def ingest_exact(ws: Workspace) -> Pair:
    return Pair(ours=_ingest(ws, ws.events(exact=True), name="store-exact"), peer=_ingest(ws, ws.events()))


def ingest_mapped(ws: Workspace) -> Pair:
    fields = ("source", "event_type", "entity_id", "event_time", "payload")
    options = [word for field in fields for word in ("--map", f"{field}={field}")]
    return Pair(ours=_ingest(ws, ws.events(), *options, name="store-mapped"), peer=_ingest(ws, ws.events()))


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
    return Pair(ours=_ingest(ws, ws.events(lines, one_day=one_day)))


def _durable(ws: Workspace, inputs: tuple[str | Path, ...], accepted: int, objects: int) -> Pair:
    """An ingest that creates so many objects, and a loop that creates as many files."""
    store = ws.path("store")

    def check(stdout: str) -> None:
        if f"{accepted:,}" not in stdout:
            raise CommandFailed(f"the ingest should have accepted {accepted} events, and said:\n{stdout[-2000:]}")

    return Pair(
        ours=Step(ws.pik("ingest", *inputs, store=store), partial(ws.new_store, store), check),
        peer=_peer("create_files.py", str(objects), ws.path("files")),
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
    tenth = _ingest(ws, ws.events(seed=110), onto=ws.grown(9), name="tenth")
    return Pair(ours=tenth, peer=_ingest(ws, ws.events(seed=101)))


def _diff(ws: Workspace, *, exact: bool = False) -> Step:
    return Step(ws.pik("diff", "aggregates", store=ws.aggregated(exact=exact)))


def diff(ws: Workspace) -> Pair:
    return Pair(ours=_diff(ws), peer=_peer("duckdb_aggregate.py", ws.events()))


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
        peer=_peer("duckdb_parquet.py", ws.events(), ws.path("peer.parquet")),
    )


def events(ws: Workspace) -> Pair:
    summary = ws.summary(ws.events())

    def check(stdout: str) -> None:
        if stdout.count("\n") < summary.entity_events:
            raise CommandFailed(f"only {stdout.count(chr(10))} lines for {summary.entity_events} events")

    window = ("--from", "2026-01-01", "--to", "2026-02-01")
    argv = ws.pik("events", "--entity", summary.entity, *window, store=ws.ingested())
    return Pair(ours=Step(argv, check=check), peer=_typer_help())


def of_late(ws: Workspace, *, command: str, peer: str) -> Pair:
    """A command on a store into which late events came, against another one there or DuckDB's group-by. ENTITY and DAY
    stand for an entity with many events, and the bounds of one day."""
    entity = ws.summary(ws.events()).entity

    def step(line: str) -> Step:
        words = line.replace("DAY", "--from 2026-01-15 --to 2026-01-16").replace("ENTITY", entity).split()
        return Step(ws.pik(*words, store=ws.late()), codes=(0, 1))

    return Pair(ours=step(command), peer=step(peer) if peer else _peer("duckdb_aggregate.py", ws.events()))


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


def _typer_help() -> Step:
    return _peer("typer_app.py", "--help")


def start_up(ws: Workspace, *, option: str) -> Pair:
    return Pair(ours=Step(ws.pik(option)), peer=_typer_help())


TABLE_FIELDS = ("source=source", "event_type=event_type", "entity_id=entity_id", "event_time=event_time", "payload=@")

TYPER = "`--help` of a Typer app with one command"
FRESH = "`pik ingest FILE`, fresh store"
QUICK = 15  # pairs, for commands that take a fraction of a second

TRIAGE_PARTS = ("diff aggregates --limit 5", "lag", "gaps", "duplicates --class suspect --limit 5", "verify --quick")

MILLION = {
    "diff-events": "diff events FILE",
    "sql": "sql \"SELECT source, count(*), sum((payload->>'value')::DECIMAL(18,6)) FROM events GROUP BY 1\"",
    "history": "history",
}
"""Commands whose time has no bar, and whose memory has."""

_DAY = "events --entity ENTITY DAY"
_DIFF = "diff aggregates --limit 5"
INVESTIGATING = (
    ("explain", "explain event_count ENTITY 2026-01-15", _DAY, 2.5),
    ("triage-day", "triage --entity ENTITY DAY", _DAY, 4),
    ("diff-as-of", f"{_DIFF} --as-of 2027-01-01", _DIFF, 1.3),
    ("diff-explain", f"{_DIFF} --explain", _DIFF, 3),
    ("lag", "lag", "", 1.5),
    ("gaps", "gaps", "", 1.5),
    ("suspects", "duplicates --class suspect --limit 5", "", 2),
)
"""Commands on a store with late events: name, command, the one that it is compared with (or a peer), and the bar."""

CASES = (
    Case("ingest-duckdb", FRESH, "DuckDB `INSERT OR IGNORE` (duckdb_insert.py)", ingest_duckdb, ratio=1.6),
    Case(
        "ingest-same-job",
        f"{FRESH}, seconds of CPU of all processes",
        "DuckDB, the same job by hand, but for duplicates that are written otherwise (duckdb_same_job.py)",
        ingest_same_job,
        ratio=1.3,
        cpu=True,
    ),
    Case(
        "ingest-sqlite-utils",
        FRESH,
        "`sqlite-utils insert db events FILE --nl --pk id --ignore`",
        ingest_sqlite_utils,
        ratio=1 / 8,
    ),
    Case("ingest-again", "`pik ingest --again FILE`, the same file", "its first ingest", ingest_again, ratio=1.5),
    Case(
        "ingest-exact",
        f"{FRESH}, a number no double holds in every payload",
        "the same without that number",
        ingest_exact,
        ratio=2,
    ),
    Case(
        "ingest-mapped",
        f"{FRESH}, each field through `--map`",
        "the same without a mapping",
        ingest_mapped,
        ratio=2,
    ),
    *(
        Case(
            f"ingest-{ending}",
            f"`pik ingest FILE.{ending} --map …`, fresh store, seconds of CPU of all processes",
            "the same rows as JSON lines",
            partial(ingest_table, ending=ending),
            ratio=ratio,
            cpu=True,
        )
        for ending, ratio in (("csv", 1.3), ("parquet", 1.0))
    ),
    *(
        Case(
            name,
            f"`pik ingest {size}.json --records 'Records[]' --map …`, seconds of CPU of all processes",
            "the same records as JSON lines",
            partial(ingest_document, records=records),
            ratio=1.3,
            mib=MEMORY_MIB,
            lines=records,
            pairs=1,
            warm_up=False,
            deep=deep,
            cpu=True,
        )
        for name, size, records, deep in (
            ("ingest-document", "100-MIB", 83_000, False),
            ("ingest-document-1g", "1-GIB", 843_000, True),
        )
    ),
    Case(
        "ingest-memory",
        f"{FRESH}, memory",
        "",
        partial(ingest_memory, lines=200_000),
        mib=MEMORY_MIB,
        lines=200_000,
        pairs=1,
        warm_up=False,
    ),
    Case(
        "ingest-memory-5m",
        f"{FRESH}, memory",
        "",
        partial(ingest_memory, lines=5_000_000),
        mib=MEMORY_MIB,
        lines=5_000_000,
        pairs=1,
        warm_up=False,
        deep=True,
    ),
    Case(
        "ingest-memory-day",
        f"{FRESH}, all events of one day, memory",
        "",
        partial(ingest_memory, lines=5_000_000, one_day=True),
        mib=MEMORY_MIB,
        lines=5_000_000,
        pairs=1,
        warm_up=False,
        deep=True,
    ),
    Case(
        "ingest-growth",
        "`pik ingest FILE`, the tenth file of that size in a store",
        "the first file (a rate of 70 % is a ratio of 1.43)",
        ingest_growth,
        ratio=1 / 0.7,
        deep=True,
    ),
    Case(
        "ingest-days",
        "`pik ingest FILE`, one event on each of 20,000 days",
        "a loop that creates and fsyncs as many files (create_files.py)",
        partial(ingest_days, days=20_000),
        ratio=2,
        lines=20_000,
        pairs=1,
        warm_up=False,
    ),
    Case(
        "ingest-tiny",
        "`pik ingest 'DIR/*.jsonl'`, 5,000 files of three events",
        "a loop that creates and fsyncs as many files as these make objects (create_files.py)",
        partial(ingest_tiny, files=5000),
        ratio=3,
        lines=15_000,
        pairs=1,
        warm_up=False,
    ),
    Case(
        "ingest-folder",
        "`pik ingest DIR --one-batch`, 100,000 files of ten events",
        "the same lines in one file",
        partial(ingest_folder, files=100_000, lines=10),
        ratio=3,
        mib=MEMORY_MIB,
        lines=1_000_000,
        pairs=3,
    ),
    Case(
        "diff",
        "`pik diff aggregates`, whole store, two metrics",
        "DuckDB, the same count and sum from the JSONL (duckdb_aggregate.py)",
        diff,
        ratio=2,
    ),
    Case(
        "diff-exact",
        "`pik diff aggregates`, a number no double holds in every payload",
        "the same without that number",
        diff_exact,
        ratio=2,
    ),
    Case(
        "diff-memory",
        "`pik diff aggregates`, a million entities, four metrics, memory",
        "",
        partial(of_many_entities, command=("diff", "aggregates"), entities=1_000_000),
        mib=MEMORY_MIB,
        lines=1_000_000,
        pairs=1,
        warm_up=False,
        deep=True,
    ),
    Case(
        "verify-memory",
        "`pik verify --full`, a million entities, four metrics, memory",
        "",
        partial(of_many_entities, command=("verify", "--full"), entities=1_000_000),
        mib=MEMORY_MIB,
        lines=1_000_000,
        pairs=1,
        warm_up=False,
        deep=True,
    ),
    Case(
        "verify",
        "`pik verify --full`, two metrics, seconds of CPU",
        "`pik diff aggregates`",
        verify,
        ratio=5,
        cpu=True,
    ),
    Case("replay", "`pik replay --all --promote`, two metrics", "`pik diff aggregates`", replay, ratio=5),
    Case(
        "export",
        "`pik export --out FILE.parquet`, whole store",
        "DuckDB, JSONL to Parquet (duckdb_parquet.py)",
        export,
        ratio=1.5,
        mib=MEMORY_MIB,
    ),
    Case("events", "`pik events --entity E --from F --to T`, about 200 events", TYPER, events, ratio=2, pairs=QUICK),
    *(
        Case(
            name,
            f"`pik {command}`, seconds of CPU",
            f"`pik {peer}`" if peer else "DuckDB, a count and sum from the JSONL (duckdb_aggregate.py)",
            partial(of_late, command=command, peer=peer),
            ratio,
            mib=MEMORY_MIB,
            cpu=True,
        )
        for name, command, peer, ratio in INVESTIGATING
    ),
    Case(
        "diff-differing",
        "`pik diff aggregates --limit 5`, one value of each bucket differs, seconds of CPU",
        "`pik diff aggregates`, no value differs",
        diff_differing,
        ratio=1.5,
        mib=MEMORY_MIB,
        cpu=True,
    ),
    Case(
        "republish-file",
        "`pik republish --all --target FILE`, 100,000 lines, seconds of CPU",
        "plain Python, the same CloudEvents from the JSONL (send_lines.py)",
        partial(republish_file, lines=100_000),
        ratio=3,
        mib=MEMORY_MIB,
        lines=100_000,
        cpu=True,
    ),
    Case(
        "republish-http",
        "`pik republish --all --target http://…`, 100,000 lines, seconds of CPU with those of the service",
        "plain Python, the same over eight connections (send_lines.py)",
        partial(republish_http, lines=100_000),
        ratio=3,
        lines=100_000,
        pairs=1,
        warm_up=False,
        cpu=True,
    ),
    Case(
        "correct",
        "`pik correct` that moves all events, without its plan, seconds of CPU; memory with the plan",
        FRESH,
        lambda ws: correct(ws, _ingest(ws, ws.events())),
        ratio=0.5,
        mib=MEMORY_MIB,
        cpu=True,
    ),
    Case(
        "diff-corrected",
        "`pik diff aggregates --limit 5`, a tenth of the events moved by a correction, seconds of CPU",
        "the same values differ, by late events, and none is corrected",
        diff_corrected,
        ratio=1.2,
        mib=MEMORY_MIB,
        cpu=True,
    ),
    Case(
        "diff-corrected-all",
        "`pik diff aggregates --limit 5`, all events moved by a correction, memory",
        "",
        partial(diff_corrected, everything=True),
        mib=MEMORY_MIB,
        pairs=1,
        warm_up=False,
    ),
    Case(
        "events-corrected",
        "`pik events --entity E --from F --to T`, all events moved by a correction, seconds of CPU",
        "the same without a correction",
        events_corrected,
        ratio=1.3,
        mib=MEMORY_MIB,
        cpu=True,
        pairs=QUICK,
    ),
    Case(
        "triage",
        "`pik triage`, whole store, seconds of CPU",
        "its parts: diff, lag, gaps, duplicates, `verify --quick`",
        triage_whole,
        ratio=1.2,
        mib=MEMORY_MIB,
        cpu=True,
    ),
    *(
        Case(
            name, f"`pik {command}`, seconds of CPU", "", partial(of_million, command=command), mib=MEMORY_MIB, cpu=True
        )
        for name, command in MILLION.items()
    ),
    *(
        Case(
            f"explain-bucket{name}",
            f"`pik explain` of one bucket with all events{text}, memory",
            "",
            partial(explain_bucket, options=options),
            mib=MEMORY_MIB,
            pairs=1,
            warm_up=False,
        )
        for name, text, options in (
            ("", "", ""),
            (
                "-moved",
                ", one source moved",
                "--assume shift=1s,source=web --assume duplicates=counted",
            ),
            ("-events", ", its events listed", "--events --format jsonl"),
        )
    ),
    Case("version", "`pik --version`", TYPER, partial(start_up, option="--version"), ratio=1.3, pairs=QUICK),
    Case("help", "`pik --help`", TYPER, partial(start_up, option="--help"), ratio=1.3, pairs=QUICK),
)
