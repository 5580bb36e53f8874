"""The scheduled compaction."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pik import lambdas
from pik.errors import Busy, StoreError
from pik.lambdas import recorder
from pik.ports.compaction import Packed
from pik.ports.store import Store
from tests.support.aws.template import properties, template
from tests.support.lambdas.gateway import CONTEXT

CALL = {"compact": True}


class Steps:
    """A store's compaction, of two steps, and one more for a day, each of which takes 100 of the function's 300
    seconds."""

    def __init__(self) -> None:
        self.done, self.begins_with = 0, nullcontext()
        self.context = SimpleNamespace(
            **vars(CONTEXT), get_remaining_time_in_millis=lambda: 300_000 - 100_000 * self.done
        )

    def compacting(self) -> Any:
        return self.begins_with

    def countable(self, _before: int) -> int:
        return 2 - self.done

    def days(self, first: int | None = None, last: int | None = None) -> Any:
        return iter([7])

    def waiting(self, _day: int, _before: int) -> tuple[int, int]:
        return 5, 0

    def pack(self, _day: int, _before: int) -> Any:
        self.done += 1
        yield Packed(2, 300, 1, ("an object is missing",))

    def sum_up(self, _before: int) -> Any:
        for _ in range(2):
            self.done += 1
            yield 1


@pytest.fixture
def steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    monkeypatch.setattr(lambdas, "store", lambda: replace(store, compaction=made))
    return made


def test_it_stops_before_the_functions_end_and_says_so(steps: Steps, caplog: pytest.LogCaptureFixture) -> None:
    assert recorder.handler(CALL, steps.context) is None
    assert steps.done == 3
    (said,) = caplog.records
    assert (said.levelname, vars(said)["all"]) == ("WARNING", False)
    assert [vars(said)[name] for name in ("batches", "segments", "left")] == [2, 2, 1]


def test_in_a_dry_run_nothing_is_compacted(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRY_RUN", "true")
    recorder.handler(CALL, steps.context)
    assert steps.done == 0


def test_one_that_meets_another_leaves_it_alone_and_one_that_fails_is_called_again(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: StoreError) -> None:
        def compacting() -> Any:
            raise error

        monkeypatch.setattr(steps, "compacting", compacting)

    fail(Busy("another pik process is working on compact"))
    recorder.handler(CALL, steps.context)
    assert vars(caplog.records[-1])["reason"] == "another pik process is working on compact"
    fail(StoreError("DynamoDB keeps throttling the table"))
    with pytest.raises(StoreError):  # which Lambda counts as an error, and calls again
        recorder.handler(CALL, steps.context)


def test_it_is_scheduled_only_if_that_is_chosen() -> None:
    made = [template()["Resources"][name] for name in ("CompactRule", "ScheduleMayCompact")]
    assert [one["Condition"] for one in made] == ["Compacts", "Compacts"]
    (target,) = properties("CompactRule", CompactSchedule="rate(1 hour)")["Targets"]
    assert (target["Arn"], target["Input"]) == ("RecorderFunction.Arn", '{"compact": true}')
    dimensions = properties("RecorderErrorsAlarm")["Dimensions"]
    assert dimensions == [{"Name": "FunctionName", "Value": "RecorderFunction"}]

    def deletes(**parameters: str) -> list[str]:
        (policy,) = properties("RecorderRole", **parameters)["Policies"]
        statements = policy["PolicyDocument"]["Statement"]
        return [each["Resource"] for each in statements if "s3:DeleteObject" in each["Action"]]

    assert deletes() == []
    assert deletes(CompactSchedule="rate(1 hour)") == ["RawBucket.Arn/compact/*", "RawBucket.Arn/index/*"]
