"""docs/openapi.yaml says what the handlers do: fuzzed with schemathesis, and held against template.yaml."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from jsonschema_rs import Draft4Validator, validator_for
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pik import lambdas
from pik.errors import NotHeld, StoreError
from pik.lambdas import ingest
from pik.model.event import FIELDS, REQUIRED
from pik.stores import open_store
from tests.support.aws.template import properties
from tests.support.docs.console import REPOSITORY
from tests.support.lambdas.calls import Buffered, asked, event, post, wire
from tests.support.lambdas.gateway import KEY, REQUEST, Gateway, serving

PAGE = REPOSITORY / "docs" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(PAGE.read_text(encoding="utf-8"))
CHECKS = [
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]

NDJSON = "application/x-ndjson"
schemathesis.openapi.media_type(
    NDJSON,
    st.lists(
        st.one_of(
            st.sampled_from([json.dumps(event(entity_id=f"e{number}")).encode() for number in range(3)]),
            st.binary(max_size=20),
            st.sampled_from([b"{}", b"[", b'{"events": []}', b"null"]),
        )
    ).map(b"\n".join),
)


@schemathesis.serializer(NDJSON)
def _as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


schema = schemathesis.openapi.from_path(PAGE)
FUZZED = settings(
    max_examples=50,
    stateful_step_count=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


FOUND: list[Any] = list(schema.get_all_operations())
OPERATIONS = [one.ok() for one in FOUND]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The handlers over a store with an event."""
    store = open_store(str(tmp_path_factory.mktemp("fuzzed") / "store"), create=True)
    with pytest.MonkeyPatch.context() as patch, serving(store) as gateway:
        wire(patch, store)
        patch.setattr(lambdas, "call_again", lambda _event: None)
        patch.setattr(lambdas, "buffer", Buffered)
        assert post(ingest.handler, event())[0] == 200
        yield gateway


@schema.parametrize()
@FUZZED
def test_whatever_comes_is_answered_as_documented(case, gateway: Gateway) -> None:
    case.call_and_validate(base_url=gateway.url, headers={"x-api-key": KEY}, checks=CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.label)
def test_whatever_comes_is_answered_as_documented_and_much_does(operation: Any, gateway: Gateway) -> None:
    """By chance alone: another `schema.parametrize` would think up the cases of the test above when it is collected."""

    @given(case=operation.as_strategy())
    @settings(FUZZED, max_examples=1000, derandomize=False)
    def check(case):
        case.call_and_validate(base_url=gateway.url, headers={"x-api-key": KEY}, checks=CHECKS)

    check()


def test_runs_that_were_made_are_answered_as_documented(gateway: Gateway) -> None:
    answered: Counter[str] = Counter()

    class Calls(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, _case):
            return {"base_url": gateway.url, "headers": {"x-api-key": KEY}}

        def before_call(self, case):
            """Ask for what is stored: chance does not select it, and what selects nothing begins no run."""
            if case.path == "/replay" and isinstance(case.body, dict):
                case.body |= {key: asked()[key] for key in ("entity_id", "start_time", "end_time")}

        def after_call(self, response, case):
            answered[f"{case.method} {response.status_code}"] += 1

        def validate_response(self, response, case, **_):
            case.validate_response(response, checks=CHECKS)

    run_state_machine_as_test(Calls, settings=settings(FUZZED, max_examples=40))
    assert answered["GET 200"] > 0, answered


def test_what_is_documented_and_not_fuzzed_is_so(gateway: Gateway, monkeypatch) -> None:
    """Answers that chance does not find: each is valid by the document, and there are all statuses of the handlers."""
    seen = set()

    def check(path: str, method: str, body: Any, expected: int, headers: Any = None) -> Any:
        url = gateway.url + path
        status, answer = send(method, url, body, {"x-api-key": KEY, **(headers or {})})
        template = "/replay/{run_id}" if method == "GET" else path.partition("?")[0]
        assert status == expected, answer
        assert problems(_response(template, method, status), answer) == []
        assert status < 400 or answer["request_id"] == REQUEST
        seen.add((template, status))
        return answer

    lines = b"\n".join(json.dumps(event(entity_id=f"e{number}")).encode() for number in range(3))
    check("/ingest", "POST", lines, 200, {"Content-Type": NDJSON})
    check("/ingest", "POST", json.dumps(event(idempotency_key="k")).encode(), 200)
    assert check("/ingest", "POST", json.dumps(event(idempotency_key="k", payload=[1])).encode(), 200)["conflict"]
    check("/ingest", "POST", b'[{"a": 1}, 5]', 400)
    check("/ingest", "POST", b" " * (5 << 20), 413)
    check("/ingest", "POST", b" " * (11 << 20), 413)
    check("/ingest?mode=async", "POST", b"anything", 202, {"Content-Type": NDJSON})
    check("/ingest?mode=async", "POST", b" ", 400, {"Content-Type": NDJSON})
    check("/ingest?mode=later", "POST", b"{}", 400)
    check("/ingest", "POST", b"{}", 403, {"x-api-key": "wrong"})
    run = check("/replay", "POST", json.dumps(asked()).encode(), 200)["run_id"]
    assert check(f"/replay/{run}", "GET", None, 200)["state"] == "COMPLETED"
    check("/replay/none", "GET", None, 404)
    check("/replay", "POST", json.dumps(asked()).encode(), 200)
    assert run[:9] not in check(f"/replay/{run[0]}", "GET", None, 409)["error"]
    check("/replay", "POST", json.dumps(asked(metrics=["none"])).encode(), 404)
    check("/replay", "POST", json.dumps(asked(start_time="1900-01-01")).encode(), 202)
    assert check("/replay", "POST", json.dumps(asked(dry_run=True)).encode(), 200)["run_id"] is None
    with_key = {"Idempotency-Key": '"a-key"'}
    again = [check("/replay", "POST", json.dumps(asked()).encode(), 200, with_key)["run_id"] for _ in range(2)]
    assert again[0] == again[1]
    check("/replay", "POST", json.dumps(asked(reason="other")).encode(), 422, with_key)
    monkeypatch.setattr(lambdas, "store", _fail(NotHeld("raw has expired")))
    check("/replay", "POST", json.dumps(asked()).encode(), 410)
    monkeypatch.setattr(lambdas, "store", _fail(StoreError("the disk is full")))
    check("/ingest", "POST", b"{}", 503)
    check("/replay", "POST", json.dumps(asked()).encode(), 503)
    check("/replay/none", "GET", None, 503)
    monkeypatch.setattr(lambdas, "store", _fail(ZeroDivisionError()))
    check("/ingest", "POST", b"{}", 500)
    check("/replay", "POST", json.dumps(asked()).encode(), 500)
    check("/replay/none", "GET", None, 500)
    monkeypatch.setenv("DRY_RUN", "true")
    monkeypatch.setattr(lambdas, "store", lambda: gateway.store)
    assert check("/ingest", "POST", json.dumps([event(), {}]).encode(), 200)["results"][0]["status"] == "VALID"
    of_gateway = {401, 429, 502, 504}
    documented = {(path, int(status)) for path, _, one in operations() for status in one["responses"]}
    assert documented - seen - {(path, status) for path, _ in documented for status in of_gateway} == {
        ("/replay", 400),  # fuzzed
        *((path, 403) for path in ("/replay", "/replay/{run_id}")),
        ("/replay", 413),
    }


def _fail(error: Exception) -> Any:
    def store() -> None:
        raise error

    return store


def send(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any]:
    """Status and JSON of a request."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def operations() -> list[tuple[str, str, Any]]:
    return [(path, method, one) for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()]


def _response(path: str, method: str, status: int) -> Any:
    response = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    return response["content"]["application/json"]["schema"]


def problems(part: Any, value: Any) -> list[str]:
    """Why the value is not as this part of the document says."""
    return [error.message for error in validator_for(_json_schema(part)).iter_errors(value)]


def _json_schema(part: Any) -> Any:
    """A part of the document as a JSON Schema by itself."""
    return {**part, "components": {"schemas": DOCUMENT["components"]["schemas"]}}


def _examples() -> Iterator[tuple[str, Any, Any]]:
    """Every example of a body, by its place, with its schema."""
    for path, method, one in operations():
        for status, response in one["responses"].items():
            if "content" in response:
                yield from _of_body(f"{method} {path} {status}", response["content"])
        if "requestBody" in one:
            yield from _of_body(f"{method} {path}", one["requestBody"]["content"])


def _of_body(place: str, content: Any) -> Iterator[tuple[str, Any, Any]]:
    body = content["application/json"]
    for name, example in body.get("examples", {}).items():
        yield f"{place} {name}", example["value"], body["schema"]
    if "example" in body:
        yield place, body["example"], body["schema"]


@pytest.mark.parametrize(("value", "part"), [pytest.param(*rest, id=place) for place, *rest in _examples()])
def test_examples_are_what_their_schemas_say(value, part) -> None:
    partial = isinstance(value, list)  # the example of an array that is rejected in part
    assert bool(problems(part, value)) == partial


def test_an_event_has_the_fields_that_producers_send() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(schemas["Event"]["properties"]) == set(FIELDS)
    assert set(schemas["Event"]["required"]) == set(REQUIRED)


def test_every_request_has_an_example() -> None:
    places = [place for place, *_ in _examples()]
    assert {"post /ingest one", "post /ingest array", "post /ingest events", "post /replay"} <= set(places)


# template.yaml


def deployed(**parameters: str) -> Any:
    return properties("Api", **parameters)["DefinitionBody"]


def test_the_template_has_the_same_routes_parameters_and_bodies() -> None:
    of_template = {
        (path, method, one.get("requestBody", {}).get("required"), str(_names(one)))
        for path, methods in deployed()["paths"].items()
        for method, one in methods.items()
    }
    assert of_template == {
        (path, method, one.get("requestBody", {}).get("required"), str(_names(one)))
        for path, method, one in operations()
    }


def _names(operation: Any) -> list[tuple[str, str, bool]]:
    return [(one["name"], one["in"], one["required"]) for one in operation.get("parameters", ())]


@pytest.mark.parametrize(("authorization", "scheme"), [("IAM", "iam"), ("API_KEY", "key")])
def test_the_template_wants_what_the_document_requires(authorization: str, scheme: str) -> None:
    schemes = deepcopy(DOCUMENT["components"]["securitySchemes"])
    for one in schemes.values():
        del one["description"]
    assert schemes == deployed()["components"]["securitySchemes"]
    assert {scheme: []} in DOCUMENT["security"]
    paths = deployed(ApiAuthorization=authorization)["paths"]
    assert all(one["security"] == [{scheme: []}] for methods in paths.values() for one in methods.values())


def _models() -> Iterator[tuple[str, Any, Any]]:
    """For each body: the model by which API Gateway checks it, and the document's schema."""
    for path, method, one in operations():
        if "requestBody" in one:
            content = deployed()["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
            model = deployed()["components"]["schemas"][content["$ref"].rpartition("/")[2]]
            yield path, model, one["requestBody"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize(("path", "model", "part"), list(_models()))
def test_the_template_refuses_nothing_that_the_document_allows(path: str, model, part) -> None:
    """Its models look at the shape alone; items are judged one by one, by the handlers."""
    gate = Draft4Validator(model)  # what API Gateway takes models for

    tried = []

    @settings(FUZZED, max_examples=50)
    @given(case=schema[path]["POST"].as_strategy())
    def allowed(case: Any) -> None:
        if case.media_type == "application/json":
            tried.append(case.body)
            assert gate.is_valid(case.body), case.body

    allowed()
    assert len(tried) > 20
    shown = [value for place, value, _ in _examples() if place.startswith(f"post {path}") and not place[-1].isdigit()]
    assert shown
    assert all(gate.is_valid(value) for value in shown)
    nothing: list[Any] = [{}, [], 5, "x", None]
    for refused in nothing:
        assert not gate.is_valid(refused)
        assert problems(part, refused)
