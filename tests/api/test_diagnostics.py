"""http-api "Status and administration", /v1/diagnostics: one node's own view, whole, and documented."""

from __future__ import annotations

from dataclasses import asdict, replace

from raftkv.api.diagnostics import DIAGNOSTICS, schema_of
from raftkv.api.reports import ChangeReport, Diagnostics, FarewellReport, OutageReport, RefusalReport
from tests.api.fronts import Client
from tests.api.service import DIAGNOSTICS as SAMPLE


def test_a_node_shows_all_that_it_knows_of_its_troubles(client: Client) -> None:
    (link,) = SAMPLE.links
    troubled = replace(
        link,
        connected=False,
        trouble="connection refused",
        refusal=RefusalReport("wrong_cluster", "this is another cluster", 50),
        farewell=FarewellReport("fdatasync failed: Input/output error", 1200),
        outages=(OutageReport(1_300, 20_000),),
    )
    change = ChangeReport("stepped_down", 7, 30, "n1: leader in term 7 → follower")
    client.service.troubles = replace(SAMPLE, links=(troubled,), leadership=(change,), disk=None)
    answer = client.ask("GET", "/v1/diagnostics")
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    assert answer.json["links"] == [asdict(troubled) | {"outages": [asdict(troubled.outages[0])]}]
    assert answer.json["leadership"] == [asdict(change)]
    assert answer.json["disk"] is None
    assert list(answer.json) == list(schema_of(Diagnostics)["properties"])


def test_every_field_of_every_report_has_a_place_in_the_document() -> None:
    (answer,) = DIAGNOSTICS.answers
    assert answer.schema is not None
    properties = answer.schema["properties"]
    assert properties["links"]["items"]["properties"]["answer_age_ms"]["type"] == ["integer", "null"]
    assert properties["disk"]["type"] == ["object", "null"]
    assert "description" in properties["links"]["items"]
