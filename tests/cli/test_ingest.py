"""`pik ingest`: what it leaves behind, and what it says to type next."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pik.inputs.folders import SkippedFiles, folder_sources
from pik.inputs.one_batch import one_batch
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from tests.support.faults import Crash, FailAt, wrapped

EVENT = '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n'
FOREIGN = '{"user":"e"}\n'


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (None, ()),
        ("[table]\na = 1\n", ()),
        ("[" + EVENT, ()),
        (EVENT + FOREIGN, ("--on-invalid", "stop")),
        (EVENT, ("--map", "source=[")),
        (EVENT, ("--time-format", "x")),
        (EVENT, ("--batch-key", "x")),
    ],
)
def test_a_first_ingest_that_fails_makes_no_store(pik, tmp_path, content, options):
    if content is not None:
        (tmp_path / "input").write_text(content)
    failed = pik("ingest", "input", *options)
    assert failed.code == 2, failed.err
    assert not (tmp_path / ".pik").exists()
    (tmp_path / "input").write_text(EVENT)
    assert pik("ingest", "input").code == 0


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_on_invalid_reject_takes_a_file_whose_first_records_are_of_another_kind(pik, tmp_path, options):
    (tmp_path / "late.jsonl").write_text('{"ping":1}\n' * 120 + '{"user":"e","at":"2026-01-01T00:00:00Z"}\n')
    maps = {"source": "'s'", "event_type": "'t'", "entity_id": "user", "event_time": "at", "payload": "@"}
    line = ["ingest", "late.jsonl", *(word for name, text in maps.items() for word in ("--map", f"{name}={text}"))]
    refused = pik(*line, *options)
    assert (refused.code, "if valid records follow, add --on-invalid reject" in refused.err) == (2, True)
    assert pik(*line, *options, "--on-invalid", "stop").code == 2
    taken = pik(*line, *options, "--on-invalid", "reject", "--format", "json")
    assert taken.code == 3
    found = taken.json()["sources"][0] if options else taken.json()
    assert (found["read"], found["rejected"]) == (121, 120)


def test_several_unreadable_files_make_no_store_either(pik, tmp_path):
    for name in ("bad", "worse"):
        (tmp_path / name).write_text("[table]\n")
    failed = pik("ingest", "bad", "worse")
    assert failed.code == 2
    assert failed.err.startswith("error: none of the 2 inputs can be read; the first: bad ")
    assert not (tmp_path / ".pik").exists()


def test_json_that_is_invalid_is_refused(pik, tmp_path):
    (tmp_path / "pik.log").write_text("[2026-01-31 10:00:01] INFO started\n")
    failed = pik("ingest", "pik.log")
    assert failed.err.startswith(
        "error: pik.log is not JSON: it begins with [2026-01-31 10:00:01] INFO started\nhint: "
    )


def test_what_to_type_next(pik, tmp_path):
    (tmp_path / "mixed").write_text(EVENT + FOREIGN)
    (tmp_path / "good").write_text(EVENT.replace("01-01", "01-02"))

    def said(*files):
        result = pik("ingest", *files, "--format", "json").json()
        batches = result.get("batches", [result])
        return batches[-1]["batch_id"], result["next"], result["note"]

    batch, following, note = said("mixed")
    assert (following, note) == (f"pik batches {batch} --rejects", None)
    (tmp_path / "foreign").write_text('{"entity_id":"e"}\n')
    batch, following, note = said("foreign")
    assert following == f"pik batches {batch} --rejects"
    assert note == "foreign records need --map; `pik ingest --guess FILE` proposes one"
    assert said("foreign") == (batch, following, note)
    (tmp_path / "other").write_text(EVENT.replace("01-01", "01-03"))
    batch, following, note = said("other", "--map", "entity_id=payload")
    assert following == f"pik batches {batch} --rejects"
    assert note == "the mapping, of --map and of pik.toml, fits none of the records"
    again = "to record it as one more delivery of each event, add --again"
    assert said("good")[1:] == (None, None)
    assert (said("good")[2], said("good", "mixed")[2]) == (again, again)
    (tmp_path / "latin").write_bytes(EVENT.replace('"e"', '"ü"').encode("latin-1"))
    assert said("latin")[2] == "text that is not UTF-8 needs --encoding, such as --encoding cp1252"
    assert said("latin", "--encoding", "cp1252")[2] is None
    (tmp_path / "local").write_text(EVENT.replace("Z", ""))
    batch, following, note = said("local")
    assert (following, note) == (f"pik batches {batch} --rejects", None), "its reason names --timezone"


@pytest.mark.parametrize(("begin", "end"), [("", ""), ("[", "]"), ('{"Records":[', "]}")])
def test_records_without_any_field_of_an_event_are_refused_before_anything_is_recorded(pik, tmp_path, begin, end):
    """By every command that reads them, with how to find a mapping; unless they may be of another kind, or one of the
    first has such a field."""
    (tmp_path / "foreign").write_text(begin + ("," if begin else "\n").join([FOREIGN.strip()] * 150) + end)
    given = ["foreign", *(["--records", "Records[]"] if "R" in begin else [])]
    typed = "--records 'Records[]' foreign" if "R" in begin else "foreign"
    for command in ("ingest", "ingest --dry-run", "ingest --one-batch", "diff events"):
        assert not (tmp_path / ".pik").exists(), "nothing is recorded"
        if command == "diff events":
            pik("init")
        refused = pik(*command.split(), *given)
        assert (refused.code, refused.out) == (2, ""), command
        assert refused.err.splitlines()[-2:] == [
            (
                "error: the first records of foreign have no field of an event"
                " (source, event_type, entity_id, event_time, payload)"
            ),
            f"hint: they have user; `pik ingest --guess {typed}` proposes a mapping"
            + ("" if command == "diff events" else "; if valid records follow, add --on-invalid reject"),
        ]
    kept = pik("ingest", *given, "--on-invalid", "reject", "--format", "json")
    assert (kept.code, kept.json()["rejected"]) == (3, 150)


def test_a_dry_run_in_which_nothing_is_valid_names_the_way_out(pik, tmp_path):
    (tmp_path / "foreign").write_text('{"entity_id":"e"}\n')
    (tmp_path / "mixed").write_text(FOREIGN + EVENT)
    dry = ("ingest", "--dry-run", "--format", "json")
    assert "--map" in pik(*dry, "foreign").json()["note"]
    assert "--map" not in pik(*dry, "foreign", "mixed").json()["note"]
    assert not (tmp_path / ".pik").exists()
    assert json.loads(pik(*dry, "mixed").out)["sources"][0]["valid"] == 1


def test_the_same_content_again_is_exit_0_even_where_it_holds_rejects(pik, tmp_path):
    (tmp_path / "mixed").write_text(EVENT + FOREIGN)
    (tmp_path / "other").write_text(FOREIGN)
    assert pik("ingest", "mixed").code == 3
    same = pik("ingest", "mixed", "--format", "json")
    assert (same.code, same.json()["outcome"], same.json()["rejected"]) == (0, "already ingested", 1)
    assert pik("ingest", "mixed", "other").code == 3
    assert pik("ingest", "mixed", "--again").code == 3


def test_the_same_content_read_with_other_options_names_the_batch_and_the_options(pik, tmp_path):
    """Read as times of another zone, events with keys are conflicts; alone, with others, and in a dry run. A batch that
    is withdrawn, or of rejects alone, is not named."""
    for name in ("a", "b"):
        event = EVENT.replace('"e"', f'"{name}"').replace("00:00:00Z", "12:00:00")
        (tmp_path / name).write_text(event.replace("{", '{"idempotency_key": "k",', 1))
    dry, in_utc = ("ingest", "--dry-run", "--format", "json"), ("--timezone", "UTC")
    assert pik("ingest", "a").code == 3, "times without an offset"
    first = {name: pik("ingest", name, *in_utc, "--format", "json").json() for name in ("a", "b")}
    assert {(one["same_content"], one["note"]) for one in first.values()} == {(None, None)}
    batches = {name: one["batch_id"] for name, one in first.items()}
    in_berlin = ("--timezone", "Europe/Berlin", "--format", "json")
    tried = pik(*dry, "a", *in_berlin).json()
    done = pik("ingest", "a", *in_berlin)
    assert (done.code, done.json()["duplicates"]["conflict"]) == (0, 1)
    assert done.json()["same_content"] == tried["sources"][0]["same_content"] == batches["a"]
    said = f"a: batch {batches['a']} has the same content, read with other options (timezone UTC, now Europe/Berlin)"
    assert said in done.json()["note"]
    assert said in tried["note"]
    both = pik("ingest", "a", "b", *in_berlin).json()
    assert [one["same_content"] for one in both["batches"]] == [None, batches["b"]]
    assert "b: batch" in both["note"]
    assert "a: batch" not in both["note"], "it was ingested before just so"
    for batch in (batches["a"], done.json()["batch_id"]):
        pik("correct", "--assume", f"without-batch={batch}", "--reason", "r", "--yes")
    assert pik(*dry, "a", "--timezone", "Asia/Tokyo").json()["sources"][0]["same_content"] is None


def test_a_dry_run_names_inputs_that_it_counts_in_part_as_an_ingest_records_them(pik, tmp_path):
    events = [EVENT.replace('"e"', f'"{n * 7919 % 10_007:x}"') for n in range(3000)]
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress("".join(events).encode())[:-3000])
    (tmp_path / "whole.jsonl").write_text(EVENT)
    files = ("cut.jsonl.gz", "whole.jsonl", "--format", "json")
    tried = pik("ingest", "--dry-run", *files).json()
    cut = {one["source"]: (one["cut"], one["read"]) for one in tried["sources"]}
    read = cut["cut.jsonl.gz"][1]
    assert cut == {"cut.jsonl.gz": (True, read), "whole.jsonl": (False, 1)}
    assert 0 < read < 3000
    assert f"cut.jsonl.gz: {read:,} records before what cannot be read are counted" in tried["note"]
    pik("ingest", *files)
    recorded = {one["source"]: one["read"] for one in pik("batches", "--format", "json").json()["batches"]}
    assert recorded == {"cut.jsonl.gz": read, "whole.jsonl": 1}


def test_what_is_before_the_place_where_a_single_input_is_cut_is_recorded_and_counted(pik, tmp_path):
    """Whether there is a store yet or not, and each time until a whole copy comes."""
    whole = "[" + ",\n".join(EVENT.replace("01-01", f"01-0{day}").strip() for day in (1, 2, 3, 4)) + "]"
    (tmp_path / "cut.json").write_text(whole[:-60])
    tried = pik("ingest", "--dry-run", "cut.json", "--format", "json")
    assert (tried.code, tried.json()["read"], tried.json()["sources"][0]["cut"]) == (3, 3, True)
    for _ in range(2):
        done = pik("ingest", "cut.json", "--format", "json")
        [batch], [refused] = done.json()["batches"], done.json()["refused_inputs"]
        assert (done.code, batch["outcome"], batch["read"], batch["accepted"]) == (3, "interrupted", 3, 3)
        assert refused["error"] == "cut.json ends inside its JSON array, before the closing ]"
    [kept] = pik("batches", "--format", "json").json()["batches"]
    assert (kept["batch_id"], kept["state"]) == (batch["batch_id"], "INTERRUPTED")
    stopped = pik("ingest", "cut.json", "--on-invalid", "stop")
    assert (stopped.code, stopped.out) == (2, "")
    (tmp_path / "whole.json").write_text(whole)
    done = pik("ingest", "whole.json", "--format", "json")
    assert (done.code, done.json()["accepted"], done.json()["duplicates"]["exact"]) == (0, 1, 3)


def test_where_one_of_several_inputs_cannot_be_read_the_others_are_and_it_is_named_with_its_reason(pik, tmp_path):
    """In a folder, in archives of it, and in each of these as a file that is cut."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for number, name in enumerate(("a", "c", "e")):
        (logs / f"{name}.jsonl").write_text(EVENT.replace("01-01", f"01-0{number + 1}"))
    (logs / "b.jsonl").write_text("[" + EVENT)
    (logs / "d.gz").write_bytes(gzip.compress(EVENT.replace("01-01", "02-01").encode())[:-9])
    reasons = {"b.jsonl": "b.jsonl ends inside its JSON array", "d.gz": "cannot be decompressed to its end: it is cut"}
    for kind in ("", "gztar", "zip"):
        source = Path(shutil.make_archive(str(tmp_path / "it"), kind, tmp_path, "logs")).name if kind else "logs"
        begin = f"{source}:logs/" if kind else "logs/"
        tried = pik("ingest", "--dry-run", source, "--format", "json")
        assert (tried.code, tried.json()["read"]) == (3, 3)
        done = pik("ingest", source, "--format", "json")
        assert (done.code, done.json()["read"], done.json()["rejected"]) == (3, 3, 0)
        assert {one["source"] for one in done.json()["batches"]} == {f"{begin}{name}.jsonl" for name in "ace"}
        refused = {one["source"].removeprefix(begin): one["error"] for one in done.json()["refused_inputs"]}
        assert refused.keys() == reasons.keys()
        assert all(why in refused[name] for name, why in reasons.items()), refused
        assert tried.json()["refused_inputs"] == done.json()["refused_inputs"]
    stopped = pik("ingest", "logs", "--on-invalid", "stop")
    [good] = [one["batch_id"] for one in done.json()["batches"] if one["source"].endswith("a.jsonl")]
    assert (stopped.code, stopped.out) == (2, "")
    assert stopped.err.startswith(f"logs/a.jsonl: already ingested, batch {good}\nerror: logs/b.jsonl ends inside")


def test_conflicts_that_must_not_be_name_the_file(pik, tmp_path):
    keyed = EVENT.replace('"payload"', '"idempotency_key":"k","payload"')
    (tmp_path / "first").write_text(keyed)
    (tmp_path / "second").write_text(keyed.replace("{}", '{"n":1}'))
    failed = pik("ingest", "first", "second", "--on-conflict", "fail")
    assert failed.code == 4
    assert "\nerror: second: records 1 to 1 hold idempotency keys that came before with other content" in failed.err


def test_a_rejects_file_that_cannot_be_is_reported_before_anything_is_done(pik, tmp_path):
    (tmp_path / "mixed").write_text(EVENT + FOREIGN)
    failed = pik("ingest", "mixed", "--rejects", "nowhere/rejects.jsonl")
    assert (failed.code, "there is no directory 'nowhere'" in failed.err) == (2, True)
    assert not (tmp_path / ".pik").exists()
    assert pik("ingest", "mixed", "--rejects", "rejects.jsonl").code == 3
    assert (tmp_path / "rejects.jsonl").read_text() == FOREIGN


def test_reasons_are_counted_with_their_numbers(pik, tmp_path):
    (tmp_path / "mixed").write_text(EVENT + FOREIGN * 2 + "{")
    shown = pik("ingest", "mixed", "--dry-run").out
    assert re.search(r"\nsource is missing +2 +2 +source +\{.user.:.e.\}\n", shown)
    assert "\nreasons             2 × source is missing, 1 × the line is not" in pik("ingest", "mixed").out
    assert pik("ingest", "mixed", "--format", "json").json()["reasons"]["source is missing"] == 2


LOCAL = EVENT.replace("00:00:00Z", "12:00:00")


def test_times_without_an_offset_need_a_time_zone(pik, tmp_path):
    (tmp_path / "local").write_text(LOCAL)
    rejected = pik("ingest", "local")
    assert rejected.code == 3
    assert "has no offset from UTC; --timezone ZONE" in rejected.out
    done = pik("ingest", "local", "--timezone", "Europe/Berlin", "--format", "json")
    assert done.json()["first_event"] == "2026-01-01T11:00:00Z"
    (tmp_path / "pik.toml").write_text('[ingest]\ntimezone = "America/New_York"\n')
    assert pik("ingest", "local", "--format", "json").json()["first_event"] == "2026-01-01T17:00:00Z"


def test_the_reason_of_a_rejected_time_names_the_format_that_reads_it(pik, tmp_path):
    """And `pik` reads it, when told so."""
    wrong = [EVENT.replace('"2026-01-01T00:00:00Z"', time) for time in ("1767225600000", '"2026-W01-4T00:00Z"', '"x"')]
    (tmp_path / "events").write_text("\n".join(wrong))
    mapped = ["--map", "event_time=event_time"]
    refused = pik("ingest", "events", *mapped)
    assert refused.code == 2
    assert (
        "no time can be read in the first records of events: event_time is not a text: '1767225600000'" in refused.err
    )
    for options in ([], [*mapped, "--on-invalid", "reject"]):
        done = pik("ingest", "events", "--dry-run", *options, "--format", "json").json()
        assert {one["reason"] for one in done["rejects"]} == {
            (
                f"event_time is not a {'text' if options else 'string'}: …; --time-format epoch_ms reads it,"
                " auto reads both forms"
            ),
            "event_time … is not an RFC 3339 time such as 2026-01-31T23:59:59Z; --time-format iso8601 reads it",
            "event_time … is not an RFC 3339 time such as 2026-01-31T23:59:59Z",
        }
    assert pik("ingest", "events", "--time-format", "epoch_ms", "--format", "json").json()["accepted"] == 1


def test_times_that_existed_twice_and_units_that_were_told_are_counted_wherever_they_are_read(pik, tmp_path):
    """A file with two units says so in its note, and a rejected time names the option that reads it."""
    times = ('"2026-10-25T02:30:00"', '"2026-10-25T02:30:00.5"', "1767225600", "1767225600000", '"2026-03-29T02:30:00"')
    (tmp_path / "events").write_text("\n".join(EVENT.replace('"2026-01-01T00:00:00Z"', time) for time in times))
    zoned = ["events", "--time-format", "auto", "--timezone", "Europe/Berlin"]
    rejected = pik("ingest", "--dry-run", *zoned, "--format", "json").json()
    assert (rejected["rejected"], rejected["times_read"]) == (3, {"event_time epoch": 1, "event_time epoch_ms": 1})
    assert "--ambiguous earlier or --ambiguous later" in rejected["rejects"][0]["reason"]
    expected = {"event_time later Europe/Berlin": 2, "event_time epoch": 1, "event_time epoch_ms": 1}
    zoned += ["--ambiguous", "later", "--format", "json"]
    for command in (("ingest", "--dry-run"), ("ingest",), ("diff", "events"), ("ingest",), ("ingest", "--again")):
        done = pik(*command, *zoned).json()
        assert done["times_read"] == expected
        mixed = "event_time has numbers of several units: 1 read as epoch, 1 read as epoch_ms"
        assert command == ("diff", "events") or f"events: {mixed}" in done["note"]
    assert done["last_event"] == "2026-10-25T01:30:00.500Z"
    shown = pik("ingest", *zoned[:-2]).out
    assert f"2 times existed twice in Europe/Berlin, read as the later; {mixed}" in shown
    (tmp_path / "pik.toml").write_text('[ingest]\nambiguous = "later"\ntimezone = "Europe/Berlin"\n')
    assert pik("ingest", *zoned[:3], "--format", "json").json()["outcome"] == "already ingested"
    wrong = pik("ingest", "events", "--ambiguous", "first")
    assert (wrong.code, wrong.err) == (2, "error: --ambiguous 'first' is neither earlier nor later\n")


@pytest.mark.parametrize("first", [0, 1])
def test_a_time_that_programs_write_for_none_is_noted(pik, first):
    Path("e.jsonl").write_text("".join(f'{{"at": {json.dumps(at)}, "id": "a"}}\n' for at in (first, 1767225600)))
    fields = "source='s'", "event_type='t'", "entity_id=id", "event_time=at", "payload=@"
    given = [word for field in fields for word in ("--map", field)]
    for dry in ("--dry-run", "--quiet"):
        found = pik("ingest", "e.jsonl", *given, "--time-format", "epoch", dry, "--format", "json")
        note = found.json()["note"]
        assert ("which many programs write for an unknown time" in (note or "")) == (first == 0)


def test_a_zone_that_changes_no_time_is_noted(pik):
    Path("e.jsonl").write_text('{"at": 1767225600, "id": "a"}\n')
    fields = "source='s'", "event_type='t'", "entity_id=id", "event_time=at", "payload=@"
    given = [word for field in fields for word in ("--map", field)]
    for form in ("epoch", "event_time=epoch", "auto"):
        zoned = "ingest", "e.jsonl", *given, "--time-format", form, "--timezone", "Europe/Berlin", "--format", "json"
        none = "numbers since 1970 are in UTC: Europe/Berlin changes none"
        assert none in pik(*zoned, "--dry-run").json()["note"]
        done = pik(*zoned).json()
        assert none in done["note"]
        assert f"--assume zone=Europe/Berlin,batch={done['batch_id']}" in done["note"]
    Path("e.jsonl").write_text('{"at": 1767225600, "id": "a"}\n{"at": "2026-01-01T00:00:00", "id": "a"}\n')
    assert "changes none" not in (pik(*zoned).json()["note"] or "")


def test_each_time_of_a_record_may_have_its_own_format_and_zone(pik, tmp_path):
    """The same options hold for an assumed file and for another log, and pik.toml has them as a list."""
    record = {"who": "a", "at": "01.07.2026 12:00", "got": "2026-07-01 10:00:30"}
    (tmp_path / "log.jsonl").write_text(json.dumps(record) + "\n")
    fields = maps(entity_id="who", event_time="at", received_time="got", payload="@")
    times = ["event_time=%d.%m.%Y %H:%M", "event_time=Europe/Berlin", "received_time=UTC"]
    given = ["--time-format", times[0], "--timezone", times[1], "--timezone", times[2]]
    done = pik("ingest", "log.jsonl", *fields, *given, "--format", "json").json()
    assert (done["first_event"], done["lag"]["max_ms"]) == ("2026-07-01T10:00:00Z", 30_000)
    assert pik("diff", "events", "log.jsonl", *fields, *given).code == 0
    assumed = ",".join(f"{name[2:]}={text}" for name, text in zip(fields[::2], fields[1::2], strict=True))
    assumed = f"with=@log.jsonl,{assumed},time-format={times[0]},timezone={times[1]},timezone={times[2]}"
    assert "has all of its events" in pik("diff", "aggregates", "--assume", assumed).err
    (tmp_path / "pik.toml").write_text(f"[ingest]\ntime_format = {times[:1]}\ntimezone = {times[1:]}\n")
    assert pik("ingest", "log.jsonl", *fields, "--format", "json").json()["outcome"] == "already ingested"
    for wrong, said in (
        (["--timezone", "payload=UTC"], "--timezone payload=UTC: 'payload' is not a time of events"),
        (["--timezone", "event_time="], "--timezone event_time=: it is empty"),
        (["--timezone", "UTC", "--timezone", "UTC"], "--timezone is given twice"),
        (["--timezone", "event_time=Berlin"], "--timezone: unknown time zone 'Berlin'"),
    ):
        refused = pik("ingest", "log.jsonl", *wrong)
        assert (refused.code, refused.err.startswith(f"error: {said}")) == (2, True), refused.err


def test_show_prints_a_time_as_it_came(pik, tmp_path):
    (tmp_path / "events").write_text(EVENT.replace("00:00:00Z", "01:00:00+01:00"))
    pik("ingest", "events")
    event_id = pik("events", "--format", "json").json()["events"][0]["event_id"]
    shown = pik("show", event_id, "--format", "json").json()
    assert (shown["event_time"], shown["event_time_original"]) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00")
    assert shown["deliveries"][0]["event_time_original"] == "2026-01-01T01:00:00+01:00"
    assert "event time original  2026-01-01T01:00:00+01:00" in pik("show", event_id).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--timezone", "berlin"), "error: --timezone: unknown time zone 'berlin'\nhint: perhaps Europe/Berlin\n"),
        (("--time-format", "%H:%M %Y"), "error: --time-format %H:%M %Y: it has no month\nhint: "),
    ],
)
def test_a_wrong_way_to_read_times_is_reported_before_anything_is_read(pik, tmp_path, options, message):
    (tmp_path / "events").write_text(EVENT)
    failed = pik("ingest", "events", *options)
    assert failed.code == 2
    assert failed.err.startswith(message)
    assert not (tmp_path / ".pik").exists()


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        ("1,a\n2,b\n3,c\n", "CSV without a header"),
        ('{"events": [{"a": 1}]}', "one object around the records"),
        ("2026-01-01 " + EVENT, "text, such as a key or a time, and then JSON"),
        ("<a><b/></a>\n", "XML"),
    ],
)
def test_what_cannot_be_read_is_reported_in_one_sentence_and_nothing_is_recorded(pik, tmp_path, content, looks_like):
    (tmp_path / "good").write_text(EVENT)
    (tmp_path / "input").write_text(content)
    assert pik("ingest", "good").code == 0
    for options in ((), ("--dry-run",)):
        failed = pik("ingest", "input", *options)
        assert failed.code == 2
        assert failed.err.startswith(f"error: input cannot be read: it looks like {looks_like}")
        assert failed.err.count("\n") == 2
        assert "hint: " in failed.err
    assert len(pik("batches", "--format", "json").json()["batches"]) == 1


def test_a_table_is_read_by_every_command_that_reads_records(pik, tmp_path):
    """Its delimiter is found, and `diff events` and an assumed file take the same options."""
    rows = ["who;at;note", "a;2026-01-01T00:00:00Z;x", "b;2026-01-01T00:00:00Z;y\nz", "c;soon;", "d"]
    (tmp_path / "t.csv").write_text("\n".join(rows).replace("y\nz", '"y\nz"') + "\n")
    fields = {"source": "'s'", "event_type": "'t'", "entity_id": "who", "event_time": "at", "payload": "{n: note}"}
    maps = [word for name, value in fields.items() for word in ("--map", f"{name}={value}")]
    done = pik("ingest", "t.csv", *maps, "--format", "json")
    assert (done.code, done.json()["input"], done.json()["accepted"], done.json()["rejected"]) == (3, "csv", 2, 2)
    query = "SELECT entity_id, payload->>'$.n' AS n FROM events ORDER BY entity_id"
    found = [(one["entity_id"], one["n"]) for one in pik("sql", query, "--format", "json").json()["rows"]]
    assert found == [("a", "x"), ("b", "y\nz")]
    batch = done.json()["batch_id"]
    rejects = pik("batches", batch, "--rejects", "--format", "json").json()["rejects"]
    assert [(one["seq"], one["line"]) for one in rejects] == [(3, '{"who":"c","at":"soon","note":""}'), (4, "d")]
    assert "the row has 1 cell, the header 3 (line 6)" in rejects[1]["reason"]

    (tmp_path / "good.csv").write_text("a;2026-01-01T00:00:00Z;x\ne;2026-01-01T01:00:00Z;\n")
    given = ["--input", "csv", "--columns", "who,at,note", "--delimiter", ";", "--null", ""]
    compared = pik("diff", "events", "good.csv", *given, *maps, "--format", "json")
    assert (compared.code, compared.json()["both"], compared.json()["missing"]) == (1, 1, 1)
    mapped = ",".join(f"map={name}={value}" for name, value in fields.items())
    assumed = f'with=@good.csv,input=csv,columns="who,at,note",delimiter=;,null=,{mapped}'
    found = pik("diff", "aggregates", "--assume", assumed, "--format", "json").json()
    assert [(row["entity_id"], row["recomputed"]) for row in found["differences"]] == [("a", 1), ("b", 1), ("e", 1)]
    wrong = pik("ingest", "good.csv", "--delimiter", "ab")
    assert (wrong.code, "--delimiter 'ab': expected a character" in wrong.err) == (2, True)


def test_a_table_with_escapes_is_read_alike_by_every_command_and_the_batch_records_how(pik, tmp_path):
    (tmp_path / "t.tsv").write_text('id\tnote\tat\na\t"x\\\ny\t2026-01-01T00:00:00Z\nb\t\\N\t2026-01-01T00:00:00Z\n')
    mapped = maps(entity_id="id", event_time="at", payload="{n: note}")
    refused = pik("ingest", "t.tsv", *mapped)
    assert (refused.code, r"hint: --quote none --escape '\' reads them" in refused.err) == (2, True)
    given = ["--quote", "none", "--escape", "\\"]
    done = pik("ingest", "t.tsv", *mapped, *given, "--format", "json").json()
    assert (done["accepted"], done["rejected"]) == (2, 0)
    query = "SELECT entity_id, payload->>'$.n' AS n FROM events ORDER BY entity_id"
    found = [(one["entity_id"], one["n"]) for one in pik("sql", query, "--format", "json").json()["rows"]]
    assert found == [("a", '"x\ny'), ("b", None)]
    assert pik("diff", "events", "t.tsv", *mapped, *given, "--format", "json").json()["both"] == 2
    assumed = "with=@t.tsv,quote=none,escape=\\," + ",".join(
        f"map={one}" for one in mapped[1::2] if "payload" not in one
    )
    found = pik("diff", "aggregates", "--assume", f"{assumed},map=payload=@", "--format", "json").json()
    assert [(row["entity_id"], row["recomputed"]) for row in found["differences"]] == [("a", 2), ("b", 2)]
    other = pik("ingest", "t.tsv", *mapped, "--quote", "none", "--escape", "none")
    assert "read with other options (escape" in other.out


def maps(**fields: str) -> list[str]:
    constants = {"source": "'s'", "event_type": "'t'"}
    return [word for name, value in {**constants, **fields}.items() for word in ("--map", f"{name}={value}")]


def pretty(*ids: str) -> bytes:
    return "\n".join(json.dumps({"id": one, "at": "2026-01-01T00:00:00Z", "n": 1}, indent=1) for one in ids).encode()


def parquet(*ids: str) -> bytes:
    at = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * len(ids), pa.timestamp("ns", "UTC"))
    ratios = [float("nan") if one == "c" else 0.5 for one in ids]
    file = io.BytesIO()
    pq.write_table(pa.table({"id": list(ids), "at": at, "ratio": ratios}), file)
    return file.getvalue()


def kcat(*payloads: str) -> bytes:
    messages = ({"topic": "T-1,x", "partition": 0, "offset": 1, "key": None, "payload": text} for text in payloads)
    return "".join(json.dumps(one) + "\n" for one in messages).encode()


FORMATS: dict[str, tuple[bytes, bytes, list[str], list[str], str, str]] = {
    "jsonl": (
        kcat('{"id":"A","n":1.50}', '{"id":"B","n":12345678901234567890}', "cut {"),
        kcat('{"id":"B","n":12345678901234567890}', '{"id":"E"}'),
        [],
        maps(
            event_type="split(topic, ',')[0]",
            entity_id="lower(parse_json(payload).id)",
            event_time="join('T', ['2026-01-01', '00:00:00Z'])",
            payload="parse_json(payload)",
            idempotency_key="sha256(payload)",
        ),
        kcat("cut {").decode().strip(),
        "parse_json(): the text is not JSON: unexpected 'cut' (character 1): 'cut {'",
    ),
    "json": (
        pretty("a", "b") + b'\n{"id": "c",\n "at" 1}\n',
        pretty("b", "e"),
        [],
        maps(entity_id="id", event_time="at", payload="@"),
        '{"id": "c",\n "at" 1}',
        "unexpected '1' (character 19) (line 11)",
    ),
    "json in documents": (
        b'{"ids":[{"id":"a"},{"id":"b"}],"at":"2026-01-01T00:00:00Z"}{"none":1}',
        b'{"ids":[{"id":"b"},{"id":"e"}],"at":"2026-01-01T00:00:00Z"}',
        ["--records", "ids[]"],
        maps(entity_id="id", event_time="parent('at')", payload="@"),
        '{"none":1}',
        "no list ids in this document; it has: none (line 1)",
    ),
    "parquet": (
        parquet("a", "b", "c"),
        parquet("b", "e"),
        [],
        maps(entity_id="id", event_time="at", payload="@"),
        '{"id":"c","at":"2026-01-01T00:00:00.000000000Z","ratio":NaN}',
        "column ratio has NaN, which JSON does not",
    ),
    "text": (
        b"2026-01-01T00:00:00Z a ok\n2026-01-01T00:00:00Z b ok, too\n2026-01-01 c\n",
        b"2026-01-01T00:00:00Z b ok, too\n2026-01-01T00:00:00Z e\n",
        ["--pattern", r"(?P<at>\S{20}) (?P<id>\w+) ?(?P<text>.*)"],
        maps(entity_id="id", event_time="at", payload="@"),
        "2026-01-01 c",
        "the line does not match the pattern",
    ),
    "kcat": (
        b'a\t{"at":"2026-01-01T00:00:00Z"}\nb\t{"at":"2026-01-01T00:00:00Z"}\nc {}\n',
        b'b\t{"at":"2026-01-01T00:00:00Z"}\ne\t{"at":"2026-01-01T00:00:00Z"}\n',
        ["--input", "kcat"],
        maps(entity_id="key", event_time="value.at", payload="value"),
        "c {}",
        "the line has no tab between a key and a value",
    ),
}
"""A file with the events a and b and an invalid record, one with b and e, options, a mapping, and the reject."""


@pytest.mark.parametrize("name", FORMATS)
def test_records_of_each_format_are_read_by_every_command(pik, tmp_path, name):
    data, other, given, mapping, rejected, reason = FORMATS[name]
    (tmp_path / "input").write_bytes(data)
    (tmp_path / "other").write_bytes(other)
    dry = pik("ingest", "--dry-run", "input", *given, *mapping, "--format", "json").json()["sources"][0]
    assert (dry["input"], dry["valid"], dry["rejected"]) == (name.split()[0], 2, 1)
    done = pik("ingest", "input", *given, *mapping, "--format", "json").json()
    assert (done["input"], done["accepted"], done["rejected"]) == (name.split()[0], 2, 1)
    assert pik("ingest", "input", *given, *mapping, "--format", "json").json()["outcome"] == "already ingested"
    rejects = pik("batches", done["batch_id"], "--rejects", "--format", "json").json()["rejects"]
    assert [one["line"] for one in rejects] == [rejected]
    assert rejects[0]["reason"].endswith(reason)
    compared = pik("diff", "events", "other", *given, *mapping, "--format", "json").json()
    assert (compared["both"], compared["missing"]) == (1, 1)
    words = [f"{word.removeprefix('--')}=" if word.startswith("--") else f'"{word}",' for word in (*given, *mapping)]
    found = pik("diff", "aggregates", "--assume", f"with=@other,{''.join(words)[:-1]}", "--format", "json").json()
    assert [(row["entity_id"], row["recomputed"]) for row in found["differences"]] == [("a", 1), ("b", 1), ("e", 1)]


@pytest.mark.parametrize("sent", [EVENT.strip(), '{"n": 1}'])
def test_what_kcat_prints_as_json_gets_the_command_that_reads_it(pik, tmp_path, sent):
    message = {"topic": "shop", "partition": 0, "offset": 7, "ts": 1767225600123, "key": "k", "payload": sent}
    (tmp_path / "kcat out").write_text(json.dumps(message) + "\n")
    failed = pik("ingest", "kcat out")
    assert failed.err.startswith("error: kcat out cannot be read: it looks like the output of kcat -J\nhint: pik ")
    done = pik(*shlex.split(failed.err.rpartition("hint: pik ")[2]))
    assert done.code == 0, done.err
    (event,) = pik("events", "--format", "json").json()["events"]
    expected = json.loads(sent)
    if "n" in expected:
        expected = {"source": "shop", "event_type": "shop", "entity_id": "k", "payload": {"n": 1}}
        expected["event_time"] = "2026-01-01T00:00:00.123Z"
    assert {name: event[name] for name in expected} == expected


def test_a_mapping_that_takes_one_element_of_longer_lists_says_so(pik, tmp_path):
    records = [{"id": f"e{n}", "at": "2026-01-01T00:00:00Z"} for n in range(3)]
    for name, lists in (("a", [records, records[:1], [], records[1:]]), ("b", [records[2:]])):
        (tmp_path / name).write_text("".join(json.dumps({"in-x": {"ids": ids}}) + "\n" for ids in lists))
    mapping = maps(entity_id='"in-x".ids[0].id', event_time='to_string("in-x".ids[-1].at)', payload='"in-x".ids[*].id')
    for given in (["--dry-run", "a"], ["a"], ["--again", "a", "b"], ["--again", "a", "--one-batch"]):
        note = pik("ingest", *given, *mapping, "--on-invalid", "reject", "--format", "json").json()["note"]
        for taken in ('"in-x".ids[0]', '"in-x".ids[-1]'):
            assert f"{taken} takes one element of a longer list in 2 records: --records '\"in-x\".ids[]' makes" in note
    assert "longer" not in (pik("ingest", "b", *mapping, "--again", "--format", "json").json()["note"] or "")
    mapping = maps(entity_id="id", event_time="at", payload="@")
    found = pik("ingest", "a", *mapping, "--records", '"in-x".ids[]', "--format", "json").json()
    assert (found["read"], found["accepted"], found["duplicates"]["exact"]) == (6, 3, 3)


def test_names_that_are_not_utf8_are_shown_escaped_and_texts_refused(pik, tmp_path):
    name = b"caf\xe9.jsonl".decode(errors="surrogateescape")
    (tmp_path / name).write_text(EVENT)
    store = b"st\xe9".decode(errors="surrogateescape")
    assert pik("--store", store, "init").code == 0
    assert pik("--store", store, "ingest", name, "--format", "json").json()["source"] == "caf\\xe9.jsonl"
    assert pik("--store", store, "diff", "aggregates").code == 1
    assert pik("--store", store, "replay", "--all", "--reason", "x", "--promote", "--yes").code == 0
    for out in ("o\udce9.parquet", "o\udce9.csv"):
        exported = pik("--store", store, "export", "--out", out)
        assert exported.code == 0, exported.err
        assert f"/o\\xe9.{out[3:]}.manifest.json" in exported.out
    assert pik("--store", store, "verify").code == 0
    for option in ("--reason", "--entity"):
        refused = pik("--store", store, "replay", "--all", option, "caf\udce9")
        assert (refused.code, refused.err[:34]) == (2, f"error: {option} is not UTF-8: caf\\xe9"[:34])
    assert pik("--store", store, "ingest", "-", "--batch-key", "k\udce9").code == 2


def test_standard_input_that_is_closed_is_a_wrong_input(tmp_path):
    closed = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m pik ingest - <&-"], cwd=tmp_path, capture_output=True, text=True
    )
    assert closed.returncode == 2
    assert closed.stderr.startswith("error: standard input is closed\nhint: ")


HOOK = '{"user":{"id":7},"at":1767225600,"n":1.50}\n'
MAP = ("--map", "source='web'", "--map", "event_type='hook'", "--map", "entity_id=user.id", "--map", "event_time=at")


def test_a_dry_run_writes_the_rejected_records_and_shows_an_event_of_the_mapping(pik, tmp_path):
    (tmp_path / "hooks").write_text(HOOK.replace("7", "{}") + HOOK + '{"user":1}\n{\n')
    options = (*MAP, "--map", "payload={n: n}", "--time-format", "auto", "--dry-run", "--rejects", "bad")
    done = pik("ingest", "hooks", *options, "--format", "json")
    assert done.code == 3
    assert (tmp_path / "bad").read_text() == HOOK.replace("7", "{}") + '{"user":1}\n{\n'
    said = done.json()
    assert {one["field"]: (one["from"], one["found_value"], one["event"]) for one in said["sample"]} == {
        "source": ("'web'", "web", "web"),
        "event_type": ("'hook'", "hook", "hook"),
        "entity_id": ("user.id", 7, "7"),
        "event_time": ("at", 1767225600, "2026-01-01T00:00:00.000000000Z"),
        "payload": ("{n: n}", {"n": "1.5"}, {"n": "1.5"}),
    }
    assert said["verdict"] == "1 of 4 records is an event; 3 rejected; not compared with a store"
    assert pik("ingest", "hooks", *options).err.startswith("error: --rejects 'bad' exists already\n")
    assert not (tmp_path / ".pik").exists()
    (tmp_path / "bad").unlink()
    shown = pik("ingest", "hooks", *options).out
    assert re.search(r"event_time +at +1767225600 → 2026-01-01T00:00:00Z\n", shown)
    recorded = pik(*shlex.split(said["next"])[1:])
    assert (recorded.code, recorded.err[:10]) == (3, "created a ")
    (tmp_path / "bad").unlink()
    repeated = pik("ingest", "hooks", *options).out
    assert "1 of 4 records is an event; 3 rejected; 1 is in the store already\n" in repeated
    assert "hooks was ingested before, as batch " in repeated
    assert pik("ingest", "good", "--dry-run").code == 2


def test_a_dry_run_that_fails_leaves_no_file_of_rejects(pik, tmp_path):
    (tmp_path / "input").write_text(EVENT + FOREIGN)
    failed = pik("ingest", "input", "--dry-run", "--rejects", "bad", "--on-invalid", "stop")
    assert failed.code == 2
    assert not (tmp_path / "bad").exists()
    (tmp_path / "plain").write_text(EVENT)
    assert pik("ingest", "plain", "--dry-run", "--format", "json").json()["sample"] == []
    sampled = pik("ingest", "plain", "--dry-run", "--sample", "1").out
    assert 'event_time  field of the record  "2026-01-01T00:00:00Z"\n' in sampled
    assert pik("ingest", "plain", "--sample", "1").code == 2
    absent = pik("ingest", "plain", "--dry-run", "--store", "elsewhere")
    assert (absent.code, "elsewhere" in absent.err) == (4, True)


def test_the_reasons_add_up_to_what_was_rejected(pik, tmp_path):
    lines = [
        EVENT.replace('"s"', "1"),
        EVENT.replace('"t"', "1"),
        EVENT.replace('"e"', "1"),
        EVENT.replace("Z", ""),
        "x",
    ]
    (tmp_path / "bad").write_text("\n".join(map(str.strip, [*lines, *lines, "[]", FOREIGN])) + "\n")
    said = pik("ingest", "bad", "--format", "json").json()
    assert sum(said["reasons"].values()) == said["rejected"] == 12
    assert said["reasons"]["(other reasons)"] == 2


def test_where_no_invalid_record_may_be_a_file_that_was_recorded_with_some_is_refused(pik, tmp_path):
    """Small files take a way of their own, where there are several."""
    (tmp_path / "mixed").write_text(EVENT + FOREIGN)
    (tmp_path / "good").write_text(EVENT)
    batch = pik("ingest", "mixed", "--format", "json").json()["batch_id"]
    stops = pik("ingest", "mixed", "--on-invalid", "stop")
    assert (stops.code, stops.err.replace(batch, "BATCH")) == (
        2,
        "error: mixed was ingested before, and 1 of its 2 records were rejected\nhint: pik batches BATCH --rejects\n",
    )
    assert pik("ingest", "mixed", "good", "--on-invalid", "stop").code == 2


def test_an_empty_input_is_reported_as_empty(pik, tmp_path):
    (tmp_path / "an empty one").touch()
    for _ in range(2):
        said = pik("ingest", "an empty one", "--format", "json").json()
        assert said["note"] == "there is no record in 'an empty one'"


def test_a_binary_file_is_answered_with_what_can_be_read(pik, tmp_path):
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 9)
    assert "is a binary file, not JSON lines\nhint: what can be read: JSON lines" in pik("ingest", "noise").err


def test_what_was_rejected_has_room_on_a_narrow_terminal(pik, tmp_path, monkeypatch):
    from pik.cli import table

    monkeypatch.setattr(table, "terminal_width", lambda: 80)
    (tmp_path / "a-file-with-a-long-name.jsonl").write_text(EVENT + EVENT.replace("Z", ""))
    batch = pik("ingest", "a-file-with-a-long-name.jsonl", "--format", "json").json()["batch_id"]
    listed = pik("batches").out
    assert all(name in listed.splitlines()[0] for name in ("state", "conflict", "rejected"))
    assert max(map(len, listed.splitlines())) <= 80
    shown = pik("batches", batch, "--rejects").out
    assert "--timezone ZONE" in shown
    assert "cut: line (a wider terminal, a pipe or --format json shows all)" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_short_list_of_batches_is_whole_or_an_error(pik, tmp_path, monkeypatch):
    from pik.errors import Damaged
    from pik.usecases.inspect import batches

    for name in ("first", "second"):
        (tmp_path / name).write_text(EVENT.replace('"e"', f'"{name}"'))
        pik("ingest", name)
    last = pik("batches", "--limit", "1", "--format", "json").json()
    assert ([one["source"] for one in last["batches"]], last["truncated"]) == (["second"], True)

    def damaged(_store, batch):
        if batch.origin.name == "first":
            raise Damaged("record X is cut or changed")
        return batch

    monkeypatch.setattr(batches, "with_closing", damaged)
    listed = pik("batches", "--limit", "2", "--format", "json")
    assert (listed.out, json.loads(listed.err)["error"]) == ("", "record X is cut or changed")


def test_a_folder_and_an_archive_are_their_files_and_say_what_is_skipped(pik, tmp_path, monkeypatch):
    for number, name in enumerate(("a.jsonl", "b/c.jsonl", ".DS_Store", "_SUCCESS", "b/.x")):
        (tmp_path / "logs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "logs" / name).write_text("" if name == "_SUCCESS" else EVENT.replace("01-01", f"01-0{number + 1}"))
    shutil.make_archive(str(tmp_path / "it"), "gztar", tmp_path, "logs")

    def outcomes(*files):
        done = pik("ingest", *files, "--format", "json")
        assert done.code == 0, done.err
        return {one["source"]: one["outcome"] for one in done.json()["batches"]}, done.err

    taken, said = outcomes("logs")
    assert taken == {"logs/a.jsonl": "ingested", "logs/b/c.jsonl": "ingested"}
    assert said.startswith("logs: skipped 1 empty file, 2 hidden files\n")
    taken, said = outcomes("it.tar.gz")
    assert taken == {"it.tar.gz:logs/a.jsonl": "already ingested", "it.tar.gz:logs/b/c.jsonl": "already ingested"}
    assert said == "it.tar.gz: skipped 1 empty file, 2 hidden files\n"
    assert outcomes("log*")[0] == dict.fromkeys(("logs/a.jsonl", "logs/b/c.jsonl"), "already ingested")
    assert outcomes("log**/**/*.jsonl")[0] == dict.fromkeys(("logs/a.jsonl", "logs/b/c.jsonl"), "already ingested")
    stream = (tmp_path / "it.tar.gz").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stream)))
    taken, _ = outcomes("-")
    assert set(taken) == {"standard input:logs/a.jsonl", "standard input:logs/b/c.jsonl"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stream)))
    refused = pik("ingest", "-", "--batch-key", "nightly")
    assert refused.code == 2
    assert "--batch-key names one stream, but standard input:logs/a.jsonl is a file of an archive" in refused.err
    (tmp_path / "empty").mkdir()
    refused = pik("ingest", "empty")
    assert (refused.code, refused.err) == (2, "error: there is no file with content in empty\n")
    (tmp_path / "cut.tar.gz").write_bytes(stream[:-30])
    refused = pik("ingest", "cut.tar.gz", "--again", "--format", "json")
    [error] = refused.json()["refused_inputs"]
    assert (refused.code, error["error"]) == (3, "cut.tar.gz cannot be decompressed to its end: it is cut")


def test_one_batch_of_a_folder_names_the_file_of_each_delivery_and_reject(pik, tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    for number in range(1, 4):
        (tmp_path / "logs" / f"{number}.jsonl").write_text(EVENT.replace("01-01", f"01-0{number}") + FOREIGN)
    (tmp_path / "logs" / ".x").write_text("{}")
    dry = pik("ingest", "logs", "--one-batch", "--dry-run", "--format", "json")
    assert [(one["source"], one["read"], one["valid"]) for one in dry.json()["sources"]] == [("logs", 6, 3)]
    done = pik("ingest", "logs", "--one-batch", "--rejects", "bad", "--format", "json")
    assert (done.code, done.json()["source"], done.json()["read"], done.json()["rejected"]) == (3, "logs", 6, 3)
    assert done.err.startswith("logs: skipped 1 hidden file\n")
    assert (tmp_path / "bad").read_text() == FOREIGN * 3
    rejects = pik("batches", done.json()["batch_id"], "--rejects", "--format", "json").json()["rejects"]
    assert [(one["seq"], one["file"], one["record"]) for one in rejects] == [
        (2, "1.jsonl", 2),
        (4, "2.jsonl", 2),
        (6, "3.jsonl", 2),
    ]
    events = pik("events", "--format", "json").json()["events"]
    [delivery] = pik("show", events[-1]["event_id"], "--format", "json").json()["deliveries"]
    assert (delivery["seq"], delivery["file"], delivery["record"]) == (5, "3.jsonl", 1)
    assert "3.jsonl" in pik("show", events[-1]["event_id"]).out
    several = pik("ingest", "logs/1.jsonl", "logs/2.jsonl", "--one-batch", "--again", "--format", "json").json()
    assert (several["source"], several["read"], several["duplicates"]["exact"]) == ("logs/1.jsonl and 1 more", 4, 2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(EVENT.encode())))
    refused = pik("ingest", "-", "--one-batch")
    assert (refused.code, "standard input can be read only once" in refused.err) == (2, True)


def test_a_folder_that_changed_since_its_batch_was_interrupted_is_another_batch_and_that_is_said(
    pik, tmp_path, monkeypatch
):
    (tmp_path / "logs").mkdir()
    for number in range(1, 4):
        (tmp_path / "logs" / f"{number}.jsonl").write_text(EVENT.replace("01-01", f"01-0{number}"))
    assert pik("init").code == 0
    monkeypatch.setattr("pik.inputs.blocks.LINES", 1)  # a block for each
    source = one_batch(folder_sources("logs", SkippedFiles()), "logs", "logs/", pytest.fail)
    store = wrapped(open_store(str(tmp_path / ".pik")), FailAt(6), "raw", "batches")
    with pytest.raises(Crash):
        ingest(store, source, IngestOptions(Reading(1 << 20), workers=0), SILENT)
    [interrupted] = pik("batches", "--format", "json").json()["batches"]
    assert (interrupted["source"], interrupted["state"]) == ("logs", "INTERRUPTED")
    (tmp_path / "logs" / "4.jsonl").write_text(EVENT.replace("01-01", "01-04"))
    done = pik("ingest", "logs", "--one-batch", "--workers", 1, "--format", "json")
    assert (done.code, done.json()["outcome"], done.json()["read"]) == (0, "ingested", 4)
    assert f"logs is not what batch {interrupted['batch_id']} began with: files were added" in done.err


def test_a_guess_names_a_command_that_can_be_pasted_and_stores_nothing(pik, tmp_path):
    rows = [f"c{number % 5},2026-01-31T22:59:{number:02d}Z,paid,o{number}" for number in range(30)]
    (tmp_path / "orders-2026.csv").write_text("customer,ordered at,type,id\n" + "\n".join(rows) + "\n")
    found = pik("ingest", "--guess", "orders-2026.csv", "--format", "json")
    assert (found.code, found.json()["accepted"], found.json()["to_decide"]) == (0, 30, None)
    assert {one["field"]: one["from"] for one in found.json()["proposed"]} == {
        "source": "'orders'",
        "event_type": "type",
        "entity_id": "customer",
        "event_time": '"ordered at"',
        "payload": "@",
        "idempotency_key": "id",
    }
    checked = pik(*shlex.split(found.json()["next"])[1:], "--format", "json").json()
    assert (checked["valid"], checked["rejected"], checked["idempotency_keys"]) == (30, 0, 30)
    assert pik(*shlex.split(checked["next"])[1:]).code == 0
    (tmp_path / "log").write_text('<1>a: {"at": "2026-01-31T10:00:00Z", "user": "u", "type": "t"}\n' * 3)
    hint = pik("ingest", "--guess", "log").err.partition("hint: ")[2]  # no COLUMN to be put there: --guess finds them
    assert pik(*shlex.split(hint)[1:], "--format", "json").json()["accepted"] == 3
    refused = pik("ingest", "--guess", "orders-2026.csv", "--store", "typo")
    assert (refused.code, "pik init --store" in refused.err) == (4, True)
    shown = pik("ingest", "--guess", "orders-2026.csv", "--map", "source='shop'", "--timezone", "Asia/Tokyo").out
    assert re.search(r"event_time +\"ordered at\" +likely +name and values: all 30 values are RFC 3339 times\n", shown)
    assert re.search(r"source +'shop' +certain +given\n", shown)


def test_a_guess_of_an_archive_names_the_file_that_it_looked_at(pik, tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, "type,user,at\npaid,ana,2026-02-01T10:00:00Z\nsent,ben,2026-02-01T11:00:00Z\n")
    note = pik("ingest", "--guess", "two.zip", "--format", "json").json()["note"]
    assert "only two.zip:a.csv was looked at, the first file of the archive" in note
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for name, text in (("README", "of the shop\nby hand\n"), ("a.csv", "type,user\n"), ("b.jsonl", EVENT)):
            archive.writestr(name, text)
    note = pik("ingest", "--guess", "more.zip", "--format", "json").json()["note"]
    assert "only more.zip:b.jsonl was looked at, a file of the archive; passed over: more.zip:README cannot be" in note
    assert "; passed over: there is no record in the beginning of more.zip:a.csv" in note
    (tmp_path / "more.zip").write_bytes(b"of the shop\nby hand\n")
    assert pik("ingest", "--guess", "more.zip").err.startswith("error: more.zip cannot be read: it looks like lines of")


def test_a_guess_of_a_folder_is_of_its_data_and_not_of_a_small_file_before(pik, tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "_about.json").write_text('{"entries": [{"url": "s3://b/orders"}]}\n')
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / "day" / name).write_text('{"user":"u","at":"2026-01-31T22:59:00Z","type":"t"}\n' * 2)
    found = pik("ingest", "--guess", "day", "--format", "json").json()
    assert "only day/one.jsonl was looked at, of 3 inputs; passed over: day/_about.json has no time" in found["note"]
    checked = pik(*shlex.split(found["next"].replace("FIELD", "user"))[1:], "--format", "json").json()
    assert [one["source"] for one in checked["sources"]] == ["day/one.jsonl", "day/two.jsonl"]
    listed = pik("ingest", "--guess", "day/_about.json", "day/two.jsonl", "day/one.jsonl", "--format", "json").json()
    assert listed["next"].startswith("pik ingest --dry-run day/two.jsonl day/one.jsonl --map ")
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / "day" / name).write_text("1|paid|2026-01-31 22:59:00\n" * 3)
    assert pik("ingest", "--guess", "day").err.startswith("error: day/one.jsonl cannot be read: it looks like CSV")
    (tmp_path / "day" / "_about.json").write_text("7a5f0c0b8c\n")  # a checksum: none can be read, and it says least
    assert pik("ingest", "--guess", "day").err.startswith("error: day/one.jsonl cannot be read: it looks like CSV")


def test_a_pipe_of_a_shell_is_standard_input_of_the_next_command_and_read_as_that_is(pik, tmp_path):
    """As `pik ingest <(zcat old.gz)`: the shell closes what /dev/fd/63 is."""

    def through_pipe(text, *words):
        reads, writes = os.pipe()
        os.write(writes, text.encode())
        os.close(writes)
        try:
            return pik("ingest", *words, f"/dev/fd/{reads}")
        finally:
            os.close(reads)

    checked = through_pipe(EVENT, "--dry-run", "--format", "json").json()
    assert (checked["valid"], checked["next"]) == (1, "pik ingest -")
    refused = through_pipe("of the shop\nuser,at\nu,2026-01-31T22:59:00Z\nv,2026-01-31T22:59:00Z\n", "--guess")
    assert "it looks like CSV after 1 other line" in refused.err


def test_a_glob_leaves_out_links_that_lead_nowhere_as_a_folder_does(pik, tmp_path):
    (tmp_path / "one.jsonl").write_text(EVENT)
    (tmp_path / "gone.jsonl").symlink_to("nowhere")
    found = pik("ingest", "*.jsonl")
    assert (found.code, "*.jsonl: skipped 1 broken link" in found.err) == (0, True)
    assert pik("ingest", "gone.js*").code == 2


def test_a_guess_says_what_only_the_names_of_folders_say(pik, tmp_path):
    folder = tmp_path / "orders" / "dt=2026-01-31" / "region=eu"
    folder.mkdir(parents=True)
    record = '{{"user":"u","at":"2026-01-31T22:59:0{}Z","type":"t","dt":"today"}}\n'
    (folder / "0.jsonl").write_text("".join(record.format(number) for number in range(9)))
    found = pik("ingest", "--guess", "orders", "--format", "json").json()
    added = "--map \"payload=merge(@, {region: partition('region')})\""
    assert f"only the names of folders say region; to have it in the payload, too: {added}" in found["note"]
    pik(*shlex.split(found["next"].replace("--dry-run", "").replace("--map payload=@", added))[1:])
    counted = "SELECT payload->>'region' AS region, count(*) AS n FROM events GROUP BY region"
    assert pik("sql", counted, "--format", "jsonl").out == '{"region":"eu","n":9}\n'


def test_a_guess_that_leaves_something_open_is_exit_3_and_says_what(pik, tmp_path, monkeypatch):
    (tmp_path / "local").write_text('{"user":"u","time":"2026-01-31 22:59","type":"t"}\n' * 2)
    found = pik("ingest", "--guess", "local", "local")
    assert found.code == 3
    assert 'event_time: "2026-01-31 22:59" has no offset' in found.out
    assert "--timezone ZONE" in found.out
    assert "only local was looked at, of 2 inputs" in found.out
    assert "unknown time zone" in pik("ingest", "--dry-run", "local", "--timezone", "ZONE").err
    (tmp_path / "bare").write_text('{"a":1}\n')
    bare = pik("ingest", "--guess", "bare", "--format", "json").json()
    assert (bare["accepted"], [one["path"] for one in bare["found_fields"]]) == (None, ["a"])
    pasted = pik(*shlex.split(bare["next"])[1:]).err
    assert ("have no field FIELD\n" in pasted, "the records have a;" in pasted) == (True, True)
    (tmp_path / "events").write_text(EVENT)
    events = pik("ingest", "--guess", "events", "--format", "json").json()
    assert (events["next"], "proposed" in events) == ("pik ingest --dry-run events", False)
    assert not (tmp_path / ".pik").exists()


@pytest.mark.parametrize(
    "option",
    [("--dry-run",), ("--rejects", "x"), ("--mapping", "none"), ("--one-batch",), ("--via", "api"), ("--again",)],
)
def test_a_guess_takes_only_options_that_describe_the_input(pik, tmp_path, option):
    (tmp_path / "good").write_text(EVENT)
    refused = pik("ingest", "--guess", "good", *option)
    assert (refused.code, refused.err.partition("\n")[0]) == (2, f"error: {option[0]} does not go with --guess")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\x00\x01\x02\x7fELF", b"<html>", b"[]", b"1\t2\n"])
def test_a_guess_of_what_has_no_records_is_refused(pik, tmp_path, content):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    refused = pik("ingest", "--guess", "file")
    assert (refused.code, refused.out) == (2, "")


def test_a_file_whose_name_begins_with_a_minus_is_named_as_it_must_be_typed(pik, tmp_path):
    (tmp_path / "-dash.jsonl").write_text("")
    for before, after in (("ingest", "--dry-run"), ("diff", "events"), ("metrics", "apply")):
        words = [before, after, "-dash.jsonl"] if after[0] != "-" else [before, "-dash.jsonl", after]
        said = pik(*words)
        line = " ".join(["pik", *words]).replace("-dash", "./-dash")
        assert (said.code, said.err.splitlines()[1:]) == (2, [f"hint: the file -dash.jsonl: {line}"])
    assert "`pik ingest --help` lists them" in pik("ingest", "-other.jsonl").err


def test_a_guess_says_that_cells_lose_their_quotes(pik, tmp_path):
    for text, is_said in (('"paid"', True), ("paid", False)):
        (tmp_path / "bare.tsv").write_text("".join(f"{n}\t2026-01-0{n}T00:00:00Z\t{text}\n" for n in (1, 2, 3)))
        guess = pik("ingest", "--guess", "bare.tsv", "--columns", "a,b,c", "--format", "json").json()
        assert ("--quote none" in guess["note"]) == is_said
