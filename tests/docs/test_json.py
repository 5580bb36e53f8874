"""What the commands write is as docs/schemas/ has it: every field, and no other."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator, meta

from pik.__main__ import main
from pik.cli.app import root_command
from pik.cli.demo.shop import write_data
from pik.engine import DuckEngine
from pik.errors import Unreadable
from pik.model.buffered import BufferedRequest
from pik.model.run import RunRequest
from pik.runtime import checkpoint
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.care import cluster_pack, verify
from pik.usecases.ingest.api_request import record_request
from pik.usecases.ingest.buffered import record_buffered
from pik.usecases.metrics import candidates
from pik.usecases.replay.plan import plan_replay, start
from tests.docs.conftest import DAY, FOREIGN, PECULIAR
from tests.support.aws.bare import OF_THE_EMULATOR, deploy_bare, grant, make_user
from tests.support.aws.emulator import ENVIRONMENT, REGION, ministack
from tests.support.lambdas.calls import silence, wire
from tests.support.lambdas.gateway import KEY, serving
from tests.support.regular import irregular, lines
from tests.support.targets import HttpReceiver
from tools.gen_json import SCHEMAS, names, rows, schemas, slug

pytestmark = pytest.mark.xdist_group("journey")  # which takes long, and is made once for each process

SCHEMAS_BY_TITLE = {schema.title: schema for schema in schemas()}


ONE = ("--entity", "customer-17")
TWO = (*ONE, "--entity", "nobody")
COUNTED = ("--assume", "duplicates=counted")
EVERYTHING = (*ONE, "--type", "payment_captured", "--source", "app", "--metric", "revenue")


ZONE, OFFSET = "Pacific/Marquesas", "-09:30"
"""Of the times that tables show; JSON stays in UTC."""

CHANGES = {
    "--output",
    "--rebuild-index",
    "--restore",
    "pack",
    "api",
    "apply",
    "bundle",
    "cancel",
    "correct",
    "export",
    "import",
    "ingest",
}
CHANGES |= {
    "init",
    "inputs",
    "json",
    "manifest",
    "pull",
    "purge",
    "redrive",
    "replay",
    "restore",
    "resume",
    "reinstate",
    "revoke",
    "rollback",
}
"""The last words of titles whose commands must not be given twice, or show no table."""


class Journey:
    """Runs commands one after the other and keeps their JSON by the title of its schema (none: not at all)."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.said: dict[str, list[Any]] = {}
        self.shown: dict[str, str] = {}
        self._patch = patch
        patch.setenv("PIK_DISPLAY_TIMEZONE", ZONE)
        patch.chdir(directory)
        for name in ("PIK_STORE", "PIK_FORMAT", "PIK_DEBUG"):
            patch.delenv(name, raising=False)

    def __call__(self, title: str, *arguments: object, code: int = 0) -> Any:
        out, err = self._run(code, *arguments, "--format", "json")
        assert OFFSET not in out + err, f"pik {arguments} writes JSON in the zone of tables"
        if title and title.split()[-1] not in CHANGES and title not in self.shown:
            self.shown[title] = "".join(self._run(code, *arguments, "--format", "table"))
        if code in (2, 4):
            self.said.setdefault("pik, errors", []).append(json.loads(err.splitlines()[-1]))
        if not title:
            return None
        said = json.loads(out, parse_float=Decimal)
        self.said.setdefault(title, []).append(said)
        return said

    def _run(self, code: int, *arguments: object) -> tuple[str, str]:
        """Return what a command writes to standard output and to standard error."""
        self._patch.setattr(sys, "argv", ["pik", *map(str, arguments)])
        out, err = io.StringIO(), io.StringIO()
        handler = signal.getsignal(signal.SIGTERM)
        with redirect_stdout(out), redirect_stderr(err):
            ended = main()
        signal.signal(signal.SIGTERM, handler)
        assert ended == code, f"pik {arguments} ended with {ended}: {err.getvalue()}"
        return out.getvalue(), err.getvalue()


def _continued(pik: Journey) -> None:
    """A verification that is interrupted after the days, and goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
        patch.setattr(checkpoint, "WAIT", 0.0)
        with patch.context() as inner:
            inner.setattr(verify, "copy_problems", Mock(side_effect=KeyboardInterrupt))
            pik("", "verify", code=130)
        pik("pik verify", "verify", "--continue")


def _bring_in(pik: Journey) -> None:
    pik("pik init", "init")
    _units(pik)
    pik("pik ingest", "ingest", "monday.jsonl")
    pik("pik ingest", "ingest", "monday.jsonl")
    pik("", "ingest", "peculiar.jsonl", "--on-invalid", "stop", code=2)
    peculiar = pik("pik ingest", "ingest", "peculiar.jsonl", code=3)
    Path("page.xml").write_text('<?xml version="1.0"?><page/>')
    pik("pik ingest, several inputs", "ingest", "peculiar.jsonl", "monday.jsonl", "page.xml", code=3)
    pik("pik ingest --dry-run", "ingest", "--dry-run", "peculiar.jsonl", "page.xml", code=3)
    fields = {"source": "'till'", "event_type": "'sale'", "entity_id": "who.id", "event_time": "at", "payload": "@"}
    mapping = [word for field, found in fields.items() for word in ("--map", f"{field}={found}")]
    pik("pik ingest --dry-run", "ingest", "--dry-run", "foreign.jsonl", "--time-format", "epoch", *mapping)
    pik("pik ingest --guess", "ingest", "--guess", "foreign.jsonl", *mapping)
    Path("bare.jsonl").write_text('{"a":1}\n')
    pik("pik ingest --guess", "ingest", "--guess", "bare.jsonl", code=3)
    _mapped(pik)
    _one_batch(pik)
    pik("pik batches", "batches")
    pik("pik batches --rejects", "batches", peculiar["batch_id"], "--rejects")
    pik("pik status", "status")


def _mapped(pik: Journey) -> None:
    """A file that is read by a named mapping, in a store of its own."""
    Path("pik.toml").write_text(
        '[mapping.till]\nfiles = ["foreign.*"]\ntime_format = "epoch"\ndescription = "of a till"\n'
        """[mapping.till.map]\nsource = "'till'"\nevent_type = "'sale'"\nentity_id = "who.id"\n"""
        'event_time = "at"\npayload = "@"\n'
    )
    pik("pik mappings list", "mappings", "list")
    pik("pik mappings show", "mappings", "show", "till")
    pik("pik mappings try", "mappings", "try", "till", "foreign.jsonl")
    Path("foreign-2.jsonl").write_text(Path("foreign.jsonl").read_text() + '{"at":"noon","who":{"id":"a"}}\n')
    pik("pik mappings try", "mappings", "try", "till", "foreign-2.jsonl", code=3)
    store = ("--store", "mapped")
    pik("", "init", *store)
    pik("pik ingest", "ingest", "foreign.jsonl", *store)
    pik("pik ingest, several inputs", "ingest", "foreign.jsonl", "monday.jsonl", *store)
    pik("pik ingest --dry-run", "ingest", "--dry-run", "foreign.jsonl")
    pik("pik diff events", "diff", "events", "foreign.jsonl", *store)
    _via_api(pik)
    Path("pik.toml").unlink()


def _units(pik: Journey) -> None:
    """A log with numbers whose unit is told by their size, in a store of its own."""
    store = ("--store", "units")
    pik("", "init", *store)
    line = Path("monday.jsonl").read_text().splitlines()[0]
    event = json.loads(line) | {"event_time": 1772442000, "received_time": 1772442001}
    Path("units.jsonl").write_text(json.dumps(event))
    auto = ("units.jsonl", "--time-format", "auto", *store)
    pik("pik ingest", "ingest", *auto)
    pik("pik ingest, several inputs", "ingest", "units.jsonl", *auto)
    pik("pik ingest --dry-run", "ingest", "--dry-run", *auto)
    pik("pik diff events", "diff", "events", *auto)
    seconds = ("units.jsonl", "--time-format", "epoch", *store)
    pik("pik ingest --dry-run", "ingest", "--dry-run", *seconds)
    pik("pik ingest, several inputs", "ingest", "monday.jsonl", *seconds, code=3)
    pik("pik ingest", "ingest", *seconds, "--again")
    pik("pik batches", "batches", *store)
    pik("pik batches", "batches", "latest", *store)


def _one_batch(pik: Journey) -> None:
    """Two files as one batch, in a store of its own."""
    store = ("--store", "several")
    pik("", "init", *store)
    one_batch = ("peculiar.jsonl", "monday.jsonl", "--one-batch", *store)
    done = pik("pik ingest", "ingest", *one_batch, code=3)
    pik("pik ingest --dry-run", "ingest", "--dry-run", *one_batch, code=3)
    pik("pik batches --rejects", "batches", done["batch_id"], "--rejects", *store)
    event = pik("pik events", "events", "--limit", 1, *store)["events"][0]
    pik("pik show", "show", event["event_id"], *store)


def _via_api(pik: Journey) -> None:
    """The same records through the API, which here belongs to a local store."""
    store = open_store("deployed", create=True)
    with pytest.MonkeyPatch.context() as patch, serving(store) as gateway:
        wire(patch, store)
        silence(patch)
        patch.setenv("PIK_API_URL", gateway.url)
        patch.setenv("PIK_API_KEY", KEY)
        via = ("--via", "api", "--store", "aws://pik")
        pik("pik ingest --via api", "ingest", "peculiar.jsonl", "monday.jsonl", "page.xml", *via, code=3)
        pik("pik ingest --via api", "ingest", "monday.jsonl", "foreign.jsonl", *via)
        pik("pik ingest --via api", "ingest", "units.jsonl", "--time-format", "auto", *via)
        chosen = ("replay", "--entity", "customer-17", *DAY)
        pik("pik replay", *chosen, *via)
        pik("pik replay", *chosen, "--no-wait", *via)
        pik("pik replay --dry-run", *chosen, "--dry-run", *via)


def _look(pik: Journey) -> None:
    pik("pik ingest", "ingest", "tuesday-morning.jsonl")
    pik("pik events", "events", *DAY, "--entity", "customer-17", "--limit", 3)
    pik("pik events", "events", "--column", "payload.amount", "--newest")
    for group in ("hour", "day", "type", "entity", "source", "batch", "payload.amount"):
        pik("pik events --by", "events", "--by", group, "--class", "exact")
    pik("pik events --by", "events", "--by", "hour", "--entity", "customer-17", "--limit", 1)
    pik("pik lag", "lag", *DAY, "--entity", "customer-17", "--warn-after", "5m", "--error-after", "10000w")
    pik("pik lag", "lag", "--by", "hour", "--limit", 1)
    Path("irregular.jsonl").write_text(lines(irregular()), encoding="utf-8")
    pik("", "init", "--store", "irregular")
    pik("", "ingest", "irregular.jsonl", "--store", "irregular")
    pik("pik lag --skew", "lag", "--skew", "--store", "irregular", code=1)
    pik("pik lag --skew", "lag", "--skew", *DAY, "--entity", "customer-17")
    pik("pik gaps", "gaps", "--store", "irregular", "--sequence-field", "payload.n", code=1)
    pik("pik gaps", "gaps", *DAY, "--entity", "customer-17", "--by", "entity")
    found = pik("pik duplicates", "duplicates", "--limit", 3)
    pik("pik duplicates", "duplicates", "--class", "conflict", "--show-payload-diff")
    pik("pik duplicates", "duplicates", "--entity", "customer-17", "--limit", 1)
    for group in ("source", "type", "entity", "batch", "day", "hour", "payload.amount"):
        pik("pik duplicates --by", "duplicates", "--by", group)
    _suspect(pik)
    _reconcile(pik)
    pik("pik duplicates --by", "duplicates", "--by", "hour", "--entity", "customer-17", "--limit", 1)
    pik("pik show", "show", found["duplicates"][0]["event_id"], "--limit", 1)
    rewritten = pik("pik events", "events", "--entity", "\ue000")["events"][0]
    pik("pik show", "show", rewritten["event_id"])


def _reconcile(pik: Journey) -> None:
    """A log with an event of its own, and one whose key the store has with other content."""
    event = {
        "source": "s",
        "event_type": "payment_captured",
        "entity_id": "customer-17",
        "payload": {"n": 1, "amount": 1},
    }
    lines = [event | {"event_time": f"2026-03-10T0{hour}:00:00Z"} for hour in range(4)]
    lines[3] = lines[3] | {"payload": {"n": 1, "amount": 9}}
    for number in (1, 2):
        lines[2] = lines[2] | {"idempotency_key": "log", "payload": {"n": number}}
        text = "".join(json.dumps(one) + "\n" for one in (lines[:3] if number == 1 else lines[1:]))
        Path(f"log-{number}.jsonl").write_text(text + ("" if number == 1 else text.splitlines()[0] + "\n{}\n"))
    pik("", "ingest", "log-1.jsonl")
    title, of = "pik diff events", ("diff", "events", "log-2.jsonl", "--where", "source = 's'")
    pik(title, *of, code=3)
    pik(title, *of, *ONE, code=3)
    pik(title, *of, "--from", "2026-03-10", "--limit", 1, "--write", "log-missing.jsonl", code=3)


def _suspect(pik: Journey) -> None:
    """Events a day after the others, one like another one two seconds earlier, and some that cannot be compared."""
    event = {"source": "s", "event_type": "t", "entity_id": "customer-17", "payload": {"n": 1}}
    times = ("2026-03-09T00:00:00Z", "2026-03-09T00:00:02Z")
    Path("suspect.jsonl").write_text("".join(json.dumps(event | {"event_time": one}) + "\n" for one in times))
    pik("", "ingest", "suspect.jsonl")
    pik("pik explain", "explain", "event_count", "customer-17", "2026-03-09", code=1)
    of = ("duplicates", "--class", "suspect")
    pik("pik duplicates --class suspect", *of)
    pik("pik duplicates --class suspect", *of, "--column", "payload.amount")
    pik("pik duplicates --class suspect", *of, *ONE, "--from", "2026-03-09", "--limit", 1, "--same", "payload.nothing")
    for group in ("source", "type", "entity", "batch", "day", "hour", "payload.n"):
        pik("pik duplicates --class suspect --by", *of, "--by", group)
    pik("pik duplicates --class suspect --by", *of, *ONE, "--by", "source", "--same", "payload.nothing")
    pik("pik duplicates --changes", *of, *ONE, "--same", "source", "--changes", "payload.amount", "--limit", 1)
    pik("pik duplicates --changes", "duplicates", "--class", "conflict", "--changes", "payload.amount")
    Path("largest.toml").write_text(
        'name = "largest"\ntimezone = "Europe/London"\nwhere = "event_type = \'payment_captured\'"\n'
        "value = \"max((payload->>'$.amount')::DECIMAL(18,2))\"\n"
    )
    pik("pik metrics apply", "metrics", "apply", "largest.toml")
    pik("pik duplicates --impact", "duplicates", "--class", "conflict", "--impact")
    pik("pik duplicates --impact", *of, *ONE, "--impact", "--limit", 1)


def _numbers(pik: Journey) -> None:
    with Path("metrics.toml").open("a") as file:
        file.write('timezone = "Europe/London"\n')  # which has the days of UTC then
    pik("pik metrics apply", "metrics", "apply", "metrics.toml", "--reason", "first")
    over_all = 'name = "all_events"\nvalue = "count(*)"\nper = "all"\n'
    Path("over-all.toml").write_text(over_all, encoding="utf-8")
    pik("pik metrics apply", "metrics", "apply", "over-all.toml")
    pik("pik metrics list", "metrics", "list")
    pik("pik metrics show", "metrics", "show", "revenue")
    pik("pik metrics show", "metrics", "show", "event_count")
    pik("pik replay --dry-run", "replay", "--all", *DAY, "--dry-run")
    pik("pik replay --dry-run", "replay", *DAY, *EVERYTHING, *COUNTED, "--reason", "why", "--dry-run")
    pik("pik replay --dry-run", "replay", *DAY, *TWO, "--dry-run")
    pik("pik replay", "replay", "--all", *DAY, "--promote", "--yes", "--reason", "first numbers")
    pik("pik replay", "replay", *DAY, *TWO)
    pik("pik diff aggregates", "diff", "aggregates", *DAY, *TWO)
    pik("pik diff aggregates", "diff", "aggregates", *DAY, "--stats")
    for by in ("metric", "bucket", "run"):
        pik("pik aggregates --total", "aggregates", "--total", "--by", by, *ONE)
        pik("pik diff aggregates --total", "diff", "aggregates", *DAY, *TWO, "--by", by)
    found = pik("pik aggregates", "aggregates", "--entity", "customer-17")["aggregates"]
    names = ("metric", "bucket", "entity_id", "value")
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in found)]
    Path("ledger.csv").write_text("\n".join(lines), encoding="utf-8")
    pik("pik diff aggregates", "diff", "aggregates", "--against", "ledger.csv", "--entity", "customer-17")
    wide = [line.partition(",")[2] for line in lines if not line.startswith("event_count")]
    Path("wide.csv").write_text("\n".join(wide), encoding="utf-8")
    sides = ("--left", "current@2026-03-04", "--right", "current")
    pik("pik diff aggregates --total", "diff", "aggregates", "--total", *sides, code=1)
    pik("pik diff aggregates --total", "diff", "aggregates", "--total", "--against", "ledger.csv", code=1)
    pik(
        "pik diff aggregates --total",
        "diff",
        "aggregates",
        "--total",
        "--against",
        "wide.csv",
        "--metric",
        "revenue",
        code=1,
    )
    taken = ("--against", "wide.csv", "--value", "revenue=value", "--key", "bucket=bucket", "--entity", "customer-17")
    pik("pik diff aggregates", "diff", "aggregates", *taken)
    pik("pik diff aggregates", "diff", "aggregates", "--left", "current@2026-03-04", "--right", "current", code=1)


def _repair(pik: Journey) -> None:
    pik("pik diff aggregates", "diff", "aggregates", *DAY, "--limit", 3, "--stats", code=1)
    pik("pik diff aggregates", "diff", "aggregates", *DAY, "--assume", "conflicts=last", "--explain", code=1)
    pik("pik diff aggregates --total", "diff", "aggregates", *DAY, "--total", code=1)
    pik("pik diff aggregates --total", "diff", "aggregates", *DAY, "--total", "--assume", "conflicts=last", code=1)
    pik("pik events", "events", "--not-counted", "revenue", "--limit", 3)
    pik("pik sql", "sql", 'SELECT avg(value) AS "any_column" FROM aggregates', *DAY, *ONE)
    pik("pik sql", "sql", 'SELECT 1 AS "any_column" FROM deliveries', "--limit", 1)
    pik("pik sql --output", "sql", "FROM batches", "--output", "batches.parquet")
    pik("pik sql --output", "sql", "FROM aggregates", *ONE, "--output", "aggregates.parquet")
    pik("pik lag --late", "lag", "--late", *DAY, "--entity", "customer-17")
    late = ("revenue", "customer-17", DAY[1], "--events", "--column", "payload.amount")
    pik("pik explain", "explain", *late, code=1)
    Path("one.csv").write_text("day,customer,net\n2026-03-02,customer-17,1671.92\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "OFFSETS", range(-1, 2))  # of the days of other zones, a few are tried
        pik("pik explain", "explain", *late, "--against", "one.csv", "--value", "revenue=net", code=1)
        pik("pik explain", "explain", *late, "--expect", "1671.92", code=1)
    found = pik("pik triage", "triage", *DAY, code=1)
    Path("baseline.json").write_bytes(msgspec.json.encode(found))
    pik("pik triage", "triage", *DAY, "--baseline", "baseline.json")
    pik("pik triage", "triage", *DAY, "--entity", "customer-17", code=1)
    incident = ("report", "--incident", "INC-1234", *DAY)
    pik("pik report", *incident, *ONE, "--metric", "revenue", "--out", "report.md", "--force", code=1)
    pik("pik report", *incident, *ONE, "--out", "report.md", "--dry-run", "--force", code=1)
    pik("pik report --as json", *incident, *ONE, "--metric", "revenue", "--out", "-", "--as", "json", code=1)
    Path("count.toml").write_text(
        'name = "revenue"\ntimezone = "Europe/London"\nwhere = "seq > 0"\nvalue = "count(*)"\n'
    )
    pik(
        "pik explain",
        "explain",
        *late,
        "--assume",
        "definition=@count.toml",
        "--assume",
        "shift=1s,entity=customer-17",
        code=1,
    )
    run = pik("pik replay", "replay", *DAY, *EVERYTHING, "--reason", "late")["run_id"]
    other = pik("pik replay", "replay", *DAY, *EVERYTHING, "--reason", "late, too")["run_id"]
    pik("pik diff aggregates", "diff", "aggregates", "--run", run, code=1)
    pik("pik promote, pik rollback", "promote", run, "--dry-run")
    pik("pik promote, pik rollback", "promote", run, "--yes", "--reason", "late")
    pik("pik promote, pik rollback", "rollback", run, "--yes", "--reason", "too early")
    pik("pik explain", "explain", *late, code=1)
    pik("pik promote, pik rollback", "promote", run, "--yes")
    pik("pik promote, pik rollback", "promote", other, code=3)
    counted = pik("pik replay", "replay", "--all", *DAY, *COUNTED)["run_id"]
    pik("pik diff aggregates", "diff", "aggregates", "--run", counted, code=1)
    pik("pik aggregates", "aggregates", "--entity", "customer-17", "--history")
    pik("pik explain", "explain", *late, "--left", f"run:{counted}", "--right", "current", code=1)
    pik("pik diff aggregates", "diff", "aggregates", "--left", f"run:{counted}", "--explain", code=1)
    revenue = ("--left", f"run:{counted}", "--metric", "revenue")
    pik("pik diff aggregates --total", "diff", "aggregates", *revenue, "--total", "--explain", code=1)
    pik("pik runs list", "runs", "list")
    pik("pik runs show", "runs", "show", run)
    pik("pik runs show", "runs", "show", counted)
    pik("pik runs wait, pik runs cancel", "runs", "wait", run)
    pik("pik runs wait, pik runs cancel", "runs", "wait", counted)
    request = {"entities": ("customer-17",), "metrics": ("revenue",), "source": "app", "event_type": "payment_captured"}
    pik("pik runs resume", "runs", "resume", _planned(**request, assumed=("duplicates=counted",), reason="late"))
    pik("pik runs wait, pik runs cancel", "runs", "cancel", _planned())
    pik("pik status", "status")
    pik("pik verify", "verify")
    _continued(pik)
    whole = {path: path.read_bytes() for path in Path(".pik/raw/event_date=2026-03-02").iterdir()}
    for path, data in whole.items():
        path.chmod(0o644)
        path.write_bytes(data[:-1])
    pik("pik verify", "verify", code=1)
    for path, data in whole.items():
        path.write_bytes(data)


def _republish(pik: Journey) -> None:
    with HttpReceiver(lambda _attempt, _body: (422, b"no such customer")) as receiver:
        chosen = (*ONE, *DAY, "--type", "order_placed", "--source", "app", "--where", "true")
        of = ("republish", *chosen, "--target", receiver.url, "--reason", "they lost a day")
        pik("pik republish --dry-run", *of, "--dry-run")
        pik("pik republish --dry-run", "republish", "--all", "--target", "history.ndjson", "--dry-run")
        title = "pik republish, pik republish resume, pik republish cancel"
        republish_id = pik(title, *of, "--stop-after-failures", 1, "--rate", "99/s", "--yes", code=3)["republish_id"]
        pik("pik republish show", "republish", "show", republish_id)
        pik("pik republish list", "republish", "list", "--limit", 1)
        receiver.answers = lambda _attempt, _body: (204, b"")
        pik(title, "republish", "resume", republish_id)
        receiver.answers = lambda _attempt, _body: (422, b"")
        given_up = pik(title, "republish", "--all", "--target", receiver.url, "--yes", code=3)["republish_id"]
        pik(title, "republish", "cancel", given_up, "--reason", "they have a backup")
    republish_id = pik(title, "republish", "--all", "--target", "history.ndjson", "--yes")["republish_id"]
    pik("pik republish show", "republish", "show", republish_id)
    pik("pik republish list", "republish", "list")


def _import(pik: Journey) -> None:
    """Numbers of a ledger become current, and are taken back."""
    rows = ("revenue,2026-03-02,customer-17,1", "event_count,2026-03-02,customer-17,1", "revenue,2026-03-02,x,7")
    Path("outside.csv").write_text("\n".join(("metric,bucket,entity_id,value", *rows)), encoding="utf-8")
    title, of = "pik aggregates import", ("aggregates", "import", "outside.csv", "--metric", "revenue")
    pik(title, *of, "--dry-run")
    run = pik(title, *of, *ONE, *DAY, "--yes", "--reason", "the ledger is right")["run_id"]
    pik(title, *of, *ONE, *DAY, "--yes")
    pik("pik runs show", "runs", "show", run)
    pik("pik runs list", "runs", "list", "--limit", 1)
    pik("pik aggregates", "aggregates", *ONE, "--history")
    pik("pik diff aggregates", "diff", "aggregates", *ONE, "--left", f"run:{run}", code=1)
    pik("pik lag --late", "lag", "--late", *DAY, *ONE)
    pik("pik verify", "verify")
    pik("", "rollback", run, "--yes")


def _correct(pik: Journey) -> None:
    """Corrections in a store of their own: retries that arrived again at the right time, and a batch of tests."""

    def sale(time: str, **more: object) -> dict[str, object]:
        of = {"source": "till", "event_type": "sale", "entity_id": "e", "event_time": f"2026-03-02T{time}Z"}
        return {**of, "payload": {"n": 1}, **more}

    first = [sale("01:00:00"), sale("02:00:00", idempotency_key="k"), sale("03:00:00")]
    Path("wrong.jsonl").write_text(lines(first), encoding="utf-8")
    again = [sale("00:00:00"), sale("02:30:00", idempotency_key="k", payload={"n": 2})]
    Path("again.jsonl").write_text(lines(again), encoding="utf-8")
    Path("last.toml").write_text(
        'name = "greatest"\ntimezone = "Europe/London"\nvalue = "max(epoch_us(event_time))"\n', encoding="utf-8"
    )
    store = ("--store", "wrong")
    pik("", "init", *store)
    pik("", "ingest", "wrong.jsonl", *store)
    batch = pik("pik ingest", "ingest", "again.jsonl", *store)["batch_id"]
    pik("", "metrics", "apply", "last.toml", *store)
    pik("", "replay", "--all", "--promote", "--yes", *store)
    title, why = "pik correct", ("--reason", "INC-42", "--yes", *store)
    earlier = ("--assume", "shift=-1h,source=till,from=2026-03-02T01:00:00Z,to=2026-03-02T03:10:00Z")
    pik(title, "correct", *earlier, *why, "--dry-run")
    some = "from=2026-03-02T02:00:00Z,to=2026-03-02T02:01:00Z"
    several = [
        word for text in (f"shift=1h,{some}", f"shift=2h,{some}", "conflicts=last") for word in ("--assume", text)
    ]
    pik(title, "correct", *several, *why, "--dry-run")
    [moved] = pik(title, "correct", *earlier, *why)["corrections"]
    [keyed] = [one for one in pik("pik events", "events", *store)["events"] if one["event_time"][11:13] == "01"]
    pik(title, "correct", "--assume", f"delivery={keyed['event_id']}:1", *why)
    pik(title, "correct", "--assume", "shift=-1d,entity=e,to=2026-03-02T00:30:00Z", *why)
    early = pik("pik events", "events", *store)["events"][0]["event_id"]
    for name in ("duplicates", "duplicates --class suspect"):
        pik(f"pik {name}", *name.split(), *store)
        pik(f"pik {name} --by", *name.split(), "--by", "source", *store)
    [gone] = pik(title, "correct", "--assume", f"without-batch={batch}", *why)["corrections"]
    pik("pik explain", "explain", "event_count", "e", "2026-03-02", *store, code=1)
    pik("pik corrections list", "corrections", "list", "--limit", 1, *store)
    pik("pik gaps", "gaps", "--every", "30d", *store)
    pik("pik diff events", "diff", "events", "wrong.jsonl", *store)
    pik("pik duplicates --changes", "duplicates", "--class", "conflict", "--changes", "payload.n", *store)
    for event in (early, keyed["event_id"]):
        pik("pik show", "show", event, *store)
    pik("pik export", "export", "--out", "wrong.csv", *store)
    for name in ("events --by source", "lag", "lag --skew", "lag --late", "duplicates --impact"):
        pik(f"pik {name}".removesuffix(" source"), *name.split(), *store)
    for output in ((), ("--output", "corrected.parquet")):
        pik(
            " ".join(["pik sql", *output[:1]]),
            "sql",
            "SELECT correction AS any_column FROM deliveries",
            *output,
            *store,
        )
    title, why = "pik corrections revoke", ("--reason", "right", "--yes", *store)
    pik(title, "corrections", "revoke", gone["correction_id"], *why, "--dry-run")
    back = pik(title, "corrections", "revoke", gone["correction_id"], *why)["correction_id"]
    pik(title, "corrections", "revoke", back, *why)
    pik("pik corrections list", "corrections", "list", *store)
    for correction in (moved["correction_id"], gone["correction_id"], back):
        pik("pik corrections show", "corrections", "show", correction, *store)
    pik("pik replay --dry-run", "replay", "--correction", moved["correction_id"], "--dry-run", *store)
    run = pik("pik replay", "replay", "--correction", moved["correction_id"], *store)["run_id"]
    pik(title, "corrections", "revoke", moved["correction_id"], *why)
    pik("pik promote, pik rollback", "promote", run, "--yes", *store)
    pik("pik runs list", "runs", "list", *store)
    pik("pik runs show", "runs", "show", run, *store)
    pik("pik runs wait, pik runs cancel", "runs", "wait", run, *store)
    pik("pik history", "history", "--check", *store)
    of = ("republish", "--all", "--target", "corrected.ndjson", *store)
    pik("pik republish --dry-run", *of, "--dry-run")
    sent = pik("pik republish, pik republish resume, pik republish cancel", *of, "--yes")["republish_id"]
    pik("pik republish show", "republish", "show", sent, *store)
    pik("pik corrections show", "corrections", "show", moved["correction_id"], *store)
    pik("pik ingest", "ingest", "again.jsonl", *store)
    for row in pik("pik batches", "batches", *store)["batches"]:
        pik("pik batches", "batches", row["batch_id"], *store)
    pik("", "correct", "--assume", f"without={early}", "--reason", "INC-42", "--yes", *store)
    _retire(pik, store)
    for file in ("wrong.jsonl", "again.jsonl"):
        pik("pik ingest", "ingest", file, "--again", *store)
    like = ("correct", "--like", moved["correction_id"], "--reason", "INC-42", "--yes", *store)
    [again_moved] = pik("pik correct", *like)["corrections"]
    pik("pik corrections show", "corrections", "show", again_moved["correction_id"], *store)
    pik("pik status", "status", *store)


def _retire(pik: Journey, store: tuple[str, ...]) -> None:
    title, why = "pik metrics retire, pik metrics reinstate", ("--reason", "nobody looks at it", *store)
    pik(title, "metrics", "retire", "greatest", *why, "--dry-run")
    pik(title, "metrics", "retire", "greatest", *why, "--yes")
    pik("pik metrics list", "metrics", "list", *store)
    pik("pik metrics show", "metrics", "show", "greatest", *store)
    pik("pik aggregates", "aggregates", *store)
    pik("pik aggregates", "aggregates", "--history", *store)
    for event in pik("pik events", "events", *store)["events"]:
        pik("pik show", "show", event["event_id"], *store)
    pik("pik verify", "verify", *store)
    pik("pik history", "history", "--metric", "greatest", *store)
    pik(title, "metrics", "reinstate", "greatest", "--yes", *store)


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
        pik("pik metrics apply", "metrics", "apply", "metrics.toml", *of)
        pik("pik stack status", "stack", "status", *of, code=1)
        pik("pik stack doctor", "stack", "doctor", *of, "--all", code=3)
        user = make_user(root, "ann")
        find = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}
        grant(root, "ann", [find, OF_THE_EMULATOR])
        for name, value in user.items():
            patch.setenv(name, value)
        pik("pik stack status", "stack", "status", *of)
        pik("pik stack doctor", "stack", "doctor", *of, code=3)


def _planned(**request: Any) -> str:
    """A run that was planned by a process that died then."""
    store = open_store(".pik")
    return start(
        store, plan_replay(store, DuckEngine(), RunRequest(start=0, end=2 * 10**18, **request), 1, actor="ana")
    ).run_id


def _fail(pik: Journey) -> None:
    Path("broken.toml").write_text('name = "broken"\nvalue = "sum((payload->>\'$.order\')::DECIMAL(18, 2))"\n')
    pik("pik metrics apply", "metrics", "apply", "broken.toml")
    pik("pik replay", "replay", "--entity", "customer-17", *DAY, "--metric", "broken", code=3)
    pik("pik duplicates --impact", "duplicates", *ONE, "--impact", code=3)
    lost = min(Path(".pik/raw/event_date=2026-03-02").iterdir())
    aside = lost.rename("aside")
    pik("pik explain", "explain", "event_count", "customer-17", "2026-03-02", code=3)
    aside.rename(lost)
    for reason, chosen in {"lost": ONE, "lost again": ("--all",), "still lost": ONE}.items():
        aside = lost.rename("aside")
        pik("pik replay", "replay", *chosen, *DAY, "--metric", "event_count", "--reason", reason, code=3)
        aside.rename(lost)
    letters = pik("pik dlq list", "dlq", "list")["dead_letters"]
    pik("pik runs show", "runs", "show", letters[0]["run_id"])
    pik("pik dlq show", "dlq", "show", letters[0]["letter_id"])
    pik("pik dlq redrive", "dlq", "redrive", "--all", "--dry-run")
    pik("pik dlq redrive", "dlq", "redrive", letters[0]["letter_id"])
    pik("pik dlq purge", "dlq", "purge", "--all", "--dry-run")
    pik("pik dlq purge", "dlq", "purge", "--all", "--reason", "withdrawn", "--yes")
    pik("pik dlq list --purged", "dlq", "list", "--purged")


def _bundle(pik: Journey) -> None:
    made = ("bundle", "--incident", "INC-1", *DAY, *ONE, "--metric", "revenue", "--out")
    pik("pik bundle --dry-run", *made, "other.tar.zst", "--dry-run")
    pik("pik bundle", *made, "evidence.tar.zst", code=3)  # a segment is lost
    data = bytearray(Path("evidence.tar.zst").read_bytes())
    data[len(data) // 2] ^= 1
    Path("flipped.tar.zst").write_bytes(data)
    pik("pik verify BUNDLE", "verify", "evidence.tar.zst")
    pik("pik verify BUNDLE", "verify", "flipped.tar.zst", code=1)


def _pull(pik: Journey) -> None:
    Path("redact.key").write_bytes(bytes(32))
    hidden = ("--redact", "payload.amount", "--redact-key", "redact.key", "--out", "redacted.tar.zst")
    pik("pik bundle", "bundle", "--incident", "INC-1", *DAY, *ONE, *hidden)
    pik("pik pull --dry-run", "pull", *DAY, "--into", "copy", *ONE, "--dry-run")
    pik("pik pull", "pull", *DAY, "--into", "part", *ONE)
    pik("pik status", "status", "--store", "part")
    pik("pik pull", "pull", *DAY, "--into", "copy")
    pik("pik pull", "pull", *DAY, "--into", "copy", *ONE)
    pik("pik status", "status", "--store", "copy")
    pik("pik batches", "batches", "--store", "copy")
    pik("pik history", "history", "--store", "copy")
    pik("pik verify", "verify", "--store", "copy")
    event = pik("pik events", "events", *DAY, "--store", "copy", "--limit", 1)["events"][0]
    pik("pik show", "show", event["event_id"], "--store", "copy")


def _buffer(pik: Journey) -> None:
    store = open_store("buffered", create=True)
    again = Path("peculiar.jsonl").read_bytes().splitlines(keepends=True)[0]
    request = BufferedRequest(request_id="1", received_at=10**18, body=Path("peculiar.jsonl").read_bytes() + again)
    assert record_buffered(store, [request]).done == {request.id}
    pik("pik batches", "batches", request.id, "--store", "buffered")


def _restore(pik: Journey) -> None:
    """From a copy that has the damaged objects, and another one in the place of the lost one."""
    shutil.copytree(".pik", "whole")
    lost = min(Path(".pik/raw/batches").iterdir())
    damaged = Path(".pik/raw/event_date=2026-03-02").iterdir()
    cut = [(one, one.read_bytes()[:-1]) for one in damaged]
    for path, data in (*cut, ("whole" / lost.relative_to(".pik"), b"no record")):
        path.chmod(0o644)
        path.write_bytes(data)
    lost.unlink()
    pik("pik verify --restore", "verify", "--restore", "whole", code=3)
    pik("pik verify", "verify", code=1)
    with suppress(Unreadable), open_store(".pik").batches.rebuild():
        pik("pik status", "status")
        raise Unreadable("raw", "no reason")


def _keep(pik: Journey) -> None:
    pik("pik compact", "compact")
    with pytest.MonkeyPatch.context() as patch:  # all of it takes half a minute
        patch.setattr(cluster_pack, "_python", dict)
        patch.setattr(cluster_pack, "_packages", lambda _: [("pik/__init__.py", Path("monday.jsonl"))])
        pik("pik cluster pack", "cluster", "pack", "-o", "pik.tar.gz")
    pik("pik backup, pik restore", "backup", "state.backup")
    pik("pik init", "init", "--store", "other")
    pik("pik backup, pik restore", "restore", "state.backup", "--store", "other", "--dry-run")
    pik("pik backup, pik restore", "restore", "state.backup", "--store", "other")
    pik("pik export", "export", "--out", "events.parquet", *DAY)
    pik("pik export", "export", "--out", "copy.jsonl", *DAY, "--dry-run")
    pik("pik export", "export", "--out", "none.csv", "--source", "s", "--type", "t", "--entity", "nobody")
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
        "--timezone",
        "Europe/Berlin",
    )
    for manifest in (
        "events.parquet.manifest.json",
        "wrong.csv.manifest.json",
        "none.csv.manifest.json",
        "parts/_manifest.json",
    ):
        pik.said.setdefault("pik export, manifest", []).append(
            json.loads(Path(manifest).read_bytes(), parse_float=Decimal)
        )
    pik("pik ingest", "ingest", "monday.jsonl", "--again")
    pik("pik history", "history", *ONE, "--metric", "revenue", "--check")
    pik("pik history", "history", *ONE)
    first = min(Path(".pik/raw/event_date=2026-03-02").iterdir())
    first.unlink()
    pik("pik verify", "verify", "--quick", code=1)
    pik("pik pull", "pull", *DAY, "--into", "damaged", code=3)
    _bundle(pik)
    pik("pik verify --rebuild-index", "verify", "--rebuild-index", code=1)
    _restore(pik)
    for amount in (1, 2):  # with the index gone only their order tells which counts
        event = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-03-02T00:00:00Z"}
        record_request(
            open_store(".pik"), json.dumps({**event, "idempotency_key": "k", "payload": {"n": amount}}).encode()
        )
    pik("pik history", "history")
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
    pik("pik runs show", "runs", "show", run)
    pik("pik runs wait, pik runs cancel", "runs", "wait", run, code=3)
    pik("pik runs resume", "runs", "resume", _planned(metrics=("misfit",)), code=3)


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """Every command, in a store where all of them have something to say."""
    directory = tmp_path_factory.mktemp("journey")
    write_data(directory)
    (directory / "peculiar.jsonl").write_bytes(PECULIAR.encode() + b'{"source":"\xff"}\n')
    (directory / "foreign.jsonl").write_text(FOREIGN, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        pik = Journey(directory, patch)
        for part in (
            _bring_in,
            _numbers,
            _look,
            _repair,
            _republish,
            _import,
            _correct,
            _fail,
            _pull,
            _buffer,
            _keep,
            _misfit,
        ):
            part(pik)
        _look_at_stack(pik, tmp_path_factory.mktemp("ministack"), patch)
        yield pik


@pytest.fixture(scope="module")
def said(journey: Journey) -> dict[str, list[Any]]:
    """What every command writes, by the title of its schema."""
    return journey.said


def _closed(node: Any) -> Any:
    """Return a schema that admits no field but those that it lists."""
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {name: _closed(one) for name, one in node.items()}
    return {**found, "additionalProperties": False} if isinstance(node.get("properties"), dict) else found


def _schemas(title: str) -> list[dict[str, Any]]:
    """Return the published schemas of the commands in a title."""
    files = [SCHEMAS / f"{slug(name)}.json" for name in names(SCHEMAS_BY_TITLE[title])]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _values(document: Any, path: str) -> list[Any]:
    """Return the values in a document under a path of docs/json.md, as often as they are there."""
    found = [document]
    for name in path.split("."):
        found = [one[name.removesuffix("[]")] for one in found if one and name.removesuffix("[]") in one]
        if name.endswith("[]"):
            found = [one for many in found for one in many or ()]
    return found


ALWAYS_NULL = {
    "pik ingest --via api": {"sources[].unanswered_from", "error"},
    "pik batches": {"batches[].replaced_by"},
    "pik aggregates import": {"next"},
    "pik correct": {"corrections[].farther"},
    "pik status": {"deliveries_of_other_sources", "index_rebuild.since"},
    "pik diff aggregates": {"failed_not_listed", "failed_tasks"},
    "pik diff aggregates --total": {"failed_not_listed", "failed_tasks"},
    "pik triage": {"checks[].failure"},
    "pik report": {"failed_parts"},
    "pik report --as json": {"parts[].failure"},
    "pik replay": {"planning_failure"},
    "pik runs wait, pik runs cancel": {"planning_failure"},
    "pik runs show": {"planning_failure"},
    "pik runs resume": {"correction"},
    "pik corrections revoke": {"note"},
    "pik dlq list": {"lost_requests"},
    "pik dlq show": {"next", "entities_from", "entities_before", "raw_share"},
    "pik dlq redrive": {"runs[].events_matched", "runs[].rolled_back"},
    "pik verify": {"checked_by_s3", "segments_read"},
    "pik verify --rebuild-index": {"dropped_batches", "times_not_counted"},
    "pik verify --restore": {"unread"},
    "pik compact": {"left_because", "next"},
    "pik backup, pik restore": {"omitted_versions", "lacking"},
    "pik stack status": {"queue.oldest_seconds"},
}
"""Fields of which the journey sees no value."""


@pytest.mark.parametrize("title", SCHEMAS_BY_TITLE)
def test_output_is_as_the_schema_has_it(title: str, said: dict[str, list[Any]]) -> None:
    for schema in _schemas(title):
        assert meta.is_valid(schema)
        validator = Draft202012Validator(_closed(schema), validate_formats=True)
        for document in said[title]:
            assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize("title", SCHEMAS_BY_TITLE)
def test_every_field_is_written_with_a_value(title: str, said: dict[str, list[Any]]) -> None:
    for row in rows(SCHEMAS_BY_TITLE[title]):
        seen = [value for document in said[title] for value in _values(document, row.path)]
        assert seen, f"{title} has {row.path} in docs/json.md and never writes it"
        if row.type.startswith("integer"):  # JSON Schema takes 1.0 for an integer, too
            assert not [value for value in seen if isinstance(value, Decimal)], f"{title}: {row.path}"
        always_null = row.path in ALWAYS_NULL.get(title, ())
        assert always_null == all(value is None for value in seen), f"{title}: {row.path}"


def test_every_command_has_a_schema(said: dict[str, list[Any]]) -> None:
    assert set(said) == set(SCHEMAS_BY_TITLE)
    described = {name for schema in SCHEMAS_BY_TITLE.values() for name in names(schema)}
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        for inner in getattr(command, "commands", {"": None}):
            assert any(f"{one} ".startswith(f"pik {name} {inner}".strip()) for one in described) or name in (
                "demo",
                "help",
            )


OF_TWO_MEANINGS = {
    *("accepted", "aggregates", "batches", "bucket", "current", "deliveries", "duplicates", "events", "metrics"),
    *("findings", "rows", "suspects", "value"),
}
"""Names that are rows in one place and their number in another, or a definition's text and what comes of it."""


def test_a_field_has_one_type_wherever_it_is() -> None:
    types: dict[str, set[str]] = {}
    for schema in SCHEMAS_BY_TITLE.values():
        for row in rows(schema):
            types.setdefault(row.path.rpartition(".")[2], set()).add(row.type.removesuffix(" or null"))
    assert {name for name, kinds in types.items() if len(kinds) > 1} == OF_TWO_MEANINGS


def test_what_is_not_known_is_null(said: dict[str, list[Any]]) -> None:
    def empty(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            return [found for name, one in value.items() for found in empty(one, f"{path}.{name}")]
        if isinstance(value, list):
            return [found for one in value for found in empty(one, path)]
        return [path] if value == "" else []

    assert [found for title, documents in said.items() for found in empty(documents, title)] == []


IN_UTC = re.compile(r'(?<![="])\d{4}-\d\d-\d\dT[\d:.]+Z')
PASTED_OR_RECORDED = re.compile(r"`pik [^`]*`|(?m:^(?:next)? +pik .*$)|\[\S+ \S+ is not computed")
"""Commands, and why a task failed; what was typed has `=` before its times, and events have a quote."""


def test_times_are_shown_in_the_display_timezone(journey: Journey) -> None:
    assert {title.split()[1] for title in journey.shown} > {"events", "explain", "triage", "history", "runs", "stack"}
    for title, text in journey.shown.items():
        assert IN_UTC.findall(PASTED_OR_RECORDED.sub("", text)) == [], title
        if re.search(r'"[\d-]{10}T[\d:.]+Z"', json.dumps(journey.said[title][0], default=str)):
            assert OFFSET in text or "-02+00:00" in text, title  # buckets are in the timezone of their metric
