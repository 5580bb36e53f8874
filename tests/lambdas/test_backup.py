"""The scheduled backup: the state of a stack, in its own bucket."""

from __future__ import annotations

import re

import pytest

from pik.errors import Busy
from pik.lambdas import processor, replay
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.backup import restore
from tests.lambdas.test_handlers import given_up
from tests.support.aws.template import properties, template
from tests.support.lambdas.calls import asked, messages, post, some_days
from tests.support.lambdas.gateway import CONTEXT

CALL = {"backup": True}


def test_the_state_is_restored_from_it(store, tmp_path) -> None:
    some_days(store)
    run_id = post(replay.handler, asked())[1]["run_id"]
    processor.handler({"Records": list(messages(store, run_id))}, CONTEXT)
    assert replay.handler(CALL, CONTEXT) is None
    (kept,) = store.raw.objects("backups/")
    assert re.fullmatch(r"backups/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\.backup", kept.key)
    (tmp_path / "state.backup").write_bytes(store.raw.read(kept.key))
    other = open_store(str(tmp_path / "other"), create=True)
    restore(other, tmp_path / "state.backup", SILENT)
    assert other.runs.get(run_id) == store.runs.get(run_id)


def test_in_a_dry_run_there_is_none(store, monkeypatch) -> None:
    monkeypatch.setenv("DRY_RUN", "true")
    replay.handler(CALL, CONTEXT)
    assert list(store.raw.objects("backups/")) == []


def test_one_that_fails_is_tried_again_and_then_logged(store, monkeypatch, capsys) -> None:
    def fail(*_: object) -> None:
        raise Busy("runs are being promoted")

    monkeypatch.setattr("pik.lambdas.backup.backup", fail)
    with pytest.raises(Busy):  # so that Lambda calls again
        replay.handler(CALL, CONTEXT)
    assert given_up(store, CALL, {"errorType": "Busy", "errorMessage": "runs are being promoted"})


def test_it_is_scheduled_only_if_that_is_chosen_and_may_create_nothing_else() -> None:
    made = [template()["Resources"][name] for name in ("BackupRule", "ScheduleMayBackUp")]
    assert [one["Condition"] for one in made] == ["BacksUp", "BacksUp"]
    (target,) = properties("BackupRule", BackupSchedule="rate(1 day)")["Targets"]
    assert (target["Arn"], target["Input"]) == ("ReplayFunction.Arn", '{"backup": true}')

    def writes(**parameters: str) -> list[str]:
        (policy,) = properties("ReplayRole", **parameters)["Policies"]
        statements = policy["PolicyDocument"]["Statement"]
        return [each["Resource"] for each in statements if each["Action"] == "s3:PutObject"]

    assert writes() == []
    assert writes(BackupSchedule="rate(1 day)") == ["RawBucket.Arn/backups/*"]
