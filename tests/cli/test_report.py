"""`pik report`: one file with what an investigation finds, the same bytes each time; what it cannot know stands in its
place, and nothing that came from outside is obeyed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from pik.cli.commands.care.report_figures import course_title, moved
from pik.cli.commands.care.report_parts import SCHEMAS
from pik.model.instant import DAY
from pik.usecases.report.numbers import POINTS, Course, Point
from tools.gen_json import SCHEMAS as PUBLISHED
from tools.gen_json import names, slug

pytestmark = pytest.mark.xdist_group("report")  # which takes long, and is made once for each process

Pik = Callable[..., Any]
METRICS = """
[[metric]]
name = "revenue"
value = "sum((payload->>'v')::BIGINT)"

[[metric]]
name = "greatest"
value = "max((payload->>'v')::BIGINT)"

[[metric]]
name = "visitors"
value = "count(DISTINCT entity_id)"
per = "all"
"""
WINDOW = ("--from", "2026-01-01", "--to", "2026-01-03")
NAMED = ("report", "--incident", "INC-7")


def line(entity: str, value: int, day: int, hour: int = 1, **more: Any) -> str:
    event = {
        "source": "web",
        "event_type": "paid",
        "entity_id": entity,
        "event_time": f"2026-01-0{day}T{hour:02}:00:00Z",
        "received_time": f"2026-01-0{day}T{hour:02}:00:30Z",
        "payload": {"v": value},
    }
    return json.dumps(event | more) + "\n"


def ingest(pik: Pik, name: str, text: str) -> Any:
    Path(name).write_text(text)
    return pik("ingest", name)


@pytest.fixture
def shop(pik: Pik, once: Callable[[Callable[[], object]], None]) -> Pik:
    """Two days of two entities, whose numbers were current before two late events, two duplicates and a conflict."""

    def build() -> None:
        ingest(pik, "days.jsonl", line("a", 10, 1) + line("b", 20, 1) + line("a", 30, 2, idempotency_key="k"))
        Path("m.toml").write_text(METRICS)
        assert pik("metrics", "apply", "m.toml").code == 0
        assert pik("replay", "--all", "--promote", "--yes", "--reason", "nightly").code == 0
        ingest(pik, "late.jsonl", line("a", 5, 1, 2) + line("c", 40, 2, 3, source="app"))
        ingest(pik, "again.jsonl", line("b", 20, 1) + line("b", 20, 1) + line("a", 31, 2, idempotency_key="k"))

    once(build)
    return pik


def report(pik: Pik, *options: object, code: int = 1) -> Any:
    """Return the JSON of a report, its parts by name."""
    result = pik(*NAMED, *options, "--out", "-", "--as", "json")
    assert result.code == code, result.err
    found = json.loads(result.out)
    return found | {part["part"]: part for part in found["parts"]}


def markdown(pik: Pik, *options: object, code: int = 1) -> str:
    result = pik(*NAMED, *options, "--out", "-", "--as", "md")
    assert result.code == code, result.err
    return str(result.out)


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What of_shop has made."""
    return {}


@pytest.fixture
def of_shop(shop: Pik, kept: dict[str, Any]) -> Any:
    """The JSON of the report on the shop as it is, and its Markdown as `md`."""
    if not kept:
        kept |= report(shop, *WINDOW) | {"md": markdown(shop, *WINDOW)}
    return kept


def test_each_delivery_is_in_one_count(shop: Pik, of_shop: Any) -> None:
    found = of_shop
    assert found["volume_bucket"] == "1h"
    assert [tuple(one.values()) for one in found["volume"]] == [
        ("2026-01-01T01:00:00Z", 2, 0, 2, 0),
        ("2026-01-01T02:00:00Z", 0, 1, 0, 0),
        ("2026-01-02T01:00:00Z", 1, 0, 0, 1),
        ("2026-01-02T03:00:00Z", 0, 1, 0, 0),
    ]
    status = shop("status", "--format", "json").json()
    assert sum(sum(list(one.values())[1:]) for one in found["volume"]) == int(status["deliveries"])


def test_what_corrections_took_out_is_shown_beside_what_arrived(shop: Pik, of_shop: Any) -> None:
    assert "By corrections" not in of_shop["md"]
    assert shop("correct", "--assume", "without=selected,entity=b", "--reason", "a test", "--yes").code == 0
    arrived = markdown(shop, *WINDOW).partition("## What arrived")[2].partition("\n## ")[0]
    assert "By corrections: 1 event taken out. What was accepted, and does not count any more," in arrived
    assert [one["accepted"] for one in report(shop, *WINDOW)["volume"]] == [2, 0, 1, 0]


def test_parts_are_the_json_of_their_commands(shop: Pik, of_shop: Any) -> None:
    found = of_shop
    for name, schema in SCHEMAS.items():
        part = found[name]
        assert (part["failure"], part["nothing"], part["left_out"]) == (None, None, 0)
        file = PUBLISHED / f"{slug(names(schema)[0])}.json"
        validator = Draft202012Validator(json.loads(file.read_text(encoding="utf-8")))
        assert [error.message for error in validator.iter_errors(part["document"])] == []
        words = shlex.split(part["command"])[1:]
        said = json.loads(shop(*words, "--format", "json").out)
        assert {**said, "next": None} == {**part["document"], "next": None}, name


def test_the_same_store_and_arguments_make_the_same_bytes(shop: Pik, monkeypatch: pytest.MonkeyPatch) -> None:
    for times, name in enumerate(("one.html", "other.html")):
        monkeypatch.setattr("time.time_ns", lambda shift=times: 2_000_000_000_000_000_000 + shift * 10**18)
        assert shop(*NAMED, "--since", "400d", "--out", name).code == 1
    assert Path("one.html").read_bytes() == Path("other.html").read_bytes()
    assert b"one.html" not in Path("one.html").read_bytes()


def test_its_own_command_makes_it_again(shop: Pik) -> None:
    zone = ("--display-timezone", "Asia/Tokyo")
    text = markdown(shop, "--since", "400d", "--entity", "a", *zone)
    assert "2026-01-02T10:00:00+09:00" in text
    [again] = re.findall("^pik (report .*)", text, re.MULTILINE)
    assert shop(*shlex.split(again)).out == text
    assert "+09:00" not in json.dumps(report(shop, *WINDOW, "--entity", "a", *zone))


def test_since_counts_back_from_the_last_recording(shop: Pik) -> None:
    assert (
        shop(*NAMED, "--since", "1h", "--out", "r.md").code == 2
    )  # the events are of another day than their recording
    assert not Path("r.md").exists()


def test_titles_say_the_finding(of_shop: Any) -> None:
    titles = re.findall("^### (.*)", of_shop["md"], re.MULTILINE)
    assert (
        "2 late deliveries, 1 of them in the hour from 2026-01-01T02:00:00Z, would move event_count by +33.3 %;"
        " 2 exact duplicates, 1 conflict" in titles
    )
    assert "Half of the events arrived within 30s, 99 % within 30s; the slowest took 30s" in titles
    assert "revenue is 60 and should be 105 (+75.0 %): not computed +40, late +5" in titles
    assert "The total of revenue differs in 2 of 2 buckets, most in 2026-01-02 (by +40)" in titles
    assert "visitors differs in 1 of 2 buckets, by +1 in 2026-01-02" in titles
    assert "All 3 duplicates came from web" in titles


def test_shares_lead_from_the_current_total_to_the_recomputed_one(shop: Pik) -> None:
    Path("m.toml").write_text(METRICS.replace("sum((payload->>'v')::BIGINT)", "sum(2 * (payload->>'v')::BIGINT)"))
    shop("metrics", "apply", "m.toml")
    [revenue] = [one for one in report(shop, *WINDOW)["totals"]["document"]["totals"] if one["metric"] == "revenue"]
    shares = {one["cause"]: one["share"] for one in revenue["causes"]}
    assert shares == {"definition": 60, "late": 10, "not computed": 80}
    assert revenue["current"] + sum(shares.values()) == revenue["recomputed"] == 210


def test_one_entity_has_its_values_of_metrics_that_do_not_add_up(shop: Pik) -> None:
    text = markdown(shop, *WINDOW, "--entity", "a", "--metric", "greatest", "--metric", "revenue")
    assert "greatest: current and recomputed values agree in all 2 buckets" in text
    assert "late +5" in text
    assert "visitors" not in text.split("## Current against")[1].split("##")[0]


def test_a_sound_store_has_no_finding(pik: Pik) -> None:
    ingest(pik, "one.jsonl", line("a", 1, 1))
    assert pik("replay", "--all", "--promote", "--yes").code == 0
    text = markdown(pik, code=0)
    assert "- findings: 0\n- deliveries: 1\n- late: 0" in text
    assert "### 1 delivery, none of them late" in text
    assert "### The only event arrived after 30s" in text
    assert "agree in the only bucket" in text
    assert "no such duplicates" in text


def test_a_lag_below_zero_is_not_an_arrival(pik: Pik) -> None:
    ingest(pik, "early.jsonl", line("a", 1, 1, received_time="2026-01-01T00:59:00Z"))
    assert pik("metrics", "retire", "event_count", "--reason", "x", "--yes").code == 0
    text = markdown(pik, *WINDOW, code=0)
    assert (
        "### The lag of half of the events is -1m or less, of 99 % -1m or less; the greatest is -1m; 1 event has"
        in text
    )
    assert ("The report has no metric." in text, "adds up" in text) == (True, False)


def test_without_current_values_none_is_late(pik: Pik) -> None:
    ingest(pik, "one.jsonl", line("a", 1, 1) + line("a", 1, 1))
    text = markdown(pik)
    assert "### 2 deliveries, with 1 exact duplicate; no value is current, so none can be late" in text
    assert "event_count has no current value and should be 1 (+1): not computed +1" in text
    assert "- late: no current value" in text
    assert "### The only duplicate came from web" in text


def test_an_empty_window_writes_nothing(shop: Pik) -> None:
    result = shop(*NAMED, "--from", "2027-01-01", "--out", "r.md")
    assert (result.code, Path("r.md").exists(), "in [2027-01-01" in result.err) == (2, False, True)
    assert shop(*NAMED, "--entity", "nobody", "--out", "r.md").code == 2


def test_retired_metrics_leave_no_numbers(pik: Pik) -> None:
    ingest(pik, "one.jsonl", line("a", 1, 1))
    pik("metrics", "retire", "event_count", "--reason", "x", "--yes")
    found = report(pik, code=0)
    assert found["totals"]["nothing"] == found["values"]["nothing"] == "the report has no metric"
    assert found["definitions"] == []


def test_a_part_whose_raw_is_damaged_shows_that_in_its_place(shop: Pik) -> None:
    [segment, *_] = sorted(Path(".pik/raw/event_date=2026-01-02").iterdir())
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o600)
    segment.write_bytes(bytes(data))
    found = report(shop, *WINDOW, code=3)
    assert not found["complete"]
    assert "volume" in found
    assert found["volume"] is None
    assert segment.name in found["lag"]["failure"]
    assert found["verify"]["document"]["damage"] >= 1
    [revenue] = [one for one in found["totals"]["document"]["totals"] if one["metric"] == "revenue"]
    assert (revenue["current"], revenue["recomputed"], revenue["delta"]) == (None, None, None)
    text = markdown(shop, *WINDOW, code=3)
    assert "The total of revenue is not known: values cannot be computed" in text
    assert "Not known (volume)" in text
    assert "- revenue: **not known**" in text
    assert "- not looked at in full: **lag" in text


def point(day: int, current: int | None, recomputed: int | None, *, known: bool = True) -> Point:
    before, after = (None if value is None else Decimal(value) for value in (current, recomputed))
    return Point(day * DAY, before, after, known=known)


@pytest.mark.parametrize(
    ("points", "title"),
    [
        ([point(0, 5, 5)], "m: current and recomputed values agree in the only bucket"),
        ([point(0, 5, 5), point(1, 0, 0)], "m: current and recomputed values agree in all 2 buckets"),
        ([point(0, 5, 4)], "m differs in 1 of 1 bucket, by -1 in 1970-01-01"),
        ([point(0, None, 0)], "m differs in 1 of 1 bucket"),
        ([point(0, 1, None), point(1, 5, 1200)], "m differs in 2 of 2 buckets, most in 1970-01-02 (by +1,195)"),
        ([point(0, None, None, known=False)], "m is not known: values cannot be computed"),
        (
            [point(0, 9, None, known=False), point(1, 1, 1)],
            "m: current and recomputed values agree in the only bucket that can be compared; 1 cannot be computed",
        ),
        (
            [point(0, 9, None, known=False), point(1, 1, 2)],
            "m differs in 1 of 2 buckets, by +1 in 1970-01-02; 1 cannot be computed",
        ),
    ],
)
def test_a_title_is_right_for_one_for_none_and_for_missing_values(points: list[Point], title: str) -> None:
    assert course_title(Course.of("m", points), by_hour=False) == title


def test_a_course_that_is_shortened_keeps_what_differs_most() -> None:
    points = [point(day, day, day) for day in range(POINTS + 5)]
    points[2] = point(2, 2, 3)
    kept = Course.of("m", points)
    assert (len(kept.points), kept.buckets, kept.different, points[2] in kept.points) == (POINTS, POINTS + 5, 1, True)
    assert list(kept.points) == sorted(kept.points, key=lambda one: one.bucket)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        ("0", "0", "+0"),
        ("0", "10", "+0.0 %"),
        ("3", None, "+3"),
        ("-3.20", "100", "-3.2 %"),
        ("5", "-10", "+50.0 %"),
        ("0.01", "100000", "+0.01"),
        ("1234567", "100", "+1,234,567.0 %"),
        ("1E-30", "1E+30", "+0.000000000000000000000000000001"),
    ],
)
def test_a_movement_is_in_percent_where_that_says_something(part: str, whole: str | None, text: str) -> None:
    assert moved(Decimal(part), None if whole is None else Decimal(whole)) == text


HOSTILE = [
    "<script>alert(1)</script>",
    "</table><img src=x onerror=alert(1)>",
    "a|b|c",
    "`rm -rf`\u202e",
    "[x](javascript:alert(1))",
    "# heading",
    "--from",
    "'; rm -rf ~; '",
]


def test_what_comes_from_events_is_not_obeyed(pik: Pik) -> None:
    lines = [line(text, 1, 1, source=text, event_type=text) * 2 for text in HOSTILE]
    name = "<b>|x`.jsonl"
    ingest(pik, name, "".join(lines))
    pik("replay", "--all", "--promote", "--yes", "--reason", "<script>|[x](javascript:1)", "--actor", "<i>eve|")
    ingest(pik, "late.jsonl", "".join(line(text, 2, 1, 2, source=text) for text in HOSTILE))
    for options in ((), [f"--entity={text}" for text in HOSTILE]):
        text = markdown(pik, *options)
        prose = re.sub(r"^(`{3,})sh\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"(?<!\\)<(?!br>)", prose)
        assert not re.search(r"(?<!\\)`", prose)
        assert "](javascript" not in prose.replace("]\\(", "")
        assert "\u202e" not in text
        assert not re.search(r"^# heading", text, re.MULTILINE)
        for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
            assert len(widths) == 1, table
    page = pik(*NAMED, "--out", "-", "--as", "html").out
    assert page.count("<script") == 1  # its own
    assert not re.search(r"<(img|i|b)[ >]|\u202e|</table><", page.replace("</table></div>", ""))
    sources = {one["source"] for one in report(pik)["duplicates"]["document"]["groups"]}
    assert sources == set(HOSTILE)


def test_the_file_is_whole_or_not_there(shop: Pik) -> None:
    Path("r.md").write_text("mine")
    refused = shop(*NAMED, "--out", "r.md")
    assert (refused.code, Path("r.md").read_text()) == (2, "mine")
    assert "--force" in refused.err
    some = (*WINDOW, "--entity", "a", "--metric", "revenue")
    assert shop(*NAMED, *some, "--out", "r.md", "--force", "--dry-run").code == 1
    assert Path("r.md").read_text() == "mine"
    result = shop(*NAMED, *some, "--out", "r.md", "--force", "--format", "json")
    assert result.json()["bytes"] == len(Path("r.md").read_bytes())
    assert [path.name for path in Path().glob(".*.part")] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "r.pdf"), "a report is a"),
        (("--out", "-"), "--as json"),
        (("--out", "."), "--as"),
        (("--out", ".", "--as", "md"), "is a directory"),
        (("--out", "no/where/r.md"), "there is no directory"),
        (("--out", "r.md", "--metric", "revenu"), "did you mean revenue?"),
        (("--out", "r.md", "--incident", "a\nb"), "invalid name"),
        (("--out", "r.md", "--incident", " "), "invalid name"),
        (("--out", "r.md", "--incident", "\u202e"), "invalid name"),
    ],
)
def test_a_wrong_line_is_refused_before_the_work(shop: Pik, options: tuple[str, ...], said: str) -> None:
    result = shop(*(NAMED[:1] if "--incident" in options else NAMED), *options)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_a_copy_has_the_same_report(shop: Pik, of_shop: Any) -> None:
    assert shop("pull", "--into", "copy", *WINDOW).code == 0
    mine, copy = of_shop, report(shop, *WINDOW, "--store", "copy")
    assert copy["volume"] == mine["volume"]
    assert copy["lag"]["document"] == mine["lag"]["document"]
    assert shop(*NAMED, "--store", "copy", "--from", "2025-01-01", "--out", "r.md").code == 4
