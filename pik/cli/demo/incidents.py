"""The incidents of `pik demo --incident`: stores that are broken in one way, made with real commands."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import NamedTuple

from pik.cli.demo.player import Scene
from pik.cli.demo.shop import MONDAY, TUESDAY, Monday, Sent, monday, orders, write_lines, write_metrics
from pik.model.instant import DAY, HOUR, MINUTE, SECOND, format_instant

_DAY = "--from 2026-03-02 --to 2026-03-03"
_PAYMENT = "payment_captured"


class Incident(NamedTuple):
    """An incident: what is seen of it, what makes it, and the command to begin with."""

    name: str
    symptom: str
    make: Callable[[Scene], None]
    first: str = f"pik triage {_DAY}"


def _numbers_of_monday(scene: Scene, events: Iterable[Sent]) -> None:
    """Ingest these as monday.jsonl, and let the nightly job compute the numbers of the day."""
    write_lines(scene.directory / "monday.jsonl", events)
    write_metrics(scene.directory)
    scene.pik("nightly", "ingest monday.jsonl")
    scene.pik("nightly", "metrics apply metrics.toml --reason 'captured payments'")
    _compute(scene, "nightly", f"--all {_DAY} --reason 'numbers of 2 March' --promote --yes")


def _compute(scene: Scene, actor: str, options: str) -> str:
    """Replay; return the run."""
    return str(scene.pik(actor, f"replay {options}")["run_id"])


def _late(scene: Scene) -> None:
    """Monday's numbers are current; the app's events of the evening came on Tuesday."""
    sent = monday()
    _numbers_of_monday(scene, sent.arrived)
    write_lines(scene.directory / "tuesday-morning.jsonl", sent.late)
    scene.pik("nightly", "ingest tuesday-morning.jsonl")


_WITHOUT_VOUCHERS = """\
[[metric]]
name = "revenue"
description = "captured payments per customer and UTC day, without vouchers"
where = "event_type = 'payment_captured' AND CAST(payload->>'$.amount' AS DECIMAL(18, 2)) >= 25"
value = "sum(CAST(payload->>'$.amount' AS DECIMAL(18, 2)))"
bucket = "1d"
"""


def _wrong(scene: Scene) -> None:
    """Late events, and a definition that was changed meanwhile."""
    _late(scene)
    (scene.directory / "without-vouchers.toml").write_text(_WITHOUT_VOUCHERS, encoding="utf-8")
    scene.pik("bo", "metrics apply without-vouchers.toml --reason 'payments under 25.00 are vouchers'")


_CORRECTED = (Decimal("100.00"), Decimal("83.12"), Decimal("50.00"))
"""By how much the shop lowered three amounts, under the same key."""


def _ledger(scene: Scene) -> None:
    """The shop corrected three payments under the same key; the ledger took the corrections."""
    sent = monday()
    events = [*sent.arrived, *sent.late]
    payments = [one for one in events if one.event_type == _PAYMENT and one.payload["amount"] > 150]
    again = []
    for one, less in zip(payments[7::40], _CORRECTED, strict=False):
        amount = Decimal(str(one.payload["amount"])) - less
        again.append(one._replace(received_time=MONDAY + 23 * HOUR, payload=one.payload | {"amount": float(amount)}))
    _numbers_of_monday(scene, [*events, *again])
    _write_ledger(scene.directory / "ledger.csv", [*events, *again])


def _write_ledger(path: Path, events: Iterable[Sent]) -> None:
    """Write what finance has booked: the last amount under each key."""
    amounts = {
        one.idempotency_key: (one.entity_id, Decimal(str(one.payload["amount"])))
        for one in events
        if one.event_type == _PAYMENT
    }
    booked: dict[str, Decimal] = {}
    for customer, amount in amounts.values():
        booked[customer] = booked.get(customer, Decimal(0)) + amount
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["day", "customer", "net"])
        writer.writerows(["2026-03-02", customer, net] for customer, net in sorted(booked.items()))


def _missing(scene: Scene) -> None:
    """Two weeks as usual; then the app's events of six hours never arrived."""
    days = [list(orders(Random(MONDAY + number), MONDAY + number * DAY, 520)) for number in range(-14, 1)]
    afternoon = range(MONDAY + 12 * HOUR, MONDAY + 18 * HOUR)
    write_lines(scene.directory / "february.jsonl", (one for day in days[:-1] for one in day))
    scene.pik("nightly", "ingest february.jsonl")
    write_lines(scene.directory / "app-2026-03-02.jsonl", (one for one in days[-1] if one.source == "app"))
    _numbers_of_monday(scene, (one for one in days[-1] if one.source != "app" or one.event_time not in afternoon))


def _storm(scene: Scene) -> None:
    """Payments come again, three with another amount; and release 4.2 of the app gives its retries a new time."""
    sent = monday()
    released = _released(sent)
    write_lines(scene.directory / "tuesday-morning.jsonl", map(_with_release, sent.retried))
    write_lines(scene.directory / "monday.jsonl", [*released, *_restamped(released)])
    scene.pik("nightly", "ingest monday.jsonl")
    scene.pik("nightly", "ingest tuesday-morning.jsonl")
    write_metrics(scene.directory)
    scene.pik("nightly", "metrics apply metrics.toml --reason 'captured payments'")
    _compute(scene, "nightly", f"--all {_DAY} --reason 'numbers of 2 March' --promote --yes")


def _retries(scene: Scene) -> None:
    """Release 4.2 of the app gives its retries a new time; two guests who buy the same at the kiosk are no retry."""
    released = _released(monday())
    coffees = [
        Sent("kiosk", _PAYMENT, "customer-07", at + more * SECOND, at + (more + 1) * SECOND, None, {"amount": 3.2})
        for at in range(MONDAY + 8 * HOUR, MONDAY + 11 * HOUR, HOUR)
        for more in (0, 4)
    ]
    _numbers_of_monday(scene, [*released, *_restamped(released), *coffees])


def _released(sent: Monday) -> list[Sent]:
    """Return all events of Monday, the app's with the release that sent them."""
    return [_with_release(one) for one in (*sent.arrived, *sent.late)]


def _restamped(released: Iterable[Sent]) -> list[Sent]:
    """Return the evening's payments of release 4.2 as it sent them again: with a new time and a new key."""
    return [
        one._replace(
            event_time=one.event_time + 2 * SECOND,
            received_time=one.received_time + 2 * SECOND,
            idempotency_key=f"{one.idempotency_key}-again",
        )
        for one in released
        if one.event_type == _PAYMENT and one.payload.get("release") == "4.2" and one.event_time >= MONDAY + 16 * HOUR
    ]


def _with_release(one: Sent) -> Sent:
    release = "4.2" if int(one.entity_id[-2:]) % 3 == 0 else "4.1"
    return one if one.source != "app" else one._replace(payload=one.payload | {"release": release})


_TILLS = ("bar-1", "bar-2", "kiosk")

_TILL_MAPPING = """\
[ingest]
timezone = "UTC"

[ingest.map]
source = "'till'"
event_type = "'payment_captured'"
entity_id = "till"
event_time = "sold_at"
received_time = "sent_at"
payload = "@"
"""


def _receipts(wrong_from: int) -> list[list[str]]:
    """Return the lines of the tills of a bar in Berlin, by day, in UTC; from the given day on their time is that of
    their wall clock."""
    chance = Random(20260309)
    days: list[list[str]] = [[] for _ in range(6)]
    for day, lines in enumerate(days):
        for minute in range(0, 6 * 60, 3):
            sold = MONDAY + day * DAY + 19 * HOUR + minute * MINUTE + chance.randrange(180) * SECOND
            receipt = {
                "till": _TILLS[chance.randrange(3)],
                "receipt": f"r-{day}{minute:03d}",
                "sold_at": format_instant(sold + (HOUR if day >= wrong_from else 0))[:19].replace("T", " "),
                "sent_at": format_instant(sold + chance.randrange(1, 4) * SECOND),
                "amount": f"{chance.randrange(300, 6000) / 100:.2f}",
                "tip": f"{chance.randrange(300) / 100:.2f}",
            }
            lines.append(json.dumps(receipt))
    return days


def _week(scene: Scene, days: Iterable[list[str]]) -> None:
    """Ingest the receipts of these days, and let the nightly job compute the numbers of the week."""
    _write_receipts(scene.directory / "till-week.jsonl", *days)
    (scene.directory / "pik.toml").write_text(_TILL_MAPPING, encoding="utf-8")
    write_metrics(scene.directory)
    scene.pik("nightly", "ingest till-week.jsonl")
    scene.pik("nightly", "metrics apply metrics.toml --reason 'captured payments'")
    _compute(scene, "nightly", f"--all {_WEEK} --reason 'numbers of the week' --promote --yes")


def _write_receipts(path: Path, *days: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for lines in days for line in lines), encoding="utf-8")


def _zone(scene: Scene) -> None:
    """An update on Wednesday made the tills write local time; the file of Saturday comes later."""
    *days, saturday = _receipts(wrong_from=2)
    _week(scene, days)
    _write_receipts(scene.directory / "till-saturday.jsonl", saturday)


_WITHOUT_TIPS = """\
[[metric]]
name = "revenue"
description = "captured payments per till and UTC day, without tips"
where = "event_type = 'payment_captured'"
value = "sum(CAST(payload->>'$.amount' AS DECIMAL(18, 2)) - CAST(payload->>'$.tip' AS DECIMAL(18, 2)))"
bucket = "1d"
"""


def _history(scene: Scene) -> None:
    """The definition was changed when the week had been computed."""
    _week(scene, _receipts(wrong_from=6)[:5])
    (scene.directory / "without-tips.toml").write_text(_WITHOUT_TIPS, encoding="utf-8")
    scene.pik("bo", "metrics apply without-tips.toml --reason 'finance: revenue is without tips'")


def _winner(scene: Scene) -> None:
    """For two hours the app sent amounts in cents, and later each again as it should be, under the same key, one then
    in cents once more; the web's retries of the night are wrong in their turn."""
    sent = monday()
    payments = [one for one in (*sent.arrived, *sent.late) if one.event_type == _PAYMENT]
    by_app = [one for one in payments if one.source == "app" and 14 * HOUR <= one.event_time - MONDAY < 16 * HOUR]
    by_web = [one for one in payments if one.source == "web"][40:280:80]
    mended = [one._replace(received_time=MONDAY + 17 * HOUR + number * SECOND) for number, one in enumerate(by_app)]
    last = [_in_cents(mended[3])._replace(received_time=MONDAY + 18 * HOUR)]
    retried = [_in_cents(one)._replace(received_time=TUESDAY + 2 * HOUR) for one in by_web]
    others = [one for one in (*sent.arrived, *sent.late) if one not in by_app]
    _numbers_of_monday(scene, [*others, *map(_in_cents, by_app), *mended, *last, *retried])


def _in_cents(one: Sent) -> Sent:
    return one._replace(payload=one.payload | {"amount": round(one.payload["amount"] * 100)})


def _unwanted(scene: Scene) -> None:
    """A load test went into production before the files of the day: payments of the morning under their own keys, with
    the amount 1.00, and orders of customers that do not exist. The app's file has not been ingested since."""
    sent = monday()
    events = [*sent.arrived, *sent.late]
    copied = [one for one in events if one.event_type == _PAYMENT and one.event_time < MONDAY + 6 * HOUR]
    invented = list(orders(Random(99), MONDAY, 30))
    test = [one._replace(payload=one.payload | {"amount": 1.0}) for one in copied]
    test += [
        one._replace(entity_id=f"test-{number % 3}", idempotency_key=one.idempotency_key and f"test-{number}")
        for number, one in enumerate(invented)
    ]
    write_lines(scene.directory / "load-test.jsonl", test)
    scene.pik("ci", "ingest load-test.jsonl")
    write_lines(scene.directory / "app-2026-03-02.jsonl", (one for one in events if one.source == "app"))
    _numbers_of_monday(scene, (one for one in events if one.source != "app"))


_WEEK = "--from 2026-03-02 --to 2026-03-08"


def _damaged(scene: Scene) -> None:
    """The disk lost an object of Monday and damaged one of Tuesday; there is a copy of raw."""
    for name, day in (("sunday", MONDAY - DAY), ("monday", MONDAY), ("tuesday", TUESDAY)):
        write_lines(scene.directory / f"{name}.jsonl", orders(Random(day), day, 200))
        scene.pik("nightly", f"ingest {name}.jsonl")
        (scene.directory / f"{name}.jsonl").unlink()  # producers keep nothing
    write_metrics(scene.directory)
    scene.pik("nightly", "metrics apply metrics.toml --reason 'captured payments'")
    _compute(scene, "nightly", f"--all {_THREE_DAYS} --reason 'numbers until 3 March' --promote --yes")
    raw = scene.directory / ".pik" / "raw"
    shutil.copytree(raw, scene.directory / "raw-backup")
    [lost] = (raw / "event_date=2026-03-02").iterdir()
    lost.unlink()
    [damaged] = (raw / "event_date=2026-03-03").iterdir()
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0x10
    damaged.chmod(0o644)
    damaged.write_bytes(content)


_THREE_DAYS = "--from 2026-03-01 --to 2026-03-04"


def _changed(scene: Scene) -> None:
    """A promotion left out what somebody had promoted meanwhile; a wrong rollback then brought back Monday's value."""
    _late(scene)
    whole = _compute(scene, "ana", f"--all {_DAY} --reason 'late events of 2 March'")
    one = _compute(scene, "bo", f"--entity customer-17 {_DAY} --reason 'customer-17 has called' --promote --yes")
    scene.pik("ana", f"promote {whole} --reason 'late events of 2 March' --yes", 3)
    scene.pik("cy", f"rollback {one} --reason 'the numbers jumped' --yes")


def _repaired(scene: Scene) -> None:
    """The late events were repaired for four of the five customers that called."""
    _late(scene)
    named = " ".join(f"--entity customer-{number}" for number in ("04", "11", "17", "23"))
    _compute(scene, "ana", f"{named} {_DAY} --reason 'INC-1234 app was offline' --promote --yes")


INCIDENTS: Mapping[str, Incident] = {
    one.name: one
    for one in (
        Incident(
            "wrong-metric",
            "Revenue of customer-17 is not what the receipts say.",
            _wrong,
            f"pik triage --entity customer-17 {_DAY}",
        ),
        Incident("ledger-differs", "Finance: your total and our ledger differ by 233.12.", _ledger),
        Incident("missing-events", "The app's team: our Monday afternoon is missing.", _missing),
        Incident("late-events", "The app was offline on Monday evening; numbers look low.", _late),
        Incident("duplicate-storm", "Producers retried all night; revenue is too high.", _storm),
        Incident("retries-counted-twice", "Since release 4.2, revenue is higher than the bank's.", _retries),
        Incident(
            "wrong-time-zone",
            "Since Wednesday, night takings are on the wrong day.",
            _zone,
            f"pik triage {_WEEK}",
        ),
        Incident("wrong-delivery-won", "Payments of 17,000: revenue of 2 March is far too high.", _winner),
        Incident("unwanted-batch", "Payments of 1.00 by customers that nobody knows.", _unwanted),
        Incident(
            "reprocess-history",
            "Revenue is without tips now; the week is still with them.",
            _history,
            f"pik triage {_WEEK}",
        ),
        Incident(
            "damaged-raw", "A disk failed. Which numbers can we still prove?", _damaged, f"pik triage {_THREE_DAYS}"
        ),
        Incident("who-changed-it", "Revenue of customer-17, right at noon, is wrong again.", _changed),
        Incident("post-mortem", "It was repaired at night. Now write down what happened.", _repaired),
    )
}
"""By name, which is also that of the runbook."""
