"""Every command that writes into a store or a file, and a process in which one is killed, or the disk is full, from its
n-th durable step on."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.survival.child import small_blocks


class Writing(NamedTuple):
    """A command line, and the directory that it is given in (tests/survival/test_commands.py makes them)."""

    line: str
    place: str = "lived"


WINDOW = "--from 2026-01-01 --to 2026-01-06"
COMMANDS = {
    "init": Writing("init --store .pik", "nothing"),
    "ingest into a new store": Writing("ingest more.jsonl", "nothing"),
    "ingest --rejects": Writing("ingest more.jsonl --rejects out"),
    "ingest --records": Writing("ingest document.json --records Records[]"),
    "ingest an archive": Writing("ingest archive.tar.gz"),
    "ingest --one-batch": Writing("ingest folder --one-batch"),
    "ingest a table": Writing(
        """ingest table.csv --map "source='shop'" --map "event_type='paid'" --map entity_id=who --map event_time=at"""
        " --map payload=@"
    ),
    "metrics apply": Writing("metrics apply metrics.toml --reason x"),
    "metrics retire": Writing("metrics retire event_count --reason x --yes"),
    "metrics reinstate": Writing("metrics reinstate event_count --reason x --yes", "retired"),
    "aggregates import": Writing("aggregates import ledger.csv --metric event_count --reason x --yes"),
    "correct": Writing("correct --assume shift=1h,entity=a --assume without=selected,entity=b --reason x --yes"),
    "corrections revoke": Writing("corrections revoke latest --reason x --yes", "corrected"),
    "replay": Writing("replay --all --reason x", "corrected"),
    "dlq redrive": Writing("dlq redrive --all", "failed"),
    "dlq purge": Writing("dlq purge --all --reason x --yes", "failed"),
    "runs resume": Writing("runs resume latest", "planned"),
    "runs cancel": Writing("runs cancel latest", "planned"),
    "promote": Writing("promote latest --reason x --yes"),
    "rollback": Writing("rollback latest --reason x --yes"),
    "republish": Writing("republish --all --target out --reason x --yes"),
    "republish resume": Writing("republish resume latest", "sending"),
    "republish cancel": Writing("republish cancel latest", "sending"),
    "export": Writing("export --out out.csv"),
    "report": Writing(f"report --incident INC {WINDOW} --out out --as md"),
    "bundle": Writing(f"bundle --incident INC {WINDOW} --out out"),
    "bundle --redact": Writing(f"bundle --incident INC {WINDOW} --out out --redact payload.n --redact-key redact.key"),
    "verify a bundle": Writing("verify the.bundle", "bundled"),
    "pull from a bundle": Writing(f"pull --store the.bundle {WINDOW} --into copy", "bundled"),
    "sql --output": Writing("sql FROM\\ events --output out.parquet"),
    "diff events --write": Writing("diff events more.jsonl --write out"),
    "backup": Writing("backup out"),
    "restore": Writing("restore the.backup", "without state"),
    "verify --rebuild-index": Writing("verify --rebuild-index", "corrected"),
    "pull": Writing("pull --store .pik --into copy", "corrected"),
}

STEPS = ("fsync", "link", "unlink", "chmod", "mkdir", "rename", "replace")
"""Calls of the system that change what is on the disk. A COMMIT of SQLite is a step, too."""

COMMIT = "COMMIT"

KILLED = 9
COULD_NOT = 4


def run(words: list[str], directory: str, end_at: int, is_full: bool, count: str) -> None:
    """Be `pik` with these arguments, in a process of its own. From step `end_at` on the disk is full; or it is killed
    there, before the step, or after it if that is an even one. The number of steps goes into a file."""
    os.chdir(directory)
    for name in [name for name in os.environ if name.startswith("PIK_")]:
        del os.environ[name]
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    small_blocks(1500)
    steps = _Steps(end_at, is_full)
    for name in STEPS:
        setattr(os, name, steps.around(name, getattr(os, name)))
    _count_commits(steps)
    sys.argv = ["pik", *words]
    from pik.__main__ import main

    code = main()
    Path(count).write_text(str(steps.made))
    os._exit(code)


class _Steps:
    def __init__(self, end_at: int, is_full: bool) -> None:
        self.made, self.end_at, self.is_full, self.process = 0, end_at, is_full, os.getpid()

    def around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != self.process:  # of a worker
                return real(*arguments, **options)
            self.made += 1
            if self.end_at and self.is_full and self.made >= self.end_at:
                _fail(name)
            elif self.made == self.end_at:
                if self.made % 2 == 0:
                    real(*arguments, **options)
                os._exit(KILLED)
            return real(*arguments, **options)

        return call


def _fail(step: str) -> None:
    """Fail as a full disk does; what needs no room goes on."""
    if step == COMMIT:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error
    if step not in ("unlink", "chmod", "rename", "replace"):
        raise OSError(errno.ENOSPC, "No space left on device")


def _count_commits(steps: _Steps) -> None:
    class Counting(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            call: Callable[..., sqlite3.Cursor] = super().execute
            return (steps.around(COMMIT, call) if sql == COMMIT else call)(sql, parameters)

    connect = sqlite3.connect
    setattr(sqlite3, "Connection", Counting)  # noqa: B010 - a type to mypy, which must not be assigned to
    setattr(sqlite3, "connect", lambda *arguments, **options: connect(*arguments, factory=Counting, **options))  # noqa: B010
