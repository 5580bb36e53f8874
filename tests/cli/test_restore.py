"""`pik verify --restore`: what it prints, its exit codes, and wrong input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

EVENT = '{{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-0{}T00:00:00Z","payload":{{}}}}\n'


@pytest.fixture
def days(pik, tmp_path):
    """The segments of three days; `whole` is a copy of the store."""
    (tmp_path / "events.jsonl").write_text("".join(EVENT.format(day) for day in (1, 2, 3)))
    pik("ingest", "events.jsonl")
    pik("replay", "--all", "--promote", "--yes")
    shutil.copytree(tmp_path / ".pik", tmp_path / "whole")
    return [min((tmp_path / ".pik" / "raw" / f"event_date=2026-01-0{day}").iterdir()) for day in (1, 2, 3)]


def damage(path: Path) -> bytes:
    path.chmod(0o644)
    data = path.read_bytes()[:-9] + b"some bits"
    path.write_bytes(data)
    return data


def test_lost_and_damaged_objects_come_back_and_the_damaged_one_is_named(pik, days):
    damaged = damage(days[1])
    days[0].unlink()
    found = pik("verify", "--format", "json").json()
    assert (found["missing"], found["modified"], found["next"]) == (1, 1, "pik verify --restore SOURCE")
    said = pik("verify", "--restore", "whole", "--dry-run", "--format", "json")
    assert (said.code, [row["outcome"] for row in said.json()["objects"]]) == (0, ["restored", "replaced"])
    assert said.json()["next"] == "pik verify --restore whole"
    assert pik("verify").code == 1
    done = pik("verify", "--restore", "whole")
    assert (done.code, "restored      1\n" in done.out, "replaced      1\n" in done.out) == (0, True, True)
    sound = pik("verify")
    assert (sound.code, sound.err, days[1].name in sound.out) == (0, "", True)
    assert days[1].read_bytes() == damaged
    assert pik("diff", "aggregates").code == 0
    again = pik("verify", "--restore", "whole")
    assert (again.code, "nothing to restore" in again.out) == (0, True)


def test_exit_codes_say_how_much_came_back(pik, days, tmp_path):
    for path in days:
        path.unlink()
    (tmp_path / "none").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for nothing in ("none", "binary", "events.jsonl"):
        said = pik("verify", "--restore", nothing)
        assert (said.code, said.out.count("not in the source")) == (1, 3)
    some = pik("verify", "--restore", tmp_path / "whole" / days[2].relative_to(tmp_path / ".pik"))
    assert (some.code, "not restored  2\n" in some.out) == (3, True)
    assert pik("verify", "--restore", "whole/raw", "--quick").code == 0
    assert pik("verify").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--restore", "nowhere"), "there is no 'nowhere'"),
        (("--restore", "gs://bucket/x"), "gs://bucket/x"),
        (("--restore", "whole", "--rebuild-index"), "--rebuild-index takes no other option"),
        (("--dry-run",), "--dry-run is for --restore"),
    ],
)
@pytest.mark.usefixtures("days")
def test_wrong_command_lines(pik, arguments, said):
    refused = pik("verify", *arguments)
    assert (refused.code, said in refused.err, refused.out) == (2, True, "")


def test_only_the_window_is_looked_at(pik, days):
    for path in days:
        path.unlink()
    done = pik("verify", "--restore", "whole", "--from", "2026-01-02", "--to", "2026-01-03")
    assert (done.code, [path.exists() for path in days]) == (0, [False, True, False])


def test_a_pull_takes_the_whole_copy(pik, days):
    damage(days[0])
    pik("verify", "--restore", "whole")
    assert pik("pull", "--from", "2026-01-01", "--to", "2026-01-04", "--into", "copy").code == 0
    assert pik("verify", "--store", "copy").code == 0
    copied = Path("copy") / days[0].relative_to(Path(".pik").absolute())
    assert copied.read_bytes() == (Path("whole") / days[0].relative_to(Path(".pik").absolute())).read_bytes()


def test_a_damaged_copy_of_a_store_is_restored_from_the_store(pik, days):
    pik("pull", "--from", "2026-01-01", "--to", "2026-01-04", "--into", "copy")
    key = days[0].relative_to(Path(".pik").absolute())
    damage(Path("copy") / key)
    (record,) = Path("copy/raw/pulls").iterdir()
    assert pik("verify", "--store", "copy").code == 1
    assert pik("verify", "--store", "copy", "--restore", ".pik").code == 0
    assert pik("verify", "--store", "copy").code == 0
    assert pik("verify", "--store", "copy", "--rebuild-index").code == 0
    assert record.exists()


def test_a_segment_that_the_index_was_rebuilt_without_waits_for_the_next_rebuild(pik, days):
    days[0].unlink()
    for path in Path(".pik").glob("index.db*"):
        path.unlink()
    pik("verify", "--rebuild-index")
    for _ in range(2):
        done = pik("verify", "--restore", "whole", "--format", "json")
        assert (done.code, done.json()["next"]) == (1, "pik verify --rebuild-index")
        assert [Path(key).name for key in done.json()["unread"]] == [days[0].name]
    count = ("sql", "select count(*) from events")
    for command in (("diff", "aggregates"), ("export", "--out", "out"), ("events",), count):
        refused = pik(*command)
        assert (refused.code >= 3, "pik verify" in refused.err + refused.out) == (True, True), command
    assert pik("verify", "--quick").code == 1
    assert pik("verify", "--rebuild-index").code == 0
    assert pik("verify", "--restore", "whole").code == 0
    assert pik("diff", "aggregates").code == 0
