"""Each command that pik suggests looks in the store of the command line, and can be pasted into a shell."""

from __future__ import annotations

import ast
import gzip
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import pik as package
from pik.cli import rereading
from pik.cli.app import COMMANDS
from pik.cli.context import Context, with_store
from pik.cli.demo import player
from pik.cli.reading import ReadingOptions
from pik.errors import PikError, command
from pik.inputs.advice import Advice, CommandLine, Option, Read, converted
from pik.inputs.mapping import RecordMapping
from pik.inputs.source import file_source
from pik.model.assumption_text import read_assumption
from pik.model.layout import AUTO
from pik.model.scenario import With
from pik.usecases.metrics.assumed_events import AssumedFile, refused
from tests.support.cli.pasting import command_of, expect_line, parses
from tests.support.docs.warm import program

STORE = "dir with space"
NAMES = "|".join(COMMANDS)
SUGGESTION = re.compile(rf"\bpik (?:--store (?:'[^']*'|\S+) )?(?:{NAMES})\b(?!(?: \w+)* --help)[^\n|`]*")


def event(entity: str, time: str, **payload: int) -> str:
    fields = {"source": "s", "event_type": "t", "entity_id": entity, "event_time": time, "payload": payload}
    return json.dumps(fields) + "\n"


METRIC = """
[[metric]]
name = "ratio"
where = "true"
value = "(sum((payload->>'a')::DECIMAL(18,2)) / sum((payload->>'b')::DECIMAL(18,2)))::DECIMAL(18,6)"
bucket = "1d"
"""


@pytest.fixture
def said(pik: Any, tmp_path: Path) -> Any:
    """Runs a command on the store with the blank in its name, in both formats, and returns all that it suggests."""
    first, second = event("an entity", "2026-03-02T00:00:00Z", a=1, b=0), event("b", "2026-03-03T00:00:00Z", a=1, b=2)
    (tmp_path / "one.jsonl").write_text(first + second)
    (tmp_path / "bad.jsonl").write_text(second + '{"source": 1}\n')
    (tmp_path / "all bad.jsonl").write_text('{"source": 1}\n{"source": 2}\n')
    (tmp_path / "a folder").mkdir()
    (tmp_path / "table file.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "metrics.toml").write_text(METRIC)

    def run(*line: str) -> list[str]:
        table, structured = pik("--store", STORE, *line), pik(*line, "--store", STORE, "--format", "json")
        texts = [table.out, table.err, _read(structured.err), *strings(structured.json() if structured.out else None)]
        for found in re.findall("^hint: (.*)", table.err + _read(structured.err), re.MULTILINE):
            expect_hint(found)
        lines = [each for text in texts for each in text.splitlines() if not each.startswith("error: ")]
        return [one for each in lines for one in SUGGESTION.findall(each)]

    return run


def _read(err: str) -> str:
    """What a command says on standard error, an error that it has as JSON as people read it."""
    *lines, last = err.splitlines() or [""]
    if last.startswith("{"):
        error = json.loads(last)
        last = f"error: {error['error']}\nhint: {error['hint'] or ''}"
    return "\n".join([*lines, last])


def expect_hint(text: str) -> None:
    """Each command of pik in a hint ends where the hint does, or stands between backticks, and parses as it stands."""
    for found in re.finditer(rf"(`?)(pik (?:--store (?:'[^']*'|\S+) )?(?:{NAMES})\b.*)", text):
        line = found[2].partition("`")[0] if found[1] else found[2]
        assert line.endswith("--help") or parses(shlex.split(line)), text


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings(one)


def expect_to_paste(suggestion: str) -> None:
    pieces = [part for part in re.split(r"[;,()]| or (?=pik)| && |, then ", suggestion) if part.strip()]
    words = shlex.split(pieces[0].replace("'s ", " "))
    if words[2] == "--store":  # by itself, as a path
        words = [words[0], *words[2:4], words[1], *words[4:]]
    assert words[:2] == ["pik", "--store"], suggestion
    assert Path(words[2]).name == STORE, suggestion
    assert len(command_of(words)) > 3, suggestion


LINES = [
    ("ingest", "one.jsonl"),
    ("init",),
    ("ingest", "all bad.jsonl"),
    ("ingest", "bad.jsonl"),
    ("ingest", "a folder"),
    ("ingest", "table file.csv"),
    ("events", "--run"),
    ("show", "nothing"),
    ("show", "00000000"),
    ("batches", "--rejects"),
    ("batches", "01J"),
    ("aggregates",),
    ("aggregates", "--history"),
    ("metrics", "show", "ratioo"),
    ("metrics", "show", "zzzzzz"),
    ("diff", "aggregates"),
    ("diff", "aggregates", "--entity", 'it\'s "me"'),
    ("diff", "aggregates", "--entity", "pik verify", "--from", "2027-01-01"),
    ("diff", "aggregates", "--run", "01J"),
    ("runs", "list"),
    ("runs", "show", "01J"),
    ("replay", "--all", "--from", "2030-01-01"),
    ("replay", "--entity", "an entity", "--reason", "why"),
    ("promote", "01J"),
    ("rollback", "01J"),
    ("dlq", "show", "01J"),
    ("dlq", "redrive"),
    ("dlq", "purge"),
    ("restore", "one.jsonl"),
    ("stack", "status"),
    ("ingest", "one.jsonl", "--via", "api"),
]


@pytest.mark.parametrize("created", [True, False], ids=["store", "no store"])
def test_each_suggested_command_names_the_store_and_parses(pik: Any, said: Any, created: bool) -> None:
    if created:
        pik("init", "--store", STORE)
        pik("metrics", "apply", "metrics.toml", "--store", STORE)
    suggested = {line: said(*line) for line in LINES}
    for each in (one for found in suggested.values() for one in found):
        expect_to_paste(each)
    assert sum(map(bool, suggested.values())) > 18, suggested


def test_so_it_is_after_a_replay_with_failures_and_of_its_dead_letters(pik: Any, said: Any, tmp_path: Path) -> None:
    store = ("--store", STORE)
    pik(*store, "init")
    pik(*store, "metrics", "apply", "metrics.toml")
    pik(*store, "ingest", "one.jsonl")
    replayed = pik(*store, "replay", "--all", "--reason", "why", "--format", "json").json()
    run = replayed["run_id"]
    (segment,) = (tmp_path / STORE / "raw").glob("event_date=2026-03-03/*.zst")
    whole = segment.read_bytes()
    segment.chmod(0o600)
    segment.write_bytes(whole[:20] + b"\0" + whole[21:])
    lost = pik(*store, "replay", "--entity", "b", "--reason", "why", "--format", "json").json()["run_id"]
    lines = [
        ("runs", "show", run),
        ("runs", "show", lost),
        ("runs", "resume", lost),
        ("runs", "cancel", run),
        ("dlq", "list"),
        ("diff", "aggregates"),
        ("diff", "aggregates", "--run", run),
        ("diff", "aggregates", "--run", lost),
        ("promote", lost, "--yes", "--reason", "x"),
        ("verify",),
        ("verify", "--rebuild-index"),
        ("verify",),
        ("show", "00"),
    ]
    suggested = {line: said(*line) for line in lines}
    assert sum(map(len, suggested.values())) > 20
    for each in (one for found in suggested.values() for one in found):
        expect_to_paste(each)


def test_the_environment_and_the_configuration_still_hold_for_what_is_pasted(pik: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("PIK_STORE", STORE)
    pik("init")
    assert pik("runs", "show", "01J").err.endswith("hint: pik runs list\n")


def test_lines_for_a_shell_quote_what_a_user_named(pik: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only commands of pik; and where a line stands there is nothing but the line."""
    monkeypatch.setattr(player, "PROGRAM", program())
    pik("init")
    pulled = pik("pull", "--into", "pulled dir", "--format", "json").json()
    assert pulled["next"] == f"export PIK_STORE='{tmp_path}/pulled dir'"
    (made,) = re.findall("hint: (.*)", pik("export", "--out", "out dir/x").err)
    expect_line(made)
    assert shlex.split(made)[-1] == str(tmp_path / "out dir")
    ended = pik("demo", "--dir", "demo dir").out
    (entered,) = re.findall(r"^  (cd .*)", ended, re.MULTILINE)
    expect_line(entered)
    assert shlex.split(entered) == ["cd", "demo dir"]


def test_a_folder_without_files_and_a_glob_without_matches_are_errors(pik: Any, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert pik("ingest", "none").err.startswith("error: there is no file with content in none\n")
    assert pik("ingest", "none/*.jsonl").err.startswith("error: no file matches 'none/*.jsonl'\nhint: ** is any")


def test_where_there_is_no_value_yet_the_suggested_replay_selects_something(pik: Any, said: Any) -> None:
    pik("init", "--store", STORE)
    pik("ingest", "one.jsonl", "--store", STORE)
    (suggestion, *others) = said("aggregates")
    assert not others
    assert pik(*shlex.split(suggestion)[1:], "--reason", "why").code == 0


def test_quoted_words_are_data_and_a_store_that_is_named_stays() -> None:
    names = tuple(COMMANDS)
    assert with_store("pik events --entity 'pik verify x' lists", "s", names) == (
        "pik --store s events --entity 'pik verify x' lists"
    )
    assert with_store("pik verify --store other; then pik verify", "s", names) == (
        "pik verify --store other; then pik --store s verify"
    )
    assert with_store("the run's events: another pik process, this pik reads", "s", names) == (
        "the run's events: another pik process, this pik reads"
    )
    named = "pik --store x/.pik status"
    assert with_store(named, "x/.pik", names) == named
    assert with_store("`pik runs show --help` shows how", "s", names) == "`pik runs show --help` shows how"
    assert command("show", "it's", "a'$b") == """pik show "it's" 'a'"'"'$b'"""


UNREADABLE = {
    "a.avro": b"Obj\x01\x04\x16",
    "a.db": b"SQLite format 3\0",
    "a.xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "utf-16.csv": "a,b\n1,2\n".encode("utf-16"),
    "cp1252.jsonl": b'{"a": "caf\xe9"}\n',
    "rest.jsonl.gz": gzip.compress(b'{"a": 1}\n') + b"rest",
    "cut.jsonl.gz": gzip.compress(b'{"a": 1}\n')[:-4],
    "cut.json": b'[{"source": "s"}, {',
    "two.json": b'[{"source": "s"}][{"source": "s"}]',
    "commas.json": b'{"a": 1},\n{"a": 2},\n',
    "around.json": b'{"data": [{"id": 1, "n": 2}]}',
    "lists.jsonl": b"[1, 2]\n[3, 4]\n",
    "others.jsonl": b'{"user": 1}\n',
    "bulk.jsonl": b'{"index": {"_id": 1}}\n{"user": 1}\n' * 2,
    "kcat.jsonl": b'{"topic": "t", "partition": 0, "offset": 0, "key": "k", "payload": "{}"}\n' * 2,
    "comment.json": b'// it\n{"a": 1}\n',
    "python.txt": b"{'a': 1}\n{'a': 2}\n",
    "prefix.log": b'2026-01-01T00:00:00Z {"user": "a"}\n' * 2,
    "words.log": b'INFO app {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "x", "payload": {}}\n',
    "app.log": b"2026-01-01T00:00:00Z began\n2026-01-01T00:00:01Z ended\n",
    "old.log": b"Jan  1 00:00:00 host began\nJan  1 00:00:01 host ended\n",
    "lines.txt": b"one line\nand another\n",
    "logfmt.log": b"t=1 level=info\nt=2 level=info\n",
    "gron.txt": b"json = {};\njson.a = 1;\n",
    "influx.txt": b"cpu,host=a v=1 1700000000000000000\ncpu,host=a v=2 1700000000000000001\n",
    "w3c.log": b"#Fields: date time c-ip\n2026-01-01 00:00:00 ::1\n",
    "zeek.log": b"#separator \\x09\n#unset_field\t-\n#fields\tts\tid.orig_h\n1774595524.1\t::1\n",
    "drawn.txt": b"+----+----+\n| a  | b  |\n+----+----+\n",
    "rows.sql": b"INSERT INTO t VALUES (1);\n" * 2,
    "a.yaml": b"- a: 1\n  b: 2\n- a: 3\n  b: 4\n",
    "a.xml": b"<?xml version='1.0'?><a/>",
    "a.html": b"<!doctype html><p>no</p>",
    "bare.csv": b"1,2026-01-01,3\n2,2026-01-02,4\n3,2026-01-03,5\n",
    "mac.csv": b"a,b\r1,2\r3,4\r",
    "sep.csv": b"sep=;\nid;at\n1;2026-01-01\n2;2026-01-02\n",
    "twice.csv": b"a;b;b\n1;2;3\n2;3;4\n",
    "escapes.csv": b"a\tb\n1\tx\\\ty\n2\t\\N\n",
}
"""A file for each hint of a reader."""

READING = {
    "ingest": ("ingest", "FILE", "--again"),
    "dry run": ("ingest", "--dry-run", "FILE", "--encoding", "utf-8"),
    "guess": ("ingest", "--guess", "FILE", "--max-line", "2000"),
    "mapped": ("ingest", "FILE", "--map", "source='it'", "--map", "payload=@"),
    "log": ("diff", "events", "FILE", "--entity", "an entity", "--timezone", "UTC"),
    "try": ("mappings", "try", "stripe-event", "FILE", "--sample", "2"),
    "figures": ("diff", "aggregates", "--against", "FILE", "--metric", "event_count"),
    "import": ("aggregates", "import", "FILE", "--metric", "event_count", "--dry-run"),
}


@pytest.fixture(scope="module")
def advices(tmp_path_factory: pytest.TempPathFactory) -> list[Advice]:
    """The hints of the readers, of real files."""
    found = []
    for name, content in UNREADABLE.items():
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        with pytest.raises(PikError) as error:
            _read_events(path)
        assert isinstance(error.value.hint, Advice), name
        found.append(error.value.hint)
    return found


def _read_events(path: Path) -> None:
    with file_source(str(path)).open() as opened:
        layout = opened.recognize(AUTO, mapped=False)
        list(opened.blocks(layout, 1 << 20))
        opened.expect_events(layout)
        opened.expect_fields(layout, RecordMapping({}))


def expect_not_to_record(text: str, given: tuple[str, ...]) -> None:
    """Each command in a hint is the one that was given, with its options, or proposes a mapping and stores nothing."""
    expect_hint(text)
    for found in re.findall(r"\bpik [^`]*", text):
        words = shlex.split(found)
        if words[1:3] != ["ingest", "--guess"]:
            assert {*given} - {*words} <= {"FILE", "--encoding", "utf-8"}, text  # what another program prints is UTF-8


@pytest.mark.parametrize("kind", READING)
def test_what_readers_advise_is_the_command_that_was_given(
    kind: str, pik: Any, tmp_path: Path, advices: list[Advice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its options, and none that it does not have."""
    pik("init")
    readers: list[CommandLine] = []
    reading_command = rereading.reading_command

    def kept(cli: Context) -> CommandLine:
        readers.append(reading_command(cli))
        return readers[-1]

    monkeypatch.setattr(rereading, "reading_command", kept)
    (tmp_path / "a.json").write_bytes(b"[")
    assert pik(*("a.json" if word == "FILE" else word for word in READING[kind])).code
    for advice in advices:
        text = advice.by(readers[0])
        expect_not_to_record(text, READING[kind])
        assert "--on-invalid" not in text or READING[kind][0] == "ingest", text
        assert READING[kind][0] == "ingest" or "an ingest" not in text
        assert "COLUMN" not in text or kind != "try", text


def test_what_readers_advise_of_an_assumed_file_is_an_assumption(advices: list[Advice]) -> None:
    for given in ("with=@a.csv", "with=@a.csv,encoding=utf-8,map=source='it'"):
        assumed = read_assumption(given, lambda path: (path,))
        assert isinstance(assumed, With)
        for advice in advices:
            text = advice.by(AssumedFile(assumed)).replace("ZONE", "UTC")
            expect_not_to_record(text, ("none",))
            before, _, rest = text.partition("--assume ")
            assert not rest or isinstance(read_assumption(shlex.split(rest)[0], lambda path: (path,)), With), text
            assert not re.search("--(on-invalid|map|encoding|columns|records)", "" if "--guess" in text else before)
            assert not re.search("[a-z]=[^,; ]+ [a-z]+=", text)
        told = refused(assumed, "--map entity_id=x finds nothing", "").hint
        assert told.startswith("--map is map= here; pik ingest --dry-run ")


def hints(path: Path, *, named: bool = True) -> Iterator[str]:
    """Each constant text that the file gives as a hint; also those that have a name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg in ("hint", "repair", "empty"):
            yield from (str(one.value) for one in ast.walk(node.value) if isinstance(one, ast.Constant))
        elif named and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield from (str(node.value.value) for one in node.targets if getattr(one, "id", "").isupper())


def test_what_another_program_reads_is_made_utf_8_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for encoding in ("utf-16", "utf-16-le", "latin-1", "euc_jp", "mac_roman"):
        Path("a.log.gz").write_bytes(gzip.compress("añ".encode(encoding) if encoding != "euc_jp" else b"a"))
        typed = converted("cat {file}", "a.log.gz", encoding)
        done = subprocess.run(["bash", "-c", typed], capture_output=True, check=True)
        assert (done.stdout.decode(), done.stderr) == ("a" if encoding == "euc_jp" else "añ", b""), typed


def test_what_is_not_on_a_disk_is_named_too() -> None:
    named = {name: Advice((Read((Option("encoding", "utf-16"),)),), name=name) for name in ("s3://b/a b", "s3://b/z:f")}
    assert named["s3://b/a b"] == "pik ingest 's3://b/a b' --encoding utf-16"
    assert named["s3://b/z:f"] == "pik ingest FILE --encoding utf-16"


def test_readers_leave_the_words_for_commands_and_options_to_the_command() -> None:
    names = "|".join(one.name.replace("_", "-") for one in fields(ReadingOptions))
    for path in (Path(package.__file__).parent / "inputs").glob("*.py"):
        for text in hints(path, named=False) if path.name != "one_batch.py" else ():  # which ingest alone has
            assert not re.search(rf"--({names}|on-invalid)\b|\bpik (ingest|diff)\b", text), (path, text)


def test_pik_is_never_installed_by_its_name() -> None:
    """It is not on PyPI, so that would install something else."""
    top = Path(package.__file__).parent
    for path in (*top.rglob("*.py"), *top.parent.glob("*.md"), *(top.parent / "docs").glob("*.md")):
        named = re.search(r"\binstall (?:-\S+ )*['\"]?pik\b(?!-)", path.read_text(encoding="utf-8"))
        assert named is None, (path, named)


def test_a_hint_ends_with_its_command_or_has_it_between_backticks() -> None:
    for path in Path(package.__file__).parent.rglob("*.py"):
        for text in hints(path):
            if " … " not in text and "demo" not in path.parts and path.name not in ("demo.py", "app.py"):
                expect_hint(text)


def test_a_name_that_looks_like_an_option_is_joined_to_its_option() -> None:
    """As a word by itself it is refused: a variable of a script may be unset."""
    assert command("events", "--entity", "--from", "--source", "a", "--newest") == (
        "pik events --entity=--from --source a --newest"
    )


def test_a_command_with_data_in_it_is_built_of_words() -> None:
    """Not of an f-string, which quotes nothing."""
    begun = re.compile(rf"\bpik (?:{NAMES})\b[^,;]*$")
    for path in Path(package.__file__).parent.rglob("*.py"):
        if path.name == "demo.py" or "demo" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts = [part.value for part in node.values[:-1] if isinstance(part, ast.Constant)]
                assert not any(begun.search(str(text)) for text in texts), (path, ast.unparse(node))
