"""`pik bundle`, `pik verify BUNDLE` and `pik --store BUNDLE`: the evidence of an incident in one file."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import zstandard

from pik.errors import StoreError
from pik.runtime import SILENT
from pik.usecases.bundle.archive import EXPANSION, Archive, write_archive
from pik.usecases.bundle.contents import MANIFEST, SUMS
from pik.usecases.bundle.pack import _write_sums
from pik.usecases.report import incident

pytestmark = pytest.mark.xdist_group("bundle")  # whose store is made once for each process

WINDOW = ("--from", "2026-01-01", "--to", "2026-01-03")
MAKE = ("bundle", "--incident", "INC-1", *WINDOW)
METRIC = """
name = "total"
where = "event_type = 'paid'"
value = "sum(CAST(payload->>'$.v' AS DECIMAL(9, 2)))"
"""


def event(day: int, entity: str, value: Any, **more: Any) -> str:
    fields = {"source": "s", "event_type": "paid", "entity_id": entity, "event_time": f"2026-01-0{day}T00:00:00Z"}
    return json.dumps({**fields, "payload": {"v": value, "note": f"of {entity}"}, **more}) + "\n"


@pytest.fixture
def bundled(pik: Any, tmp_path: Path, once: Any) -> Path:
    """A store with late, duplicate and conflicting deliveries, rejects and a correction; and its bundle, b.tar.zst."""

    def build() -> None:
        first = [event(1, "a", 1), event(1, "b", 2), event(2, "a", 3), event(2, "a", 5, idempotency_key="k")]
        (tmp_path / "one.jsonl").write_text("".join([*first, first[0], "not an event\n"]))
        (tmp_path / "two.jsonl").write_text(event(2, "b", 7) + event(2, "a", 6, idempotency_key="k"))
        (tmp_path / "metric.toml").write_text(METRIC)
        assert pik("ingest", "one.jsonl").code == 3
        assert pik("metrics", "apply", "metric.toml").code == 0
        assert pik("replay", "--all", "--promote", "--yes", "--reason", "first").code == 0
        assert pik("ingest", "two.jsonl").code == 0
        assert pik("correct", "--assume", "without=selected,entity=b", "--reason", "a test", "--yes").code == 0
        assert pik(*MAKE, "--out", "b.tar.zst").code == 0

    once(build)
    return tmp_path


@pytest.fixture
def without_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not depend on what is computed from a bundle, which takes most of the time."""
    monkeypatch.setattr("pik.cli.recorder.document_commands", lambda _: {})
    monkeypatch.setattr("pik.cli.recorder.write_page", lambda *_: [])


def unpacked(bundle: Path, into: Path) -> Path:
    """What tar makes of a bundle."""
    into.mkdir()
    with (
        open(bundle, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as data,
        tarfile.open(fileobj=data, mode="r|") as archive,
    ):
        archive.extractall(into, filter="data")
    return into / "INC-1"


def repacked(root: Path, out: Path) -> None:
    """A bundle of these files, every digest in it right."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    _write_sums(root, [name for name in names if name != SUMS])
    write_archive(out, root, names, "INC-1", SILENT)


def test_the_same_store_and_arguments_give_the_same_bytes(pik, bundled, monkeypatch):
    shutil.copytree(bundled / ".pik", bundled / "moved to" / "another store")
    later = 400 * 24 * 3600 * 10**9
    import time

    now = time.time_ns
    for module in ("pull.pull", "care.triage_checks", "timing.gaps", "availability", "care.verify_corrections"):
        monkeypatch.setattr(f"pik.usecases.{module}.time_ns", lambda: now() + later)
    monkeypatch.setattr(time, "time_ns", lambda: now() + later)
    done = pik(*MAKE, "--out", "again", "--store", "moved to/another store", "--format", "json")
    assert (done.code, done.json()["sha256"]) == (0, pik("verify", "b.tar.zst", "--format", "json").json()["sha256"])
    assert (bundled / "again").read_bytes() == (bundled / "b.tar.zst").read_bytes()
    text = zstandard.ZstdDecompressor().stream_reader((bundled / "again").read_bytes(), read_across_frames=True).read()
    assert str(bundled).encode() not in text


def test_of_one_entity_every_document_can_be_computed(pik, bundled, monkeypatch):
    """The report only once for both of its forms: it takes longest."""
    made = Mock(wraps=incident.report)
    monkeypatch.setattr(incident, "report", made)
    done = pik(*MAKE, "--out", "of-a", "--entity", "a", "--format", "json")
    assert (done.code, done.json()["problems"]) == (0, [])
    codes = {one["name"]: one["exit_code"] for one in done.json()["documents"]}
    assert {"documents/explanation.json", "documents/report.html"} <= set(codes)
    assert set(codes.values()) <= {0, 1}
    assert made.call_count == 1


def test_it_lists_what_it_does_not_contain(pik, bundled, without_documents):
    made = pik("--store", "b.tar.zst", *MAKE, "--out", "again", "--format", "json")
    lacking = [(one["kind"], one["detail"]) for one in made.json()["problems"]]
    assert (made.code, lacking) == (3, [("run", "the source holds its values, and not the run")])
    nothing = pik("bundle", "--incident", "INC-1", "--from", "2020-01-01", "--to", "2020-01-02", "--out", "nothing")
    assert (nothing.code, (bundled / "nothing").exists()) == (2, False)
    assert "no evidence to bundle" in nothing.err


def test_other_programs_read_and_check_it(pik, bundled):
    root = unpacked(bundled / "b.tar.zst", bundled / "out")
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=root, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(b": OK\n") == sum(path.is_file() for path in root.rglob("*")) - 1
    manifest = json.loads((root / MANIFEST).read_text())
    for document in manifest["documents"]:
        text = (root / document["name"]).read_text()
        assert text.startswith("<!doctype html>") if document["name"].endswith("html") else json.loads(text)
    diff = json.loads((root / "documents/diff.json").read_text(), parse_float=str)
    assert diff == pik("diff", "aggregates", *WINDOW, "--stats", "--format", "json").json()
    assert diff["different"] == 2


def test_every_flipped_bit_is_found_in_the_member_that_it_hit(pik, bundled):
    good, bad = bundled / "b.tar.zst", bundled / "bad.tar.zst"
    archive = Archive(good)
    data, place = bytearray(good.read_bytes()), 0
    for number, frame in enumerate(archive.frames):
        for at in {0, 7, frame.size // 2, frame.size - 1}:
            data[place + at] ^= 1 << number % 8
            bad.write_bytes(data)
            assert list(Archive(bad).damaged(SILENT)) == [frame.name]
            data[place + at] ^= 1 << number % 8
        place += frame.size
    for at in range(place, len(data)):  # the list of members, and its end
        data[at] ^= 1
        bad.write_bytes(data)
        refused = pik("verify", "bad.tar.zst", "--format", "json") if at % 97 == 0 else None
        assert refused is None or refused.code in (1, 2)
        with pytest.raises(Exception, match=r"as it was written|not an evidence bundle"):
            Archive(bad)
        data[at] ^= 1
    data[archive.frames[0].size // 2] ^= 4
    bad.write_bytes(data)
    found = pik("verify", "bad.tar.zst", "--format", "json")
    assert (found.code, [one["member"] for one in found.json()["problems"]]) == (1, ["INC-1/MANIFEST.json"])
    assert found.json()["recomputed_documents"] is None
    assert pik("status", "--store", "bad.tar.zst").code == 4


def test_verify_computes_every_number_again(pik, bundled):
    whole = pik("verify", "b.tar.zst", "--format", "json")
    assert (whole.code, whole.json()["problems"], whole.json()["recomputed_documents"]) == (0, [], 9)
    root = unpacked(bundled / "b.tar.zst", bundled / "out")
    repacked(root, bundled / "same.tar.zst")
    assert (bundled / "same.tar.zst").read_bytes() == (bundled / "b.tar.zst").read_bytes()
    diff = root / "documents/diff.json"
    diff.write_text(diff.read_text().replace('"different":2', '"different":3'))
    repacked(root, bundled / "forged.tar.zst")
    forged = pik("verify", "forged.tar.zst", "--format", "json")
    assert forged.code == 1
    assert [(one["member"], one["state"]) for one in forged.json()["problems"]] == [
        ("INC-1/documents/diff.json", "differs")
    ]


@pytest.mark.parametrize("line", [(*MAKE, "--out", "c.tar.zst"), ("verify", "b.tar.zst")])
def test_a_full_disk_says_nothing_about_a_bundle(pik, bundled, monkeypatch, line):
    def full(*_: object) -> None:
        raise StoreError("no space left", hint="free space there")

    monkeypatch.setattr("pik.cli.recorder._run", full)
    failed = pik(*line)
    assert (failed.code, failed.err) == (4, "error: no space left\nhint: free space there\n")
    assert not (bundled / "c.tar.zst").exists()


@pytest.mark.parametrize(
    "line",
    [
        ("events", *WINDOW),
        ("duplicates", *WINDOW),
        ("aggregates", *WINDOW, "--history"),
        ("diff", "aggregates", *WINDOW, "--explain"),
        ("triage", *WINDOW),
        ("sql", "SELECT count(*) AS n FROM events", *WINDOW),
    ],
    ids=" ".join,
)
def test_it_answers_as_its_store(pik, bundled, line):
    of_bundle = pik(*line, "--store", "b.tar.zst", "--format", "json")
    of_store = pik(*line, "--format", "json")
    assert (of_bundle.code, of_bundle.out.replace(" --store b.tar.zst", "")) == (of_store.code, of_store.out)
    assert of_bundle.code in (0, 1)


@pytest.mark.parametrize(
    "line",
    [
        ("ingest", "two.jsonl"),
        ("replay", "--all", *WINDOW),
        ("metrics", "retire", "total", "--reason", "x", "--yes"),
        ("metrics", "apply", "other.toml"),
        ("correct", "--assume", "without=selected,entity=a", "--reason", "x", "--yes"),
        ("verify", "--rebuild-index"),
        ("republish", "--all", *WINDOW, "--target", "o.ndjson", "--yes"),
        ("backup", "x.backup"),
    ],
    ids=" ".join,
)
def test_nothing_is_written_to_it(pik, bundled, line):
    (bundled / "other.toml").write_text(METRIC.replace("total", "another"))
    before = (bundled / "b.tar.zst").read_bytes()
    refused = pik(*line, "--store", "b.tar.zst")
    assert (refused.code, "is an evidence bundle, which nothing can be written to" in refused.err) == (4, True), refused
    assert "hint: for a copy to work with: pik pull --store" in refused.err
    assert (bundled / "b.tar.zst").read_bytes() == before


def test_a_bundle_can_be_pulled_from(pik, bundled):
    assert pik("pull", "--store", "b.tar.zst", *WINDOW, "--into", "copy").code == 0
    assert pik("verify", "--store", "copy").code == 0
    assert pik("replay", "--all", *WINDOW, "--store", "copy", "--promote", "--yes").code == 0


def test_nothing_is_left_behind(pik, bundled, monkeypatch, without_documents):
    place = bundled / "scratch"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    assert pik("events", *WINDOW, "--store", "b.tar.zst").code == 0
    assert list(place.iterdir()) == []

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pik.usecases.inspect.events.list_events", interrupted)
        assert pik("events", *WINDOW, "--store", "b.tar.zst").code == 130
    assert list(place.iterdir()) == []
    with monkeypatch.context() as patched:
        patched.setattr("pik.usecases.bundle.archive._write_frame", interrupted)
        assert pik(*MAKE, "--out", "c.tar.zst").code == 130
    assert (list(place.iterdir()), list(bundled.glob("*c.tar.zst*"))) == ([], [])


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ((*MAKE, "--out", "b.tar.zst"), 2, "'b.tar.zst' exists already"),
        ((*MAKE, "--out", "none/b.tar.zst"), 2, "there is no directory 'none'"),
        ((*MAKE, "--out", "one.jsonl/b.tar.zst"), 2, "'one.jsonl' is a file, not a directory"),
        (("bundle", "--incident", "../x", *WINDOW, "--out", "c"), 2, "invalid name of an incident '../x'"),
        (("bundle", "--incident", "x", "--from", "2026-01-01", "--out", "c"), 2, "--to is missing"),
        (("bundle", "--incident", "x", "--from", "2026-01-01", "--to", "2200-01-01", "--out", "c"), 2, "is not over"),
        ((*MAKE, "--out", "c", "--entity", ""), 2, "--entity is empty"),
        ((*MAKE, "--out", "-"), 2, "--out -: a bundle is a file"),
        (("verify", "none.tar.zst"), 2, "cannot read 'none.tar.zst': No such file"),
        (("verify", "."), 2, "cannot read '.': Is a directory\nhint: to check a store: pik --store . verify"),
        (("verify", "one.jsonl"), 2, "'one.jsonl' is not an evidence bundle\n"),
        (("verify", "b.tar.zst", "--quick"), 2, "a bundle is checked as a whole"),
        (("status", "--store", "one.jsonl"), 4, "'one.jsonl' is not an evidence bundle"),
    ],
)
def test_refusals_name_the_thing(pik, bundled, line, code, said):
    refused = pik(*line)
    assert (refused.code, refused.out, said in refused.err) == (code, "", True), refused.err
    assert not (bundled / "c").exists()


def test_a_backup_a_bundle_and_what_became_of_them_are_told_apart(pik, bundled):
    """By both commands that read one, and where one is given as a store."""
    assert pik("backup", "bk").code == 0
    bk, bundle = (bundled / "bk").read_bytes(), (bundled / "b.tar.zst").read_bytes()
    files = {
        "bk": (bk, "is a backup of pik's state, not an evidence bundle", "pik restore bk --dry-run"),
        "b.tar.zst": (bundle, "is an evidence bundle, not a backup of pik's state", "pik verify b.tar.zst"),
        "gz": (gzip.compress(bk), "is compressed with gzip", "gzip -dc gz > FILE"),
        "zst": (zstandard.compress(bundle), "is compressed with zstd", "zstd -dc zst > FILE"),
        "bk.cut": (bk[:-30], "is a backup of pik's state that is cut or damaged: it does not end", "use another copy"),
        "b.cut": (bundle[:9000], "is an evidence bundle that is cut or damaged: it does not end", "use another copy"),
        "bk.more": (bk + b"more", "state with 4 bytes after its end", f"head -c {len(bk)} bk.more > FILE"),
        "b.more": (bundle + bytes(1 << 20), "1,048,576 bytes after its end", f"head -c {len(bundle)} b.more > FILE"),
        "short": (bk[:200], "state, or it is cut near its beginning", "pik backup FILE"),
        "empty": (b"", "'empty' is empty", "pik backup FILE"),
    }
    for name, (data, said, hint) in files.items():
        (bundled / name).write_bytes(data)
        if name != "bk":
            refused = pik("restore", name, "--dry-run")
            assert (refused.code, said in refused.err, hint in refused.err) == (2, True, True), refused.err
        if name not in ("b.tar.zst", "short", "empty"):
            refused = pik("verify", name)
            assert (refused.code, said in refused.err, hint in refused.err) == (2, True, True), refused.err
            assert said in pik("status", "--store", name).err


def test_a_dry_run_writes_nothing(pik, bundled):
    plan = pik(*MAKE, "--out", "c.tar.zst", "--dry-run", "--format", "json").json()
    assert (plan["dry_run"], plan["segments"], (bundled / "c.tar.zst").exists()) == (True, 3, False)


def test_what_the_source_lost_is_listed_and_stays_listed(pik, bundled, without_documents):
    next((bundled / ".pik/raw/event_date=2026-01-01").iterdir()).unlink()
    made = pik(*MAKE, "--out", "c.tar.zst", "--format", "json")
    assert (made.code, [one["kind"] for one in made.json()["problems"]]) == (3, ["missing"])
    checked = pik("verify", "c.tar.zst", "--format", "json")
    assert (checked.code, checked.json()["problems"], checked.json()["lacking_objects"]) == (0, [], 1)


class TestHostileArchives:
    """Whatever an archive holds, nothing is written outside of the private directory, and nothing fills the disk."""

    @pytest.fixture
    def root(self, bundled: Path) -> Path:
        return unpacked(bundled / "b.tar.zst", bundled / "out")

    def refused(self, pik: Any, said: str) -> None:
        found = pik("verify", "evil.tar.zst", "--format", "json")
        assert found.code in (1, 2, 4), found
        assert said in found.err + found.out

    @pytest.mark.parametrize("name", ["../escaped", "raw/../../escaped", "format.json", "tmp/x"])
    def test_names_that_pik_does_not_write(self, pik, root, bundled, name, monkeypatch):
        (root / "evil").write_text("evil")
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != "evil"]
        real = Path.__truediv__
        monkeypatch.setattr(Path, "__truediv__", lambda self, key: real(self, "evil" if key == name else key))
        write_archive(bundled / "evil.tar.zst", root, [*names, name], "INC-1", SILENT)
        monkeypatch.undo()
        monkeypatch.chdir(bundled)
        self.refused(pik, "does not begin with" if name < MANIFEST else "which pik does not write")
        assert not list(bundled.parent.glob("escaped"))

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE])
    def test_members_that_are_not_plain_files(self, pik, root, bundled, kind, monkeypatch):
        def header(name: str, size: int) -> bytes:
            info = tarfile.TarInfo(name)
            info.size, info.mode = size, 0o644
            if name.endswith("README.txt"):
                info.type, info.linkname = kind, "/etc/passwd"
            return info.tobuf(tarfile.USTAR_FORMAT)

        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        with monkeypatch.context() as patched:
            patched.setattr("pik.usecases.bundle.archive._header", header)
            write_archive(bundled / "evil.tar.zst", root, names, "INC-1", SILENT)
        self.refused(pik, "is not a plain file")

    def test_what_would_fill_the_disk(self, pik, root, bundled):
        with open(root / "rows/versions.jsonl", "wb") as file:
            file.truncate(70 << 20)  # more than the smallest bundle may have
        repacked(root, bundled / "evil.tar.zst")
        assert (bundled / "evil.tar.zst").stat().st_size < 1 << 20
        self.refused(pik, f"expands to more than {EXPANSION:,} times its size")

    @pytest.mark.parametrize("name", [MANIFEST, SUMS])
    def test_what_would_fill_the_memory(self, pik, root, bundled, name, monkeypatch):
        monkeypatch.setattr("pik.usecases.bundle.opening._LARGEST_TEXT", 10_000)
        (root / name).write_bytes((root / name).read_bytes() + b" " * 10_000)
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        write_archive(bundled / "evil.tar.zst", root, names, "INC-1", SILENT)
        self.refused(pik, "is larger than 10,000 bytes, which is refused")

    @pytest.mark.parametrize("name", ["rows/versions.jsonl", "rows/metrics.jsonl", MANIFEST, "raw/pulls"])
    def test_rows_that_say_nothing(self, pik, root, bundled, name):
        path = next((root / name).iterdir()) if (root / name).is_dir() else root / name
        path.write_bytes(b'{"computed":1}\n')
        repacked(root, bundled / "evil.tar.zst")
        self.refused(
            pik, {MANIFEST: "has no manifest that pik can read", "raw/pulls": "cut or changed"}.get(name, "damaged")
        )

    def test_a_member_that_is_not_the_listed_one(self, pik, root, bundled):
        path = root / "documents/lag.json"
        path.write_text(path.read_text() + " ")
        names = [str(one.relative_to(root)) for one in root.rglob("*") if one.is_file()]
        write_archive(bundled / "evil.tar.zst", root, names, "INC-1", SILENT)
        self.refused(pik, f"'documents/lag.json' of the bundle is not the one in its {SUMS}")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"rows/metrics.jsonl": None}, 2, "has no rows/metrics.jsonl"),
        ({"rows/versions.jsonl": None}, 2, "has no rows/versions.jsonl"),
        ({"SHA256SUMS": None}, 2, "has no SHA256SUMS"),
        (
            {"MANIFEST.json": lambda data: re.sub(b'("store_format": )[0-9]+', rb"\g<1>999", data)},
            2,
            "has store format 999",
        ),
        ({"rows/versions.jsonl": lambda data: data + data}, 1, "two versions are said to be current"),
    ],
    ids=["definitions", "versions", "sums", "format", "twice current"],
)
def test_an_archive_with_right_digests_is_not_trusted(pik, bundled, tmp_path_factory, change, code, said):
    root = unpacked(bundled / "b.tar.zst", tmp_path_factory.mktemp("forged") / "tar")
    for name, changed in change.items():
        data = (root / name).read_bytes()
        (root / name).unlink()
        if changed is not None:
            (root / name).write_bytes(changed(data))
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    if SUMS in names:
        _write_sums(root, [name for name in names if name != SUMS])
    forged = root.parent / "forged.tar.zst"
    write_archive(forged, root, names, "INC-1", SILENT)
    checked = pik("verify", str(forged))
    assert (checked.code, said in checked.out + checked.err) == (code, True), checked.err
    read = pik("status", "--store", str(forged))
    assert (read.code, said in read.err, "a bug in pik" in read.err) == (4, True, False), read.err
