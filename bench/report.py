"""Results as a table on the terminal and as the marked section of docs/benchmarks.md."""

import os
import platform
import re
import sqlite3
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.case import Case
from bench.cases import CASES
from bench.workspace import DEFAULT_ROWS

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEAD = (
    "| what | against | peer s | pik s | ratio | bar | peer MiB | pik MiB | verdict | lines, date | command |\n"
    "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- | --- | --- |\n"
)


@dataclass
class Result:
    case: Case
    lines: int
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    our_mib: float | None = None
    peer_mib: float | None = None
    failure: str | None = None

    @property
    def ratio(self) -> float | None:
        """The median of the pairs' ratios."""
        if not self.peer or len(self.peer) != len(self.ours):
            return None
        return statistics.median(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))

    @property
    def verdict(self) -> str:
        if self.failure is not None:
            return "FAILED"
        missed = [_over(self.ratio, self.case.ratio), _over(self.our_mib, self.case.mib)]
        return "over the bar" if any(missed) else "ok"

    def cells(self) -> list[str]:
        bars = [f"≤ {self.case.ratio:.4g}"] if self.case.ratio else []
        bars += [f"≤ {self.case.mib:.0f} MiB"] if self.case.mib else []
        return [
            self.case.what,
            self.case.against or "–",
            _median(self.peer),
            _median(self.ours),
            _number(self.ratio, ".2f"),
            ", ".join(bars),
            _number(self.peer_mib, ".0f"),
            _number(self.our_mib, ".0f"),
            self.verdict,
        ]


def _over(value: float | None, bar: float | None) -> bool:
    """A bar that was not measured against is not met."""
    return bar is not None and (value is None or value > bar)


def _number(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}" if values else "–"


def environment() -> str:
    """Where the numbers come from, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        model = found[1]
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()},"
        f" DuckDB {_version('duckdb')}, SQLite {sqlite3.sqlite_version}, sqlite-utils {_version('sqlite-utils')};"
        f" pik {_version('pik')}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def table(results: Sequence[Result]) -> str:
    """One line a case, for the terminal."""
    rows = [["case", "peer s", "pik s", "ratio", "bar", "peer MiB", "pik MiB", "verdict"]]
    rows += [[result.case.name, *result.cells()[2:]] for result in results]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def update(page: Path, results: Sequence[Result]) -> list[str]:
    """Put the results into the page's marked section; returns the names of the rows that it had to drop.

    The rows of cases that did not run now stay, if they were measured in the same environment.
    """
    text = page.read_text()
    before, found, rest = text.partition(BEGIN)
    old, found_end, after = rest.partition(END)
    if not (found and found_end):
        raise ValueError(f"{page} has no section between {BEGIN} and {END}")
    today, where = datetime.now(UTC).date(), environment()
    kept = {case.name: row for case in CASES if (row := _old_row(old, case.name))}
    dropped = [] if where in old else [name for name in kept if name not in {result.case.name for result in results}]
    rows = {name: row for name, row in kept.items() if name not in dropped}
    for result in results:
        cells = [*result.cells(), f"{result.lines:,}, {today}", f"`{_command(result)}`"]
        rows[result.case.name] = f"| {' | '.join(cells)} |\n"
    section = f"\n{where}\n\n{HEAD}{''.join(rows[case.name] for case in CASES if case.name in rows)}"
    page.write_text(f"{before}{BEGIN}{section}{END}{after}")
    return dropped


def _command(result: Result) -> str:
    rows = "" if result.case.lines or result.lines == DEFAULT_ROWS else f" --rows {result.lines}"
    return f"python -m bench.run --only {result.case.name}{rows}"


def _old_row(section: str, name: str) -> str | None:
    return next((row for row in section.splitlines(keepends=True) if re.search(rf"--only {name}[ `]", row)), None)
