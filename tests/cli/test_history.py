"""pik history: what it prints, and its exit codes; the figures against an independent count."""

from __future__ import annotations

import json

import pytest
from msgspec import structs

from pik.model.correction import Correction, CorrectionKind
from pik.rawlog.corrections import record
from pik.stores import open_store


def written(tmp_path, name, *events):
    fields = {"source": "web", "event_type": "paid"}
    lines = [{**fields, "entity_id": entity, "event_time": at, "payload": {"v": 1}} for entity, at in events]
    (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return name


@pytest.fixture
def shop(pik, tmp_path):
    """Two days of two entities, promoted; then a late event of `a` and one of a day that the run does not have."""
    first = written(tmp_path, "first.jsonl", ("a", "2026-03-02T01:00:00Z"), ("b", "2026-03-02T02:00:00Z"))
    late = written(tmp_path, "late.jsonl", ("a", "2026-03-02T03:00:00Z"))
    other = written(tmp_path, "other.jsonl", ("b", "2026-03-05T03:00:00Z"))
    assert pik("ingest", first).code == 0
    run = pik(
        "replay", "--all", "--from", "2026-03-01", "--to", "2026-03-03", "--promote", "--yes", "--reason", "INC-1"
    )
    assert run.code == 0
    assert pik("ingest", late, other).code == 0
    return pik


def entries(pik, *arguments):
    found = pik("history", *arguments, "--format", "json")
    assert found.code == 0, found.err
    return found.json()


def test_it_tells_what_a_run_lacked_what_is_current_and_what_is_right(shop):
    rows = entries(shop, "--check")["history"]
    assert [row["what"] for row in rows] == ["batch", "batch", "promote", "run", "batch"]
    run = rows[3]
    assert (run["lacked"], run["as_left"], run["right_today"], run["reason"]) == (1, 2, 1, "INC-1")
    assert (rows[2]["moved"], rows[2]["run_id"]) == (2, run["id"])
    assert "right_today" not in entries(shop)["history"][0]


def test_values_of_damaged_raw_are_neither_right_nor_wrong(shop, tmp_path):
    (tmp_path / "hourly.toml").write_text('name = "hourly"\nvalue = "count(*)"\nbucket = "1h"\n')
    assert shop("metrics", "apply", "hourly.toml").code == 0
    assert shop("replay", "--all", "--promote", "--yes").code == 0
    [segment, *_] = sorted((tmp_path / ".pik/raw/event_date=2026-03-02").iterdir())
    segment.chmod(0o600)
    segment.write_bytes(segment.read_bytes()[:-1])
    run = next(row for row in entries(shop, "--check")["history"] if row["what"] == "run")
    assert (run["as_left"], run["right_today"], run["failed"]) == (7, 2, 5)
    of_entity = shop("history", "--entity", "b")
    assert (of_entity.code, "those of one cannot be told" in of_entity.err) == (3, True)
    assert of_entity.out.count("batch") >= 2


def test_on_80_columns_everything_of_importance_is_there(shop):
    said = shop("history", "--check").out
    assert "2 moved; 2 current, 1 right; lacked 1 batch (INC-1)" in " ".join(said.split())


def test_filters_and_a_limit(shop):
    of_b = entries(shop, "--entity", "b")
    assert [(row["what"], row["deliveries"]) for row in of_b["history"]] == [
        ("batch", 1),
        ("promote", None),
        ("run", None),
        ("batch", 1),
    ]
    limited = entries(shop, "--limit", 2)
    assert (len(limited["history"]), limited["truncated"]) == (2, True)
    assert entries(shop, "--to", "2026-01-01")["history"] == []
    assert entries(shop, "--since", "2d")["history"] == entries(shop)["history"]
    unknown = shop("history", "--metric", "nope")
    assert (unknown.code, "hint:" in unknown.err) == (2, True)


def test_an_empty_store_and_no_store(pik):
    assert pik("history").code == 4
    assert pik("init").code == 0
    found = pik("history")
    assert (found.code, "nothing has happened" in found.out) == (0, True)


def test_a_copy_says_that_its_source_has_the_rest(shop, tmp_path):
    assert shop("pull", "--from", "2026-03-02", "--to", "2026-03-03", "--into", "copy").code == 0
    found = entries(shop, "--store", "copy")
    assert {row["what"] for row in found["history"]} == {"batch"}
    assert "runs and promotions of its source are not in it" in found["note"]
    assert "runs of its source are not in it" in shop("runs", "list", "--store", "copy").err


def test_corrections_and_revocations_are_told_in_words(shop, tmp_path):
    draft = Correction(
        format=0,
        correction_id="",
        kind=CorrectionKind.SHIFT,
        recorded_at=0,
        actor="ana",
        reason="INC-42: local time",
        statement="shift=-1h,source=till-3",
        events=1200,
    )
    store = open_store(str(tmp_path / ".pik"))
    (made,) = record(store, [draft])
    kind = CorrectionKind.REVOCATION
    record(store, [structs.replace(draft, kind=kind, revokes=made.correction_id, reason="a mistake")])
    revocation, correction = entries(shop, "--limit", "2")["history"]
    told = "shift=-1h,source=till-3: 1,200 events (INC-42: local time)"
    assert (correction["what"], correction["actor"], correction["id"]) == ("correction", "ana", made.correction_id)
    assert (correction["subject"], correction["reason"]) == (told, draft.reason)
    assert (revocation["what"], revocation["subject"]) == ("revocation", f"revokes {made.correction_id} (a mistake)")
