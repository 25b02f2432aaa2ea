"""Answers as nodes of ours give them."""

from __future__ import annotations

import json
from typing import Any

from raftkv.http.exchange import HttpAnswer
from raftkv.problems import Code
from raftkv.values import Address

JSON = {b"content-type": b"application/json"}


def problem(code: Code, **more: Any) -> HttpAnswer:
    fields = {"status": code.status, "code": code.text, "title": code.title, "detail": f"because of {code.text}"}
    return HttpAnswer(code.status, {b"content-type": b"application/problem+json"}, json.dumps(fields | more).encode())


def redirect(to: Address, *, term: int = 5, target: str = "/v1/kv/k") -> HttpAnswer:
    answer = problem(Code.NOT_LEADER, term=term, leader={"id": "n", "url": f"http://{to.host}:{to.port}"})
    answer.fields[b"location"] = f"http://{to.host}:{to.port}{target}".encode()
    return answer


def put_done(revision: int = 1, version: int = 1) -> HttpAnswer:
    fields = {"key": "k", "revision": revision, "create_revision": 1, "version": version}
    return HttpAnswer(201, JSON | {b"raftkv-applied-index": b"7"}, json.dumps(fields).encode())
