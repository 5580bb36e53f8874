"""What every Api does: one that calls, and one that calls again where nobody answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pik.errors import Invalid, NotFound, StoreError
from pik.model.batch import Verdict
from pik.model.run import RunRequest, RunState
from pik.model.scenario import COUNTED_DUPLICATES
from pik.ports.remote import Answer, RecordResult, Unanswered
from pik.runtime import retries
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.stores.aws.http_api import BACKOFF, HttpApi, RetryingApi
from tests.support.lambdas.calls import event, silence, wire
from tests.support.lambdas.gateway import KEY, serving

ATTEMPTS = BACKOFF.attempts or 0
DAY = 86_400 * 10**9
START = 20_484 * DAY  # 2026-01-31


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "store"), create=True)
    wire(monkeypatch, store)
    silence(monkeypatch)
    with serving(store) as gateway:
        monkeypatch.setattr(gateway, "process", lambda _run: None)
        yield gateway


@pytest.fixture(params=["called once", "patient"])
def api(request, gateway, no_delays):
    once = HttpApi(gateway.url, Clients(), KEY)
    return once if request.param == "called once" else RetryingApi(once)


def record(**changes) -> bytes:
    return json.dumps(event(**changes)).encode()


def asked(**changes) -> RunRequest:
    return RunRequest(**{"start": START, "end": START + DAY, "entities": ("e",), **changes})


def test_verdicts_come_in_the_order_of_the_records(api) -> None:
    records = [
        record(idempotency_key="k"),
        b'{"events": []}',
        record(idempotency_key="k"),
        record(idempotency_key="k", payload=[1]),
        b"[1]",
        record(event_time="now"),
    ]
    answered = api.ingest(records)
    assert [one.verdict for one in answered.results] == [
        Verdict.ACCEPTED,
        None,
        Verdict.EXACT,
        Verdict.CONFLICT,
        None,
        None,
    ]
    assert answered.results[1] == RecordResult(None, "source is missing", "source")
    assert not answered.repeated
    assert [one.verdict for one in api.ingest(records[:1]).results] == [Verdict.EXACT]
    assert [one.verdict for one in api.ingest(records[1:2]).results] == [None]


def test_verdicts_come_whatever_the_stack_answers_by_default(api, monkeypatch) -> None:
    monkeypatch.setenv("PIK_INGEST_MODE", "async")
    assert [one.verdict for one in api.ingest([record()]).results] == [Verdict.ACCEPTED]


def test_several_threads_may_call(api, gateway) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: api.ingest([record(entity_id=f"e{number % 20}")]), range(60)))
    assert sum(one.results[0].verdict == Verdict.ACCEPTED for one in answers) == 20
    assert gateway.store.index.totals().deliveries == 60


def test_each_key_begins_a_run_and_a_dry_run_none(api, gateway) -> None:
    api.ingest([record()])
    again = asked(reason="why", assumed=(COUNTED_DUPLICATES,))
    runs = [api.replay(again, key=key).run for key in ("one", "two", "one")]
    assert len({run.run_id for run in runs}) == 2
    assert runs[0].run_id == runs[2].run_id
    with pytest.raises(StoreError, match=r"refused the request \(422\)"):
        api.replay(asked(), key="one")
    assert api.replay(asked(), key="one", dry_run=True).run.events_matched == 1
    assert len(list(gateway.store.runs.newest_first())) == 2
    planned, now = runs[0], api.run(runs[0].run_id)
    assert (planned.state, planned.events_matched, planned.buckets, planned.tasks) == (RunState.PLANNED, 1, 1, 1)
    assert (now.state, now.request, now.effective_end) == (RunState.RUNNING, planned.request, planned.effective_end)
    assert now == gateway.store.runs.get(now.run_id)


def test_what_is_wrong_is_reported(api) -> None:
    with pytest.raises(NotFound, match="no events"):
        api.replay(asked(), key="k")
    api.ingest([record()])
    with pytest.raises(Invalid, match="entity_id is empty") as refused:
        api.replay(asked(entities=("",)), key="k")
    assert refused.value.field == "entity_id"
    with pytest.raises(NotFound, match="there is no metric 'none'"):
        api.replay(asked(metrics=("none",)), key="other")
    for run_id in ("01J8Z3A0000000000000000000", "../ingest", "a b?c#d"):
        with pytest.raises(NotFound):
            api.run(run_id)


def test_who_may_not_call_is_denied(api) -> None:
    once: Any = api.api if isinstance(api, RetryingApi) else api
    once.key = "another"
    for call in (lambda: api.ingest([record()]), lambda: api.replay(asked(), key="k"), lambda: api.run("01")):
        with pytest.raises(StoreError, match="denies the request"):
            call()


@pytest.mark.parametrize(("fault", "maybe_done"), [(429, False), (500, True), (503, True), ("dropped", True)])
def test_no_answer_says_whether_it_may_be_done(api, gateway, fault, maybe_done) -> None:
    gateway.faults.extend([fault] * ATTEMPTS)
    with pytest.raises(Unanswered) as unanswered:
        api.ingest([record()])
    assert unanswered.value.maybe_done == maybe_done
    gateway.faults.clear()
    assert api.ingest([record()]).results[0].verdict == (Verdict.EXACT if fault == "dropped" else Verdict.ACCEPTED)


def test_nobody_listening_is_certainly_not_done() -> None:
    with pytest.raises(Unanswered) as unanswered:
        HttpApi("http://127.0.0.1:1", Clients(), KEY).ingest([record()])
    assert not unanswered.value.maybe_done


class _Silent:
    """Answers the last attempt."""

    def __init__(self) -> None:
        self.calls = 0

    def ingest(self, records: Sequence[bytes]) -> Answer:
        self.calls += 1
        if self.calls % ATTEMPTS:
            raise Unanswered("no answer")
        return Answer([RecordResult(Verdict.ACCEPTED)] * len(records))


def test_delays_are_random_parts_of_what_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retries, "sleep", waits.append)
    silent: Any = _Silent()
    api = RetryingApi(silent)
    for _ in range(100):
        assert api.ingest([record()]).repeated
    of_attempt = [waits[number :: ATTEMPTS - 1] for number in range(ATTEMPTS - 1)]
    for number, each in enumerate(of_attempt):
        longest = min(20, 0.2 * 2**number)
        assert 0 <= min(each) < longest / 3
        assert longest * 2 / 3 < max(each) <= longest
