"""Redaction: nothing of a redacted value is left, and what is left is an event like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.errors import PikError
from pik.model.delivery import raw_line, read_delivery, stamp
from pik.model.event import read_event
from pik.usecases.bundle.redaction import Redaction, read_redaction

SECRET = "S3cr3t"
KEY = b"0123456789abcdef"
NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=3)
VALUES = st.recursive(
    LEAVES, lambda some: st.lists(some, max_size=3) | st.dictionaries(NAMES, some, max_size=3), max_leaves=8
)
PATHS = st.sampled_from(["a", "a.b", "b.c.a", "c[].a"])


def redaction(tmp_path_factory: pytest.TempPathFactory, *paths: str) -> Redaction:
    file = tmp_path_factory.getbasetemp() / "redact.key"
    file.write_bytes(KEY)
    made = read_redaction(paths, file)
    assert made is not None
    return made


def written(draw: Any, value: Any) -> str:
    """JSON of a value as a hostile producer may write it: escapes, white space, repeated keys."""
    if isinstance(value, dict):
        members = [(name, one) for name, one in value.items()]
        if members and draw.draw(st.booleans()):
            members.insert(0, (members[0][0], f"{SECRET} of a repeated key"))
        space = draw.draw(st.sampled_from(["", " ", "\t "]))
        return "{" + ",".join(f"{_text(draw, name)}{space}:{written(draw, one)}" for name, one in members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(draw, one) for one in value) + "]"
    return _text(draw, value) if isinstance(value, str) else json.dumps(value)


def _text(draw: Any, text: str) -> str:
    if draw.draw(st.booleans()):
        return json.dumps(text)
    return '"' + "".join(f"\\u{ord(one):04x}" if ord(one) < 0x10000 else one for one in text) + '"'


def with_secrets(value: Any, path: tuple[str, ...]) -> Any:
    """The value with a secret wherever the path leads, in each element of a list, as whatever it is there."""
    if isinstance(value, list) and path:
        return [with_secrets(one, path) for one in value]
    if not path:
        return {"deep": [SECRET, {SECRET: value}]} if isinstance(value, (dict, list)) else SECRET
    if isinstance(value, dict):
        return {**value, path[0]: with_secrets(value.get(path[0]), path[1:])}
    return value


def line_of(payload: str, **more: Any) -> bytes:
    head = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-01T00:00:00Z", **more}
    event = read_event((json.dumps(head)[:-1] + f', "payload": {payload}}}').encode())
    return raw_line(event, 7, stamp(1, "0" * 26), f'{{"was":"{SECRET}"}}'.encode())


def everything(value: Any) -> str:
    return json.dumps(json.loads(value), ensure_ascii=False)


@given(st.data(), st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), PATHS)
def test_nothing_of_a_redacted_value_is_left(tmp_path_factory, data, payload, path):
    hides = redaction(tmp_path_factory, f"payload.{path}")
    text = written(data, with_secrets(payload, tuple(path.replace("[]", "").split("."))))
    more = {"idempotency_key": f"key {SECRET}", "unknown": {"x": SECRET}} if data.draw(st.booleans()) else {}
    _, made, _ = hides.line(line_of(text, **more))
    assert SECRET.encode() not in made
    assert SECRET not in everything(made)


@given(st.data(), VALUES, VALUES)
def test_what_is_left_is_an_event_whose_identity_is_that_of_its_content(tmp_path_factory, data, one, other):
    hides = redaction(tmp_path_factory, "payload.a", "entity_id")
    before = [line_of(written(data, {"a": value, "b": 1})) for value in (one, other)]
    after = [hides.line(line)[1] for line in before]
    for line in after:
        delivery = read_delivery(line)
        sent = {name: getattr(delivery, name) for name in ("source", "event_type", "entity_id", "event_time")}
        again = read_event(json.dumps(sent)[:-1].encode() + b',"payload":' + bytes(delivery.payload) + b"}")
        assert again.event_id.hex() == delivery.event_id == delivery.content_hash
        assert delivery.entity_id.startswith("redacted:")
    same_before, same_after = (len({read_delivery(line).event_id for line in pair}) for pair in (before, after))
    assert same_before == same_after


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("amount",), "not the path to a value of the payload"),
        (("payload.a[0]",), "not the path to a value of the payload"),
        (("length(payload)",), "not the path to a value of the payload"),
        (("payload.",), "--redact payload."),
        (("source",), "not the path to a value of the payload"),
    ],
)
def test_paths_that_lead_to_no_value_are_refused(tmp_path_factory, paths, said):
    with pytest.raises(PikError, match="--redact") as refused:
        redaction(tmp_path_factory, *paths)
    assert said in refused.value.message


def test_a_path_holds_the_longer_ones(tmp_path_factory):
    for paths in (("payload.a", "payload.a.b"), ("payload.a.b", "payload.a")):
        _, made, _ = redaction(tmp_path_factory, *paths).line(line_of('{"a":{"b":1},"c":2}'))
        payload = json.loads(made)["payload"]
        assert (payload["a"].startswith("redacted:"), payload["c"]) == (True, 2)


def test_a_key_is_needed_and_matters(tmp_path: Path) -> None:
    made = []
    for key in (b"a" * 16, b"b" * 16):
        (tmp_path / "key").write_bytes(key)
        hides = read_redaction(["payload"], tmp_path / "key")
        assert hides is not None
        made.append(hides.line(line_of('{"a":1}'))[1])
    assert made[0] != made[1]
    (tmp_path / "key").write_bytes(b"a" * 15)
    for paths, file in ((["payload"], None), (["payload"], tmp_path / "key"), ([], tmp_path / "key")):
        with pytest.raises(PikError, match="redact"):
            read_redaction(paths, file)
