"""A result answers the same however it is used, holds few rows, and a notebook obeys nothing of what events say."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

import pik as api
from pik.api import results
from pik.api.results import Result
from pik.model.duration import format_duration
from pik.ports.frame import FrameColumn, Kind


def counting(total):
    """A result with so many rows, and the list of how often it was asked, with which limits."""
    asked = []

    def ask(limit):
        asked.append(limit)
        return ((number,) for number in range(total if limit is None else min(limit, total)))

    return asked, lambda limit=None: Result(
        ask, [FrameColumn("n", Kind.INTEGER)], results_frames, limit=limit, cells=lambda row: row
    )


def results_frames():
    from pik.exporters.frames import ArrowFrames

    return ArrowFrames()


def test_a_small_result_is_read_once_and_a_large_one_again(monkeypatch):
    monkeypatch.setattr(results, "KEPT", 30)
    asked, make = counting(30)
    small = make()
    assert asked == []
    assert len(list(small)) == len(list(small)) == small.to_arrow().num_rows == 30
    assert asked == [None]
    asked, make = counting(31)
    large = make()
    assert len(list(large)) == len(list(large)) == 31
    assert asked == [None, None]
    assert large._kept is None


def test_a_limit_says_whether_it_left_rows_out():
    _, make = counting(5)
    assert [make(limit).truncated for limit in (4, 5, 6)] == [True, False, False]
    assert list(make(2)) == [(0,), (1,)]
    assert make(4).to_arrow().num_rows == 4


def test_rows_that_were_not_read_to_their_end_are_not_taken_for_all():
    _, make = counting(50)
    result = make()
    next(iter(result))
    assert "the first 20 rows; more are there" in result._repr_html_()
    assert len(list(result)) == 50


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text.append(data)


DRAWN = ("svg", "g", "path", "text", "line", "rect")
HOSTILE = "<script>alert(1)</script>\"' onmouseover=x &amp; \u202egnp"


def test_nothing_that_events_say_is_obeyed_in_a_notebook(pik, tmp_path):
    event = {
        "source": HOSTILE,
        "event_type": "<img src=x>",
        "entity_id": HOSTILE,
        "event_time": "2026-01-01T00:00:00Z",
        "payload": {"<b>": HOSTILE * 9},
    }
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")
    assert pik("ingest", "events.jsonl").code == 0
    with api.open() as store:
        shown: list[Any] = [
            store.events(),
            store.deliveries(),
            store.diff(),
            store.lag(by="source"),
            store.sql('SELECT source AS "<i>", payload FROM events'),
        ]
        for one in shown:
            parsed = Tags()
            parsed.feed(one._repr_html_())
            outside = [(tag, names) for tag, names in parsed.tags if tag not in DRAWN]
            assert {tag for tag, _ in outside} <= {"table", "thead", "tbody", "tr", "th", "td", "p", "div"}
            assert {name for _, names in outside for name in names} <= {"style", "colspan", "scope"}
            assert not any(name.startswith("on") or name == "href" for _, names in parsed.tags for name in names)
            assert "<script>alert(1)</script>" in "".join(parsed.text)
            assert "\u202e" not in one._repr_html_()
            assert "\\u202e" in one._repr_html_()


def test_charts_are_drawn_where_their_library_is_and_left_out_where_not(shop, monkeypatch):
    with api.open() as store:
        lag, found = store.lag(), store.explain("revenue", "a", "2026-01-01")
        assert lag.all is not None
        assert "event_ids" not in store.diff()._repr_html_()  # a column without any value
        assert f">{format_duration(lag.all.min_ns)}<" in lag._repr_html_()
        assert "<svg" in lag._repr_html_()
        assert "<svg" in found._repr_html_()
        monkeypatch.delitem(sys.modules, "pik.reports.charts")
        monkeypatch.setitem(sys.modules, "altair", None)
        assert "<svg" not in lag._repr_html_()
        assert "<table" in found._repr_html_()
        assert "<svg" not in found._repr_html_()


def test_an_empty_result_says_so(shop):
    with api.open() as store:
        assert "no events" in store.events("nobody")._repr_html_()
        assert store.lag("nobody").all is None
        assert "events" in store.lag("nobody")._repr_html_()
        assert repr(store.events()).startswith("<events: event_id, event_time,")


def test_errors_come_with_a_hint_and_are_of_the_exported_kinds(shop):
    wrong: Any = "conflicts"
    with api.open() as store:
        for ask, kind, message in (
            (lambda: store.diff(metric="revenu"), api.NotFound, "revenu"),
            (lambda: store.diff(tolerance="5 %"), api.UsageError, "invalid tolerance"),
            (lambda: list(store.diff("nobody")), api.NothingSelected, "nobody"),
            (lambda: store.sql("DROP TABLE events"), api.UsageError, "SQL"),
            (lambda: store.sql("  ;"), api.UsageError, "empty"),
            (lambda: store.events(batch="01ZZ"), api.NotFound, "01ZZ"),
            (lambda: store.deliveries(class_=wrong), api.UsageError, "class_"),
            (lambda: store.lag(by="colour"), api.UsageError, "colour"),
            (lambda: list(store.events(where="payload->>'x")), api.UsageError, "where"),
        ):
            with pytest.raises(kind, match=message) as raised:
                ask()
            assert raised.value.hint, message
            assert raised.value._render_traceback_()[1] == f"hint: {raised.value.hint}"
