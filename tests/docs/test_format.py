"""docs/format.md says what is so: a reader written from it sees what pik sees."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pik.model.event import ENVELOPE
from tests.docs.conftest import expect
from tests.support.docs import reader
from tests.support.docs.console import REPOSITORY

PAGE = (REPOSITORY / "docs" / "format.md").read_text(encoding="utf-8")
VECTORS: list[dict[str, str]] = json.loads(
    (REPOSITORY / "tests" / "support" / "model" / "vectors.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def deliveries(varied: Path) -> list[reader.Delivery]:
    """What the reader finds in a store with everything in it; it checks digests, frames, order, envelopes, ids."""
    return list(reader.Store(varied / ".pik").deliveries())


def _rows(directory: Path, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in expect(directory, 0, *arguments, "--format", "jsonl").splitlines()]


def test_accepted_deliveries_are_the_events(varied: Path, deliveries: list[reader.Delivery]) -> None:
    counts = Counter(one.fields["event_id"] for one in deliveries)
    accepted = {
        (one.fields["event_id"], *one.place, counts[one.fields["event_id"]])
        for one in deliveries
        if one.kind == "accepted"
    }
    assert len(accepted) == len(counts)
    events = _rows(varied, "events")
    assert accepted == {(row["event_id"], row["batch_id"], row["seq"], row["deliveries"]) for row in events}


def test_the_page_and_its_reader_have_every_field_of_the_envelope() -> None:
    fields = [field.name for field in ENVELOPE]
    assert {name: f"\n| `{name}` | " in PAGE for name in fields} == dict.fromkeys(fields, True)
    assert set(fields) <= set(reader.ORDER)


def test_the_others_are_the_duplicates(varied: Path, deliveries: list[reader.Delivery]) -> None:
    others = {(one.fields["event_id"], one.kind, *one.place) for one in deliveries if one.kind != "accepted"}
    duplicates = _rows(varied, "duplicates")
    assert others == {(row["event_id"], row["kind"], row["batch_id"], row["seq"]) for row in duplicates}
    accepted = {one.fields["event_id"]: one.fields["content_hash"] for one in deliveries if one.kind == "accepted"}
    for one in deliveries:
        differs = accepted[one.fields["event_id"]] != one.fields["content_hash"]
        assert one.kind == "accepted" or (one.kind == "conflict") == differs


def test_the_store_has_everything_that_the_page_describes(varied: Path, deliveries: list[reader.Delivery]) -> None:
    of_requests = {"actor"}  # the store has none
    assert {name for one in deliveries for name in one.fields} == set(reader.ORDER) - of_requests
    assert {one.kind for one in deliveries} == {"accepted", "exact", "conflict"}
    store = reader.Store(varied / ".pik")
    segments = [line["segment"] for record in store.records for line in record if line["type"] == "segment"]
    assert any(len(segment["frames"]) > 3 for segment in segments)
    assert store.superseded() == []
    names = {name for reject in store.rejects() for name in reject}
    assert names == {"seq", "reason", "field", "line", "bytes"}
    seqs = [reject["seq"] for reject in store.rejects()]
    assert seqs == [8, 10, 11], "blank lines are counted"


def test_the_envelope_is_in_the_page(deliveries: list[reader.Delivery]) -> None:
    table = PAGE.split("## A line: the envelope")[1].split("\n## ")[0]
    fields = re.findall(r"^\| `(\w+)` \| ([\w ,]+) \|", table, re.MULTILINE)
    assert [name for name, _ in fields] == reader.ORDER
    assert {name for name, kind in fields if "optional" in kind} == reader.OPTIONAL


def test_records_are_in_the_page(varied: Path) -> None:
    section = PAGE.split("## Batch records")[1].split("\n## ")[0]
    documented = [
        [name for names in re.findall(r"^\| (`.+?`) \| \w+ \|", table, re.MULTILINE) for name in names.split(", ")]
        for table in section.split("\n\n")
        if table.startswith("| ")
    ]
    record = next(record for record in reader.Store(varied / ".pik").records if record[-1]["type"] == "rejects")
    segment, rejects = record[1], record[-1]
    there = [list(record[0]), list(segment), list(segment["segment"]), list(rejects)]
    assert documented == [[f"`{name}`" for name in names] for names in there]
    for name in ("name", "content", "options", "again", "key", "size", "digest", "records"):
        assert f"`{name}`" in section
    assert list(rejects["rejects"]) == ["key", "size", "digest", "records"]
    assert list(record[0]["origin"]) == ["name", "content", "options", "again"]


def test_the_directory_is_in_the_page(varied: Path) -> None:
    documented = PAGE.split("## The directory")[1].split("\n## ")[0]
    for path in (varied / ".pik").iterdir():
        assert f"`{path.name}" in documented
    keys = set(re.findall(r"`(raw/[^`]+\.zst)`", documented))
    for path in (varied / ".pik" / "raw").rglob("*.*"):
        key = re.sub(r"-\d+\.ndjson", "-N.ndjson", str(path.relative_to(varied / ".pik")))
        key = re.sub(r"=\d{4}-\d\d-\d\d/", "=YYYY-MM-DD/", re.sub(r"[0-9A-Z]{26}", "BATCH", key))
        assert key in keys


def test_an_object_that_no_record_names_is_superseded(varied: Path, tmp_path: Path) -> None:
    shutil.copytree(varied, tmp_path / "copy")
    root = tmp_path / "copy" / ".pik"
    segment = next((root / "raw" / "event_date=2026-03-02").iterdir())
    copy = segment.with_name(segment.name.replace("-1.", "-1000001."))
    shutil.copy(segment, copy)
    store = reader.Store(root)
    assert store.superseded() == [str(copy.relative_to(root))]
    found = json.loads(expect(tmp_path / "copy", 0, "verify", "--format", "json"))
    assert found["superseded"] == 1
    assert len(list(store.deliveries())) == found["deliveries"]


def test_a_flipped_bit_is_found_by_the_reader_too(varied: Path, tmp_path: Path) -> None:
    shutil.copytree(varied, tmp_path / "copy")
    root = tmp_path / "copy" / ".pik"
    segment = next((root / "raw" / "event_date=2026-03-02").iterdir())
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o644)
    segment.write_bytes(data)
    with pytest.raises(AssertionError):
        list(reader.Store(root).deliveries())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_vectors_by_the_page_alone(vector: dict[str, str]) -> None:
    """The line's event_time is not always in its full form, so that one is taken from the vector."""
    event = dict(reader.parse(vector["event"]))
    event["event_time"] = reader.parse(vector["canonical"])[4]
    assert reader.identify(event) == (vector["content_hash"], vector["event_id"])


def test_vectors_in_the_page_are_those_of_the_file() -> None:
    section = PAGE.split("### Test vectors")[1].split("\n## ")[0]
    blocks = re.findall(r"^([^\n]+):\n\n```text\n(.*?)```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == section.count("```") // 2 >= 8
    known = {vector["what"].lower(): vector for vector in VECTORS}
    for what, block in blocks:
        vector = known[what.lower()]
        documented = {"what": vector["what"], **dict(line.split(maxsplit=1) for line in block.splitlines())}
        assert documented == vector


def test_numbers_in_the_page() -> None:
    table = PAGE.split("### Numbers")[1].split("\n### ")[0]
    examples = re.findall(r"`([-+.\de]+)` is `([-+.\de]+)`", table)
    assert len(examples) == 6
    for written, expected in examples:
        assert reader.number(written) == expected


def _example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.split("## Reading it with other tools")[1], re.DOTALL)
    assert found
    return found[1]


def test_zstdcat_and_jq(varied: Path) -> None:
    """Where the two are not installed, what they would do is done here."""
    segments = sorted((varied / ".pik" / "raw" / "event_date=2026-03-02").glob("*.zst"))
    expected = [
        [line["event_time"], line["event_type"], line.get("payload_text") or line["payload"]]
        for line in map(json.loads, reader.stream(b"".join(path.read_bytes() for path in segments)))
        if line["entity_id"] == "customer-17"
    ]
    assert len(expected) > 50
    if shutil.which("zstdcat") and shutil.which("jq"):
        done = subprocess.run(
            ["sh", "-c", _example("sh")], cwd=varied, capture_output=True, encoding="utf-8", check=True
        )
        assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    else:
        assert "zstdcat" in _example("sh")
        assert "jq" in _example("sh")


def test_duckdb(varied: Path, deliveries: list[reader.Delivery], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(varied)
    found = duckdb.connect().execute(_example("sql")).fetchall()
    accepted = Counter(one.fields["entity_id"] for one in deliveries if one.kind == "accepted")
    assert found == sorted(accepted.items(), key=lambda item: item[0].encode())
