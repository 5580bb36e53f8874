"""docs/json.md names every field that the commands write, and no other."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pik.__main__ import main
from pik.cli.app import root_command
from pik.cli.commands.care.demo import write_data
from pik.engine import DuckEngine
from pik.model.run import RunRequest
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.api_request import record_request
from pik.usecases.replay.plan import plan_replay, start
from tests.docs.conftest import DAY, PECULIAR
from tests.support.aws.bare import OF_THE_EMULATOR, deploy_bare, grant, make_user
from tests.support.aws.emulator import ENVIRONMENT, REGION, ministack
from tests.support.docs.console import REPOSITORY
from tests.support.lambdas.calls import silence, wire
from tests.support.lambdas.gateway import KEY, serving
from tools.json_fields import rows, schemas

PAGE = (REPOSITORY / "docs" / "json.md").read_text(encoding="utf-8")

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}(\d{3}){0,2})?Z")
_ROW = re.compile(r"^\| `([^`]+)` \| ([\w ]+) \| (.*)\|$", re.MULTILINE)

Fields = dict[str, str]
"""Path → type, as a table of the page has them."""


def documented() -> dict[str, Fields]:
    """The tables of the page by the heading above them."""
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    tables: dict[str, Fields] = {}
    for section in sections:
        heading, _, text = section.partition("\n")
        rows = _ROW.findall(text)
        assert rows, heading
        assert len(rows) == len({path for path, *_ in rows}) == text.count("\n| `"), heading
        tables[heading.replace("`", "")] = {path: kind for path, kind, _ in rows}
    return tables


class Journey:
    """Runs commands one after the other and keeps their JSON by the heading that describes it (none: not at all)."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.said: dict[str, list[Any]] = {}
        self._patch = patch
        patch.chdir(directory)
        for name in ("PIK_STORE", "PIK_FORMAT", "PIK_DEBUG"):
            patch.delenv(name, raising=False)

    def __call__(self, heading: str, *arguments: object, code: int = 0) -> Any:
        self._patch.setattr(sys, "argv", ["pik", *map(str, arguments), "--format", "json"])
        out, err = io.StringIO(), io.StringIO()
        handler = signal.getsignal(signal.SIGTERM)
        with redirect_stdout(out), redirect_stderr(err):
            ended = main()
        signal.signal(signal.SIGTERM, handler)
        assert ended == code, f"pik {arguments} ended with {ended}: {err.getvalue()}"
        if not heading:
            return None
        said = json.loads(out.getvalue(), parse_float=Decimal)
        self.said.setdefault(heading, []).append(said)
        return said


def _bring_in(pik: Journey) -> None:
    pik("pik init", "init")
    pik("pik ingest", "ingest", "monday.jsonl")
    pik("pik ingest", "ingest", "monday.jsonl")
    pik("", "ingest", "peculiar.jsonl", "--on-invalid", "stop", code=2)
    peculiar = pik("pik ingest", "ingest", "peculiar.jsonl", code=3)
    pik("pik ingest, several inputs", "ingest", "peculiar.jsonl", "monday.jsonl")
    pik("pik ingest --dry-run", "ingest", "--dry-run", "peculiar.jsonl", code=3)
    _via_api(pik)
    pik("pik batches", "batches")
    pik("pik batches --rejects", "batches", peculiar["batch_id"], "--rejects")
    pik("pik status", "status")


def _via_api(pik: Journey) -> None:
    """The same records through the API, which here belongs to a local store."""
    store = open_store("deployed", create=True)
    with pytest.MonkeyPatch.context() as patch, serving(store) as gateway:
        wire(patch, store)
        silence(patch)
        patch.setenv("PIK_API_URL", gateway.url)
        patch.setenv("PIK_API_KEY", KEY)
        via = ("--via", "api", "--store", "aws://pik")
        pik("pik ingest --via api", "ingest", "peculiar.jsonl", "monday.jsonl", *via, code=3)
        pik("pik ingest --via api", "ingest", "monday.jsonl", *via)
        chosen = ("replay", "--entity", "customer-17", *DAY)
        pik("pik replay", *chosen, *via)
        pik("pik replay", *chosen, "--no-wait", *via)
        pik("pik replay --dry-run", *chosen, "--dry-run", *via)


def _look(pik: Journey) -> None:
    pik("pik ingest", "ingest", "tuesday-morning.jsonl")
    pik("pik events", "events", *DAY, "--entity", "customer-17", "--limit", 3)
    pik("pik events", "events")
    found = pik("pik duplicates", "duplicates", "--limit", 3)
    pik("pik duplicates", "duplicates", "--class", "conflict", "--show-payload-diff")
    for group in ("source", "type", "entity", "batch", "hour"):
        pik("pik duplicates --by", "duplicates", "--by", group)
    pik("pik show", "show", found["duplicates"][0]["event_id"])


def _numbers(pik: Journey) -> None:
    pik("pik metrics apply", "metrics", "apply", "metrics.toml")
    pik("pik metrics list", "metrics", "list")
    pik("pik metrics show", "metrics", "show", "revenue")
    pik("pik metrics show", "metrics", "show", "event_count")
    pik("pik replay --dry-run", "replay", "--all", *DAY, "--dry-run")
    pik("pik replay", "replay", "--all", *DAY, "--promote", "--yes")
    pik("pik diff aggregates", "diff", "aggregates", *DAY, "--stats")
    pik("pik aggregates", "aggregates", "--entity", "customer-17")


def _repair(pik: Journey) -> None:
    pik("pik diff aggregates", "diff", "aggregates", *DAY, "--limit", 3, "--stats", code=1)
    options = ("--entity", "customer-17", "--type", "payment_captured", "--source", "app", "--metric", "revenue")
    run = pik("pik replay", "replay", *DAY, *options, "--reason", "late")["run_id"]
    other = pik("pik replay", "replay", *DAY, *options, "--reason", "late, too")["run_id"]
    pik("pik diff aggregates", "diff", "aggregates", "--run", run, code=1)
    pik("pik promote, pik rollback", "promote", run, "--dry-run")
    pik("pik promote, pik rollback", "promote", run, "--yes", "--reason", "late")
    pik("pik promote, pik rollback", "rollback", run, "--yes")
    pik("pik promote, pik rollback", "promote", run, "--yes")
    pik("pik promote, pik rollback", "promote", other, code=3)
    counted = pik("pik replay", "replay", "--all", *DAY, "--include-duplicates")["run_id"]
    pik("pik diff aggregates", "diff", "aggregates", "--run", counted, code=1)
    pik("pik aggregates", "aggregates", "--entity", "customer-17", "--history")
    pik("pik runs list", "runs", "list")
    pik("pik runs show", "runs", "show", run)
    pik("pik runs wait, pik runs cancel", "runs", "wait", run)
    pik("pik runs resume", "runs", "resume", _planned())
    pik("pik runs wait, pik runs cancel", "runs", "cancel", _planned())
    pik("pik status", "status")
    pik("pik verify", "verify")


def _look_at_stack(pik: Journey, directory: Path, patch: pytest.MonkeyPatch) -> None:
    """In an emulator that evaluates policies: what its root sees, and somebody who may only find the stack."""
    with ministack(directory, AUTH="true") as url:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        root = Clients(REGION)
        stack = deploy_bare(root, "shop", tls=False)
        root.client("cloudwatch").set_alarm_state(
            AlarmName=stack.resource("LagAlarm"), StateValue="ALARM", StateReason="p99 is 2 h"
        )
        of = ("--store", "aws://shop")
        pik("pik ingest", "ingest", "monday.jsonl", *of)
        pik("pik stack status", "stack", "status", *of, code=1)
        pik("pik stack doctor", "stack", "doctor", *of, "--all", code=1)
        user = make_user(root, "ann")
        find = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}
        grant(root, "ann", [find, OF_THE_EMULATOR])
        for name, value in user.items():
            patch.setenv(name, value)
        pik("pik stack status", "stack", "status", *of)
        pik("pik stack doctor", "stack", "doctor", *of, code=1)


def _planned() -> str:
    """A run that was planned by a process that died then."""
    store = open_store(".pik")
    return start(store, plan_replay(store, DuckEngine(), RunRequest(start=0, end=10**18), 1)).run_id


def _fail(pik: Journey) -> None:
    Path("broken.toml").write_text('name = "broken"\nvalue = "sum((payload->>\'$.order\')::DECIMAL(18, 2))"\n')
    pik("pik metrics apply", "metrics", "apply", "broken.toml")
    pik("pik replay", "replay", "--entity", "customer-17", *DAY, "--metric", "broken", code=3)
    lost = min(Path(".pik/raw/event_date=2026-03-02").iterdir())
    for reason in ("lost", "lost again"):
        aside = lost.rename("aside")
        pik("pik replay", "replay", "--all", *DAY, "--metric", "event_count", "--reason", reason, code=3)
        aside.rename(lost)
    letters = pik("pik dlq list", "dlq", "list")["dead_letters"]
    pik("pik runs show", "runs", "show", letters[0]["run_id"])
    pik("pik dlq show", "dlq", "show", letters[0]["letter_id"])
    pik("pik dlq redrive", "dlq", "redrive", "--all", "--dry-run")
    pik("pik dlq redrive", "dlq", "redrive", letters[0]["letter_id"])
    pik("pik dlq purge", "dlq", "purge", "--all", "--dry-run")
    pik("pik dlq purge", "dlq", "purge", "--all", "--reason", "withdrawn", "--yes")
    pik("pik dlq list --purged", "dlq", "list", "--purged")


def _pull(pik: Journey) -> None:
    pik("pik pull --dry-run", "pull", *DAY, "--into", "copy", "--dry-run")
    pik("pik pull", "pull", *DAY, "--into", "copy")
    pik("pik pull", "pull", *DAY, "--into", "copy", "--entity", "customer-17")
    pik("pik status", "status", "--store", "copy")
    pik("pik batches", "batches", "--store", "copy")
    pik("pik verify", "verify", "--store", "copy")
    event = pik("pik events", "events", *DAY, "--store", "copy", "--limit", 1)["events"][0]
    pik("pik show", "show", event["event_id"], "--store", "copy")


def _keep(pik: Journey) -> None:
    pik("pik backup, pik restore", "backup", "state.backup")
    pik("pik init", "init", "--store", "other")
    pik("pik backup, pik restore", "restore", "state.backup", "--store", "other", "--dry-run")
    pik("pik backup, pik restore", "restore", "state.backup", "--store", "other")
    pik("pik export", "export", "--out", "events.parquet", *DAY)
    pik("pik export", "export", "--out", "copy.jsonl", *DAY, "--dry-run")
    pik("pik export", "export", "--out", "none.csv", "--entity", "nobody")
    pik(
        "",
        "export",
        "--out",
        "parts",
        "--as",
        "jsonl",
        "--column",
        "amount=amount:decimal(18,2)",
        "--partition-by",
        "source",
    )
    for manifest in ("events.parquet.manifest.json", "none.csv.manifest.json", "parts/_manifest.json"):
        pik.said.setdefault("The manifest of an export", []).append(json.loads(Path(manifest).read_bytes()))
    pik("pik ingest", "ingest", "monday.jsonl", "--again")
    first = min(Path(".pik/raw/event_date=2026-03-02").iterdir())
    first.unlink()
    pik("pik verify", "verify", "--quick", code=1)
    pik("pik pull", "pull", *DAY, "--into", "damaged", code=3)
    pik("pik verify --rebuild-index", "verify", "--rebuild-index", code=1)
    for amount in (1, 2):  # with the index gone only their order tells which counts
        event = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-03-02T00:00:00Z"}
        record_request(
            open_store(".pik"), json.dumps({**event, "idempotency_key": "k", "payload": {"n": amount}}).encode()
        )
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        Path(".pik", name).unlink(missing_ok=True)
    pik("pik verify --rebuild-index", "verify", "--rebuild-index", code=1)


def _misfit(pik: Journey) -> None:
    """A metric that none of the events fits, and raw that is lost."""
    Path("misfit.toml").write_text('name = "misfit"\nvalue = "sum(source::BIGINT)"\n', encoding="utf-8")
    pik("pik metrics apply", "metrics", "apply", "misfit.toml")
    pik("pik diff aggregates", "diff", "aggregates", "--metric", "misfit", code=3)
    run = pik("pik replay", "replay", "--all", "--from", "2026-03-03", "--metric", "misfit", code=3)["run_id"]
    pik("pik promote, pik rollback", "promote", run, "--yes", code=3)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Any]]]:
    """What every command says, by heading, in a store where all of them have something to say."""
    directory = tmp_path_factory.mktemp("journey")
    write_data(directory)
    (directory / "peculiar.jsonl").write_text(PECULIAR, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        pik = Journey(directory, patch)
        for part in (_bring_in, _numbers, _look, _repair, _fail, _pull, _keep, _misfit):
            part(pik)
        _look_at_stack(pik, tmp_path_factory.mktemp("ministack"), patch)
        yield pik.said


def _paths(value: Any, fields: Fields, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything in the JSON that has a row of its own, or should have."""
    if path and not path.endswith("[]"):
        yield path, value
        if not _goes_deeper(value, fields.get(path, "")):
            return
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _paths(one, fields, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for one in value:
            yield from _paths(one, fields, f"{path}[]")


def _goes_deeper(value: Any, kind: str) -> bool:
    """Whether what is inside has rows of its own."""
    return (isinstance(value, dict) and "object" in kind) or (isinstance(value, list) and "rows" in kind)


def _kinds(value: Any) -> set[str]:
    """The types that a value may be said to have."""
    if value is None:
        return {"null"}
    if isinstance(value, bool):
        return {"boolean", "JSON"}
    if isinstance(value, int):
        return {"integer", "number", "JSON"}
    if isinstance(value, Decimal):
        return {"number", "JSON"}
    if isinstance(value, str):
        return {"string", "JSON"} | ({"time"} if _TIME.fullmatch(value) else set())
    if isinstance(value, list):
        ours = {"rows": dict, "strings": str}
        return {"JSON"} | {name for name, kind in ours.items() if all(isinstance(one, kind) for one in value)}
    if set(value) == {"from", "to"}:
        return {"window", "JSON"}
    return {"object", "JSON"} | ({"map"} if all(isinstance(one, int) for one in value.values()) else set())


DOCUMENTED = documented()


@pytest.mark.parametrize("heading", DOCUMENTED)
def test_fields_are_as_documented(heading: str, said: dict[str, list[Any]]) -> None:
    fields = DOCUMENTED[heading]
    seen: set[str] = set()
    for document in said[heading]:
        for path, value in _paths(document, fields):
            assert path in fields, f"{heading} has {path}, which docs/json.md does not"
            assert _kinds(value) & set(fields[path].split(" or ")), f"{heading}: {path} is {value!r}, no {fields[path]}"
            seen.add(path)
    assert not fields.keys() - seen, f"docs/json.md has fields of {heading} that it does not write"


def test_the_page_has_what_the_commands_declare() -> None:
    declared: dict[str, Fields] = {}
    for schema in schemas():
        declared.setdefault(schema.title, {}).update({row.path: row.kind for row in rows(schema)})
    assert set(DOCUMENTED) - set(declared) == {"The manifest of an export"}
    for heading, fields in declared.items():
        page = DOCUMENTED[heading]
        # Of a field that the page has under another heading already, the inner fields may stand there only.
        assert {path: fields[path] for path in page} == page, heading
        assert all("failures[]." in path for path in fields.keys() - page.keys()), heading


def test_every_command_is_documented(said: dict[str, list[Any]]) -> None:
    assert set(said) == set(DOCUMENTED)
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        for inner in getattr(command, "commands", {"": None}):
            assert f"pik {name} {inner}".strip() in PAGE or name == "demo"


OF_TWO_MEANINGS = {
    *("accepted", "aggregates", "batches", "bucket", "current", "deliveries", "duplicates", "events", "metrics"),
    "value",
}
"""Names that are rows in one place and their number in another, or a definition's text and what comes of it."""


def test_a_field_has_one_type_wherever_it_is() -> None:
    types: dict[str, set[str]] = {}
    for fields in DOCUMENTED.values():
        for path, kind in fields.items():
            name = path.rpartition(".")[2].removesuffix("[]")
            types.setdefault(name, set()).add(kind.removesuffix(" or null"))
    assert {name for name, kinds in types.items() if len(kinds) > 1} == OF_TWO_MEANINGS


def test_nothing_to_say_is_null(said: dict[str, list[Any]]) -> None:
    def empty(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            return [found for name, one in value.items() for found in empty(one, f"{path}.{name}")]
        if isinstance(value, list):
            return [found for one in value for found in empty(one, path)]
        return [path] if value == "" else []

    assert [found for heading, documents in said.items() for found in empty(documents, heading)] == []
