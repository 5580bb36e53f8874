"""Python reads a deployed store as the command line does."""

from __future__ import annotations

import pytest

import pik as api
from tests.api.conftest import line
from tests.api.test_same_numbers import expect_same
from tests.support.aws.emulator import make_stack, publish


def test_a_deployed_store_has_the_same_methods_and_numbers(pik, aws, tmp_path):
    (tmp_path / "events.jsonl").write_text(line(1, "a", "1.5") + line(2, "b", "2") + line(2, "b", "2"))
    url = publish(aws, make_stack(aws))
    with api.open(url, writable=True, actor="ana@example.com") as store:
        assert [(one.accepted, one.exact) for one in store.ingest("events.jsonl")] == [(2, 1)]
        for found, words in ((store.events(), ("events",)), (store.diff(), ("diff", "aggregates"))):
            listed = pik(*words, "--store", url, "--format", "json").json()[
                {"diff": "differences"}.get(words[0], words[0])
            ]
            expect_same(found, listed, without=("payload", "corrections", "not_counted", "causes", "event_ids"))
        assert [one.verdict for one in store.deliveries("b")] == ["accepted", "exact"]
        assert list(store.sql("SELECT count(*) AS n FROM deliveries")) == [{"n": 3}]
        assert store.replay(all=True).events_matched == 2
        assert sum(one.events for one in store.lag().groups) == 2
    with api.open(url) as store, pytest.raises(api.UsageError, match="read only"):
        store.ingest("events.jsonl")
