"""Settings: option, else environment, else pik.toml, else default; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pik.config import read, settings
from pik.errors import NotFound, UsageError
from pik.model.cluster import Cluster

FULL = """
store = "raw"
format = "md"
display_timezone = "Europe/Berlin"
[stores]
prod = "aws://prod?region=eu-west-1"
old = "../old"
[ingest]
time_format = "epoch_ms"
[ingest.map]
source = "'github'"
[cluster]
parallelism = 64
archive = "env.tar.gz"
[cluster.spark]
"spark.executor.memory" = "4g"
"""


@pytest.fixture
def below(tmp_path: Path) -> Path:
    (tmp_path / "pik.toml").write_text(FULL)
    (tmp_path / "a/b").mkdir(parents=True)
    return tmp_path / "a/b"


def test_defaults(tmp_path: Path) -> None:
    found = settings(environment={}, directory=tmp_path)
    assert (found.store, found.format, found.quiet, found.display_zone) == ("./.pik", "table", False, None)
    assert (found.ingest.time_format, found.ingest.map) == (None, {})


def test_the_nearest_file_counts_and_its_paths_start_where_it_lies(below: Path, tmp_path: Path) -> None:
    found = settings(environment={}, directory=below)
    assert (found.store, found.format) == (f"{tmp_path}/raw", "md")
    assert (found.ingest.time_format, found.ingest.map) == ("epoch_ms", {"source": "'github'"})
    cluster = Cluster(64, f"{tmp_path}/env.tar.gz", {"spark.executor.memory": "4g"})
    assert found.cluster == cluster
    (below.parent / "pik.toml").write_text("[cluster]\narchive = 's3://bucket/env.tar.gz'")
    found = settings(environment={}, directory=below)
    assert (found.store, found.cluster) == ("./.pik", Cluster(archive="s3://bucket/env.tar.gz"))


@pytest.mark.parametrize(
    ("option", "environment", "store"),
    [
        (None, "elsewhere", "elsewhere"),
        ("here", "elsewhere", "here"),
        ("prod", None, "aws://prod?region=eu-west-1"),
        (None, "prod", "aws://prod?region=eu-west-1"),
        ("old", None, "{}/../old"),
        ("./prod", None, "./prod"),
        (None, "", "{}/raw"),
    ],
)
def test_option_before_environment_before_file(
    below: Path, tmp_path: Path, option: str | None, environment: str | None, store: str
) -> None:
    variables = {} if environment is None else {"PIK_STORE": environment, "PIK_FORMAT": "csv"}
    found = settings(store=option, environment=variables, directory=below)
    assert found.store == store.format(tmp_path)
    assert found.format == ("md" if environment is None else "csv")
    assert settings(format="json", environment=variables, directory=below).format == "json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sotre = 'x'", "there is no key sotre"),
        ("[ingest]\ntimes = 'x'", "there is no key ingest.times"),
        ("[ingest.map]\nsource = 1", "ingest.map.source: expected a text, not 1"),
        ("format = 'xml'", "format: invalid choice 'xml' (choose from table, json, "),
        ("store = 5", "store: expected a text, not 5"),
        ("store = ''", "store is empty"),
        ("ingest = 1", "ingest: expected a table, not 1"),
        ("[cluster]\ncores = 5", "there is no key cluster.cores"),
        ("[cluster]\nparallelism = '8'", "cluster.parallelism: expected a whole number"),
        ("[cluster]\nparallelism = true", "cluster.parallelism: expected a whole number"),
        ("[cluster]\nparallelism = 'many'", "cluster.parallelism: expected a whole number"),
        ("[cluster]\nparallelism = []", "cluster.parallelism: expected a whole number"),
        ("[cluster]\nparallelism = 0", "cluster.parallelism: expected 1 or more, not 0"),
        ("[cluster]\narchive = ''", "cluster.archive is empty"),
        ("[cluster.spark]\nspark.cores = '5'", "cluster.spark.spark: expected a text, not {'cores': '5'}"),
        ("[cluster.spark]\n'spark.cores' = 5", "cluster.spark.spark.cores: expected a text, not 5"),
        ("[cluster.spark]\ncores = '5'", "cluster.spark: 'cores' is not a setting of Spark"),
        ("store =", "is not TOML: line 1: store ="),
    ],
)
def test_a_mistake_in_the_file_names_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pik.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        settings(environment={}, directory=tmp_path)
    assert caught.value.message.startswith(str(path))
    assert said in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pik.toml"
    with pytest.raises(UsageError, match="No such file"):
        read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not TOML: it is not UTF-8"):
        read(path)
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text("format = 'json'\r\n", encoding=encoding)  # as editors of Windows write it
        assert read(path).format == "json"


def test_times_are_shown_in_the_zone_of_the_option_else_of_the_environment_else_of_the_file(below: Path) -> None:
    def zone(option: str | None = None, **environment: str) -> str | None:
        found = settings(display_timezone=option, environment=environment, directory=below).display_zone
        return found and found.name

    assert zone() == zone(PIK_DISPLAY_TIMEZONE="") == "Europe/Berlin"
    assert zone(PIK_DISPLAY_TIMEZONE="Asia/Tokyo") == "Asia/Tokyo"
    assert zone("America/Lima", PIK_DISPLAY_TIMEZONE="Asia/Tokyo") == "America/Lima"
    assert zone("UTC") is zone(PIK_DISPLAY_TIMEZONE="UTC") is None
    for option, name in (("berlin", "--display-timezone"), (None, "PIK_DISPLAY_TIMEZONE")):
        with pytest.raises(UsageError, match=f"^{name}: unknown time zone 'berlin'$") as caught:
            zone(option, PIK_DISPLAY_TIMEZONE="berlin")
        assert caught.value.hint == "perhaps Europe/Berlin"
    path = below.parent / "pik.toml"
    path.write_text("display_timezone = ''")
    with pytest.raises(UsageError, match=f"^{path}: display_timezone: unknown time zone ''$"):
        zone()


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"PIK_FORMAT: invalid choice 'xml' \(choose from table, json, "):
        settings(environment={"PIK_FORMAT": "xml"}, directory=tmp_path)


def test_a_current_directory_that_was_removed_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(NotFound, match="the current directory does not exist any more") as error:
        settings(environment={})
    assert error.value.hint == "cd to another one"
