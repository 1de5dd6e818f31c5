"""The feedback API: what it takes, what it says, and what it does when storage is away."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from collector.application import Collector
from collector.ingest import Ingestor, feedback_topic
from tacit.contracts import FeedbackEvent
from tacit.database import Database
from tacit.errors import UnavailableError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tests.builders import event
from tests.collector.conftest import MakeRoom, Room


class Api:
    """The API of a room as a product with a key sees it."""

    def __init__(self, room: Room, *, key: str | None = None) -> None:
        self.room = room
        self.keys = KeyStore(room.database)
        app = FastAPI()
        install_error_handlers(app)
        collector = Collector(room.settings, room.database, room.stream, self.keys)
        collector.ingestor.close()
        collector.ingestor = room.ingestor
        served = collector.install(app, journal=lambda *_: None, lineage=lambda _: {})
        self.http = TestClient(served, raise_server_exceptions=False)
        key = key or self.key("shop", source="helpdesk")
        self.http.headers["Authorization"] = f"Bearer {key}"

    def key(self, name: str, *, scope: Scope = Scope.SEND, **bound: str) -> str:
        return self.keys.create(name, scopes={scope}, **bound)

    def send(self, content: bytes | str, *, kind: str = "application/json") -> Any:
        return self.http.post("/v1/feedback", content=content, headers={"Content-Type": kind})

    def stored(self) -> list[bytes]:
        topic = feedback_topic(self.room.settings)
        return [r.value for r in self.room.stream.read(topic, {}, limit=9_999, timeout_s=0.0)]


@pytest.fixture
def api(room: Room) -> Iterator[Api]:
    """On SQLite and on PostgreSQL."""
    made = Api(room)
    with made.http:
        yield made


def body(event_id: str = "e-1", **fields: Any) -> str:
    return event(event_id, **fields).model_dump_json()


def altered(**fields: Any) -> str:
    """A good event with some top-level fields replaced as they are."""
    return json.dumps({**json.loads(body()), **fields})


def error_of(answer: Any) -> dict[str, str]:
    error = answer.json()["error"]
    assert set(error) == {"type", "expected", "got", "mend"}
    return dict(error)


def test_acknowledged_event_is_in_the_stream(api: Api) -> None:
    answer = api.send(body())
    assert (answer.status_code, answer.json()) == (202, {"event_id": "e-1", "status": "queued"})
    assert [FeedbackEvent.model_validate_json(value) for value in api.stored()] == [event()]


def test_same_id_and_body_again_gets_the_same_answer_and_is_stored_once(api: Api) -> None:
    reordered = json.dumps(dict(reversed(json.loads(body()).items())), indent=1)
    answers = [api.send(text) for text in (body(), body(), reordered)]
    api.room.consumer.drain()
    answers.append(api.send(body()))
    assert {(a.status_code, a.text) for a in answers} == {(202, answers[0].text)}
    assert len(api.stored()) == 1


def test_same_id_with_another_body_is_a_conflict(api: Api) -> None:
    api.send(body())
    for _ in range(2):
        answer = api.send(body(subject_id="u-2"))
        assert (answer.status_code, error_of(answer)["type"]) == (409, "ConflictError")
        api.room.consumer.drain()
    assert len(api.stored()) == 1


@pytest.mark.parametrize("form", ["array", "ndjson"])
def test_batch_answers_each_item(api: Api, form: str) -> None:
    api.send(body("e-0"))
    items = [
        body("e-1"),
        body("e-0", subject_id="u-9"),
        altered(event_id="e-2", surprise=1),
        body("e-1"),
        body("e-1", subject_id="u-7"),
        body("e-3"),
    ]
    if form == "array":
        answer = api.send(f"[{','.join(items)}]")
    else:
        answer = api.send("\n".join(items) + "\n\n", kind="application/x-ndjson")
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [r["status"] for r in results] == [
        "queued", "conflict", "rejected", "queued", "conflict", "queued",
    ]  # fmt: skip
    assert [r["index"] for r in results] == list(range(6))
    assert "surprise" in results[2]["error"]["got"]
    assert len(api.stored()) == 3


def test_batch_that_is_whole_is_202(api: Api) -> None:
    answer = api.send(f"[{body('e-1')},{body('e-2')}]")
    assert answer.status_code == 202
    assert [r["status"] for r in answer.json()["results"]] == ["queued", "queued"]


INLINE = {"prompt": [{"role": "user", "content": "hi"}], "completion": "x"}
BAD_EVENTS = [
    ("", "JSON"),
    ("{", "JSON"),
    ("null", "FeedbackEvent"),
    ("17", "FeedbackEvent"),
    ("{}", "event_id"),
    (body()[:-2], "JSON"),
    ("\x00", "JSON"),
    ("[" * 10_000, "JSON"),
    ("[]", "none"),
    (altered(surprise=1), "surprise"),
    (altered(event_id=""), "event_id"),
    (altered(event_id="a/b"), "event_id"),
    (altered(event_id="x" * 129), "event_id"),
    (altered(event_id=7), "event_id"),
    (altered(subject_id=None), "subject_id"),
    (altered(policy="UPPER"), "policy"),
    (altered(policy="another"), "another"),
    (altered(occurred_at="yesterday"), "occurred_at"),
    (altered(occurred_at="2026-01-02T03:04:05"), "occurred_at"),
    (altered(occurred_at=1767322800), "occurred_at"),
    (altered(occurred_at="0001-01-01T00:00:00+09:00"), "FeedbackEvent"),
    (altered(schema_version=2), "schema_version"),
    (altered(interaction=None), "interaction_id"),
    (altered(interaction={**INLINE, "prompt": []}), "prompt"),
    (altered(interaction={**INLINE, "completion": "a\x00b"}), "completion"),
    (altered(interaction={**INLINE, "completion": "x" * 65_537}), "completion"),
    (altered(interaction={**INLINE, "prompt": [{"role": "boss", "content": ""}]}), "role"),
    (altered(interaction={**INLINE, "completion_ids": [1], "logprobs": []}), "logprob"),
    (altered(feedback={"type": "shout"}), "feedback"),
    (altered(feedback={"type": "correction"}), "completion"),
    (altered(feedback={"type": "correction", "completion": "\ud800"}), "JSON"),
    (altered(feedback={"type": "outcome", "metric": "resolved", "value": 2}), "value"),
    (altered(feedback={"type": "outcome", "metric": "resolved", "value": "true"}), "value"),
    (altered(feedback={"type": "outcome", "metric": "resolved", "value": 0.5}), "resolved"),
    (altered(feedback={"type": "outcome", "metric": "vibes", "value": True}), "vibes"),
    (altered(feedback={"type": "outcome", "metric": "resolved", "value": float("nan")}), "value"),
    (altered(feedback={"type": "rating", "value": "5", "scale": {"low": 1, "high": 5}}), "value"),
    (altered(feedback={"type": "rating", "value": 9, "scale": {"low": 1, "high": 5}}), "9"),
    (altered(feedback={"type": "rating", "value": 1, "scale": {"low": 5, "high": 1}}), "low"),
    (altered(feedback={"type": "preference", "chosen": "a", "rejected": "a"}), "differ"),
    (altered(tags={"K": "upper case"}), "tags"),
    (altered(tags={f"k{i}": "" for i in range(33)}), "tags"),
    (altered(tags={"k": "x" * 257}), "tags"),
]


@pytest.mark.parametrize(("text", "named"), BAD_EVENTS, ids=lambda value: str(value)[-40:])
def test_bad_event_is_refused_with_what_was_expected(make: MakeRoom, text: str, named: str) -> None:
    api = Api(make())
    answer = api.send(text.encode("utf-8", "surrogatepass"))
    assert answer.status_code == 422
    error = error_of(answer)
    assert error["type"] == "InvalidInputError"
    assert error["expected"]
    assert named in error["expected"] + error["got"] + error["mend"]
    assert api.stored() == []


def test_bad_event_in_a_batch_harms_no_other(make: MakeRoom) -> None:
    api = Api(make())
    texts = [t for t, _ in BAD_EVENTS if t.strip() and "\n" not in t and "\ud800" not in t]
    lines = [line for i, text in enumerate(texts) for line in (text, body(f"good-{i}"))]
    answer = api.send("\n".join(lines), kind="application/x-ndjson")
    statuses = [r["status"] for r in answer.json()["results"]]
    assert statuses == ["rejected", "queued"] * len(texts)
    assert len(api.stored()) == len(texts)


@pytest.mark.parametrize(
    "text", [f"[{body()},]", f"[{body()}", "[NaN]", f"[{body()}] trailing", '["\\ud800"]']
)
def test_malformed_array_is_refused_as_a_whole(make: MakeRoom, text: str) -> None:
    api = Api(make())
    assert api.send(text).status_code == 422
    assert api.stored() == []


def test_limits_of_events_and_bytes(make: MakeRoom) -> None:
    room = make()
    collector = room.settings.collector.model_copy(
        update={"max_events_per_request": 3, "max_request_bytes": 2_000}
    )
    settings = room.settings.model_copy(update={"collector": collector})
    room.ingestor.close()
    room.ingestor = Ingestor(room.database, room.stream, settings)
    api = Api(room)
    four = api.send("\n".join([body()] * 4), kind="application/x-ndjson")
    assert (four.status_code, error_of(four)["type"]) == (413, "TooLargeError")
    assert api.send(" " * 2_001).status_code == 413
    assert api.stored() == []


def test_size_is_checked_while_reading(make: MakeRoom) -> None:
    api = Api(make())
    limit = api.room.settings.collector.max_request_bytes
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 40 * limit:
            sent += 1 << 20
            yield b" " * (1 << 20)

    answer = api.http.post("/v1/feedback", content=endless())
    assert answer.status_code == 413


def test_key_is_asked_for_before_the_body(api: Api) -> None:
    del api.http.headers["Authorization"]
    for header in ({}, {"Authorization": "Bearer tacit.x.y"}, {"Authorization": "Basic abc"}):
        answer = api.http.post("/v1/feedback", content="{", headers=header)
        assert (answer.status_code, error_of(answer)["type"]) == (401, "NotAuthenticatedError")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_key_opens_only_its_scope_source_and_policy(make: MakeRoom) -> None:
    room = make()
    maker = Api(room)
    reader = Api(room, key=maker.key("r", scope=Scope.READ))
    assert reader.send(body()).status_code == 403
    assert maker.send(body(source="other")).status_code == 403
    elsewhere = Api(room, key=maker.key("p", policy="another"))
    assert elsewhere.send(body()).status_code == 403
    batch = maker.send(f"[{body('e-1')},{body('e-2', source='other')}]")
    assert [r["status"] for r in batch.json()["results"]] == ["queued", "rejected"]
    assert batch.json()["results"][1]["error"]["type"] == "NotAllowedError"


class _AwayStream:
    """A stream that is away."""

    def append(self, topic: str, records: object) -> None:
        raise UnavailableError("a stream that answers", got="silence")


def test_stream_away_is_503_and_nothing_is_acknowledged(make: MakeRoom) -> None:
    room = make()
    good = room.ingestor
    with Ingestor(room.database, _AwayStream(), room.settings) as room.ingestor:  # type: ignore[arg-type]
        api = Api(room)
        for text in (body(), f"[{body()}]"):
            answer = api.send(text)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert api.http.get("/v1/feedback/e-1").status_code == 404
    room.ingestor = good
    again = Api(room, key=api.key("again"))
    assert again.send(body()).status_code == 202


def test_lost_receipt_does_not_double_the_event(room: Room, monkeypatch: Any) -> None:
    """The process dies between the append and the receipt; the product sends again."""

    write_new = room.ingestor.receipts.write_new

    def die(hashes: Any, append: Any) -> bool:
        def append_and_die() -> None:
            append()
            raise UnavailableError("a database that answers")

        return write_new(hashes, append_and_die)

    with monkeypatch.context() as patched:
        patched.setattr(room.ingestor.receipts, "write_new", die)
        with pytest.raises(UnavailableError):
            room.ingestor.accept([event()])
    assert [r.status for r in room.ingestor.accept([event()])] == ["queued"]
    assert room.consumer.drain() == 2
    assert sum(room.store.counts("default").values()) == 1


def test_status_follows_the_event(api: Api) -> None:
    assert api.http.get("/v1/feedback/e-1").status_code == 404
    api.send(body())
    assert api.http.get("/v1/feedback/e-1").json()["status"] == "queued"
    api.room.consumer.drain()
    with api.room.database.session() as session:
        api.room.store.assign(session, ["helpdesk/e-1"], batch_id="b-1")
    found = api.http.get("/v1/feedback/e-1").json()
    assert (found["status"], found["reason"], found["batch_id"]) == ("accepted", None, "b-1")


def test_status_of_another_sources_event_is_not_told(api: Api) -> None:
    api.send(body())
    other = Api(api.room, key=api.key("other", source="other"))
    assert other.http.get("/v1/feedback/e-1").status_code == 404
    assert other.http.get("/v1/feedback/e-1?source=helpdesk").status_code == 403
    anyone = Api(api.room, key=api.key("anyone", scope=Scope.READ))
    unnamed = anyone.http.get("/v1/feedback/e-1")
    assert (unnamed.status_code, unnamed.json()["error"]["mend"]) == (
        404,
        "Say whose it is with ?source=NAME.",
    )
    named = anyone.http.get("/v1/feedback/e-1?source=helpdesk")
    assert named.json()["status"] == "queued"
    api.room.consumer.drain()
    assert anyone.http.get("/v1/feedback/e-1").json()["status"] == "accepted"
    for text, status in (("%25", 422), ("%00", 422), ("e_1", 404), ("-1", 422), ("1", 404)):
        assert anyone.http.get(f"/v1/feedback/{text}").status_code == status


def test_unknown_path_and_method_have_the_same_form(api: Api) -> None:
    assert error_of(api.http.get("/v2/feedback"))["type"] == "NotFound"
    assert error_of(api.http.put("/v1/feedback"))["type"] == "MethodNotAllowed"


def test_unexpected_error_tells_no_secrets(sqlite_database: Database, room: Room) -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("password is hunter2")

    answer = TestClient(app, raise_server_exceptions=False).get("/boom")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert error_of(answer)["got"] == "RuntimeError"
