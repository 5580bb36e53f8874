"""Definitions: read from TOML, checked, applied all or none."""

from __future__ import annotations

import gzip

import pytest

from pik.engine import DuckEngine
from pik.errors import InputError, Invalid, NotFound
from pik.model.metric import EVENT_COUNT, Definition
from pik.usecases.metrics.definition_file import read_definitions
from pik.usecases.metrics.definitions import apply, chosen, pin, pinned, versions

ONE = """
name = "revenue"
value = "sum(CAST(payload->>'$.amount' AS DECIMAL(18, 2)))"
where = "event_type = 'paid'"
bucket = "1h"
"""


def read(tmp_path, text):
    path = tmp_path / "metrics.toml"
    path.write_text(text, encoding="utf-8")
    return read_definitions(path)


def test_a_file_has_one_definition_or_several(tmp_path):
    (one,) = read(tmp_path, ONE)
    assert (one.name, one.bucket, one.where) == ("revenue", "1h", "event_type = 'paid'")
    several = read(tmp_path, f"[[metric]]{ONE}\n[[metric]]\nname = 'n'\nvalue = 'count(*)'")
    assert several == [one, Definition(name="n", value="count(*)")]
    assert read(tmp_path, f"\ufeff{ONE}") == [one]  # as editors of Windows write it
    for data in (ONE.encode("utf-16"), gzip.compress(ONE.encode())):
        (tmp_path / "other").write_bytes(data)
        assert read_definitions(tmp_path / "other") == [one]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "is not TOML"),
        ("", "metrics.toml"),
        ("name = 'x'\nvalue = 'count(*)'\ntypo = 1", "typo"),
        ("other = 1\n[[metric]]\nname = 'x'\nvalue = 'count(*)'", "nothing else, but this has 'other'"),
        ("[metric.x]\nvalue = 'count(*)'", "'metric' is not a list of tables"),
        ("metric = 3", "is not a list of tables"),
        ("[[metric]]\nname = 'X'\nvalue = 'count(*)'", "metric 1"),
        ("[[metric]]\nname = 'x'\nvalue = 'a'\n[[metric]]\nname = 'x'\nvalue = 'b'", "defines x twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, text, said):
    with pytest.raises((Invalid, InputError), match=said):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("name = 'x'\nvalue = “a 'b'”\n\nbucket = '1d'", "line 2: value = “a 'b'”", "value = \"a 'b'\""),
        ('name = \'x\'\nvalue = "a->>"$.v""', 'line 2: value = "a->>"$.v""', "value = 'a->>\"$.v\"'"),
        ("name: x\nvalue: count(*)\n", "line 1: name: x", 'it looks like YAML; in TOML: name = "x"'),
        ('[{"name": "x"}]', 'line 1: [{"name": "x"}]', "it looks like JSON"),
        ('a = [\n1,\n]\nb = """x\ny"""\nb = 1', "line 6: b = 1", "its name was given before"),
        ('a = """x\ny', "it ends inside of a text or a list", "ends so"),
        ("[[metric]\n", "line 1: [[metric]", "[[metric]]"),
        ("name = x", "line 1: name = x", 'name = "x"'),
        ("Obj\x01", "looks like an Avro file", "TOML"),
    ],
)
def test_what_is_not_toml_is_named_by_its_line_and_how_it_is_written(tmp_path, text, line, hint):
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert error.value.message.endswith(line)
    assert hint in error.value.hint


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nothing\.toml"):
        read_definitions(tmp_path / "nothing.toml")


def test_all_are_applied_or_none(store):
    good, bad = Definition(name="good", value="count(*)"), Definition(name="bad", value="sum(lag)")
    with pytest.raises(Invalid):
        apply(store.metrics, DuckEngine(), [good, bad], 1)
    assert [metric.name for metric in store.metrics.latest()] == ["event_count", "total"]


def test_applying_reports_what_changed(store, engine):
    first = Definition(name="m", value="count(*)")
    (new,) = apply(store.metrics, engine, [first], 1)
    assert (new.changed, new.before, new.metric.version) == (True, None, 1)
    (same,) = apply(store.metrics, engine, [first], 2)
    assert (same.changed, same.metric) == (False, new.metric)
    second = Definition(name="m", value="count(*)", bucket="1h")
    (dry,) = apply(store.metrics, engine, [second], 3, dry_run=True)
    assert (dry.changed, dry.before, dry.metric.version) == (True, new.metric, 2)
    assert versions(store.metrics, "m") == [new.metric]
    (changed,) = apply(store.metrics, engine, [second], 3)
    assert changed == dry
    assert versions(store.metrics, "m") == [new.metric, changed.metric]


def test_metrics_are_found_by_name_and_by_version(store):
    assert [metric.name for metric in chosen(store.metrics, ())] == ["event_count", "total"]
    assert chosen(store.metrics, ["event_count"]) == [EVENT_COUNT]
    assert pinned(store.metrics, pin(EVENT_COUNT)) == EVENT_COUNT
    for wrong in (
        lambda: chosen(store.metrics, ["event_count", "no"]),
        lambda: versions(store.metrics, "no"),
        lambda: pinned(store.metrics, "event_count@2"),
    ):
        with pytest.raises(NotFound):
            wrong()
