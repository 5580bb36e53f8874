"""`latest`, `-1` and `-2` in the place of an id: resolved once, said, and printed resolved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pik.model.ids import is_recent
from pik.model.run import PromotionKind
from pik.ports.store import Store
from pik.usecases.recent import Recent, find_recent
from tests.cli.conftest import Result
from tests.support.regular import START, made

Pik = Callable[..., Result]


@pytest.fixture
def shop(pik: Pik, once: Callable[[Callable[[], object]], None]) -> Pik:
    """A store with two batches, two corrections, and two runs of which the first was promoted last."""

    def build() -> None:
        pik("init")
        for number in (1, 2):
            Path(f"{number}.jsonl").write_text(json.dumps(made("web", START + number, START + number, number)))
            pik("ingest", f"{number}.jsonl")
            pik("correct", "--assume", f"shift={number}h,source=web", "--reason", "late", "--yes")
            pik("replay", "--all")
        for run in ("-1", "-2"):
            assert pik("promote", run, "--yes").code in (0, 3)

    once(build)
    return pik


def _ids(pik: Pik, name: str, *words: str) -> list[str]:
    """The ids of a list, newest first."""
    listed = pik(*words, "--format", "json").json()
    [rows] = [value for value in listed.values() if isinstance(value, list)]
    return [row[name] for row in rows]


LISTS = {
    "run": (("runs", "list"), "run_id", ("runs", "show")),
    "batch": (("batches",), "batch_id", ("batches",)),
    "correction": (("corrections", "list"), "correction_id", ("corrections", "show")),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_word_stands_for_the_id_that_the_list_has_there(shop: Pik, kind: str) -> None:
    listed, name, show = LISTS[kind]
    ids = _ids(shop, name, *listed)
    assert len(ids) >= 2
    for word, found in (("latest", ids[0]), ("-1", ids[0]), ("-2", ids[1])):
        result = shop(*show, word, "--format", "json")
        assert result.out == shop(*show, found, "--format", "json").out
        assert result.err == f"{word} is {kind} {found}\n"


def test_writing_commands_show_what_the_word_is(shop: Pik) -> None:
    newest, _ = _ids(shop, "run_id", "runs", "list")
    assert shop("promote", "-1", "--dry-run", "--format", "json").json()["run_id"] == newest
    back = shop("rollback", "latest", "--dry-run", "--format", "json")
    assert back.json()["run_id"] == newest  # the other one was promoted last, and that moved nothing
    assert back.err.startswith(f"latest is promoted run {newest}\n")
    [last, *_] = _ids(shop, "correction_id", "corrections", "list")
    plan = shop("corrections", "revoke", "-1", "--reason", "x", "--dry-run", "--format", "json")
    assert last in plan.out


@pytest.mark.parametrize(
    "line",
    ["diff aggregates --run {}", "diff aggregates --right run:{}", "dlq list --run {}", "events --batch {}"],
)
def test_options_take_words_as_arguments_do(shop: Pik, line: str) -> None:
    kind, name = ("batch", "batch_id") if "--batch" in line else ("run", "run_id")
    found = _ids(shop, name, *LISTS[kind][0])[1]
    with_word, with_id = (shop(*line.format(one).split(), "--format", "json") for one in ("-2", found))
    assert (with_word.code, with_word.out) == (with_id.code, with_id.out)
    assert with_word.err.startswith(f"-2 is {kind} {found}\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("runs show -9", "error: -9: there are only 2 runs\nhint: a run's id, or its beginning: pik runs list\n"),
        (
            "explain event_count e 2026-01-01 --assume without-batch=latest",
            "error: --assume without-batch=latest: ",
        ),
        ("diff aggregates --assume shift=1h,batch=-1", "error: --assume shift=1h,batch=-1: a batch is named by its id"),
        ("republish show latest", "error: latest: there is no republish in this store\n"),
        ("show -1", "error: -1 is not an event id"),
        ("events --limit -1", "error: --limit: -1 is less than 1\n"),
        ("events -1", "error: pik events: unexpected argument '-1'; it takes none\n"),
        ("runs -1", "error: pik runs has no option -1\n"),
    ],
)
def test_where_there_is_nothing_so_recent_or_no_id_is_wanted(shop: Pik, line: str, said: str) -> None:
    result = shop(*line.split())
    assert result.code in (2, 4)
    assert result.err.startswith(said)


def test_only_what_is_newer_is_looked_at() -> None:
    def endless(**more: Any) -> Iterator[SimpleNamespace]:
        for number in range(3):
            yield SimpleNamespace(
                **{name: f"{value}{number}" for name, value in more.items()}, kind=PromotionKind.PROMOTE, moved=1
            )
        pytest.fail("asked for one more")

    store = cast(
        Store,
        SimpleNamespace(
            runs=SimpleNamespace(newest_first=lambda: endless(run_id="r")),
            promotions=SimpleNamespace(newest_first=lambda: endless(run_id="p")),
            index=SimpleNamespace(batches=lambda: islice(endless(batch_id="b"), 3)),
        ),
    )
    assert find_recent(store, Recent.RUN, "-3") == "r2"
    assert find_recent(store, Recent.PROMOTED, "-3") == "p2"
    assert find_recent(store, Recent.BATCH, "LATEST") == "b0"
    assert [is_recent(text) for text in ("latest", "-1", "-0", "-x", "01LATEST", "1")] == [True, True] + [False] * 4


def test_a_promotion_that_moved_nothing_is_not_the_latest() -> None:
    tried = [
        SimpleNamespace(run_id=name, kind=PromotionKind.PROMOTE, moved=moved) for name, moved in (("a", 0), ("b", 2))
    ]
    store = cast(Store, SimpleNamespace(promotions=SimpleNamespace(newest_first=lambda: iter(tried))))
    assert find_recent(store, Recent.PROMOTED, "latest") == "b"


def test_a_slip_in_an_id_is_asked_about_and_never_guessed(shop: Pik) -> None:
    for kind, (listed, name, show) in LISTS.items():
        found = _ids(shop, name, *listed)[1]
        other = "Z" if found[12] != "Z" else "Y"
        for typed in (
            f"{found[:12]}{other}{found[13:]}",
            f"{found[:12]}{found[13:]}",
            f"{found[:12]}{other}{found[12:]}",
        ):
            result = shop(*show, typed)
            assert (result.code, result.out) == (4, "")
            assert result.err.startswith(f"error: {kind} {typed} is not in this store\nhint: did you mean {found}? ")
        unlike = shop(*show, f"{found[:9]}ZZZZZ").err
        assert "did you mean" not in unlike


def test_an_id_of_another_kind_leads_to_the_command_for_it(shop: Pik) -> None:
    run, batch, correction = (_ids(shop, name, *listed)[0] for listed, name, _ in LISTS.values())
    event = _ids(shop, "event_id", "events")[0]
    wrong = {
        ("rollback", batch): ("batch, not of a run", f"pik correct --assume without-batch={batch} "),
        ("rollback", batch.lower()): ("batch, not of a run", f"pik correct --assume without-batch={batch} "),
        ("rollback", correction): ("correction, not of a run", f"pik corrections revoke {correction}"),
        ("batches", run): ("run, not of a batch", f"pik runs show {run}"),
        ("runs", "show", event): ("event, not of a run", f"pik show {event}"),
        ("show", f"{batch}:1"): ("batch, not of an event", f"pik batches {batch}"),
        ("republish", "cancel", run, "--reason", "x"): ("run, not of a republish", f"pik runs cancel {run}"),
        ("dlq", "show", run): ("run, not of a dead letter", f"pik runs show {run}"),
        ("corrections", "revoke", run, "--reason", "x", "--yes"): ("run, not of a correction", f"pik rollback {run}"),
        ("diff", "aggregates", "--assume", f"without-batch={run}"): ("run, not of a batch", f"pik runs show {run}"),
    }
    for words, (said, way) in wrong.items():
        result = shop(*words)
        assert f" is the id of a{'n' * said.startswith('e')} {said}" in result.err, result.err
        assert way in result.err.partition("hint: ")[2], result.err
    assert f"--assume without-batch={batch}" in shop("diff", "aggregates", "--assume", f"without={batch}").err
    beginning = shop("rollback", batch[:25]).err
    assert beginning.startswith(f"error: run {batch[:25]} is not in this store")


def test_a_store_that_is_not_there_is_asked_about(pik: Pik) -> None:
    assert pik("init", "--store", "incident-7").code == 0
    Path("pik.toml").write_text('[stores]\nprod = "/nowhere"\n')
    for typed, meant in (("prd", "prod"), ("incident-17", "incident-7"), ("./incident-1", "incident-7")):
        result = pik("status", "--store", typed)
        assert (result.code, meant in result.err.partition("hint: did you mean --store ")[2]) == (4, True), result.err
    assert "did you mean" not in pik("status", "--store", "quite-another").err
