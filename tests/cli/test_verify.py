"""`pik verify`: what it prints."""

from __future__ import annotations

import re
import shutil
import sqlite3

from pik.stores.state_rows import RECOMPUTE

EVENT = '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n'


def test_aggregates_that_were_not_checked_are_called_so(pik, tmp_path):
    (tmp_path / "events.jsonl").write_text(EVENT)
    pik("ingest", "events.jsonl")
    pik("replay", "--all", "--promote", "--yes")
    sound = pik("verify")
    assert (sound.code, sound.err) == (0, "")
    assert "aggregates            1\n" in sound.out
    assert "aggregates            not checked\n" in pik("verify", "--quick").out
    (segment,) = (tmp_path / ".pik" / "raw" / "event_date=2026-01-01").iterdir()
    segment_bytes = segment.read_bytes()
    segment.unlink()
    lost = pik("verify", "--format", "json").json()
    assert [lost[name] for name in ("aggregates", "proven_aggregates", "unproven_aggregates")] == [1, 0, 1]
    shutil.copytree(tmp_path / ".pik", tmp_path / "forgetful")
    with sqlite3.connect(tmp_path / "forgetful" / "index.db") as connection:
        connection.execute("DELETE FROM segment")
    connection.close()
    (tmp_path / "forgetful" / segment.relative_to(tmp_path / ".pik")).write_bytes(segment_bytes)
    damaged = pik("verify", "--store", "forgetful")
    assert (damaged.code, "aggregates were not checked" in damaged.err) == (1, True)
    assert "aggregates            not checked\n" in damaged.out
    assert pik("verify", "--store", "forgetful", "--format", "json").json()["aggregates"] is None


def test_what_to_type_next(pik, tmp_path):
    (tmp_path / "events.jsonl").write_text(EVENT + "no event\n")
    pik("ingest", "events.jsonl")
    pik("replay", "--all", "--promote", "--yes")
    store = tmp_path / ".pik"

    def following():
        found = pik("verify", "--format", "json").json()
        return " ".join(filter(None, (found["note"], found["next"])))

    assert following() == ""
    for kind in ("event_date=2026-01-01", "batches", "rejects"):
        (path,) = (store / "raw" / kind).iterdir()
        path.rename(tmp_path / "away")
        assert following().startswith("restore the named objects from a copy"), kind
        (tmp_path / "away").rename(path)
    for database, statement, said in (
        ("state.db", "UPDATE version SET inputs = 2", RECOMPUTE),
        ("index.db", "DELETE FROM event", "pik verify --rebuild-index"),
    ):
        with sqlite3.connect(store / database) as connection:
            connection.execute(statement)
        connection.close()
        assert following().startswith(said)


def test_what_mends_the_state_stands_in_one_piece_below_a_narrow_table(pik, tmp_path, monkeypatch):
    monkeypatch.setattr("pik.cli.table.terminal_width", lambda: 80)
    (tmp_path / "events.jsonl").write_text(EVENT + EVENT.replace("01-01", "01-02"))
    pik("ingest", "events.jsonl")
    pik("replay", "--all", "--promote", "--yes")
    with sqlite3.connect(tmp_path / ".pik" / "state.db") as connection:
        connection.execute("UPDATE version SET inputs = 2")
    connection.close()
    out = pik("verify").out
    assert " ".join(out.split()).count(f"note {RECOMPUTE}") == 1
    commands = re.findall("`[^`]*`", RECOMPUTE)
    assert [len([line for line in out.splitlines() if one in line]) for one in commands] == [2, 2]


def test_a_lost_state_leaves_a_way_back_to_every_event(pik, tmp_path):
    """As docs/format.md tells it."""
    (tmp_path / "events.jsonl").write_text(EVENT + EVENT + "no event\n")
    pik("ingest", "events.jsonl")
    questions = [(name, "--format", "json") for name in ("events", "duplicates", "batches")]
    before = [pik(*question).json() for question in questions]
    (tmp_path / ".pik" / "state.db").unlink()
    lost = pik("verify")
    assert (lost.code, "docs/backup.md" in lost.out) == (1, True)
    assert pik("init", "--store", "new").code == 0
    shutil.rmtree(tmp_path / "new" / "raw")
    shutil.move(tmp_path / ".pik" / "raw", tmp_path / "new" / "raw")
    assert pik("verify", "--store", "new", "--rebuild-index").code == 0
    assert [pik(*question, "--store", "new").json() for question in questions] == before
    assert pik("verify", "--store", "new").code == 0


def test_a_rebuild_of_one_segment_reports_numbers_too(pik, tmp_path):
    (tmp_path / "events.jsonl").write_text(EVENT)
    pik("ingest", "events.jsonl")
    counts = pik("verify", "--rebuild-index", "--format", "json").json()
    texts = (
        "replaced_index",
        "lost_in",
        "dropped_batches",
        "times_not_counted",
        "damaged",
        "revised",
        "truncated",
        "note",
        "next",
    )
    assert {type(value) for name, value in counts.items() if name not in texts} == {int}
    assert (counts["segments"], counts["guessed_times"]) == (1, 0)
