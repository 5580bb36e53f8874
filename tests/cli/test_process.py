"""The program as a process: who reads its output, who stops it, what it loads."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pik.config import Format
from pik.stores import open_store

ROOT = Path(__file__).parents[2]
THINGS = [sys.executable, str(ROOT / "tests/support/cli/run_things.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload]
        [*THINGS, *arguments], env=ENVIRONMENT, text=True, timeout=60, **{"capture_output": True, **settings}
    )


@pytest.mark.parametrize("form", list(Format))
def test_a_reader_that_leaves_is_neither_an_error_nor_a_success(form: str) -> None:
    process = subprocess.Popen(
        [*THINGS, "things", "--limit", "1000000", "--format", form],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_reader_that_was_never_there() -> None:
    read, write = os.pipe()
    os.close(read)
    result = run("-q", "things", capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_both_outputs_broken_is_quiet_as_well() -> None:
    read, write = os.pipe()
    os.close(read)
    result = run("things", "--limit", "100000", capture_output=False, stdout=write, stderr=write)
    os.close(write)
    assert result.returncode == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_for_stdout(unbuffered: str) -> None:
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        for arguments in (["things"], ["things", "--limit", "100000"], ["--help"], ["--version"]):
            command = [*THINGS, "-q", *arguments]
            result = subprocess.run(
                command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
            )
            error, hint = result.stderr.splitlines()
            assert (result.returncode, error.endswith(": No space left on device")) == (4, True)
            assert hint.startswith("hint: make room")


def test_closed_stdout() -> None:
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *THINGS, "things"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 4
    assert result.stderr == "error: standard output is closed, so the result cannot be written\n"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_say_how_to_go_on(sent: signal.Signals) -> None:
    process = subprocess.Popen(
        [*THINGS, "fail", "how", "sleep"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"sleeping\n"
        process.send_signal(sent)
        assert process.wait(60) == 130
        assert process.stderr.read() == b"interrupted; run the same command again\n"


HEAVY = {"rich", "pydantic", "duckdb", "pyarrow", "sqlite3", "jmespath", "zstandard", "multiprocessing"}


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--version"], HEAVY | {"typer", "msgspec", "inspect"}),
        (["--help"], HEAVY | {"tomllib", "tests.support.cli.things", "pik.stores"}),
        (["things", "--format", "json"], HEAVY | {"tomllib", "csv"}),
        (["things", "--limit", "x"], HEAVY | {"tomllib"}),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(arguments: list[str], absent: set[str]) -> None:
    """Start-up: `pik --help` must not pay for what it does not use, and no command for pydantic (Typer's coercion)."""
    code = (
        "import sys; from pik.__main__ import main\n"
        "if '--version' not in sys.argv:\n"
        "    from pik.cli.app import Root; from tests.support.cli.entries import ENTRIES; Root.entries = ENTRIES\n"
        "main(); print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    loaded = set(result.stderr.split())
    assert "pik" in loaded
    assert not loaded & absent


def test_listing_events_does_not_load_what_writes(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    (tmp_path / "pik.toml").write_text('[ingest]\ntimezone = "UTC"\n[stores]\nother = "x"\n')
    open_store(store, create=True)
    code = "import sys; from pik.__main__ import main; main(); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, "--store", store, "events"]
    result = subprocess.run(command, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    loaded = set(result.stderr.split())
    assert "pik.usecases.inspect.events" in loaded, result.stderr
    assert not loaded & {"jmespath", "ulid", "pydantic", "duckdb", "pyarrow", "boto3"}


def test_ctrl_c_after_the_end_changes_nothing() -> None:
    code = (
        "import os, signal; from pik.__main__ import program\n"
        "class Late:\n"
        "    def __init__(self): self.kill = os.kill, os.getpid(), signal.SIGINT\n"
        "    def __del__(self): self.kill[0](*self.kill[1:])\n"
        "late = Late(); raise SystemExit(program())"
    )
    command = [sys.executable, "-c", code, "--version"]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_bytes_that_are_not_utf8_are_shown_escaped() -> None:
    command = [*map(os.fsencode, THINGS), b"things", b"na\xffme", b"--format", b"json"]
    result = subprocess.run(command, env={**ENVIRONMENT, "LC_ALL": "C"}, capture_output=True, timeout=60)
    assert b'"files":["na\\\\udcffme"]' in result.stdout


def test_completion_script_and_words() -> None:
    def complete(words: str, position: str) -> str:
        settings = {"_PIK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
        result = subprocess.run(THINGS, env={**ENVIRONMENT, **settings}, capture_output=True, text=True, timeout=60)
        return result.stdout

    assert complete("pik th", "1").split() == ["things"]
    assert complete("pik things --li", "2").split() == ["--limit"]
    assert complete("pik things --format js", "3").split() == ["json", "jsonl"]


@pytest.mark.parametrize(("now", "year"), [(-1, 1969), (-(10**18), 1938), (2**63, 2262), (10**20, 5138)])
@pytest.mark.parametrize("line", [("ingest", "events.jsonl"), ("status",), ("events", "--since", "2h"), ("init",)])
def test_a_clock_that_no_time_of_a_store_can_hold(
    pik: Any, monkeypatch: pytest.MonkeyPatch, now: int, year: int, line: tuple[str, ...]
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: now)
    result = pik(*line)
    said = f"error: the clock of this machine is set to the year {year}; pik needs one between 1970 and 2262\n"
    assert (result.code, result.err) == (4, f"{said}hint: set the clock\n")
    assert pik("--version").code == pik("events", "--help").code == 0


@pytest.mark.parametrize("words", [[], ["--format", "json"]])
def test_ctrl_c_while_the_program_is_being_imported_has_no_traceback(words: list[str]) -> None:
    code = "import sys; sys.meta_path.insert(0, Stop()); import pik.__main__"
    stop = """
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == 'pik.errors':
            raise KeyboardInterrupt
"""
    done = subprocess.run(
        [sys.executable, "-c", stop + code, *words], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")  # which a shell calls 130
    said = json.loads(done.stderr) if words else {"error": done.stderr.rstrip("\n"), "exit_code": 130}
    assert (said["error"], said["exit_code"]) == ("interrupted; run the same command again", 130)


def test_other_errors_at_that_time_are_seen() -> None:
    code = "import pik.__main__; raise ValueError('seen')"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, "ValueError: seen" in done.stderr) == (1, True)


INTERRUPTIBLE = """
import ctypes, functools, os, signal, sys
from pathlib import Path
import pik.cli.app
from pik.__main__ import program
from pik.errors import StoreError
from pik.stores.local import sqlite

def kill(number):
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass

def digest(value):
    if value == 5:
        at_five()
    return value

def numbers(columns):
    database = sqlite.Database(Path("numbers.db"), "CREATE TABLE t (x)")
    database.create()
    reader = database.read()
    reader.create_function("send", 0, functools.partial(getattr(ctypes.CDLL(None), "raise"), signal.SIGINT))
    rows = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 100) "
    reader.execute(rows + f"SELECT {columns} FROM t").fetchall()

def run(_arguments):
    body()
    return 0

sqlite.row_digest = digest
pik.cli.app.run = run
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def ending(program: str, place: Path) -> tuple[int, str]:
    """The exit code and the words of a program that has `body` for its command."""
    code = f"{INTERRUPTIBLE}{program}\nsys.exit(program())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


INTERRUPTED = (130, "interrupted; run the same command again\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_inside_a_function_of_sqlite_is_one(number: int, tmp_path: Path) -> None:
    """SQLite reports the exception as its own: `user-defined function raised exception`."""
    program = f"at_five = lambda: kill({number:d})\nbody = lambda: numbers('sum(row_digest(x))')"
    assert ending(program, tmp_path) == INTERRUPTED


def test_so_is_one_that_came_while_sqlite_itself_was_at_work(tmp_path: Path) -> None:
    """Python handles it at the very beginning of the next function."""
    assert ending("at_five = None\nbody = lambda: numbers('send(), row_digest(x)')", tmp_path) == INTERRUPTED


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("at_five = lambda: 1 / 0\nbody = lambda: numbers('row_digest(x)')", "user-defined function raised exception"),
        ("body = lambda: numbers('no_such(x)')", "no such function: no_such"),
        (
            """
def body():
    try:
        kill(signal.SIGINT)
    except KeyboardInterrupt:
        numbers("no_such(x)")
""",
            "no such function: no_such",
        ),
        (
            """
def body():
    try:
        kill(signal.SIGTERM)
    except KeyboardInterrupt:
        raise StoreError("the disk has gone")
""",
            "the disk has gone",
        ),
        (
            """
def body():
    try:
        kill(signal.SIGINT)
    finally:
        {}["key"]
""",
            "this is a bug in pik: KeyError",
        ),
    ],
    ids=["a function of SQLite", "SQL", "SQL after a signal", "the store after a signal", "a bug after a signal"],
)
def test_another_error_is_reported_as_itself_also_after_a_signal(program: str, said: str, tmp_path: Path) -> None:
    code, words = ending(program, tmp_path)
    assert (code, words.startswith("error: "), said in words) == (4, True, True), words


DESTRUCTOR = """
class Last:
    def __del__(self):
        {way}

def body():
    Last()
    signal.pause() if {wait} else None
"""


def test_an_interruption_that_a_destructor_swallows_is_raised_again(tmp_path: Path) -> None:
    assert ending(DESTRUCTOR.format(way="kill(signal.SIGINT)", wait=True), tmp_path) == INTERRUPTED


def test_another_error_in_a_destructor_is_seen_and_stops_nothing(tmp_path: Path) -> None:
    code, words = ending(DESTRUCTOR.format(way="1 / 0", wait=False), tmp_path)
    assert (code, "ZeroDivisionError" in words) == (0, True)


def test_nothing_is_imported_before_ctrl_c_has_its_sentence() -> None:
    """Not even `__future__`: whatever is looked for on the disk takes long enough to be interrupted."""
    begun = (ROOT / "pik/__main__.py").read_text().partition("sys.excepthook =")[0]
    imported = [node for node in ast.walk(ast.parse(begun)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imported] == ["import sys"]
