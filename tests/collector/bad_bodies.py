"""Bad input that is one body: for each row of docs/reference/bad-input.md what to send.

The same bytes go to the API and straight to the stream.
"""

import json
from datetime import timedelta
from typing import Any

from tacit.contracts import utc_now
from tests.collector.service import body


def altered(**fields: Any) -> bytes:
    """A good event with some top-level fields replaced as they are; None takes one away."""
    event = {**json.loads(body()), **fields}
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


def outcome(metric: str, value: object) -> bytes:
    return altered(feedback={"type": "outcome", "metric": metric, "value": value})


def replaced(old: str, new: str) -> bytes:
    """A good event with a part of its JSON replaced."""
    assert old in body()
    return body().replace(old, new).encode()


CLOUD = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "helpdesk",
    "type": "tacit.feedback.v1",
    "subject": "u-1",
    "time": "2026-01-02T03:04:05Z",
    "data": {
        "policy": "default",
        "feedback": {"type": "correction", "completion": "shipping"},
        "interaction": {"prompt": [{"role": "user", "content": "hi"}], "completion": "x"},
    },
}
DATA: dict[str, Any] = CLOUD["data"]  # type: ignore[assignment]


def cloud(**fields: Any) -> bytes:
    """A good CloudEvent with some attributes replaced; None takes one away."""
    event = {**CLOUD, **fields}
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


RATING = {"type": "rating", "value": 9, "scale": {"low": 1, "high": 5}}
SAME = {"type": "preference", "chosen": "a", "rejected": "a"}
AHEAD = (utc_now() + timedelta(hours=1)).isoformat()
LONG = "x" * 65_537
FORM = "application/x-www-form-urlencoded"
NDJSON = "application/x-ndjson"
CLOUD_EVENT = "application/cloudevents+json"

# What is one body, sent to the API and produced to the stream alike; with it the Content-Type.
BODIES: dict[str, tuple[bytes, str]] = {
    name: given if isinstance(given, tuple) else (given, "application/json")
    for name, given in {
        "malformed-json": body()[:-2].encode(),
        "empty-body": b"",
        "not-an-object": b"17",
        "empty-array": b"[]",
        "trailing-bytes": body().encode() + b" and more",
        "nan": outcome("resolved", float("nan")),
        "infinity": replaced('"feedback":{', '"feedback":{"value":1e999,').replace(
            b'"type":"correction"', b'"type":"rating","scale":{"low":1,"high":5}'
        ),
        "huge-integer": altered(schema_version=0).replace(b": 0", b": " + b"9" * 5_000),
        "unknown-field": altered(surprise=1),
        "missing-field": altered(subject_id=None),
        "wrong-type": altered(event_id=7),
        "about-nothing": altered(interaction=None),
        "long-id": altered(event_id="x" * 129),
        "empty-id": altered(event_id=""),
        "too-many-tags": altered(tags={f"k{number}": "" for number in range(33)}),
        "deep-nesting": b"[" * 10_000,
        "duplicate-keys": body().encode()[:-1] + b',"subject_id":"u-2"}',
        "other-schema-version": altered(schema_version=2),
        "nul": replaced("shipping", "ship\\u0000ping"),
        "control-characters": replaced("shipping", "ship\\u0001\\u001b\\u009f\\u2028ping"),
        "raw-control-characters": replaced("shipping", "ship\x01ping"),
        "lone-surrogate": replaced("shipping", "\\ud800"),
        "invalid-utf-8": body().encode().replace(b"shipping", b"ship\xff\xfeping"),
        "utf-16": body().encode("utf-16"),
        "byte-order-mark": b"\xef\xbb\xbf" + body().encode(),
        "clock-far-ahead": altered(occurred_at=AHEAD),
        "clock-out-of-range": altered(occurred_at="0001-01-01T00:00:00+09:00"),
        "clock-without-zone": altered(occurred_at="2026-01-02T03:04:05"),
        "unknown-interaction": altered(interaction=None, interaction_id="i-unknown"),
        "foreign-interaction": altered(interaction=None, interaction_id="i-foreign"),
        "another-source": altered(source="other"),
        "another-policy": altered(policy="another"),
        "undeclared-metric": outcome("vibes", True),
        "wrong-value-type": outcome("resolved", 0.5),
        "value-out-of-range": outcome("resolved", 2),
        "rating-off-scale": altered(feedback=RATING),
        "same-texts": altered(feedback=SAME),
        "same-id-same-body": json.dumps(dict(reversed(json.loads(body()).items()))).encode(),
        "same-id-other-body": altered(subject_id="u-2"),
        "long-text": altered(feedback={"type": "correction", "completion": LONG}),
        "other-content-type": (body().encode(), "text/plain"),
        "form": (b"event_id=e-1&policy=default", FORM),
        "ndjson-as-json": f"{body()}\n{body('e-2')}".encode(),
        "empty-ndjson": (b"\n \r\n\n", NDJSON),
        "broken-array": f"[{body()},".encode(),
        "cloud-event-without-id": (cloud(id=None), CLOUD_EVENT),
        "cloud-event-of-another-version": (cloud(specversion="0.3"), CLOUD_EVENT),
        "cloud-event-of-another-type": (cloud(type="com.example.thumb"), CLOUD_EVENT),
        "cloud-event-without-data": (cloud(data=None), CLOUD_EVENT),
        "cloud-event-saying-two-things": (cloud(data={**DATA, "subject_id": "u-2"}), CLOUD_EVENT),
        "cloud-event-not-an-object": (b"[" + cloud() + b"]", CLOUD_EVENT),
        "cloud-event-on-the-stream": (cloud(), CLOUD_EVENT),
    }.items()
}
SENT_BEFORE = ("same-id-same-body", "same-id-other-body")
