"""Writes tests/screens/: what each command shows a person, on terminals of 80 and of 140 columns.

`python -m tools.gen_screens [--check]`
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

from pik.__main__ import main
from pik.cli.demo.shop import write_data
from pik.model.instant import SECOND, parse_instant

SCREENS = Path(__file__).parent.parent / "tests" / "screens"

WIDTHS = (80, 140)

NOW = parse_instant("2026-03-03T09:00:00Z")
"""When the first command of the incident is given."""

DAY = "--from 2026-03-02 --to 2026-03-03"
VALUE = "revenue customer-17 2026-03-02"


class Screen(NamedTuple):
    """A command whose screens are kept under a name, and the commands to give before it, in a copy of the store. RUN in
    it is the run or republish of these."""

    name: str
    command: str
    before: tuple[str, ...] = ()


INCIDENT = (
    "ingest monday.jsonl",
    "metrics apply metrics.toml --reason 'captured payments'",
    f"replay --all {DAY} --reason 'numbers of 2 March' --promote --yes",
    "ingest tuesday-morning.jsonl",
)

_REPLAYED = (f"replay --all {DAY} --reason 'late events of 2 March'",)
_PROMOTED = (*_REPLAYED, "promote RUN --yes")
_CORRECTED = (
    "correct --assume without=ba221f70 --reason 'a test' --yes",
    "correct --assume shift=1h,source=warehouse --reason 'summer time' --yes",
)
_SENT = ("republish --entity customer-17 --target history.ndjson --reason 'they lost a day' --yes",)

LOOKS = (
    Screen("help", "--help"),
    Screen("help-ingest", "ingest --help"),
    Screen("help-runs", "help runs"),
    Screen("status", "status"),
    Screen("batches", "batches"),
    Screen("mappings-list", "mappings list"),
    Screen("mappings-show", "mappings show stripe-event"),
    Screen("ingest-dry-run", "ingest monday.jsonl --dry-run"),
    Screen("ingest-guess", "ingest foreign.jsonl --guess"),
    Screen("events", "events --entity customer-17 --limit 8"),
    Screen(
        "events-columns", "events --type payment_captured --newest --limit 5 --column payload.amount --column payload"
    ),
    Screen("events-not-counted", "events --not-counted revenue --entity customer-17 --type payment_captured"),
    Screen("events-by-hour", f"events --by hour {DAY}"),
    Screen("events-by-entity", "events --by entity --limit 8"),
    Screen("show", "show ba221f70"),
    Screen("duplicates", "duplicates --limit 5"),
    Screen("duplicates-conflicts", "duplicates --class conflict --show-payload-diff"),
    Screen("duplicates-by", "duplicates --by hour --entity customer-17"),
    Screen("duplicates-suspects", "duplicates --class suspect"),
    Screen("duplicates-impact", "duplicates --class conflict --impact"),
    Screen("lag", f"lag {DAY} --warn-after 5s --error-after 1h"),
    Screen("lag-late", f"lag --late {DAY}"),
    Screen("lag-skew", f"lag --skew {DAY}"),
    Screen("gaps", f"gaps {DAY}"),
    Screen("gaps-every", f"gaps {DAY} --every 25m"),
    Screen("sql", f'sql "SELECT event_type, count(*) AS n FROM deliveries GROUP BY ALL ORDER BY ALL" {DAY}'),
    Screen("metrics-list", "metrics list"),
    Screen("metrics-show", "metrics show revenue"),
    Screen("aggregates", "aggregates --metric revenue --limit 5"),
    Screen("aggregates-history", "aggregates --history --entity customer-17"),
    Screen("aggregates-total", "aggregates --total"),
    Screen("diff-aggregates", f"diff aggregates {DAY} --stats"),
    Screen("diff-aggregates-explain", f"diff aggregates {DAY} --metric revenue --explain"),
    Screen("diff-aggregates-total", f"diff aggregates {DAY} --total"),
    Screen("diff-events", "diff events monday.jsonl --entity customer-17"),
    Screen("triage", f"triage {DAY}"),
    Screen("explain", f"explain {VALUE} --events"),
    Screen("history", "history"),
    Screen("replay-dry-run", f"replay --all {DAY} --dry-run"),
    Screen("correct-dry-run", "correct --assume without=ba221f70 --reason 'a test' --dry-run"),
    Screen("republish-dry-run", "republish --entity customer-17 --target history.ndjson --dry-run"),
    Screen("runs-list", "runs list"),
    Screen("dlq-list", "dlq list"),
    Screen("verify", "verify"),
    Screen("pull-dry-run", f"pull --into copy --entity customer-17 {DAY} --dry-run"),
    Screen("bundle-dry-run", f"bundle --incident INC-1 --out INC-1.tar.zst {DAY} --dry-run"),
    Screen("error", "events --entty customer-17"),
    Screen("error-stack", "stack status"),
    Screen("error-store", "--store nowhere status"),
)
"""Commands that change nothing, so that both widths are of the incident's store itself."""

CHANGES = (
    Screen("ingest", "ingest tuesday-morning.jsonl --again"),
    Screen("ingest-rejected", "ingest rejected.jsonl"),
    Screen("batches-rejects", "batches latest --rejects", ("ingest rejected.jsonl",)),
    Screen("metrics-apply", "metrics apply metrics.toml --dry-run"),
    Screen("replay", f"replay --all {DAY} --reason 'late events of 2 March'"),
    Screen("runs-show", "runs show RUN", _REPLAYED),
    Screen("promote-dry-run", "promote RUN --dry-run", _REPLAYED),
    Screen("promote", "promote RUN --yes", _REPLAYED),
    Screen("correct", _CORRECTED[1]),
    Screen("corrections-list", "corrections list", _CORRECTED),
    Screen("republish", _SENT[0]),
    Screen("republish-show", "republish show RUN", _SENT),
    Screen("export", f"export --out events.parquet --entity customer-17 {DAY}"),
    Screen("compact", "compact"),
    Screen("backup", "backup state.zst"),
    Screen("rollback-dry-run", "rollback RUN --dry-run", _PROMOTED),
    Screen("rollback", "rollback RUN --yes", _PROMOTED),
    Screen("init", "init --store fresh"),
    Screen("restore", "restore state.zst --store fresh", ("backup state.zst", "init --store fresh")),
    Screen("pull", f"pull --into copy {DAY}"),
    Screen("report", f"report --incident INC-1 --out INC-1.md {DAY}"),
)
"""Commands that change something; each is given in a copy of the store for each width."""

_RUN = re.compile(r"\bRUN\b")
_MEASURED = re.compile(
    r"^((?:seconds|records per second|(?:raw )?bytes(?: copied| to copy)?|sha256|digest) +)([\da-f.,]+)$", re.MULTILINE
)
_VERSIONS = re.compile(r"\b(DuckDB|pik) \d+\.\d+\.\d+\b")


class Terminal(io.StringIO):
    """A terminal: what a command writes to both of its streams, in order."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that stands still while a command runs, and what is random in ids, which counts."""

    def __init__(self) -> None:
        self.now, self._ids = NOW, 0

    def time_ns(self) -> int:
        """Return the time."""
        return self.now

    def next_command(self) -> None:
        """Let a minute pass."""
        self.now = (self.now // (60 * SECOND) + 1) * 60 * SECOND

    def randomness(self, size: int) -> bytes:
        """Return bytes that differ each time."""
        self._ids += 1
        return self._ids.to_bytes(size, "big")


@contextmanager
def frozen() -> Iterator[Clock]:
    """Let time stand at that of the incident, and ids follow each other, for everything that pik reads of both."""
    clock, real, others = Clock(), time.time_ns, time.time

    def swap(old: object, new: object) -> None:
        """Give the modules that have imported the one function the other one."""
        for name, module in list(sys.modules.items()):
            if name.startswith("pik.") and getattr(module, "time_ns", None) is old:
                module.time_ns = new  # type: ignore[attr-defined]

    fake = clock.time_ns

    def seconds() -> float:
        return fake() / SECOND

    swap(real, fake)
    time.time_ns, time.time = fake, seconds
    try:
        with patch("ulid.os", SimpleNamespace(urandom=clock.randomness)):
            yield clock
    finally:
        time.time_ns, time.time = real, others
        swap(fake, real)


def screen(arguments: Sequence[str], width: int, directory: Path, clock: Clock) -> str:
    """Run a command in the directory, on a terminal of that width; return what it shows, and its exit code if that is
    not 0."""
    terminal = Terminal()
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
    settings = {"TERM": "dumb", "LC_ALL": "C.UTF-8", "COLUMNS": str(width), "PIK_ACTOR": "ana"}
    clock.next_command()
    handler = signal.getsignal(signal.SIGTERM)
    with (
        chdir(directory),
        patch.dict(os.environ, ours | settings, clear=True),
        patch.object(sys, "argv", ["pik", *arguments]),
        redirect_stdout(terminal),
        redirect_stderr(terminal),
    ):
        code = main()
    signal.signal(signal.SIGTERM, handler)
    shown = terminal.getvalue().replace(str(directory), "/incident")
    shown = _MEASURED.sub(lambda found: found[1] + "N", _VERSIONS.sub(r"\1 N", shown))
    return shown + (f"exit code {code}\n" if code else "")


def make_incident(directory: Path, clock: Clock) -> None:
    """Make the demo's incident before its repair, and files for further commands."""
    write_data(directory)
    for command in INCIDENT:
        screen(shlex.split(command), 80, directory, clock)
    lines = (directory / "monday.jsonl").read_text(encoding="utf-8").splitlines()
    (directory / "rejected.jsonl").write_text("\n".join([lines[0], "not JSON", '{"source":"app"}']), encoding="utf-8")
    (directory / "foreign.jsonl").write_text(_FOREIGN, encoding="utf-8")


_FOREIGN = """\
{"id":"o-1","type":"order","user":{"id":"u-7"},"at":"2026-03-02T08:15:04Z","eur":39.90}
{"id":"o-2","type":"order","user":{"id":"u-3"},"at":"2026-03-02T08:16:40Z","eur":12.50}
"""


def screens(directory: Path) -> dict[str, str]:
    """Return the text of each file in tests/screens/, by its name. The directory takes the stores."""
    found: dict[str, str] = {}
    with frozen() as clock:
        incident = directory / "incident"
        incident.mkdir()
        make_incident(incident, clock)
        began = clock.now
        for one in (*LOOKS, *CHANGES):
            for width in WIDTHS:
                clock.now, place = began, incident
                if one in CHANGES:
                    place = directory / "changed" / "incident"
                    shutil.rmtree(place, ignore_errors=True)
                    shutil.copytree(incident, place)
                run = ""
                for command in one.before:
                    said = screen(shlex.split(_RUN.sub(run, command)), width, place, clock)
                    run = next(iter(re.findall(r"^(?:run|republish) id +(\w+)", said, re.MULTILINE)), run)
                line = _RUN.sub(run, one.command)
                shown = screen(shlex.split(line), width, place, clock)
                found[f"{one.name}-{width}.txt"] = f"$ pik {line}\n{shown}"
    return found


def written() -> Mapping[str, str]:
    """Return the text of the files as they are, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(SCREENS.glob("*.txt"))}


def write() -> int:
    """Write the files, or with --check say which are not as they would be; return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        now = screens(Path(directory).resolve())
    before = written()
    changed = [name for name in sorted({*now, *before}) if now.get(name) != before.get(name)]
    print("\n".join(changed))
    if "--check" in sys.argv[1:]:
        return int(bool(changed))
    SCREENS.mkdir(exist_ok=True)
    for name in changed:
        if name in now:
            (SCREENS / name).write_text(now[name], encoding="utf-8")
        else:
            (SCREENS / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(write())
