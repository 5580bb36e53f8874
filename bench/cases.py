"""What is measured: each case is a peer's command, ours, and the bar for the ratio of the two."""

from functools import partial

from bench.case import Case, Pair, Step
from bench.correcting import correct, diff_corrected, events_corrected
from bench.ingesting import (
    ingest,
    ingest_again,
    ingest_days,
    ingest_document,
    ingest_duckdb,
    ingest_exact,
    ingest_folder,
    ingest_growth,
    ingest_mapped,
    ingest_memory,
    ingest_same_job,
    ingest_sqlite_utils,
    ingest_table,
    ingest_tiny,
)
from bench.investigating import (
    MILLION,
    diff,
    diff_differing,
    diff_exact,
    events,
    explain_bucket,
    export,
    of_late,
    of_many_entities,
    of_million,
    replay,
    triage_whole,
    typer_help,
    verify,
)
from bench.republishing import republish_file, republish_http
from bench.workspace import Workspace

MEMORY_MIB = 400


def start_up(ws: Workspace, *, option: str) -> Pair:
    return Pair(ours=Step(ws.pik(option)), peer=typer_help())


TYPER = "`--help` of a Typer app with one command"
FRESH = "`pik ingest FILE`, fresh store"
QUICK = 15  # pairs, for commands that take a fraction of a second

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
        lambda ws: correct(ws, ingest(ws, ws.events())),
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
