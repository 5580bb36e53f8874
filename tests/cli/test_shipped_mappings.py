"""Shipped mappings: what each makes of its example in tests/data/mappings, which is written down here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pik.inputs.named_mappings import find_mapping, shipped_mappings, shipped_text
from pik.model.event import FIELDS
from pik.model.jmes import Expression
from pik.model.named_mapping import toml_of

EXAMPLES = {path.name.partition(".")[0]: path for path in (Path(__file__).parents[1] / "data/mappings").iterdir()}
DAY = "2026-03-02T"
ACCOUNT = "123456789012"
WHOLE = object()
"""The payload that is the record as it stands."""


class Expected(NamedTuple):
    """An event: its source, type and entity, the time on 2 March, the key, the payload, and when it was received."""

    source: str
    event_type: str
    entity_id: str
    time: str
    key: str | None
    payload: Any
    received: str | None = None


ISSUE = {
    "action": "opened",
    "issue": {"number": 7, "updated_at": "2026-03-02T10:15:00Z"},
    "repository": {"id": 118, "full_name": "octo/hello"},
    "sender": {"login": "mona"},
}
PUSH = {
    "ref": "refs/heads/main",
    "head_commit": {"id": "9a8b", "timestamp": "2026-03-02T11:16:00+01:00"},
    "repository": {"id": 118, "full_name": "octo/hello"},
    "sender": {"login": "mona"},
}
PING = {"zen": "Keep it simple.", "hook_id": 9, "organization": {"login": "octo"}, "sender": {"login": "mona"}}
PAYMENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 1990,
    "currency": "eur",
    "customer": "cus_7",
    "status": "succeeded",
}
CUSTOMER = {"id": "cus_7", "object": "customer", "email": "ada@example.com"}
KEYS = {"customer": {"S": "c-7"}, "order": {"N": "17"}}
INSERTED = {
    "ApproximateCreationDateTime": Decimal("1772446500.0"),
    "Keys": KEYS,
    "NewImage": {**KEYS, "state": {"S": "new"}},
    "SequenceNumber": "4421584500000000017450439091",
    "SizeBytes": 26,
    "StreamViewType": "NEW_AND_OLD_IMAGES",
}
MODIFIED = {
    "ApproximateCreationDateTime": 1772446500250,
    "Keys": KEYS,
    "NewImage": {"state": {"S": "paid"}},
    "OldImage": {"state": {"S": "new"}},
    "SizeBytes": 40,
}
BUCKET, BALANCER = "reports", "app/shop/50dc6c495c0c9188"
ROLE = f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/deploy-17"
SHOP, CRM = "shop.public.orders", "crm.sales.customers"
NEW, PAID = {"id": 17, "state": "new"}, {"id": 17, "state": "paid"}
INSTANCE = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/i-0abcd1234"

EVENTS: dict[str, list[Expected]] = {
    "alb-log": [
        Expected(BALANCER, "GET", "192.0.2.7", "10:15:00.186641Z", None, WHOLE),
        Expected(BALANCER, "-", "2001:db8::7", "10:15:02.000001Z", None, WHOLE),
    ],
    "cloudevents": [
        Expected("/shop/orders", "shop.order.placed", "order-17", "10:15:00.5Z", "a-1", WHOLE),
        Expected("/shop/orders", "shop.report.ready", "/shop/orders", "10:15:00Z", "a-2", WHOLE),
    ],
    "cloudtrail": [
        Expected("s3.amazonaws.com", "PutObject", ROLE, "10:15:00Z", "0d4cd9b1-0f5f-4d4c-9f4e-3b6c0a6f0001", WHOLE),
        Expected(
            *("sts.amazonaws.com", "AssumeRole", "scheduler.amazonaws.com"),
            *("10:15:03Z", "0d4cd9b1-0f5f-4d4c-9f4e-3b6c0a6f0002", WHOLE),
        ),
    ],
    "cloudwatch-export": [
        Expected("cloudwatch", "log", "log", "10:15:00.123Z", None, WHOLE),
        Expected("cloudwatch", "log", "log", "10:15:00.456Z", None, WHOLE),
    ],
    "debezium": [
        Expected(SHOP, "c", "17", "10:15:00Z", "24023128", {"before": None, "after": NEW}, "10:15:00.42Z"),
        Expected(SHOP, "u", "17", "10:15:01Z", "24023400", {"before": NEW, "after": PAID}, "10:15:01.3Z"),
        Expected(
            *(CRM, "d", "c-7", "10:15:02Z", "mysql-bin.000003:484:0"),
            *({"before": {"id": "c-7", "name": "Ada"}, "after": None}, "10:15:02.65Z"),
        ),
    ],
    "dynamodb-stream": [
        Expected("orders", "INSERT", "c-7/17", "10:15:00Z", "c4ca4238a0b923820dcc509a6f75849b", INSERTED),
        Expected("orders", "MODIFY", "c-7/17", "10:15:00.25Z", "d2f1", MODIFIED),
    ],
    "eventbridge": [
        Expected(
            *("aws.ec2", "EC2 Instance State-change Notification", INSTANCE, "10:15:00Z"),
            *("6a7e8feb-b491-4cf7-a9f1-bf3703467718", {"instance-id": "i-0abcd1234", "state": "terminated"}),
        ),
        Expected(
            *("shop.orders", "OrderPlaced", ACCOUNT, "10:15:01Z"),
            *("6a7e8feb-b491-4cf7-a9f1-bf3703467719", {"id": "order-17", "customer": "c-7"}),
        ),
    ],
    "github-webhook": [
        Expected(
            *("github", "issues.opened", "octo/hello", "10:15:00Z"),
            *("0b989ba4-242f-11e5-81e1-c7b6966d2516", ISSUE, "10:15:02Z"),
        ),
        Expected(
            *("github", "push", "octo/hello", "10:16:00Z"),
            *("1b989ba4-242f-11e5-81e1-c7b6966d2516", PUSH, "10:16:02Z"),
        ),
        Expected(
            *("github", "ping", "octo", "10:17:00Z", "2b989ba4-242f-11e5-81e1-c7b6966d2516", PING, "10:17:00Z"),
        ),
    ],
    "kcat": [
        Expected(
            *("kafka", "orders", "c-7", "10:15:00.123Z", "orders/0/0"),
            {"id": "17", "amount": Decimal("12345678901234567.10")},
        ),
        Expected("kafka", "orders", "c-8", "10:15:00.456Z", "orders/3/41", {"id": "18", "amount": 2}),
    ],
    "kinesis-firehose": [
        Expected(
            *("clicks", "record", "clicks", "10:15:00.1Z"),
            "49546986683135544286507457936321625675700192471156785154",
            *({"page": "/", "customer": "c-7"}, "10:15:00.1Z"),
        ),
        Expected(
            *("clicks", "record", "c-8", "10:15:00.2Z"),
            "49546986683135544286507457936321625675700192471156785155",
            *({"page": "/cart", "customer": "c-8"}, "10:15:00.2Z"),
        ),
    ],
    "otlp-logs": [
        Expected("checkout", "INFO", "checkout-1", "10:15:00.123456789Z", None, WHOLE, "10:15:00.2Z"),
        Expected("checkout", "ERROR", "checkout-1", "10:15:01Z", None, WHOLE, "10:15:01Z"),
        Expected("mailer", "mail.sent", "mailer", "10:15:02.000000001Z", None, WHOLE),
    ],
    "s3-access-log": [
        Expected(BUCKET, "REST.GET.OBJECT", ROLE, "10:15:00Z", None, WHOLE),
        Expected(BUCKET, "REST.GET.OBJECT", "-", "10:15:01Z", None, WHOLE),
    ],
    "segment": [
        Expected(
            *("segment", "Order Completed", "u-7", "10:15:00.12Z", "ajs-1"),
            *({"order_id": "17", "revenue": Decimal("19.9")}, "10:15:00.62Z"),
        ),
        Expected("segment", "page", "v-2", "10:16:00Z", "ajs-2", {}, "10:16:00.2Z"),
        Expected("segment", "identify", "u-7", "10:17:00Z", "ajs-3", {"plan": "pro"}, "10:17:00.2Z"),
    ],
    "snowplow": [
        Expected(
            *("shop", "page_view", "bc2e92ec6c204a14", "10:15:00.7Z"),
            *("c6ef3124-b53a-4b13-a233-0088f79dcbcb", WHOLE, "10:15:01.2Z"),
        ),
        Expected(
            *("snowplow", "order_placed", "c-7", "10:15:01.9Z"),
            *("d6ef3124-b53a-4b13-a233-0088f79dcbcb", WHOLE, "10:15:02Z"),
        ),
    ],
    "pik-export": [
        Expected(
            *("shop", "order_paid", "customer-17", "09:14:05Z", "o-101"),
            {"order": "101", "amount": Decimal("61.90")},
            "09:14:06Z",
        ),
        Expected("depot", "order_shipped", "customer-17", "13:20:10Z", None, {"order": "101"}),
    ],
    "stripe-event": [
        Expected("stripe", "payment_intent.succeeded", "cus_7", "10:15:00Z", "evt_1", {"object": PAYMENT}),
        Expected(
            *("stripe", "customer.updated", "cus_7", "10:15:01Z", "evt_2"),
            {"object": CUSTOMER, "previous_attributes": {"email": None}},
        ),
        Expected(
            *("stripe-test", "balance.available", "balance", "10:15:02Z", "evt_3"),
            {"object": {"object": "balance", "available": [{"amount": 100, "currency": "eur"}]}},
        ),
    ],
}

SENT_AGAIN = {"debezium": 1, "github-webhook": 1, "stripe-event": 1}
"""Records that repeat an earlier one, with other times of sending."""


def _read(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def _records(name: str) -> list[Any]:
    """The records of an example, read in plain Python."""
    text = EXAMPLES[name].read_text(encoding="utf-8")
    if name == "cloudtrail":
        return list(_read(text)["Records"])
    if name == "otlp-logs":
        resources = [one for line in text.splitlines() for one in _read(line)["resourceLogs"]]
        return [record for one in resources for scope in one["scopeLogs"] for record in scope["logRecords"]]
    if EXAMPLES[name].suffix == ".jsonl":
        return [_read(line) for line in text.splitlines()]
    return text.splitlines()


def _exported(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield _read(line)


def _second(text: str | None) -> str | None:
    """A time of 2 March, without the date and zeros at the end of a fraction."""
    if text is None:
        return None
    assert text.startswith(DAY)
    second, point, fraction = text.removeprefix(DAY).removesuffix("Z").partition(".")
    return second + (f".{fraction.rstrip('0')}" if point and fraction.strip("0") else "") + "Z"


def test_each_has_an_example_whose_events_are_as_written_here(pik: Any, tmp_path: Path) -> None:
    assert set(EVENTS) == set(EXAMPLES) == set(shipped_mappings())
    batches = {}
    for name, path in EXAMPLES.items():
        done = pik("ingest", path, "--mapping", name, "--format", "json").json()
        assert (done["mapping"], done["accepted"], done["rejected"]) == (name, len(EVENTS[name]), 0)
        assert done["duplicates"] == {"exact": SENT_AGAIN.get(name, 0), "conflict": 0}, name
        batches[done["batch_id"]] = name
    assert pik("export", "--out", "all.jsonl").code == 0
    found: dict[str, list[dict[str, Any]]] = {}
    for event in _exported(tmp_path / "all.jsonl"):
        found.setdefault(batches[event["batch_id"]], []).append(event)
    for name, events in found.items():
        records = _records(name)
        events.sort(key=lambda event: event["seq"])
        for event, expected in zip(events, EVENTS[name], strict=True):
            payload = event["payload"]
            found_event = Expected(
                event["source"],
                event["event_type"],
                event["entity_id"],
                _second(event["event_time"]) or "",
                event.get("idempotency_key"),
                WHOLE if expected.payload is WHOLE else payload,
                _second(event.get("received_time")),
            )
            assert found_event == expected, name
            if expected.payload is WHOLE:
                record = records[event["seq"] - 1]
                assert (payload["line"] if isinstance(record, str) else payload) == record, name


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_what_pik_exported_is_known_again(pik: Any, tmp_path: Path, form: str) -> None:
    """Keys, times to the nanosecond and numbers beyond a double are those of the event."""
    events = [
        {"event_time": f"2026-03-02T10:00:00.{number:09d}Z", "payload": [10**30 + number], "entity_id": f"=e'{number}"}
        | ({"idempotency_key": "k", "received_time": "2026-03-02T10:00:01Z"} if number else {})
        for number in range(2)
    ]
    lines = (json.dumps({"source": "s", "event_type": "t", **event}) for event in events)
    (tmp_path / "sent.jsonl").write_text("\n".join(lines))
    assert pik("ingest", "sent.jsonl").code == 0
    assert pik("export", "--out", "out", "--as", form).code == 0
    again = ("ingest", f"out/part-0.{form}")
    assert "--mapping pik-export" in pik(*again, "--guess").out
    known = pik(*again, "--mapping", "pik-export", "--format", "json").json()
    assert (known["accepted"], known["duplicates"]) == (0, {"exact": 2, "conflict": 0})


def test_snowplow_keeps_quotes_that_are_a_part_of_a_cell(pik: Any) -> None:
    given = ("--mapping", "snowplow", "--map", "entity_id=page_title || 'none'", "--format", "json")
    sample = pik("ingest", "--dry-run", EXAMPLES["snowplow"], *given).json()["sample"]
    assert [one["event"] for one in sample if one["field"] == "entity_id"] == ['"Hello" shop', "none"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_printed_of_one_can_be_put_into_pik_toml(pik: Any, tmp_path: Path, name: str) -> None:
    shipped = shipped_mappings()[name]
    (tmp_path / "pik.toml").write_text(pik("mappings", "show", name).out, encoding="utf-8")
    listed = pik("mappings", "list", "--format", "json").json()["mappings"]
    assert [(one["from"], one["replaces_shipped"]) for one in listed if one["name"] == name] == [("pik.toml", True)]
    (tmp_path / "pik.toml").write_text(toml_of(shipped), encoding="utf-8")
    own = pik("mappings", "show", name, "--format", "json").json()
    assert own["options"] == [f"{option}={value}" for option, value in shipped.options]
    assert find_mapping(name, {}) == shipped
    assert shipped.description
    assert not shipped.files
    reasons = shipped_text(name).partition("[mapping")[0]
    assert "entity_id" in reasons
    for field, quoted in re.findall(r"--map (\w+)=('[^']+'|\"[^\"]+\"|[\w.]+\w)", reasons.replace("\n# ", " ")):
        assert field in FIELDS
        Expression(quoted.strip("'\""), "", of_record=True)


NOT_CERTAIN = {"cloudwatch-export"}  # many logs begin with a time


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_certainly_is_for_one_is_not_read_by_itself_but_its_name_is_in_the_hint(pik: Any, name: str) -> None:
    said = pik("ingest", EXAMPLES[name])
    assert said.code in (2, 3)
    assert (f"--mapping {name} reads such records" in said.err + said.out) == (name not in NOT_CERTAIN)
    assert (said.out + said.err).count("reads such records") == (name not in NOT_CERTAIN)
    if said.code == 3:
        again = pik("ingest", "--dry-run", EXAMPLES[name])
        assert f"--mapping {name} reads such records" in again.out


def test_a_document_that_goes_on_after_its_first_64_kib_is_known_too(pik: Any, tmp_path: Path) -> None:
    record = json.loads(EXAMPLES["cloudtrail"].read_text(encoding="utf-8"))["Records"][0]
    (tmp_path / "large.json").write_text(json.dumps({"Records": [{**record, "eventID": str(n)} for n in range(200)]}))
    said = pik("ingest", "large.json")
    assert (said.code, said.err.splitlines()[1][:45]) == (2, "hint: --mapping cloudtrail reads such records")
    done = pik("ingest", "large.json", "--mapping", "cloudtrail", "--format", "json").json()
    assert (done["accepted"], done["rejected"]) == (200, 0)
