"""http-api, head: the OpenAPI document that every node serves, and the route table that it is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from raftkv import __version__
from raftkv.api.actions import ALWAYS_POSSIBLE, Action, Conditions, Numbering, Route
from raftkv.api.openapi import codes_by_status, render
from raftkv.api.routes import ROUTES
from raftkv.api.settings import ApiSettings
from raftkv.problems import Code
from tests.api.conftest import api_of
from tests.api.documented import complaint_about, document
from tests.api.fronts import Answer, Client, PureClient
from tests.api.service import LEADERLESS, FakeService

EVERY_ACTION = [(route, method, action) for route in ROUTES for method, action in route.actions.items()]
NAMES = [f"{method} {route.path}" for route, method, _ in EVERY_ACTION]
BETWEEN_NODES = {Code.UNAUTHORIZED}
"""Of the peers' routes only."""
OF_NO_OPERATION = {Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED}


def path_of(route: Route) -> str:
    """A path that the route serves."""
    opening = {"key": "a", "session": f"{1:032x}", "id": "n3"}
    return re.sub(r"\{(\w+)\}", lambda name: opening[name[1]], route.path)


def operation_of(route: Route, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = document()["paths"][route.path][method.lower()]
    return operation


def within(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from within(inner)


def test_every_node_serves_it(client: Client) -> None:
    client.service.led = LEADERLESS
    answer = client.ask("GET", "/v1/openapi.json")
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    assert answer.json == document()


def test_it_is_rendered_once(service: FakeService) -> None:
    api = api_of(service)
    assert api._context.document() is api._context.document()


def test_it_is_openapi_3_1() -> None:
    jsonschema_rs.validate(OPENAPI_31, document())
    assert document()["openapi"].startswith("3.1")
    assert document()["info"]["version"] == __version__


def test_a_document_that_is_no_openapi_is_found_out() -> None:
    broken = json.loads(json.dumps(document()))
    broken["paths"]["/v1/kv"]["get"]["responses"]["200"].pop("description")
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(OPENAPI_31, broken)


def test_every_schema_in_it_is_one() -> None:
    schemas = [found["schema"] for found in within(document()) if "schema" in found]
    schemas += document()["components"]["schemas"].values()
    assert len(schemas) > 100
    for schema in schemas:
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_every_reference_leads_somewhere() -> None:
    for found in within(document()):
        if "$ref" in found:
            place: Any = document()
            for step in found["$ref"].removeprefix("#/").split("/"):
                place = place[step]


def test_it_has_exactly_the_routes_of_the_table() -> None:
    documented = {
        (path, method.upper())
        for path, item in document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert documented == {(route.path, method) for route, method, _ in EVERY_ACTION}
    ids = [operation_of(route, method)["operationId"] for route, method, _ in EVERY_ACTION]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("route", "method", "action"), EVERY_ACTION, ids=NAMES)
def test_the_parameters_in_it_are_those_that_are_taken(route: Route, method: str, action: Action) -> None:
    """What the document names is known to the parser, in the query and in the head; what it does not name is not."""
    named = {(one["name"], one["in"]) for one in operation_of(route, method).get("parameters", [])}
    everybodys = {one.name for _, _, other in EVERY_ACTION for one in other.parameters} | {"x"}
    for name in everybodys:
        answer = ask(route, method, query=f"?{name}=%00")
        assert is_unknown(answer) == ((name, "query") not in named), name
    for header, tag in (("If-Match", "*"), ("If-None-Match", '"1"' if action.conditions is Conditions.READ else "*")):
        refused = "If-Match" in why_refused(ask(route, method, {header: tag}))
        assert refused == ((header, "header") not in named)
    bounds = "?prefix=a" if (method, route.path) == ("DELETE", "/v1/kv") else ""
    said = why_refused(ask(route, method, {"Raftkv-Sequence": "1"}, bounds))
    assert ("go together" in said) == (("Raftkv-Session", "header") in named) == (action.numbering is Numbering.TAKEN)
    assert ("only writes to keys are numbered" in said) == (action.numbering is Numbering.REFUSED)


def ask(route: Route, method: str, headers: dict[str, str] | None = None, query: str = "") -> Answer:
    service = FakeService()
    needed = {"Upgrade": "websocket"} if route.path == "/v1/stream" else {"Content-Type": "application/json"}
    return PureClient(api_of(service), service).ask(
        method if method != "HEAD" else "GET", path_of(route) + query, {**needed, **(headers or {})}
    )


def is_unknown(answer: Answer) -> bool:
    return "unknown query parameter" in why_refused(answer)


def why_refused(answer: Answer) -> str:
    """Empty: it was not, or not for what stands in the head or the query."""
    return str(answer.json["detail"]) if answer.status == 400 else ""


@pytest.mark.parametrize(("route", "method", "action"), EVERY_ACTION, ids=NAMES)
def test_the_bodies_in_it_are_those_that_are_taken(route: Route, method: str, action: Action) -> None:
    operation = operation_of(route, method)
    assert ("requestBody" in operation) == (action.body is not None)
    if action.body is None:
        assert ask_with_body(route, method, b"x").status == 400
    elif action.body.schema:
        properties = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
        answer = ask_with_body(route, method, b'{"x":1}')
        assert "unknown field" in answer.json["detail"]
        for name in properties:
            refused = ask_with_body(route, method, b'{"%s":{"x":1}}' % name.encode())
            assert refused.status == 400 and "unknown field" not in refused.json["detail"]


def ask_with_body(route: Route, method: str, body: bytes) -> Answer:
    service = FakeService()
    client = PureClient(api_of(service), service)
    headers = {"Content-Type": "application/json"}
    return client.ask(method if method != "HEAD" else "GET", path_of(route), headers, body)


def test_the_closed_list_of_codes_stands_in_it() -> None:
    told = {code: entry["status"] for code, entry in document()["x-raftkv-codes"].items()}
    assert told == {code.text: code.status for code in Code}
    assert document()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(told)


def test_every_code_belongs_to_some_operation() -> None:
    possible = {code for _, _, action in EVERY_ACTION for codes in codes_by_status(action).values() for code in codes}
    assert set(Code) - possible == BETWEEN_NODES | OF_NO_OPERATION
    assert set(ALWAYS_POSSIBLE) <= possible


def test_the_limits_stand_in_it() -> None:
    told = document()["x-raftkv-limits"]
    assert (told["key_bytes_max"], told["value_bytes_max"]) == (4096, 1024 * 1024)
    assert (told["command_keys_max"], told["command_bytes_max"]) == (10_000, 2 * 1024 * 1024)
    assert (told["transaction_operations_max"], told["head_bytes_max"]) == (128, 32 * 1024)
    other = render(ROUTES, ApiSettings(max_value_bytes=77))
    assert other["x-raftkv-limits"]["value_bytes_max"] == 77
    assert "At most 77 bytes." in other["paths"]["/v1/kv/{key}"]["put"]["requestBody"]["description"]


GOOD = (
    ("Raftkv-Node", "n1"), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"),
    ("Raftkv-Applied-Index", "1"), ("Content-Type", "application/json"),
)  # fmt: skip
PLANTED = [
    (Answer(418, GOOD, b"{}"), "418 is not documented"),
    (Answer(200, GOOD[1:], b"{}"), "Raftkv-Node is missing"),
    (Answer(200, (*GOOD, ("X-Debug", "1")), b'{"deleted":1,"revision":1}'), "X-Debug is not documented"),
    (Answer(200, (*GOOD[:3], ("Raftkv-Applied-Index", "-1"), GOOD[4]), b'{"deleted":1,"revision":1}'), "-1"),
    (Answer(200, GOOD, b'{"deleted":2,"revision":1}'), "2 is greater than"),
    (Answer(200, GOOD, b'{"deleted":1}'), '"revision" is a required property'),
    (Answer(200, GOOD, b'{"deleted":1,"revision":1,"x":1}'), "Additional properties are not allowed"),
    (Answer(200, (*GOOD[:4], ("Content-Type", "text/html")), b""), "text/html is not documented"),
]


@pytest.mark.parametrize(("answer", "complaint"), PLANTED)
def test_an_answer_that_is_not_documented_is_found_out(answer: Answer, complaint: str) -> None:
    """Planted: what every contract test holds its answers against does not let these through."""
    assert complaint in (complaint_about("DELETE", b"/v1/kv/a", answer) or "")
    good = Answer(200, GOOD, b'{"deleted":1,"revision":1}')
    assert complaint_about("DELETE", b"/v1/kv/a", good) is None
