"""`pik demo`: one small incident, played with the real commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple

from pik.cli.command import FOUND, cli_command
from pik.cli.context import Context
from pik.cli.options import option
from pik.errors import AlreadyExists, PikError
from pik.model.instant import DAY, HOUR, MINUTE, SECOND, format_instant, parse_instant

_READER_LEFT = 141


@cli_command(
    "demo",
    examples="""
    pik demo
    pik demo --dir ./pik-demo
    """,
)
def demo(
    cli: Context,
    directory: Annotated[
        Path | None, option("--dir DIR", "Play in this new directory, not in a temporary one.")
    ] = None,
) -> int:
    """Play one small incident end to end: numbers, a retry storm, late events, the difference, the repair.

    Every line that begins with $ is a real command, and what follows is what it prints. Nothing of yours is touched:
    the store lives in a new directory.
    """
    place = _new(directory)
    write_data(place)
    print(f"A demo in {place}")
    _run("pik init --store .pik", place, "json", capture=True)  # the demo must not use a store of a parent directory
    for step in STEPS:
        print(f"\n# {step.story}")
        line = step.line.replace("RUN", _newest_run(place)) if "RUN" in step.line else step.line
        print(f"$ {line}", flush=True)
        code = _run(line, place, cli.settings.format).returncode
        if code == _READER_LEFT:
            return code
        if code != step.code:
            raise PikError(f"`{line}` ended with exit code {code}, not {step.code}", hint=f"it ran in {place}")
        if code:
            print(f"(exit code {code})")
    print(NEXT.format(directory=shlex.quote(str(place))))
    return 0


def _new(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="pik-demo-"))
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise AlreadyExists(f"{directory} is there already", hint="--dir names a directory to be made") from None
    return directory


def _run(line: str, place: Path, form: str, *, capture: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a user would, in the demo's directory, with none of the caller's settings but the format."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")} | {"PIK_FORMAT": form}
    command = [sys.executable, "-m", *shlex.split(line)]
    return subprocess.run(command, cwd=place, env=ours, stdout=subprocess.PIPE if capture else None, check=False)


def _newest_run(place: Path) -> str:
    listed = _run("pik runs list", place, "json", capture=True)
    return str(json.loads(listed.stdout)["runs"][0]["run_id"])


_DAY = "--from 2026-03-02 --to 2026-03-03"
_EVENING = "--from 2026-03-02T19:00:00Z --to 2026-03-02T22:00:00Z"


class Step(NamedTuple):
    """What happens, what is typed then, and the exit code that it must have. RUN stands for the newest run."""

    story: str
    line: str
    code: int = 0


STEPS = (
    Step("Monday, 2 March: a shop's events, as the pipeline received them.", "pik ingest monday.jsonl"),
    Step("What is computed from them: event_count is built in, revenue is ours.", "pik metrics apply metrics.toml"),
    Step(
        "The numbers of the day, computed and made current.",
        f"pik replay --all {_DAY} --reason 'numbers of 2 March' --promote --yes",
    ),
    Step(
        "Tuesday, 06:00: a producer retries for half an hour, and an app that was offline sends what it kept.",
        "pik ingest tuesday-morning.jsonl",
    ),
    Step("How bad were the retries? None of them counts twice.", f"pik duplicates {_DAY} --by type"),
    Step(
        "Three came back with another amount under the same key.",
        f"pik duplicates {_DAY} --class conflict --show-payload-diff",
    ),
    Step(
        "Are Monday's numbers still right? They are not: exit code 1.",
        f"pik diff aggregates {_DAY} --changed-only",
        FOUND,
    ),
    Step("Which events explain it? Those that came ten hours late.", f"pik events --entity customer-17 {_EVENING}"),
    Step(
        "Compute the day again, beside what is current.", f"pik replay --all {_DAY} --reason 'late events of 2 March'"
    ),
    Step("It says what we expect: make it current.", "pik promote RUN --reason 'late events of 2 March' --yes"),
    Step("Now the numbers are right: exit code 0.", f"pik diff aggregates {_DAY} --changed-only"),
    Step("The day's events for the post-mortem.", f"pik export --out post-mortem {_DAY}"),
    Step("And everything in the store is what it was when it was written.", "pik verify"),
)

NEXT = """
That was all. The demo's store stays in {directory}; look around with

  cd {directory}
  pik show ba221f70                      # a payment that came six times, once with another amount
  pik aggregates --entity customer-17 --history

Next, on a file of your own:

  pik ingest events.jsonl                # one JSON object a line: source, event_type, entity_id, event_time, payload
  pik ingest --help                      # ... or any other fields, with --map
  pik status                             # what the store holds
  pik events --entity ID --since 2h      # what really arrived
"""
"""The words at the end; `directory` is where it was played."""


MONDAY = parse_instant("2026-03-02T00:00:00Z")
TUESDAY = MONDAY + DAY
ORDERS = 520
OFFLINE = ("customer-04", "customer-11", "customer-17", "customer-23", "customer-31")
"""Their app was offline on Monday evening; it sent what it had kept on Tuesday at 06:12."""

METRICS = """\
[[metric]]
name = "revenue"
description = "captured payments per customer and UTC day"
where = "event_type = 'payment_captured'"
value = "sum(CAST(payload->>'$.amount' AS DECIMAL(18, 2)))"
bucket = "1d"
"""


class _Sent(NamedTuple):
    """An event on its way: when it happened and when the pipeline got it, in nanoseconds."""

    source: str
    event_type: str
    entity_id: str
    event_time: int
    received_time: int
    idempotency_key: str | None
    payload: dict[str, Any]


def write_data(directory: Path) -> None:
    """Create monday.jsonl, tuesday-morning.jsonl and metrics.toml in the directory."""
    chance = Random(20260302)
    monday = list(_monday(chance))
    late = [one for one in monday if one.source == "app" and _offline(one)]
    arrived = [one for one in monday if one not in late]
    synced = TUESDAY + 6 * HOUR + 12 * MINUTE
    morning = [
        *_retries(chance, [one for one in arrived if one.event_type == "payment_captured"]),
        *(one._replace(received_time=synced + number * SECOND) for number, one in enumerate(late)),
    ]
    _write_lines(directory / "monday.jsonl", arrived)
    _write_lines(directory / "tuesday-morning.jsonl", morning)
    (directory / "metrics.toml").write_text(METRICS, encoding="utf-8")


def _write_lines(path: Path, events: Iterable[_Sent]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for one in sorted(events, key=lambda one: one.received_time):
            times = {name: format_instant(getattr(one, name)) for name in ("event_time", "received_time")}
            fields = {name: value for name, value in (one._asdict() | times).items() if value is not None}
            file.write(json.dumps(fields) + "\n")


def _offline(one: _Sent) -> bool:
    return one.entity_id in OFFLINE and MONDAY + 19 * HOUR <= one.event_time < MONDAY + 22 * HOUR


def _monday(chance: Random) -> Iterator[_Sent]:
    """Orders with their payment, and most of them with a shipment: some 1,500 events of 40 customers."""
    for number in range(ORDERS):
        # Some orders are the evening's, by those whose app is offline then.
        evening = number % 25 == 0
        customer = OFFLINE[number // 25 % len(OFFLINE)] if evening else f"customer-{chance.randrange(40):02d}"
        at = MONDAY + (
            19 * HOUR + chance.randrange(150 * 60) * SECOND if evening else chance.randrange(82_000) * SECOND
        )
        source = "app" if evening or chance.random() < 0.4 else "web"
        order, cents = f"order-{number:04d}", chance.randrange(450, 25_000)
        yield _sent(chance, source, "order_placed", customer, at, {"order": order, "items": chance.randrange(1, 6)})
        paid = at + chance.randrange(5, 90) * SECOND
        payment = _sent(chance, source, "payment_captured", customer, paid, {"order": order, "amount": cents / 100})
        yield payment._replace(idempotency_key=f"pay-{number:04d}")
        if chance.random() < 0.9:
            packed = min(paid + chance.randrange(600, 5400) * SECOND, TUESDAY - SECOND)
            yield _sent(chance, "warehouse", "order_shipped", customer, packed, {"order": order})


def _sent(chance: Random, source: str, kind: str, customer: str, at: int, payload: dict[str, Any]) -> _Sent:
    return _Sent(source, kind, customer, at, at + chance.randrange(200, 4000) * 1_000_000, None, payload)


def _retries(chance: Random, payments: list[_Sent]) -> Iterator[_Sent]:
    """A producer that lost its acknowledgements sends Monday's payments again and again; three with another amount."""
    again = TUESDAY + 6 * HOUR
    for number, one in enumerate(payments[:240]):
        for attempt in range(chance.randrange(2, 5)):
            yield one._replace(received_time=again + attempt * 4 * MINUTE + number * SECOND)
        if number in (40, 90, 140):
            in_cents = {name: round(value * 100) if name == "amount" else value for name, value in one.payload.items()}
            yield one._replace(received_time=again + 20 * MINUTE, payload=in_cents)
