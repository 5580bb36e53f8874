"""`pik bundle --redact`: evidence that can leave the company."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pik.runtime import SILENT
from pik.usecases.bundle.archive import Archive
from pik.usecases.bundle.left_in_clear import places_of, texts_in
from pik.usecases.bundle.redaction import read_redaction

pytestmark = pytest.mark.xdist_group("bundle")  # whose store is made once for each process

WINDOW = ("--from", "2026-01-01", "--to", "2026-01-03")
MAKE = ("bundle", "--incident", "INC-1", *WINDOW, "--redact-key", "redact.key")
METRICS = """
[[metric]]
name = "paid"
where = "event_type = 'paid'"
value = "sum(CAST(payload->>'$.amount' AS DECIMAL(9, 2)))"
[[metric]]
name = "of_one_customer"
where = "payload->>'$.email' = 'S3cr3t@example.com'"
value = "count(*)"
[[metric]]
name = "customers"
value = "count(DISTINCT payload->'$.who')"
[[metric]]
name = "but_one"
where = "ENTITY_ID <> 'S3cr3t-d'"
value = "count(*)"
"""
SECRET = "S3cr3t"


def event(day: int, entity: str, **more: Any) -> str:
    fields = {"source": "s", "event_type": "paid", "entity_id": entity, "event_time": f"2026-01-0{day}T00:00:00Z"}
    payload = {"amount": 7 + day, "email": f"{SECRET}@example.com", "who": {"email": [f"{SECRET} {entity}"]}}
    return json.dumps({**fields, "payload": payload, **more}) + "\n"


@pytest.fixture
def store(pik: Any, tmp_path: Path, once: Any) -> Path:
    """A store in which the secret is wherever an event may have it; late, duplicate and conflicting deliveries."""

    def build() -> None:
        (tmp_path / "redact.key").write_bytes(bytes(range(32)))
        first = [event(1, f"{SECRET}-a"), event(1, "b"), event(2, "b", unknown={SECRET: SECRET})]
        keyed = event(2, "b", idempotency_key=f"{SECRET} key")
        (tmp_path / f"{SECRET}.jsonl").write_text("".join([*first, first[0], keyed, f"not an event: {SECRET}\n"]))
        (tmp_path / "late.jsonl").write_text(event(2, f"{SECRET}-c") + keyed.replace("9", "10"))
        foreign = {"at": "2026-01-02T05:00:00Z", "id": "b", "email": SECRET, "left out": SECRET}
        (tmp_path / "foreign.jsonl").write_text(json.dumps(foreign) + "\n")
        (tmp_path / "metrics.toml").write_text(METRICS)
        assert pik("ingest", f"{SECRET}.jsonl").code == 3
        maps = {
            "source": "'f'",
            "event_type": "'t'",
            "entity_id": "id",
            "event_time": "at",
            "payload": "{email: email}",
        }
        assert pik("ingest", "foreign.jsonl", *(w for k, v in maps.items() for w in ("--map", f"{k}={v}"))).code == 0
        assert pik("metrics", "apply", "metrics.toml").code == 0
        assert pik("replay", "--all", "--promote", "--yes", "--reason", "first").code == 0
        assert pik("ingest", "late.jsonl").code == 0

    once(build)
    return tmp_path


def contents(bundle: Path) -> bytes:
    """Everything that is in a bundle, decompressed as often as it is compressed."""
    text = b""
    for name, content in Archive(bundle).members():
        data = b"".join(content)
        if name.endswith(".zst"):
            data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
        text += name.encode() + b"\n" + data
    return text


def made(pik: Any, name: str, *paths: str) -> Any:
    done = pik(*MAKE, *(word for path in paths for word in ("--redact", path)), "--out", name, "--format", "json")
    assert done.code == 0, done.err
    return done.json()


@pytest.fixture
def without_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not depend on what is computed from a bundle, which takes most of the time."""
    monkeypatch.setattr("pik.cli.recorder.document_commands", lambda _: {})
    monkeypatch.setattr("pik.cli.recorder.write_page", lambda *_: [])


def test_no_redacted_value_is_anywhere_in_it(pik, store):
    done = made(pik, "r.tar.zst", "payload.email", "payload.who.email", "entity_id")
    assert done["not_recomputable"] == ["but_one", "of_one_customer"]
    assert SECRET.encode() not in contents(store / "r.tar.zst")
    assert SECRET.encode() not in (store / "r.tar.zst").read_bytes()
    hidden = pik("events", *WINDOW, "--store", "r.tar.zst", "--format", "json").json()["events"]
    assert len({one["entity_id"] for one in hidden}) == 3
    assert all(one["entity_id"].startswith("redacted:") for one in hidden)


def test_what_can_be_recomputed_is_as_in_the_store(pik, store):
    made(pik, "r.tar.zst", "payload.email", "payload.who.email")
    assert pik("verify", "r.tar.zst").code == 0
    whole = pik("verify", "--store", "r.tar.zst", "--format", "json")
    assert (whole.code, whole.json()["proven_aggregates"]) == (0, whole.json()["aggregates"])
    for metric in ("paid", "customers", "event_count"):
        line = ("diff", "aggregates", *WINDOW, "--metric", metric, "--explain", "--format", "json")
        of_store, of_bundle = pik(*line), pik(*line, "--store", "r.tar.zst")
        assert of_store.code == of_bundle.code == 1
        assert of_store.json()["differences"] == of_bundle.json()["differences"]
        assert all(one["proven"] for one in of_store.json()["differences"])
    kinds = [
        [one["kind"] for one in pik("duplicates", *WINDOW, *where, "--format", "json").json()["duplicates"]]
        for where in ((), ("--store", "r.tar.zst"))
    ]
    assert sorted(kinds[0]) == sorted(kinds[1]) == ["conflict", "exact"]


def test_a_metric_that_reads_a_redacted_value_is_left_out_with_its_values(pik, store, without_documents):
    assert made(pik, "r.tar.zst", "payload.amount")["not_recomputable"] == ["paid"]
    assert b'"paid"' not in b"\n".join(
        line for line in contents(store / "r.tar.zst").split(b"\n") if b"definition" in line
    )
    assert pik("aggregates", "--metric", "paid", *WINDOW, "--store", "r.tar.zst").code != 0
    assert made(pik, "s.tar.zst", "payload")["not_recomputable"] == ["customers", "of_one_customer", "paid"]


def test_a_path_without_any_value_is_reported(pik, store, without_documents):
    paths = ("payload.emial", "payload.who.email", "payload.who.email.x", "entity_id")
    done = pik(*MAKE, *(word for path in paths for word in ("--redact", path)), "--out", "r.tar.zst")
    assert done.code == 3
    assert [path for path in paths if f"--redact {path}:" in done.err] == ["payload.emial"]


def test_a_redacted_value_that_the_delivery_holds_elsewhere_is_reported(pik, store, without_documents):
    done = pik(*MAKE, "--redact", "entity_id", "--out", "r.tar.zst")
    said = "what is redacted stays in clear in 3 deliveries in another place: payload.who.email ("
    assert (done.code, said in done.err, done.err.count("stays in clear")) == (3, True, 1), done.err
    assert pik(*MAKE, "--redact", "entity_id", "--redact", "payload.who", "--out", "s.tar.zst").code == 0


def test_where_a_redacted_value_is_looked_for():
    texts = set(texts_in(b'{"a":["Ann O\\"x","abc"],"n":123456,"b":true,"c":1}'))
    assert texts == {'Ann O"x', "abc", "123456"}
    payload = (
        b'{"t":["of Ann O\\"x"],"u":"xabcx","v":"abc","w":{"k abc":1,"123456":{"abc":2}},"x":123456,"y":"redacted:abc"}'
    )
    expected = {"payload.t", "payload.v", "payload.x", "a name of a field of payload.w", "source"}
    assert places_of(texts, payload, "redacted:", source="abc", event_type="t") == expected


def test_the_key_tells_which_event_is_which(pik, store, without_documents):
    made(pik, "r.tar.zst", "payload.email")
    made(pik, "again.tar.zst", "payload.email")
    assert (store / "r.tar.zst").read_bytes() == (store / "again.tar.zst").read_bytes()
    hides = read_redaction(["payload.email"], store / "redact.key")
    assert hides is not None
    listed = [
        json.loads(line)
        for name, content in Archive(store / "r.tar.zst").members()
        for line in (b"".join(content).splitlines() if name.endswith("rows/redacted.jsonl") else ())
    ]
    known = {one["original"]: one["event_id"] for one in listed}
    of_store = [one["event_id"] for one in pik("events", *WINDOW, "--format", "json").json()["events"]]
    of_bundle = {
        one["event_id"] for one in pik("events", *WINDOW, "--store", "r.tar.zst", "--format", "json").json()["events"]
    }
    assert {known[hides.digest("event", one.encode())] for one in of_store} == of_bundle
    assert not of_bundle & set(of_store)


def test_what_cannot_be_redacted_is_refused(pik, store):
    assert pik("correct", "--assume", "without=selected,entity=b", "--reason", "x", "--yes").code == 0
    refused = pik(*MAKE, "--redact", "payload.email", "--out", "r.tar.zst")
    assert (refused.code, "the window has 1 correction" in refused.err) == (4, True)
    assert not (store / "r.tar.zst").exists()
    refused = pik("bundle", "--incident", "x", *WINDOW, "--redact", "payload.email", "--out", "r.tar.zst")
    assert (refused.code, "--redact-key is missing" in refused.err) == (2, True)


def test_damage_of_a_redacted_bundle_is_found(pik, store, without_documents):
    made(pik, "r.tar.zst", "payload.email")
    data = bytearray((store / "r.tar.zst").read_bytes())
    data[len(data) // 2] ^= 1
    (store / "r.tar.zst").write_bytes(data)
    assert len(list(Archive(store / "r.tar.zst").damaged(SILENT))) == 1
