"""CloudEvents: every mode becomes the same event, and a wrong envelope is refused by name."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tacit.contracts import FeedbackEvent
from tests.collector.conftest import MakeRoom
from tests.collector.test_api import Api

DATA = {
    "policy": "default",
    "interaction_id": "i-1",
    "feedback": {"type": "correction", "completion": "shipping"},
}
ENVELOPE = {
    "specversion": "1.0",
    "type": "tacit.feedback.v1",
    "id": "e-1",
    "source": "helpdesk",
    "subject": "u-1",
    "time": "2026-01-02T03:04:05Z",
}
EVENT = {
    **DATA,
    "event_id": "e-1",
    "source": "helpdesk",
    "subject_id": "u-1",
    "occurred_at": "2026-01-02T03:04:05Z",
}


@pytest.fixture
def api(make: MakeRoom) -> Iterator[Api]:
    made = Api(make())
    with made.http:
        yield made


def post(api: Api, content: Any, kind: str, **headers: str) -> Any:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return api.http.post("/v1/feedback", content=raw, headers={"Content-Type": kind, **headers})


def structured(api: Api, **changed: Any) -> Any:
    envelope = {k: v for k, v in {**ENVELOPE, "data": DATA, **changed}.items() if v is not None}
    return post(api, envelope, "application/cloudevents+json; charset=utf-8")


def binary(api: Api, data: Any = DATA, **changed: str | None) -> Any:
    attributes = {**ENVELOPE, **changed}
    headers = {f"ce-{k}": v for k, v in attributes.items() if v is not None}
    return post(api, data, "application/json", **headers)


def test_all_modes_are_the_same_event(api: Api) -> None:
    assert structured(api).status_code == 202
    assert binary(api).json() == {"event_id": "e-1", "status": "queued"}
    batch = post(api, [{**ENVELOPE, "data": DATA}], "application/cloudevents-batch+json")
    assert (batch.status_code, batch.json()["results"][0]["status"]) == (202, "queued")
    assert post(api, EVENT, "application/json").status_code == 202
    (kept,) = api.stored()
    event = FeedbackEvent.model_validate_json(kept)
    assert event == FeedbackEvent.model_validate(EVENT)


def test_header_values_are_percent_decoded(api: Api) -> None:
    assert binary(api, subject="u%2D1").status_code == 202
    assert binary(api).json()["status"] == "queued"
    assert len(api.stored()) == 1


def test_batch_takes_the_good_ones(api: Api) -> None:
    bad = {**ENVELOPE, "id": "e-2", "type": "other", "data": DATA}
    answer = post(
        api, [{**ENVELOPE, "data": DATA}, bad, "text"], "application/cloudevents-batch+json"
    )
    assert answer.status_code == 207
    assert [r["status"] for r in answer.json()["results"]] == ["queued", "rejected", "rejected"]
    assert "tacit.feedback.v1" in answer.json()["results"][1]["error"]["expected"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": None}, "specversion"),
        ({"id": None}, "id"),
        ({"source": None}, "source"),
        ({"type": None}, "type"),
        ({"type": "com.example.other"}, "tacit.feedback.v1"),
        ({"time": "yesterday"}, "datetime"),
        ({"time": "2026-01-02T03:04:05"}, "timezone"),
        ({"subject": None}, "subject_id"),
        ({"data": None}, "object"),
        ({"data": [1]}, "object"),
        ({"data": {**DATA, "event_id": "other"}}, "event_id"),
        ({"data": {**DATA, "extra": 1}}, "extra"),
        ({"id": 7}, "id"),
        ({"source": {"a": 1}}, "source"),
    ],
)
def test_wrong_envelope_is_refused(api: Api, changed: dict[str, Any], named: str) -> None:
    answer = structured(api, **changed)
    assert answer.status_code == 422
    assert named in json.dumps(answer.json()["error"])
    assert api.stored() == []


def test_text_that_is_no_object_is_refused(api: Api) -> None:
    for text in (b"", b"[]", b"7", b'{"specversion": NaN}', b"\xff"):
        assert post(api, text, "application/cloudevents+json").status_code == 422
        assert binary(api, text if text != b"[]" else [1]).status_code == 422


def test_gzip_is_unpacked_within_the_limit(api: Api) -> None:
    packed = gzip.compress(json.dumps(EVENT).encode())
    assert post(api, packed, "application/json", **{"Content-Encoding": "gzip"}).status_code == 202
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    refused = post(api, bomb, "application/json", **{"Content-Encoding": "gzip"})
    assert refused.status_code == 413
    for broken in (packed[:-4], packed + b"more", b"no gzip", packed + packed):
        answer = post(api, broken, "application/json", **{"Content-Encoding": "gzip"})
        assert answer.status_code == 422, answer.text
    assert len(api.stored()) == 1
