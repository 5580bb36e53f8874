"""Archives and folders: each of their files is an input, as if it lay there alone."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
import tracemalloc
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from pik.errors import InputError
from pik.inputs import archives, copies
from pik.inputs.archives import with_members
from pik.inputs.folders import SkippedFiles, folder_sources
from pik.inputs.opened_file import OpenedFile
from pik.inputs.paths import sources_of
from pik.inputs.source import Input, Source, file_source, stream_source
from pik.model.layout import JSON_LINES, Layout

FILES = {
    "b/first.jsonl": b'{"n":1}\n{"n":2}\n',
    "a.jsonl.gz": gzip.compress(b'{"n":3}\n', mtime=0),
    "a/large.jsonl": b"".join(
        b'{"n":%d,"text":"%s"}\n' % (n, sha256(b"%d" % n).hexdigest().encode()) for n in range(3000)
    ),
    "c.jsonl": b'{"n":4}',
}
Files = dict[str, bytes]


def tar(files: Files, kind: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=name == "c.jsonl") as file:
                file.write(data)
    return made.getvalue()


ARCHIVES = {
    "l.tar": tar(FILES),
    "old.tar": tar(FILES, tarfile.USTAR_FORMAT),
    "gnu.tar": tar(FILES, tarfile.GNU_FORMAT),
    "l.tar.gz": gzip.compress(tar(FILES)),
    "l.tgz": gzip.compress(tar(FILES)[:5000]) + gzip.compress(tar(FILES)[5000:]),
    "l.tar.zst": zstandard.compress(tar(FILES)),
    "l.tar.bz2": bz2.compress(tar(FILES)),
    "l.tar.xz": lzma.compress(tar(FILES)),
    "l.zip": zipped(FILES),
    "l.zip.gz": gzip.compress(zipped(FILES)),
    "stored.zip": zipped(FILES, zipfile.ZIP_STORED),
    "bzip2.zip": zipped(FILES, zipfile.ZIP_BZIP2),
    "lzma.zip": zipped(FILES, zipfile.ZIP_LZMA),
}


@pytest.fixture(autouse=True, params=[1 << 20, 100], ids=["in memory", "not in memory"])
def in_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held in memory: every file of an archive, or the smallest only."""
    monkeypatch.setattr(copies, "IN_MEMORY", request.param)
    monkeypatch.setattr(archives, "IN_MEMORY", request.param)


def content(source: Input) -> bytes:
    """What is stored in an input, which is read twice, and in parts."""
    with source.open() as opened:
        assert isinstance(opened, OpenedFile)
        data = opened.stored.read()
        opened.stored.seek(len(data) // 2)
        assert opened.stored.read(7) == data[len(data) // 2 :][:7]
        assert opened.digest() == sha256(data).hexdigest()
        assert source.size == len(data)
        opened.expect_unchanged()
    return data


def members(*sources: Source) -> tuple[Files, list[str], str]:
    """The contents of files by their names, what is told of them, and the error that ends them."""
    found: Files = {}
    told: list[str] = []
    try:
        for source in with_members(sources, told.append):
            found[source.name] = content(source)
    except InputError as error:
        return found, told, f"{error.message}; {error.hint}"
    return found, told, ""


def saved(directory: Path, name: str, data: bytes) -> Source:
    (directory / name).write_bytes(data)
    return file_source(str(directory / name))


@pytest.mark.parametrize("name", ARCHIVES)
def test_each_file_of_an_archive_is_an_input_with_its_own_content(tmp_path: Path, name: str) -> None:
    source = saved(tmp_path, name, ARCHIVES[name])
    expected = {f"{source.name}:{file}": data for file, data in FILES.items()}
    found, told, error = members(source)
    assert (list(found.items()), told, error) == (list(expected.items()), [], "")
    everything = list(with_members([source], told.append))  # all are held, and the archive is not open any more
    assert {one.name: content(one) for one in everything} == expected
    # As a stream, which is read once.
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(ARCHIVES[name]))
    writer.start()
    found, _, error = members(file_source(str(tmp_path / "pipe")))
    writer.join()
    assert (list(found.values()), error) == (list(FILES.values()), "")


def test_what_is_not_an_archive_is_an_input_itself_and_a_stream_is_not_read_for_it(tmp_path: Path) -> None:
    source = saved(tmp_path, "a.jsonl", b"{}\n")
    assert list(with_members([source], pytest.fail)) == [source]
    stream = stream_source("pipe", tmp_path / "a.jsonl")
    (found,) = with_members([stream], pytest.fail)
    assert found.is_stream
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(FILES["a.jsonl.gz"]))
    writer.start()
    for piped in with_members([file_source(str(tmp_path / "pipe"))], pytest.fail):
        with piped.open() as opened:
            assert [block.data for block in opened.blocks(JSON_LINES, 100)] == [b'{"n":3}\n']
    writer.join()


def test_archives_in_archives_are_read_up_to_a_depth(tmp_path: Path) -> None:
    inner = {"x.zip": zipped(FILES), "y.tar.gz": gzip.compress(tar(FILES)), "z.jsonl": b"1\n"}
    source = saved(tmp_path, "o.tar", tar(inner))
    found, _, error = members(source)
    expected = {f"{source.name}:{name}:{file}": data for name in ("x.zip", "y.tar.gz") for file, data in FILES.items()}
    assert (list(found.items()), error) == (list({**expected, f"{source.name}:z.jsonl": b"1\n"}.items()), "")
    data = tar({"f": b"1\n"})
    for _ in range(3):
        data = tar({"t": data})
    found, _, _ = members(saved(tmp_path, "deep", data))
    assert list(found) == [f"{tmp_path}/deep:t:t:t"]
    *_, deepest = with_members([file_source(str(tmp_path / "deep"))], pytest.fail)
    with pytest.raises(InputError, match="it looks like a tar archive") as refused, deepest.open() as opened:
        opened.recognize(Layout(), mapped=False)
    assert refused.value.hint == "tar -xOf FILE | pik ingest -"


def test_what_is_not_a_file_or_is_hidden_or_empty_is_skipped_and_counted(tmp_path: Path) -> None:
    hidden: Files = {"__MACOSX/._a": b"x", ".git/config": b"x", "b/.DS_Store": b"x", "_SUCCESS": b"", "./a": b"1\n"}
    named = {b"caf\xe9".decode("utf-8", "surrogateescape"): b"2\n", "../up": b"3\n"}
    made = io.BytesIO(tar({**hidden, **named}, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=made, mode="a") as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo(f"entry {kind!r}")
            entry.type, entry.linkname = kind, "a"
            archive.addfile(entry)
    source = saved(tmp_path, "s.tar", made.getvalue())
    found, told, error = members(source)
    assert ([name.removeprefix(source.name) for name in found], error) == ([":./a", ":caf\\xe9", ":../up"], "")
    assert told == [f"{source.name}: skipped 1 empty file, 3 hidden files, 2 links, 1 special file"]
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as zip_archive:
        for name, data in {"d/": b"", **hidden}.items():
            zip_archive.writestr(name, data)
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        zip_archive.writestr(link, "a")
    source = file_source(str(tmp_path / "s.zip"))
    found, told, error = members(source)
    assert (list(found), error) == ([f"{source.name}:./a"], "")
    assert told == [f"{source.name}: skipped 1 empty file, 3 hidden files, 1 link"]
    for number, data in enumerate((tar({".x": b"1"}), zipped({}))):
        source = saved(tmp_path, f"none{number}", data)
        assert members(source)[2].startswith(f"there is no file with content in {source.name}; ")


def cut(name: str, at: float) -> bytes:
    return ARCHIVES[name][: int(len(ARCHIVES[name]) * at)]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


TAR = ARCHIVES["l.tar"]
SECOND = TAR.index(b"a.jsonl.gz")


WHOLE = ARCHIVES["l.zip"]
LAST = WHOLE.rindex(b"PK\x01\x02")
DAMAGED = {
    "cut in a file": (cut("l.tar", 0.5), 2, "a/large.jsonl is not whole: the archive is cut; "),
    "cut in a header": (TAR[: SECOND + 200], 1, "cannot be read to its end: "),
    "cut between files": (TAR[:SECOND], 1, "cannot be read to its end: the archive is cut; what was ingested before"),
    "damaged header": (flipped(TAR, SECOND), 1, "cannot be read to its end: it is damaged; "),
    "cut gz": (cut("l.tar.gz", 0.5), 2, "cannot be decompressed to its end: it is cut; what was ingested before"),
    "cut xz": (cut("l.tar.xz", 0.5), 2, "cannot be decompressed to its end: it is cut; what was ingested before"),
    "wrong sum at the end": (flipped(ARCHIVES["l.tar.gz"], -6), 4, "cannot be decompressed to its end: "),
    "padded": (TAR + b"\0" * 5000, 4, ""),
    "garbage": (TAR + b"garbage".ljust(512, b"."), 4, "cannot be read to its end: something else follows it; "),
    "cut zip": (cut("l.zip", 0.5), 0, "cannot be read as a zip archive: it is cut or damaged"),
    "damaged zip": (flipped(ARCHIVES["stored.zip"], 1000), 2, "a/large.jsonl cannot be decompressed to its end: "),
    "encrypted": (WHOLE[: LAST + 8] + b"\1" + WHOLE[LAST + 9 :], 3, "c.jsonl is encrypted; unzip -d FOLDER"),
    "method 97": (WHOLE[: LAST + 10] + b"\x61" + WHOLE[LAST + 11 :], 3, "c.jsonl cannot be read: "),
    "spreadsheet": (zipped({"[Content_Types].xml": b"<a/>", "x": b"1"}), 0, "is a spreadsheet or another office"),
}


@pytest.mark.parametrize(("data", "files", "said"), DAMAGED.values(), ids=DAMAGED)
def test_an_archive_that_is_cut_or_damaged_is_an_error_after_the_files_before_that(
    tmp_path: Path, data: bytes, files: int, said: str
) -> None:
    source = saved(tmp_path, "it", data)
    found, _, error = members(source)
    assert list(found.values()) == list(FILES.values())[:files]
    assert said in error
    assert bool(said) == (source.name in error)


def test_tar_archives_one_after_the_other_are_all_read(tmp_path: Path) -> None:
    source = saved(tmp_path, "both.tar.gz", gzip.compress(tar({"a": b"1\n"}) + tar({"b": b"2\n"})))
    assert members(source) == ({f"{source.name}:a": b"1\n", f"{source.name}:b": b"2\n"}, [], "")


def test_a_small_archive_with_a_huge_file_takes_neither_memory_nor_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path, "bomb.tar.gz", gzip.compress(tar({"zeros": b"0" * (32 << 20)})))
    tracemalloc.start()
    (found,) = with_members([source], pytest.fail)
    with found.open() as opened:
        assert opened.digest() == sha256(b"0" * (32 << 20)).hexdigest()
    assert tracemalloc.get_traced_memory()[1] < 48 << 20
    tracemalloc.stop()


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 4 << 30
    _, _, error = members(saved(tmp_path, "h.tar", entry.tobuf(tarfile.USTAR_FORMAT) + b"\0" * (2 << 20)))
    assert "it has a header of 4,294,967,296 bytes" in error


def test_an_archive_that_is_written_to_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    source = saved(tmp_path, "l.tar", TAR)
    files = with_members([source], pytest.fail)
    next(files)
    (tmp_path / "l.tar").write_bytes(TAR + b"\0" * 512)
    with pytest.raises(InputError, match=r"l\.tar changed while it was being read"):
        list(files)


def test_a_folder_is_its_files_by_name_without_the_hidden_and_the_empty_ones(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl", "a/b/c.jsonl", "c", ".hidden", ".git/config", "a/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "empty").touch()
    (tmp_path / "d.jsonl").symlink_to("b.jsonl")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    skipped = SkippedFiles()
    found = [source.name for source in folder_sources(str(tmp_path), skipped)]
    assert found == [f"{tmp_path}/{name}" for name in ("a/b/c.jsonl", "a/z.jsonl", "b.jsonl", "c", "d.jsonl")]
    assert str(skipped) == (
        "skipped 1 broken link, 1 empty file, 1 folder link, 2 hidden files, 1 hidden folder, 1 special file"
    )
    (tmp_path / "e" / "f" / "_temporary" / "0").mkdir(parents=True)
    (tmp_path / "e" / "f" / "_temporary" / "0" / "part-0.jsonl").write_text("{}\n")  # of an attempt that did not end
    (tmp_path / "e" / "_committed_17").write_text("{}\n")
    with pytest.raises(InputError, match=r"there is no file with content in .*/e"):
        folder_sources(str(tmp_path / "e"), SkippedFiles())


def test_a_file_that_names_each_of_the_data_files_of_its_folder_is_not_read_and_named(tmp_path):
    shards = [tmp_path / f"orders000{number}_part_00" for number in range(3)]
    for one in shards:
        one.write_text("1|paid\n")
    listing = json.dumps({"entries": [{"url": f"s3://b/orders/{one.name}"} for one in shards]})
    for name, text in (("orders_manifest", listing), ("arrived.jsonl", listing.replace("orders0002", "orders0003"))):
        (tmp_path / name).write_text(text)
    skipped = SkippedFiles()
    found = [source.name for source in folder_sources(str(tmp_path), skipped)]
    assert found == [f"{tmp_path}/arrived.jsonl", *map(str, shards)]
    assert str(skipped) == "skipped 1 manifest (orders_manifest)"


@pytest.mark.parametrize(
    ("log", "what"),
    [
        ("_delta_log/0.json", "a Delta table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
        (".hoodie/a.commit", "a Hudi table"),
    ],
)
def test_the_files_of_a_lakes_table_are_not_taken_for_its_rows(tmp_path: Path, log: str, what: str) -> None:
    for name in (f"t/{log}", "t/dt=1/part-0.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(InputError, match=f"/t is {what}: files in its folder may have rows that were deleted"):
        folder_sources(str(tmp_path), SkippedFiles())
    files = {"./t/part-0.parquet": b"{}", f"./t/{log}": b"{}"}
    for data in (zipped(files), tar(files), gzip.compress(tar(files)), tar({f"t/{log}": b"{}"})):
        found, _, error = members(saved(tmp_path, "l.archive", data))
        assert (found, f"l.archive:t is {what}: files in its folder may" in error) == ({}, True)
        assert "FOLDER/t" in error or what == "a Hudi table"
    assert members(saved(tmp_path, "other.zip", zipped({"metadata/a.json": b"{}"})))[2] == ""
    noted: list[str] = []
    sources_of([f"{tmp_path}/t/*/*.parquet"], pytest.fail, noted.append)
    assert [note.split(":")[0] for note in noted] == [f"{tmp_path}/t is {what}"]
