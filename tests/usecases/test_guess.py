"""A guess: it finds the fields that are there, leaves open what values do not show, and stores nothing."""

from __future__ import annotations

import io
import json
import random
import re
import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pik.errors import InputError, UsageError
from pik.inputs import blocks as blocks_module
from pik.inputs import opened_file as opened_module
from pik.inputs.named_mappings import shipped_mappings
from pik.inputs.source import Source, file_source
from pik.model.jmes import quoted
from pik.model.layout import AUTO, InputFormat, Layout
from pik.model.named_mapping import NamedMapping
from pik.model.times import AS_EVENTS, Times
from pik.rawlog.reading import Reading
from pik.usecases.ingest import guess_fields, guess_times
from pik.usecases.ingest.guess import guess as guess_of
from pik.usecases.ingest.guess_result import Confidence, Guess
from tests.usecases.test_dry_run import checked

LONGEST = 1 << 20


def guess(
    path: Path,
    given: Mapping[str, str] | None = None,
    times: Times = AS_EVENTS,
    layout: Layout = AUTO,
    named: Sequence[NamedMapping] = (),
) -> Guess:
    with file_source(str(path)).open() as opened:
        return guess_of(opened, layout, LONGEST, given or {}, times, named)


def accepted(path: Path, found: Guess) -> tuple[int, int]:
    """How many records of the file become events by what was proposed, and how many do not."""
    reading = Reading(LONGEST, mapping=found.expressions, times=found.times, layout=found.layout)
    report = checked(None, file_source(str(path)), reading=reading)
    return report.valid, report.rejected


def local(spelling: str) -> Callable[[datetime], Any]:
    return lambda at: at.strftime(spelling)


TIMES: dict[str, Callable[[datetime], Any]] = {
    "rfc3339": lambda at: at.isoformat(),
    "epoch": lambda at: int(at.timestamp()),
    "epoch_ms": lambda at: str(int(at.timestamp() * 1000)),
    "epoch_us": lambda at: int(at.timestamp() * 10**6),
    "apache": local("%d/%b/%Y:%H:%M:%S +0000"),
    "java_date": local("%a %b %d %H:%M:%S UTC %Y"),
    "%d.%m.%Y %H:%M": local("%d.%m.%Y %H:%M"),
    "%Y/%m/%d %H:%M:%S": local("%Y/%m/%d %H:%M:%S"),
    "%m/%d/%y %I:%M %p": local("%m/%d/%y %I:%M %p"),
    "%b-%d-%y %H:%M": local("%b-%d-%y %H:%M"),
    "%m/%d/%Y %I:%M%p": lambda at: at.strftime("%m/%d/%Y %I:%M%p").lower(),
    "%d.%m.%Y %H.%M.%S": local("%d.%m.%Y %H.%M.%S"),
    "%d. %m. %Y %H:%M": local("%d. %m. %Y %H:%M"),
    "%Y. %m. %d. %H:%M:%S": local("%Y. %m. %d. %H:%M:%S"),
    "%d/%m/%Y %I:%M:%S %p": lambda at: at.strftime("%d/%m/%Y %I:%M:%S ") + ("p.\xa0m." if at.hour > 11 else "a.\xa0m."),
    "%Y-%m-%d %p %I:%M:%S": lambda at: at.strftime(f"%Y-%m-%d {'오후' if at.hour > 11 else '오전'} %I:%M:%S"),
    "%Y年%m月%d日 %H:%M": local("%Y年%m月%d日 %H:%M"),
}
"""How a time is written in each format, here in UTC; the day of the month is past the twelfth."""

NAMES = {
    "event_time": ["event_time", "eventTime", "@timestamp", "ts", "created_at", "orderedAt"],
    "event_type": ["event_type", "eventName", "type", "action", "kind"],
    "entity_id": ["user_id", "customerId", "account", "device_id", "entity"],
    "idempotency_key": ["event_id", "messageId", "uuid"],
    "received_time": ["received_at", "ingestTime", "collectedAt"],
}


@st.composite
def records(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, str], str, str]:
    """Records, the expressions of their fields, and the formats of the two times."""
    chance = random.Random(draw(st.integers(0, 10**6)))
    paths = {
        field: (*draw(st.sampled_from([(), ("body",), ("meta data", "inner")])), draw(st.sampled_from(names)))
        for field, names in NAMES.items()
        if field != "received_time" or draw(st.booleans())
    }
    formats = [draw(st.sampled_from([*TIMES])), draw(st.sampled_from([*TIMES]))]
    made = []
    for number in range(draw(st.integers(30, 60))):
        at = datetime(2026, 1, 13, tzinfo=UTC) + timedelta(seconds=chance.randrange(10**6))
        values = {
            "event_time": TIMES[formats[0]](at),
            "event_type": chance.choice(["paid", "sent", "seen"]),
            "entity_id": chance.choice([f"c{number % 17}", f"d{number % 5}"]),
            "idempotency_key": f"{number:08x}",
            "received_time": TIMES[formats[1]](at + timedelta(minutes=2)),
        }
        record: dict[str, Any] = {"note": "x" * (number % 3), "amount": number * 1.5, "tags": [number], "flag": True}
        for field, path in paths.items():
            inside = record
            for name in path[:-1]:
                inside = inside.setdefault(name, {})
            inside[path[-1]] = values[field]
        made.append(record)
    return made, {field: quoted(*path) for field, path in paths.items()}, formats[0], formats[1]


@settings(max_examples=25)
@given(records())
def test_fields_that_are_there_are_found_and_the_dry_run_accepts_all_records(
    drawn: tuple[list[dict[str, Any]], dict[str, str], str, str],
) -> None:
    made, expressions, format_, received = drawn
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "shop-2026-01-31.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in made))
        found = guess(path, times=Times(timezone="UTC"))
        proposed = found.expressions
        assert {field: proposed.get(field) for field in expressions} == expressions
        assert (proposed["source"], proposed["payload"]) == ("'shop'", "@")
        assert found.times.format_of("event_time") == format_
        if "received_time" in expressions:
            assert found.times.format_of("received_time") == received
        assert (found.accepted, found.undecided, found.problem) == (len(made), (), "")
        assert accepted(path, found) == (len(made), 0)


def rows(path: Path, header: str, lines: list[str]) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_an_id_in_a_text_that_was_loaded_twice_is_the_key(tmp_path: Path) -> None:
    texts = [
        json.dumps({"id": f"o-{n}", "customer": f"c-{n % 3}", "at": f"2026-01-31T22:59:{n:02d}Z"}) for n in range(9)
    ]
    loads = [{"raw_id": f"{n:032x}", "loaded": n, "data": text} for n, text in enumerate([*texts, texts[-1]])]
    found = guess(rows(tmp_path / "raw.jsonl", json.dumps(loads[0]), [json.dumps(one) for one in loads[1:]]))
    key = next(one for one in found.mapping if one.field == "idempotency_key")
    assert (key.expression, key.confidence) == ("parse_json(data).id", "unsure")


def test_what_values_do_not_show_is_left_open(tmp_path: Path) -> None:
    local = rows(tmp_path / "a.csv", "user_id,type,at", [f"u{n},x,2026-01-31 22:59:{n:02d}" for n in range(30)])
    found = guess(local)
    assert found.times.given == {"timezone": ["ZONE"]}
    assert ["has no offset" in one and "ZONE" in one for one in found.undecided] == [True]
    assert found.accepted == 30
    mixed = guess(
        rows(tmp_path / "m.csv", "user_id,type,at", ["u1,x,2026-01-31T22:59:00Z", "u1,x,2026-01-31T22:58:00"])
    )
    assert ['"2026-01-31T22:58:00" has no offset' in one for one in mixed.undecided] == [True]
    berlin = guess(local, times=Times(timezone="Europe/Berlin"))
    assert (berlin.undecided, accepted(local, berlin)) == ((), (30, 0))
    american = rows(tmp_path / "b.csv", "user_id,type,at", [f"u{n},x,03/0{1 + n % 9}/2026 +0100" for n in range(30)])
    found = guess(american)
    assert found.times.given == {"time-format": ["FORMAT"]}
    assert "is read by %d/%m/%Y %z and %m/%d/%Y %z" in found.undecided[0]
    decided = guess(american, times=Times("%m/%d/%Y %z"))
    assert (decided.undecided, accepted(american, decided)) == ((), (30, 0))
    german = rows(tmp_path / "d.csv", "user_id,ende,zeit", [f"u{n},2026,31.01.2026 22:{n}" for n in range(10, 40)])
    found = guess(german)
    [time] = [one for one in found.mapping if one.field == "event_time"]
    assert (time.expression, time.confidence, found.accepted) == ("zeit", Confidence.UNSURE, 30)
    assert found.times.given == {"time-format": ["%d.%m.%Y %H:%M"], "timezone": ["ZONE"]}
    two = rows(
        tmp_path / "e.csv", "user_id,von,bis", [f"u{n},31.01.2026 22:{n},31.01.2026 23:{n}" for n in range(10, 40)]
    )
    found = guess(two)
    assert (found.expressions["event_time"], found.missing) == ("FIELD", [])
    assert (
        "bis (times in the format %d.%m.%Y %H:%M, ~1.00h later): put one in the place of FIELD" in found.undecided[-1]
    )
    bare = tmp_path / "c.jsonl"
    bare.write_text('{"a":1,"b":{"c":"x"}}\n' * 3)
    found = guess(bare)
    assert {one.field for one in found.mapping if one.expression == "FIELD"} == {"event_time", "entity_id"}
    assert [(one.path, one.records, one.distinct, one.example) for one in found.found] == [
        ("a", 3, 1, b"1"),
        ("b.c", 3, 1, b'"x"'),
    ]


def test_times_that_few_records_lack_or_write_badly_are_proposed_and_said(tmp_path: Path) -> None:
    path = tmp_path / "hooks.jsonl"
    at = "2026-01-01T00:00:00Z"
    places = [{"order": {"created_at": at}}] * 15 + [{"user": {"created_at": at}}] * 4 + [{}]
    path.write_text(
        "".join(json.dumps({"action": "x", "account": f"a{n}", **one}) + "\n" for n, one in enumerate(places))
    )
    found = guess(path)
    [time] = [one for one in found.mapping if one.field == "event_time"]
    assert time.expression == "order.created_at || user.created_at"
    assert (time.confidence, time.reason.endswith("; 1 record without one will be rejected")) == (
        Confidence.UNSURE,
        True,
    )
    assert (found.accepted, found.problem) == (19, "event_time: its expression finds nothing in this record")
    assert accepted(path, found) == (19, 1)


def test_an_entity_that_some_records_lack_is_proposed_before_a_number_of_the_record(tmp_path: Path) -> None:
    lines = [
        json.dumps(
            {
                "seen": {"at": "2026-01-01T00:00:00Z"},
                "id": f"o-{n}",
                "user": {"id": "vu"[n % 2]},
                "at": f"2026-01-01T00:00:0{n}Z",
            }
        )
        for n in range(8)
    ]
    path = tmp_path / "orders.jsonl"
    path.write_text("\n".join([*lines, lines[0], lines[0].replace('"v"', '""').replace("o-0", "o-9")]) + "\n{\n")
    found = guess(path)
    reasons = {one.field: (one.expression, one.confidence, one.reason) for one in found.mapping}
    assert reasons["entity_id"] == (
        "user.id",
        Confidence.LIKELY,
        "name and values: 2 different values in 9 records; 1 record without one will be rejected",
    )
    assert reasons["event_time"][0] == "at"
    assert reasons["idempotency_key"][::2] == (
        "id",
        "name and values: all values differ, but those of records that are alike",
    )
    assert (found.records, found.accepted, found.problem) == (11, 9, "the line is not JSON")
    assert accepted(path, found) == (9, 2)


def test_a_field_of_half_of_the_records_is_not_certain(tmp_path: Path) -> None:
    path = tmp_path / "half.jsonl"

    def found(**others: Any) -> dict[str, tuple[Confidence, str]]:
        full = [{"ts": f"2026-01-01T00:00:{n:02}Z", "user_id": f"u{n % 5}"} for n in range(20)]
        lines = [one | {name: value for name, value in others.items() if n % 2} for n, one in enumerate(full)]
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))
        made = guess(path, {name: "ts" for name in ["event_time"] if name in others})
        return {one.field: (one.confidence, one.reason) for one in made.mapping} | {
            "": (Confidence.UNSURE, "".join(made.undecided))
        }

    sure, why = found(user_id="N/A")["entity_id"]
    assert (sure, why.endswith("; 'N/A' is that of 10 records")) == (Confidence.UNSURE, True)
    assert "user_id is in 10 of 20 records" in found(user_id=None)[""][1]
    assert "ts is in 10 of 20 records" in found(ts=None)[""][1]
    sure, why = found(event_time=0, ts=None)["event_time"]
    assert (sure, why.endswith("; 10 of 20 records have it")) == (Confidence.UNSURE, True)


def test_the_only_field_of_times_is_proposed_whatever_its_name(tmp_path: Path) -> None:
    path = rows(tmp_path / "till.csv", "Nr;Kunde;Zeit", [f"{n};k{n % 3};31.01.2026 22:{n}" for n in range(10, 40)])
    found = guess(path, {"entity_id": "Kunde"})
    [time] = [one for one in found.mapping if one.field == "event_time"]
    assert (time.expression, time.confidence) == ("Zeit", Confidence.UNSURE)
    assert found.times.given == {"time-format": ["%d.%m.%Y %H:%M"], "timezone": ["ZONE"]}
    given = guess(path, {"event_time": "Zeit", "entity_id": "Kunde"}, Times(timezone="Europe/Berlin"))
    assert (given.times.given["time-format"], accepted(path, given)) == (["%d.%m.%Y %H:%M"], (30, 0))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "trail.json",
            json.dumps(
                {
                    "Records": [
                        {"eventTime": f"2026-01-01T00:00:0{n}Z", "eventName": "Put", "user": f"u{n % 3}", "eventID": n}
                        for n in range(9)
                    ]
                }
            ),
            {"event_time": "eventTime", "event_type": "eventName", "entity_id": "user", "idempotency_key": "eventID"},
        ),
        (
            "web.log",
            "".join(
                f'h{n % 3} - {"-ab"[n % 3]} [01/Jan/2026:00:00:0{n} +0000] "GET / HTTP/1.1" 200 1\n' for n in range(9)
            ),
            {"event_time": "time", "event_type": "method", "entity_id": "host"},
        ),
        (
            "documents.jsonl",
            "".join(
                json.dumps(
                    {
                        "Records": [
                            {"at": 1769900000 + n, "kind": "x", "user": f"u{n}"},
                            {"at": 1769900000123 + n, "kind": "y", "user": "v"},
                            {"at": 1769900000 + n, "kind": "x", "user": "w"},
                        ]
                    }
                )
                + "\n"
                for n in range(3)
            ),
            {"event_time": "at", "event_type": "kind", "entity_id": "user"},
        ),
        (
            "array.json",
            json.dumps(
                [
                    {
                        "no": no,
                        "rows": [
                            {"at": f"2026-01-0{no}T0{n}:00:00Z", "kind": "xy"[n % 2], "user": f"u{n}"} for n in range(3)
                        ],
                    }
                    for no in (1, 2, 3)
                ]
            ),
            {"event_time": "at", "event_type": "kind", "entity_id": "user"},
        ),
        (
            "kafka",
            "".join(f'k{n % 3}\t{{"at":176990000{n},"kind":"x"}}\n' for n in range(9)),
            {"event_time": "value.at", "event_type": "value.kind", "entity_id": "key", "payload": "value"},
        ),
    ],
    ids=["records", "text", "documents", "lists in an array", "kcat"],
)
def test_formats_are_recognized(tmp_path: Path, name: str, text: str, expected: dict[str, str]) -> None:
    (tmp_path / name).write_text(text)
    found = guess(tmp_path / name)
    assert expected.items() <= found.expressions.items()
    assert (found.records, found.accepted, found.undecided) == (9, 9, ())
    assert accepted(tmp_path / name, found) == (9, 0)


def test_events_and_records_of_a_named_mapping_need_no_other(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"who":"e","at":1769900000}\n' * 3)
    fields = {"source": "'s'", "event_type": "'t'", "entity_id": "who", "event_time": "at", "payload": "@"}
    fitting = NamedMapping("fits", "pik.toml", {"time-format": ["epoch"]}, fields)
    other = NamedMapping("other", "pik.toml", {}, {**fields, "entity_id": "whom"})
    assert guess(path, named=[other, fitting]).named is fitting
    with path.open("a") as file:
        file.write('{"who":null,"at":1769900000}\n')
    assert guess(path, named=[fitting]).named is None
    message = {"topic": "t", "partition": 0, "offset": 1, "tstype": "create", "ts": 1769900000000, "key": "k"}
    messages = tmp_path / "messages"
    messages.write_text("".join(json.dumps({**message, "payload": one}) + "\n" for one in ("{}", None, "{}")))
    found = guess(messages, named=[shipped_mappings()["kcat"]])
    assert (str(found.named), found.accepted, found.records) == ("kcat (shipped)", 2, 3)
    assert found.problem == "payload: parse_json() takes string, not null"
    assert guess(path, {"entity_id": "who"}, named=[fitting]).expressions["entity_id"] == "who"
    path.write_text(
        '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n{"a":1}\n'
        * 2
        + '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-02T00:00:00Z","payload":{}}\n'
    )
    found = guess(path, named=[fitting])
    assert (found.mapping, found.named, found.accepted, found.records) == ((), None, 3, 5)


STREAMED = {
    "text, whose shape is said": (b"<?xml version='1.0'?><a><b/></a>", "it looks like XML"),
    "a document": (
        b'{"next": null, "tickets": [' + b",".join([b'{"id": 1, "at": 1767225600}'] * 9) + b"]}",
        "tickets[]",
    ),
    "a table with a dialect": (b'at,who\n2026-01-01,a\n2026-01-02,"b \\" c"\n', "\\"),
    "lists in a list": (b'[[{"id": "a", "at": 1767225600}], [{"id": "b", "at": 1767225601}]]', "[][]"),
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_is_guessed_as_a_file_is(name: str, tmp_path: Path) -> None:
    content, expected = STREAMED[name]
    (tmp_path / "it").write_bytes(content)
    stream = Source("it", None, lambda: io.BufferedReader(io.BytesIO(content)), is_stream=True)

    def found(source: Source) -> object:
        try:
            with source.open() as once, once.repeatable() as opened:
                made = guess_of(opened, AUTO, LONGEST, {"event_type": "'t'"})
                return made.layout, made.expressions | {"source": ""}, made.accepted, made.records
        except InputError as error:
            return error.message.replace(str(tmp_path / "it"), "it")

    assert found(stream) == found(file_source(str(tmp_path / "it")))
    assert expected in repr(found(stream)).replace("\\\\", "\\")


def test_a_shipped_mapping_is_not_for_records_that_only_have_fields_of_such_names(tmp_path: Path) -> None:
    shipped = [*shipped_mappings().values()]
    log = tmp_path / "heroku.log"
    log.write_text("2026-03-27T07:12:04.1+00:00 a\n2026-03-27T07:12:05.2+00:00 b\n")
    lines = guess(log, layout=Layout(InputFormat.TEXT, pattern=r"(?P<time>\S+) (?P<text>.*)"), named=shipped)
    assert (lines.named, lines.missing) == (None, ["entity_id"])
    path = tmp_path / "orders.jsonl"  # CloudEvents' names, without its specversion
    path.write_text('{"source": "s", "type": "t", "id": "1", "subject": "c", "time": "2026-03-27T07:12:04Z"}\n')
    assert guess(path, named=shipped).named is None
    path.write_text(path.read_text().replace("{", '{"specversion": "1.0", '))
    assert str(guess(path, named=shipped).named) == "cloudevents (shipped)"
    path.write_text("% a line of the program's log\n" + path.read_text())
    assert str(guess(path, named=shipped).named) == "cloudevents (shipped)"


def test_a_sample_is_bounded_and_has_records_of_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guess_fields, "PATHS", 7)
    monkeypatch.setattr(blocks_module, "BLOCK", 20_000)
    monkeypatch.setattr(opened_module, "BLOCK", 20_000)
    path = tmp_path / "long.jsonl"
    with open(path, "w") as file:
        for number in range(3_000):
            file.write(json.dumps({"at": number, "user": f"u{number}", "pad": "x" * 80, f"f{number}": 1}) + "\n")
    with file_source(str(path)).open() as opened:
        layout = opened.recognize(AUTO, mapped=True)
        sample = opened.sample(layout, LONGEST)
    numbers = [json.loads(one.line)["at"] for one in sample]
    assert numbers[:100] == list(range(100))
    assert len(numbers) == 250
    assert sum(number > 1_400 for number in numbers) == 50
    assert len(guess_fields.columns_of([one.line for one in sample])) == 7


def test_events_in_the_texts_of_messages_are_looked_into_and_come_before_the_envelope(tmp_path: Path) -> None:
    def message(number: int) -> dict[str, object]:
        event = {
            "type": "paid",
            "user_id": f"u{number % 3}",
            "at": f"2026-03-01T10:00:{number:02d}Z",
            "id": f"e{number}",
        }
        return {"Type": "Notification", "MessageId": f"n{number}", "Message": json.dumps(event)}

    rest = {"event_type": "type", "entity_id": "user_id", "event_time": "at", "idempotency_key": "id"}
    of_queue = [{"messageId": f"m{number}", "body": json.dumps(message(number))} for number in range(6)]
    for records, text in (
        ([message(number) for number in range(6)], "parse_json(Message)"),
        (of_queue, "parse_json(parse_json(body).Message)"),
    ):
        file = tmp_path / "messages.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in records))
        found = guess(file)
        expected = {name: f"{text}.{field}" for name, field in rest.items()} | {"payload": text}
        assert found.expressions | expected == found.expressions
        assert found.accepted == 6


AT = [f"2026-03-{number:02d}T10:15:{number:02d}Z" for number in range(10, 30)]
PARTS = ("date", 0, 10), ("time", 11, 19)


_JOINED = "join(' ', [Year, Month, Day, Hour, Minute, Second])"
_NUMBERS = "join(' ', [to_string(yyyy), to_string(mm), to_string(dd), to_string(hh)])"


def _in_parts(at: str, *names: str) -> dict[str, str]:
    return dict(zip(names, re.findall("[0-9]+", at), strict=False))


def _month(at: str) -> str:
    return "May" if at == AT[0] else "March"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (lambda at: {"event_date": at[:10].replace("-", ""), "event_timestamp": at}, "event_timestamp"),
        (lambda at: {"day": at[:10], "ts": at}, "ts"),
        (lambda at: {"endTimeUnixNano": at, "startTimeUnixNano": at}, "startTimeUnixNano"),
        (lambda at: {"timestamp": AT[0], "created_at": at}, "created_at"),
        (lambda at: {"user": {"since": {"timestamp": AT[0]}}, "logged_at": {"$date": at}}, 'logged_at."$date"'),
        (lambda at: {"time": AT[0], "log": json.dumps({"ts": at})}, "parse_json(log).ts"),
        (
            lambda at: {f"{one} {what}": at[begin:end] for one in ("Start", "End") for what, begin, end in PARTS},
            'join(\' \', ["Start date", "Start time"])',
        ),
        (lambda at: {"createdTime": "2026-04-01T00:00:" + at[17:], "fields": {"Ordered at": at}}, "FIELD"),
        (lambda at: {"at": f"{_month(at)} {at[8:10]}, 2026, 9:{at[17:19]} AM"}, "at"),
        (lambda at: _in_parts(at, "Year", "Month", "Day", "Hour", "Minute", "Second"), _JOINED),
        (lambda at: {name: int(one) for name, one in _in_parts(at, "yyyy", "mm", "dd", "hh").items()}, _NUMBERS),
        (
            lambda at: _in_parts(at, "end_year", "end_month", "end_day") | _in_parts(at, "year", "month", "day"),
            "join(' ', [year, month, day])",
        ),
        (lambda at: {**_in_parts(at, "Year", "Month", "Day"), "Zeit": at}, "Zeit"),
        (lambda at: {"Date": at[:10], "Hour": at[11:13], "Hours": "8"}, "join(' ', [Date, Hour])"),
        (lambda at: {**_in_parts(at, "Y", "M", "D"), "Year": "2026", "Hour": "7", "timestamp": at}, "timestamp"),
    ],
)
def test_the_time_of_an_event_is_an_instant_that_differs_from_record_to_record(
    tmp_path: Path, record: Callable[[str], dict[str, Any]], expected: str
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps({"user_id": f"u{at[8:10]}", **record(at)}) + "\n" for at in AT))
    assert guess(path).expressions["event_time"] == expected
    path.write_text("".join(json.dumps({"user_id": f"u{at[8:10]}", "day": at[:10]}) + "\n" for at in AT))
    [time] = [one for one in guess(path).mapping if one.field == "event_time"]
    assert (time.expression, time.confidence) == ("day", Confidence.UNSURE)
    assert time.reason.endswith("values: all 20 values are days without a time of day, in the format %Y-%m-%d")


def test_texts_that_are_not_times_are_not_tried_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[object]()
    monkeypatch.setattr(guess_times, "_format", lambda name, zone="UTC": tried.append(name))
    path = tmp_path / "records.jsonl"
    path.write_text("".join(f'{{"url":"https://example.com/2026/{n}","name":"n 2026"}}\n' for n in range(9)))
    assert guess(path).missing == ["entity_id", "event_time"]
    assert tried == []


@pytest.mark.parametrize(
    ("name", "source", "whose"),
    [
        ("orders.2026-03-02.jsonl", "orders", "the file's name"),
        ("ga4.jsonl", "ga4", "the file's name"),
        ("ds-REPORT2.jsonl", "ds-REPORT2", "the file's name"),
        ("orders-1-2026-03-02-06-00-00-0c7d5a", "orders", "the file's name"),
        ("shop/dt=2026-03-02/part-00000-6f1e0c2a-6a53-4a3b-9a55-0c0c1d8a2f6b.c000.json", "shop", "the name of what"),
        ("shop/dt=2026-03-02/02c6891d3aff406487fbdcb133ee4423-0.json", "shop", "the name of what it is in"),
        ("shop/output-00000-of-00004", "shop", "the name of what it is in"),
        ("topics/orders/partition=0/orders+0+0000000000.json", "orders", "the file's name"),
        ("shop/000000000012.json", "shop", "the name of what it is in"),
        ("shop/data_0_0_0.json", "shop", "the name of what it is in"),
        ("shop/p0.jsonl", "shop", "the name of what it is in"),
    ],
)
def test_the_source_is_a_name_that_the_next_file_has_too(tmp_path: Path, name: str, source: str, whose: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"user":"u","at":"2026-03-02T10:15:00Z"}\n' * 3)
    [found] = [one for one in guess(path).mapping if one.field == "source"]
    assert found.expression == f"'{source}'"
    assert found.reason.startswith(f"a constant: {whose}")


def test_hours_in_ten_digits_are_times() -> None:
    """As Google Analytics writes them; a number that is as long may be seconds since 1970."""
    assert [one.format for one in guess_times.formats_of(["2026030921", "2026031007"])] == ["%Y%m%d%H"]
    assert guess_times.formats_of([2026030921, 2026031007]) == []


def test_texts_in_binary_columns_of_parquet_are_decoded(tmp_path: Path) -> None:
    """As ClickHouse, Impala and Hive write them."""
    users = [f"user-{number % 7}".encode() for number in range(60)]
    at = [datetime(2026, 3, 2, 10, number, tzinfo=UTC) for number in range(60)]
    table = pa.table({"user_id": users, "event_type": [b"paid"] * 60, "status": ["data"] * 60, "at": at})
    parquet.write_table(table, tmp_path / "x")
    found = guess(tmp_path / "x")
    proposed = [found.expressions[field] for field in ("entity_id", "event_type", "event_time")]
    assert proposed == ["base64_decode(user_id)", "base64_decode(event_type)", "at"]
    assert accepted(tmp_path / "x", found) == (60, 0)


def test_the_records_of_a_document_are_its_long_list_and_a_named_mapping_may_read_them(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "user_id": f"u{n % 3}", "at": f"2026-03-02T10:15:{n:02d}Z"} for n in range(20)]
    path = tmp_path / "export.json"
    path.write_text(json.dumps({"schema": {"fields": [{"name": "id", "type": "text"}]}, "data": rows}))
    assert (guess(path).layout.records, guess(path).accepted) == ("data[]", 20)
    attributes = [{"key": "service.name", "value": {"stringValue": "shop"}}]
    spans = {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": rows}]}
    path.write_text(json.dumps({"resourceSpans": [spans]}))
    assert (guess(path).layout.records, guess(path).accepted) == ("resourceSpans[].scopeSpans[].spans[]", 20)
    fields = {"source": "'s'", "event_type": "'t'", "entity_id": "user_id", "event_time": "at", "payload": "@"}
    named = NamedMapping("fits", "pik.toml", {}, fields)
    path.write_text(json.dumps({"object": "list", "data": rows}))
    found = guess(path, named=[named])
    assert (found.named, found.layout.records, found.accepted) == (named, "data[]", 20)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_document_of_any_size_is_read_by_the_likely_list_and_names_the_others(
    tmp_path: Path, indent: int | None
) -> None:
    path = tmp_path / "export.json"
    rows = [{"id": f"r{n}", "user_id": f"u{n % 3}", "at": f"2026-03-02T10:15:{n:02d}Z", "no": [n]} for n in range(20)]
    path.write_text(json.dumps({"signals": [{"wifi": n} for n in range(30)], "data": {"rows": rows}}, indent=indent))
    for longest in (LONGEST, 200):  # bytes of a record: the document is one, or is longer
        with file_source(str(path)).open() as opened:
            found = guess_of(opened, AUTO, longest, {})
        assert (found.layout.records, found.accepted) == ("data.rows[]", 20)
        assert list(map(str, found.lists)) == ["signals[] (30)", "data.rows[] (20)"]
    order = {"id": "o", "user_id": "u", "at": "2026-03-02T10:15:00Z", "items": [{"n": 1}], "paid": [{"eur": 2}]}
    path.write_text(json.dumps(order))
    found = guess(path)
    assert (found.layout.records, found.accepted, len(found.lists)) == (None, 1, 2)
    path.write_text(json.dumps({"meta": [{"name": "a"}], "data": [[1, 2]] * 20}))
    with pytest.raises(InputError, match=r"records, in data\[\], are lists of values"):
        guess(path)
    path.write_text(json.dumps({"orders": {f"-N{n}": rows[n] for n in range(20)}}))
    for longest in (LONGEST, 200):
        with file_source(str(path)).open() as opened, pytest.raises(InputError, match="values, in orders, are the rec"):
            guess_of(opened, AUTO, longest, {})
    path.write_text(json.dumps({"meta": [{"name": "a"}], "data": [[1, 2]] * 20}))
    with pytest.raises(UsageError, match="are lists, not objects with names") as error:
        guess(path, layout=Layout(InputFormat.JSON, records="data[]"))
    assert "jq -c '.data[] | " in str(error.value.hint)


def test_a_type_around_a_value_is_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(
        "".join(
            json.dumps({"Item": {"customer": {"S": f"c{n % 3}"}, "created_at": {"S": AT[n]}, "id": {"N": str(n)}}})
            + "\n"
            for n in range(9)
        )
    )
    assert guess(path).expressions == {
        "source": "'table'",
        "event_type": "'table'",
        "entity_id": "Item.customer.S",
        "event_time": "Item.created_at.S",
        "payload": "@",
        "idempotency_key": "Item.id.N",
    }
    items = [
        {"customer": {"S": f"c{n % 3}"}, "created_at": {"S": AT[n]}, "tags": {"L": [{"S": "a"}] * 2}} for n in (1, 2)
    ]
    path.write_text(json.dumps({"Items": items, "Count": 2}))
    assert guess(path).layout.records == "Items[]"


def test_a_time_that_is_around_the_records_or_in_their_lists_is_named(tmp_path: Path) -> None:
    """AWS has days around groups of costs, dbt the timing of each step, and when it wrote the document."""
    path = tmp_path / "costs.json"
    groups = [{"user_id": name, "cost": "1.5"} for name in ("a", "b")]
    days = [{"TimePeriod": {"Start": at[:10], "End": at[:10]}, "Groups": groups} for at in AT]
    path.write_text(json.dumps({"Definitions": [{"type": "x"}], "Results": days}))
    found = guess(path, times=Times(timezone="UTC"))
    assert found.expressions["event_time"] == "parent('TimePeriod').Start"
    assert {one.field: one.confidence for one in found.mapping}["event_time"] == Confidence.UNSURE
    assert (found.accepted, accepted(path, found)) == (40, (40, 0))
    path.write_text(json.dumps([{"day": at[:10], "total": 3.0, "rows": groups} for at in AT]))
    found = guess(path, times=Times(timezone="UTC"))
    shown = found.layout.records, found.expressions["event_time"], found.expressions["entity_id"]
    assert (shown, accepted(path, found)) == (("[].rows[]", "parent('day')", "user_id"), (40, 0))
    of_steps = [
        {"user_id": f"m{n}", "status": "ok", "timing": [{"name": "x", "started_at": at}]} for n, at in enumerate(AT)
    ]
    path.write_text(json.dumps({"metadata": {"generated_at": AT[0]}, "results": of_steps}))
    found = guess(path)
    assert found.missing == ["event_time"]
    assert "timing[0].started_at is that of the first one, --records 'results[].timing[]' makes" in found.undecided[0]
    path.write_text("".join(json.dumps(one) + "\n" for one in of_steps))
    assert "--records 'timing[]' makes" in guess(path).undecided[0]
    parquet.write_table(pa.Table.from_pylist(of_steps), path)
    assert "timing[0].started_at is that of the first one: put" in guess(path).undecided[0]
    path.write_text(json.dumps([{"target": "a", "points": [[n, 1767225600 + n]]} for n in range(5)]))
    with pytest.raises(InputError, match="list of lists of values in each, points") as error:
        guess(path)
    assert "jq -c '.[] | del(.points) + (.points[]? | to_entries" in str(error.value.hint)
    path.write_text(json.dumps([{"target": "a", "corners": [[n, 1.5 + n]]} for n in range(5)]))
    assert "event_time" in guess(path).missing


def test_a_day_and_a_time_of_day_in_two_fields_are_one_time(tmp_path: Path) -> None:
    path = rows(tmp_path / "till.csv", "Date,Time,Customer", [f"2026-03-02,10:{n},k{n % 3}" for n in range(10, 40)])
    found = guess(path, times=Times(timezone="Europe/Berlin"))
    assert found.expressions["event_time"] == "join(' ', [Date, Time])"
    assert accepted(path, found) == (30, 0)
    path = rows(tmp_path / "us.csv", "Date,Clock,user", [f"3/2{n % 9}/2026,1:{n + 10} PM,k{n % 3}" for n in range(30)])
    found = guess(path)
    assert found.times.given == {"time-format": ["%m/%d/%Y %I:%M %p"], "timezone": ["ZONE"]}
    path = rows(
        tmp_path / "pdt.csv", "Date,Time,user", [f"6/2{n % 9}/2026,3:17:{n + 10} PM PDT,k{n % 3}" for n in range(30)]
    )
    found = guess(path)
    assert found.times.given == {"time-format": ["%m/%d/%Y %I:%M:%S %p PDT"], "timezone": ["ZONE"]}
    says = "PDT is an abbreviation, not an offset: put its time zone, such as America/Los_Angeles, in the place of ZONE"
    assert says in found.undecided[0]
    assert accepted(path, guess(path, times=Times(timezone="America/Los_Angeles"))) == (30, 0)
    path = rows(
        tmp_path / "two.csv", "Date,From,To,user", [f"2026-03-02,10:{n},11:{n},k{n % 3}" for n in range(10, 40)]
    )
    assert guess(path).expressions["event_time"] == "Date"


def at(second: int) -> str:
    return f"2026-03-02T10:15:{second:02}Z"


def lines_of(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def test_lists_in_a_list_are_records_and_so_are_those_in_the_only_list_of_documents(tmp_path: Path) -> None:
    spans = [{"id": f"s{n}", "user": f"u{n % 3}", "timestamp": 1772439304000000 + n} for n in range(8)]
    (tmp_path / "zipkin.json").write_text(json.dumps([spans[:4], spans[4:]]))
    traces = [{"traceID": "t", "spans": spans, "processes": {"p": {"name": "shop"}}, "warnings": None}]
    (tmp_path / "jaeger.json").write_text(json.dumps({"data": traces, "errors": None}))
    for name, records in (("zipkin.json", "[][]"), ("jaeger.json", "data[].spans[]")):
        found = guess(tmp_path / name)
        assert found.layout.records == records
        assert accepted(tmp_path / name, found) == (8, 0)


def test_records_with_lists_stay_the_records_unless_only_the_lists_have_times(tmp_path: Path) -> None:
    """Payment providers send lists of one, gateways say where they received something, batches have several events."""
    gateways = [{"gateway": "g", "received_at": at(n)} for n in range(1)]
    heard = [{"result": {"device_id": f"d{n % 3}", "at": at(n), "rx": gateways}} for n in range(12)]
    sent = [{"live": "true", "items": [{"item": {"user_id": f"u{n % 3}", "at": at(n)}}]} for n in range(12)]
    inner = [{"at": at(n), "eur": n} for n in range(5)]
    batches = [{"user_id": f"u{n % 3}", "at": at(n), "events": inner, "tags": [{"k": n}] * 6} for n in range(12)]
    found = [guess(lines_of(tmp_path / f"{len(one[0])}", one)) for one in (heard, sent, batches)]
    assert [one.layout.records for one in found] == [None, "items[]", None]
    assert [one.expressions["entity_id"] for one in found] == ["result.device_id", "item.user_id", "user_id"]
    assert [list(map(str, one.lists)) for one in found] == [[], ["items[] (12)"], ["events[] (60)"]]


def test_an_object_with_little_of_the_record_is_not_its_payload_nor_its_type_that_of_a_device(tmp_path: Path) -> None:
    """An identity made of it would leave out what events differ in."""
    records = [
        {"internal": {"data": {"id": f"i{n}"}}, "device": {"type": "PC"}, "user": f"u{n % 3}", "eur": n, "at": at(n)}
        for n in range(8)
    ]
    path = lines_of(tmp_path / "records", records)
    found = {one.field: one for one in guess(path).mapping}
    assert found["payload"].expression == "@"
    assert (found["event_type"].expression, found["event_type"].confidence) == ("device.type", Confidence.UNSURE)


def test_records_with_half_of_a_surrogate_pair_are_passed_over(tmp_path: Path) -> None:
    """No event can have one; neither can the text of one that is JSON itself, which stays a text."""
    good = [{"id": f"u{n % 3}", "kind": "ab"[n % 2], "ts": at(n)} for n in range(6)]
    found = guess(lines_of(tmp_path / "values.jsonl", [{**good[0], "id": "\ud800"}, {**good[0], "\ud800": 1}, *good]))
    assert found.expressions == {**found.expressions, "entity_id": "id", "event_type": "kind", "event_time": "ts"}
    assert (found.records, found.accepted) == (8, 6)
    assert "half of a surrogate pair" in found.problem
    alone = guess(lines_of(tmp_path / "alone.jsonl", [{**good[0], "id": "\ud800"}]))
    assert (alone.records, alone.mapping, alone.problem) == (0, (), found.problem)
    inner = json.dumps({"text": "\ud800"})
    assert guess(lines_of(tmp_path / "texts.jsonl", [{**one, "data": inner} for one in good])).accepted == 6


def test_an_event_in_base64_is_looked_into(tmp_path: Path) -> None:
    """As Kinesis and Pub/Sub give the data of a message."""
    events = [{"customer": f"u{n % 3}", "type": "paid", "at": at(n)} for n in range(8)]
    records = [
        {"Data": b64encode(json.dumps(event).encode()).decode(), "PartitionKey": f"k{n}", "note": "eyes"}
        for n, event in enumerate(events)
    ]
    path = lines_of(tmp_path / "records", records)
    found = guess(path)
    inner = "parse_json(base64_decode(Data))"
    assert found.expressions["entity_id"] == f"{inner}.customer"
    assert found.expressions["event_time"] == f"{inner}.at"
    assert found.expressions["payload"] == inner
    assert accepted(path, found) == (8, 0)


def of(**fields: Callable[[int], object]) -> list[dict[str, object]]:
    """Sixty records of these fields, each with the number of the record."""
    return [{name: value(n) for name, value in fields.items()} for n in range(60)]


TIME: dict[str, Callable[[int], object]] = {"at": at}
USER: dict[str, Callable[[int], object]] = {"user_id": lambda n: f"u{n % 7}"}


@pytest.mark.parametrize(
    ("records", "field", "expected", "reason"),
    [
        (of(**TIME, userID=lambda n: f"m{n}"), "entity_id", "userID", "name alone: all 60 values differ"),
        (of(**TIME, host=lambda n: "h"), "entity_id", "host", 'name alone: the value is "h" in all 60 records'),
        (of(**TIME, id=lambda n: 4624, computer=lambda n: f"c{n % 7}"), "entity_id", "computer", "name and values: 7"),
        (
            of(**TIME, device=lambda n: f"<<D: 0x28{n % 2}>, name: x>", maker=lambda n: "abc"[n % 3]),
            "entity_id",
            "FIELD",
            "maker (3 different values in 60 records): put",
        ),
        (of(**TIME, subject=lambda n: f"You have {n % 3} new messages"), "entity_id", "FIELD", "no field looks like"),
        (
            of(**TIME, user_id=lambda n: n % 7, device_id=lambda n: n % 3),
            "entity_id",
            "FIELD",
            "user_id (7 different values in 60 records) or device_id (3 different values in 60 records): put one in",
        ),
        (
            of(**TIME, **USER, contentType=lambda n: ("text/a", "text/b")[n % 2]),
            "event_type",
            "'records'",
            "a constant",
        ),
        (of(**TIME, **USER, type=lambda n: "paid"), "event_type", "type", 'name alone: the value is "paid" in all 60'),
        (of(**TIME, **USER, source=lambda n: "ab"[n % 2]), "source", "source", "name alone: 2 different values"),
        (
            of(**TIME, **USER, type=lambda n: "ab"[n % 2]),
            "event_type",
            "type",
            "a general name, and values: 2 different",
        ),
        (of(**TIME, **USER, action=lambda n: f"/a/{n % 3}"), "event_type", "'records'", "a constant"),
        (
            of(paid_at=at, created_at=lambda n: 1769900000 - n, **USER),
            "event_time",
            "FIELD",
            "event_time: put the format of the field that it is in the place of FORMAT",
        ),
        (of(**TIME, customer=lambda n: "abc"[n % 3]), "entity_id", "customer", "name alone: 3 different values"),
        (
            of(timestamp=lambda n: at(n).replace("10:15", "10:16"), fix=lambda n: {"utc": at(n)}, **USER),
            "event_time",
            "FIELD",
            "timestamp (RFC 3339 times) or fix.utc (RFC 3339 times, ~1.00m earlier): put one in the place of FIELD",
        ),
        (
            of(timestamp=lambda n: at(n).replace("10:15", "10:18"), request=lambda n: {"at": at(n)}, **USER),
            "event_time",
            "FIELD",
            "timestamp (RFC 3339 times) or request.at (RFC 3339 times, ~3.00m earlier): put one in the place of FIELD",
        ),
        (of(**TIME, **USER, id=lambda n: n + 1), "idempotency_key", "id", "name alone: the values count the records"),
        (
            of(ts=at, created_at=lambda n: at(n).replace("03-02", "03-09"), **USER),
            "event_time",
            "ts",
            "name and values: all 60 values are RFC 3339 times",
        ),
        (
            of(start_time=lambda n: at(n).replace("2026", "2226"), due=at, **USER),
            "event_time",
            "FIELD",
            "start_time (RFC 3339 times) or due (RFC 3339 times, ~",
        ),
        (
            of(paid_at=at, created_at=lambda n: at(n).replace("03-02", "03-01"), **USER),
            "event_time",
            "FIELD",
            "paid_at (RFC 3339 times) or created_at (RFC 3339 times, ~1.00d earlier): put one in the place of FIELD",
        ),
        (
            of(
                mail=lambda n: {"timestamp": at(n)},
                open=lambda n: {"timestamp": at(n).replace("10:15", "10:18")} if n % 2 else None,
                **USER,
            ),
            "event_time",
            "mail.timestamp",
            "are RFC 3339 times; there is also open.timestamp in 30 records, ~3.00m later",
        ),
        (
            of(created=at, created_utc=lambda n: at(n).replace("T10", "T17"), **USER),
            "event_time",
            "FIELD",
            "created (RFC 3339 times) or created_utc (RFC 3339 times, ~7.00h later): put one in the place of FIELD",
        ),
        (
            of(**TIME, data=lambda n: b64encode(json.dumps({"user": n % 7}).encode()).decode(), seq=lambda n: n),
            "payload",
            "parse_json(base64_decode(data))",
            "the JSON in a text of each record; leaves out seq (60 values)",
        ),
        (of(**TIME, **USER, data=lambda n: {"x": n}, rate=lambda n: 1), "payload", "@", "the whole record"),
    ],
)
def test_a_name_whose_values_say_something_else_is_not_sure_and_two_that_fit_are_asked_about(
    tmp_path: Path, records: Sequence[object], field: str, expected: str, reason: str
) -> None:
    found = guess(lines_of(tmp_path / "records", records))
    [one] = [one for one in found.mapping if one.field == field]
    sure = expected in ("@", "computer", "ts")
    assert (one.expression, one.confidence != Confidence.UNSURE) == (expected, sure)
    assert any(reason in text for text in (one.reason, *found.undecided)), (one.reason, found.undecided)
