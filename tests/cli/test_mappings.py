"""Named mappings: by name, by the names of files, under options, and what is wrong with one."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

TOML = """
[ingest.map]
source = "'usual'"
[mapping.shop]
description = "nightly export"
files = ["shop-*.csv", "old/*"]
delimiter = ";"
time_format = "%d.%m.%Y %H:%M"
timezone = "Europe/Berlin"
[mapping.shop.map]
source = "'shop'"
event_type = "'order'"
entity_id = "customer"
event_time = "at"
payload = "@"
"""
ROWS = "customer;at;amount\nana;01.02.2026 10:00;3\nben;01.02.2026 11:00;4\n"
OPTIONS = ("--delimiter", ";", "--time-format", "%d.%m.%Y %H:%M", "--timezone", "Europe/Berlin")
FIELDS = {"source": "'shop'", "event_type": "'order'", "entity_id": "customer", "event_time": "at", "payload": "@"}
MAP = tuple(word for name, text in FIELDS.items() for word in ("--map", f"{name}={text}"))


@pytest.fixture
def here(pik: Any, tmp_path: Path) -> Path:
    (tmp_path / "pik.toml").write_text(TOML)
    for name in ("shop-1.csv", "other.csv"):
        (tmp_path / name).write_text(ROWS)
    return tmp_path


def test_a_mapping_reads_as_its_options_do_and_gives_the_same_batch(pik: Any, here: Path) -> None:
    named = pik("ingest", "other.csv", "--mapping", "shop", "--format", "json").json()
    assert (named["accepted"], named["mapping"]) == (2, "shop")
    assert (named["first_event"], named["last_event"]) == ("2026-02-01T09:00:00Z", "2026-02-01T10:00:00Z")
    again = pik("ingest", "shop-1.csv", *OPTIONS, *MAP, "--mapping", "none", "--format", "json").json()
    assert (again["outcome"], again["batch_id"]) == ("already ingested", named["batch_id"])
    assert "shop (pik.toml)" in pik("ingest", "shop-1.csv").out


def test_files_are_read_by_the_mapping_that_matches_their_name(pik: Any, here: Path) -> None:
    (here / "old").mkdir()
    (here / "old/one.txt").write_text(ROWS + "cem;01.02.2026 12:00;5\n")
    (here / "events.jsonl").write_text(
        '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n'
    )
    with tarfile.open(here / "archive.tar", "w") as archive:
        (here / "shop-3.csv").write_text(ROWS + "dan;01.02.2026 13:00;6\n")
        archive.add(here / "shop-3.csv", "shop-3.csv")
    inputs = ("shop-1.csv", "old", "archive.tar", "events.jsonl", "--format", "json")
    found = {one["source"]: one["mapping"] for one in pik("ingest", "--dry-run", *inputs).json()["sources"]}
    assert found == {
        "shop-1.csv": "shop",
        "old/one.txt": "shop",
        "archive.tar:shop-3.csv": "shop",
        "events.jsonl": None,
    }
    done = pik("ingest", *inputs).json()
    assert [one["mapping"] for one in done["batches"]] == ["shop", "shop", "shop", None]
    assert (done["read"], done["rejected"]) == (9, 0)
    assert pik("ingest", "other.csv").code == 2  # [ingest.map] has no entity


def test_options_take_precedence_field_by_field_and_pik_toml_does_not_hold_beside_a_mapping(
    pik: Any, here: Path
) -> None:
    given = ("--map", "entity_id='all'", "--timezone", "UTC")
    done = pik("ingest", "shop-1.csv", *given, "--format", "json").json()
    assert (done["mapping"], done["first_event"]) == ("shop", "2026-02-01T10:00:00Z")
    assert {(one["source"], one["entity_id"]) for one in pik("events", "--format", "json").json()["events"]} == {
        ("shop", "all")
    }
    wrong = pik("ingest", "shop-1.csv", "--input", "jsonl")
    assert (wrong.code, "the options do not go with mapping shop (pik.toml): delimiter" in wrong.err) == (2, True)


def test_diff_events_and_assumptions_take_mappings_too(pik: Any, here: Path) -> None:
    pik("ingest", "shop-1.csv")
    (here / "new.csv").write_text(ROWS + "ana;01.02.2026 12:00;9\n")
    (here / "shop-2.csv").write_text(ROWS + "ana;01.02.2026 12:00;9\n")
    found = pik("diff", "events", "new.csv", "--mapping", "shop", "--format", "json")
    assert (found.code, found.json()["both"], found.json()["missing"]) == (1, 2, 1)
    itself = pik("diff", "events", "shop-2.csv", "--format", "json")
    assert (itself.code, itself.json()["missing"], itself.json()["named_mappings"]) == (1, 1, ["shop"])
    assert itself.err == "mapping shop (pik.toml) reads shop-2.csv\n"
    plain = pik("diff", "events", "other.csv", "--mapping", "none", *OPTIONS, *MAP, "--format", "json")
    assert plain.json()["named_mappings"] is None
    (here / "bad.csv").write_text(ROWS + "ana;tomorrow;9\n")
    assert "--mapping shop" in pik("diff", "events", "bad.csv", "--mapping", "shop").err
    for assumed in ("with=@new.csv,mapping=shop", "with=@shop-2.csv"):
        explained = pik("explain", "event_count", "ana", "2026-02-01", "--assume", assumed, "--format", "json").json()
        assert [one["share"] for one in explained["causes"] if one["cause"] == "assumed"] == [1]
        assert any("mapping=shop" in text for text in explained["assumed"])


def test_one_batch_has_one_mapping(pik: Any, here: Path) -> None:
    mixed = pik("ingest", "shop-1.csv", "other.csv", "--one-batch")
    assert (mixed.code, "other.csv has another mapping in pik.toml" in mixed.err) == (2, True)
    done = pik("ingest", "shop-1.csv", "other.csv", "--one-batch", "--mapping", "shop", "--format", "json").json()
    assert (done["mapping"], done["read"], done["accepted"]) == ("shop", 4, 2)
    mixed = pik("explain", "event_count", "ana", "2026-02-01", "--assume", "with=@.")
    assert (mixed.code, "other.csv has another mapping" in mixed.err or "shop-1.csv has" in mixed.err) == (2, True)


def test_two_mappings_for_one_file_are_refused(pik: Any, here: Path) -> None:
    with (here / "pik.toml").open("a") as file:
        file.write('[mapping.orders]\nfiles = ["*-1.csv"]\n')
    both = pik("ingest", "shop-1.csv")
    assert both.code == 2
    assert both.err.startswith("error: the mappings shop and orders (pik.toml) are both for shop-1.csv")
    assert pik("ingest", "shop-1.csv", "--mapping", "shop").code == 0


def test_an_unknown_name_is_answered_with_near_ones(pik: Any, here: Path) -> None:
    wrong = pik("ingest", "other.csv", "--mapping", "shpo")
    assert wrong.code == 2
    assert wrong.err == ("error: there is no mapping 'shpo'\nhint: did you mean shop? `pik mappings list` lists them\n")
    (here / "pik.toml").unlink()
    assert pik("ingest", "other.csv", "--mapping", "shop").code == 2
    assert pik("mappings", "list").code == 0


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[mapping.a]\nzone = 'UTC'", "there is no key mapping.a.zone"),
        ("[mapping.a.map]\nentity = 'x'", "mapping.a.map.entity: an event has no such field"),
        ("[mapping.a.map]\nentity_id = 1", "mapping.a.map.entity_id: expected a text, not 1"),
        ("[mapping.a]\nmap = 1", "mapping.a.map: expected a table, not 1"),
        ("[mapping.a]\nfiles = [1]", "mapping.a.files: expected a text, not 1"),
        ("[mapping.a]\nfiles = ['']", "mapping.a.files: a pattern is empty"),
        ("[mapping.a]\ninput = 'xml'", "mapping.a.input xml: unknown format"),
        ("[mapping.a]\ndelimiter = ';;'", "mapping.a.delimiter ';;': expected a character"),
        ("[mapping.a]\ntimezone = 'Berlin'", "mapping.a.timezone: "),
        ("[mapping.none]\n", "mapping.none: 'none' cannot be the name of a mapping"),
        ("[mapping]\na = 1", "mapping.a: expected a table, not 1"),
        ("mapping = 1", "mapping: expected a table, not 1"),
        ("[mapping.a.map]\nentity_id = 'a-b'", "mapping.a.map.entity_id: a-b is not a JMESPath expression"),
        ("[mapping.a]\ntime_format = 'iso'", "mapping.a.time_format: unknown time format 'iso'"),
        ("[mapping.a]\ntime_format = '%d.%m'", "mapping.a.time_format: "),
    ],
)
def test_a_mistake_names_the_file_the_mapping_and_the_key(pik: Any, here: Path, table: str, said: str) -> None:
    (here / "pik.toml").write_text(table)
    wrong = pik("ingest", "other.csv", "--mapping", "a")
    assert wrong.code == 2
    assert wrong.err.startswith(f"error: {here}/pik.toml: {said}")


def test_what_show_prints_can_be_pasted(pik: Any, here: Path) -> None:
    before = pik("mappings", "show", "shop", "--format", "json").json()
    text = pik("mappings", "show", "shop").out
    (here / "pik.toml").write_text(text)
    assert pik("mappings", "show", "shop", "--format", "json").json() == before
    line = before["command"].replace("FILE", "shop-1.csv")
    assert line.startswith("pik ingest ")
    words = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True).stdout
    (here / "pik.toml").unlink()
    assert pik(*words.split("\0")[1:-1], "--format", "json").json()["accepted"] == 2


def test_the_list_says_where_a_mapping_is_written_for_which_files_and_what_it_is(pik: Any, here: Path) -> None:
    (found,) = [one for one in pik("mappings", "list", "--format", "json").json()["mappings"] if one["name"] == "shop"]
    assert (found["from"], found["file_patterns"], found["description"]) == (
        "pik.toml",
        ["shop-*.csv", "old/*"],
        "nightly export",
    )


def test_a_mapping_is_tried_on_the_first_records_without_a_store(
    pik: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "other.csv").write_text(ROWS.replace("01.02.2026 11:00", "noon") + "cem;01.02.2026 12:00;5\n" * 2)
    tried = pik("mappings", "try", "shop", "other.csv", "--sample", "2", "--map", "entity_id=upper(customer)")
    assert tried.code == 3
    assert "01.02.2026 10:00" in tried.out
    found = pik("mappings", "try", "shop", "other.csv", "--map", "entity_id=upper(customer)", "--format", "json").json()
    assert (found["read"], found["mapping"], found["input"]) == (3, "shop", "csv")
    assert [(one["seq"], one["field"]) for one in found["rejects"]] == [(2, "event_time")]
    assert "noon" in found["rejects"][0]["line"]
    rows = {one["field"]: (one["from"], one["found_value"], one["event"]) for one in found["sample"] if one["seq"] == 1}
    assert rows["entity_id"] == ("upper(customer)", "ANA", "ANA")
    assert rows["event_time"] == ("at", "01.02.2026 10:00", "2026-02-01T09:00:00.000000000Z")
    assert rows["payload"][2] == {"customer": "ana", "at": "01.02.2026 10:00", "amount": "3"}
    assert found["next"] == "pik ingest --mapping shop --map 'entity_id=upper(customer)' other.csv"
    assert not (here / ".pik").exists()
    (here / "empty.csv").write_text("customer;at;amount\n")
    assert pik("mappings", "try", "shop", "empty.csv", "--format", "json").json()["read"] == 0
    with zipfile.ZipFile(here / "two.zip", "w") as archive:
        for name in ("other.csv", "empty.csv"):
            archive.write(here / name, name)
    tried = pik("mappings", "try", "shop", "two.zip", "--map", "entity_id=upper(customer)", "--format", "json").json()
    assert tried["note"] == "nothing was stored; only two.zip:other.csv was looked at, the first file of the archive"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((here / "other.csv").read_bytes())))
    streamed = pik("mappings", "try", "shop", "-", "--map", "entity_id=upper(customer)", "--format", "json").json()
    assert {**streamed, "source": "other.csv", "next": found["next"]} == found
    assert pik("mappings", "try", "shop", "other.csv", "--mapping", "shop").code == 2
    assert (
        pik("mappings", "try", "stripe", "other.csv").err.splitlines()[1].startswith("hint: did you mean stripe-event?")
    )


def test_a_shipped_mapping_says_that_records_are_of_another_format(pik: Any, here: Path) -> None:
    (here / "app.jsonl").write_text('{"at": "2026-01-01T00:00:00Z", "host": "a"}\n')
    pik("init")
    another = "the records are of another format: `pik ingest --guess app.jsonl` proposes how to read them"
    for line in (
        ("mappings", "try", "stripe-event", "app.jsonl"),
        ("ingest", "--mapping", "kcat", "app.jsonl"),
        ("ingest", "--mapping", "cloudtrail", "app.jsonl"),
        ("diff", "events", "app.jsonl", "--mapping", "stripe-event"),
        ("explain", "event_count", "a", "2026-01-01", "--assume", "with=@app.jsonl,mapping=stripe-event"),
    ):
        assert another in pik(*line).err
    own = pik("mappings", "try", "stripe-event", "app.jsonl", "--map", "event_type=kind").err
    assert "a constant has quotes" in own
