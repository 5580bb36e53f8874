"""One story told to any store, command by command: what the two homes of pik must answer alike (promise 10)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.conftest import Result
from tests.cli.test_webhooks import MAP, REPOSITORY, WEBHOOKS

WINDOW = ("--from", "2019-01-01", "--to", "2020-01-01")


def _order(day: int, **fields: Any) -> dict[str, Any]:
    time = f"2019-05-{day}T00:00:00Z"
    return {"source": "shop", "event_type": "order", "entity_id": "é", "event_time": time, "payload": {}, **fields}


LATE = [
    *(_order(15, entity_id=REPOSITORY, payload={"late": number}) for number in (1, 2, 2, 3)),
    _order(15, event_time="2019-05-15"),  # a date is no instant: rejected
    _order(15, idempotency_key="k", payload={"total": 12.50}),
    _order(16, idempotency_key="k", payload={"total": 13.50}),
]

METRIC = """
name = "total"
value = "sum(CAST(payload ->> '$.total' AS DECIMAL(18, 2)))"
where = "event_type = 'order'"
bucket = "1h"
"""


@dataclass(frozen=True)
class Step:
    """A command line, how it ended, and its JSON without what two stores cannot have in common."""

    command: str
    code: int
    answer: Any


def tell(pik: Callable[..., Result], store: str, directory: Path) -> Iterator[Step]:
    """Everything from the first file to the proof, on the store of this URL."""
    names = _Names({shlex.quote(store): "STORE", store: "STORE", str(directory): "here"})
    directory.mkdir()
    late, metric = directory / "late.jsonl", directory / "total.toml"
    late.write_text("".join(json.dumps(event) + "\n" for event in LATE), encoding="utf-8")
    metric.write_text(METRIC, encoding="utf-8")

    def step(*arguments: object) -> Step:
        result = pik(*arguments, "--store", store, "--format", "json")
        assert result.out, f"{arguments}: {result.err}"
        answer = names.without(json.loads(result.out, parse_float=str))
        return Step(names.without(" ".join(map(str, arguments))), result.code, answer)

    if "://" not in store:
        assert pik("init", "--store", store).code == 0
    yield step("ingest", WEBHOOKS, *MAP, "--time-format", "auto")
    yield step("batches")
    yield step("duplicates")
    yield step("metrics", "apply", metric)
    yield step("diff", "aggregates", *WINDOW)
    yield step("replay", "--all", *WINDOW, "--reason", "first numbers", "--promote", "--yes")
    yield step("ingest", late)
    yield step("ingest", late)
    yield step("duplicates", "--type", "order")
    yield step("diff", "aggregates", *WINDOW, "--stats")
    first = pik("events", "--entity", "é", "--store", store, "--format", "json").json()["events"][0]["event_id"]
    yield step("events", "--entity", REPOSITORY, *WINDOW)
    yield step("show", first)
    yield step("show", first[:9])
    replayed = step("replay", "--entity", "é", "--entity", REPOSITORY, *WINDOW, "--reason", "late events")
    yield replayed
    run = names.original(replayed.answer["run_id"])
    yield step("diff", "aggregates", "--run", run)
    yield step("runs", "show", run)
    yield step("promote", run, "--yes", "--reason", "checked")
    yield step("diff", "aggregates", *WINDOW)
    yield step("rollback", run, "--yes", "--reason", "too early")
    yield step("promote", run, "--yes", "--reason", "now")
    yield step("aggregates", "--entity", "é", "--history")
    out = f"without=selected,type=order,entity={REPOSITORY}"
    yield (corrected := step("correct", "--assume", "shift=1d,entity=é", "--assume", out, "--reason", "INC-1", "--yes"))
    moved = names.original(corrected.answer["corrections"][0]["correction_id"])
    yield step("events", "--type", "order")
    yield step("sql", "SELECT event_id, event_time, received_event_time, correction FROM events ORDER BY 1", *WINDOW)
    yield step("duplicates", "--type", "order", "--as-received")
    yield step("replay", "--all", *WINDOW, "--promote", "--yes")
    yield step("corrections", "revoke", moved, "--reason", "INC-2", "--yes")
    yield step("diff", "aggregates", *WINDOW)
    yield step("corrections", "list")
    yield step("aggregates", *WINDOW)
    yield step("runs", "list")
    yield step("dlq", "list")
    yield step("export", "--out", directory / "events.parquet", *WINDOW)
    yield step("batches", "--rejects", _newest(pik, store))
    yield step("status")
    yield step("verify", "--full")


def _newest(pik: Callable[..., Result], store: str) -> str:
    found: str = pik("batches", "--store", store, "--format", "json").json()["batches"][-1]["batch_id"]
    return found


_ULID = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")
_NOW = re.compile(r"\b20[2-9]\d-\d\d-\d\dT[0-9:.]+Z")
_OWN = {
    *("actor", "store", "path", "out", "files", "digest", "sha256", "size", "bytes", "raw_bytes", "segments"),
    *("seconds", "records_per_second", "rate", "known_until", "lag", "lag_ms", "p50", "p95", "p99"),
}
"""What each store has of its own."""


class _Names:
    """Names for ids, in the order in which they appear, and for these texts."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._given: dict[str, str] = {}

    def without(self, value: Any) -> Any:
        """JSON with names for ids, without times of now and what depends on them."""
        if isinstance(value, dict):
            return {name: self.without(one) for name, one in value.items() if name not in _OWN}
        if isinstance(value, list):
            return [self.without(one) for one in value]
        if isinstance(value, str):
            for text, name in self._texts.items():
                value = value.replace(text, name)
            return _NOW.sub("now", _ULID.sub(self._name, value))
        return value

    def _name(self, found: re.Match[str]) -> str:
        return self._given.setdefault(found[0], f"id {len(self._given)}")

    def original(self, name: str) -> str:
        """The id that was given this name."""
        return next(one for one, given in self._given.items() if given == name)
