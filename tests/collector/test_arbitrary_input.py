"""Whatever is sent or produced: no answer is a 5xx, no record stops the consumer or is lost."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from collector.ingest import feedback_topic, interactions_topic
from collector.parse import parse_event, parse_interaction
from collector.streams import StreamRecord
from collector.tables import DeadLetterRow, EventRow, InteractionRow
from tacit.config import load_settings
from tacit.contracts import EventStatus, FeedbackEvent
from tacit.database import Database
from tacit.errors import InvalidInputError
from tests.builders import event, recorded
from tests.collector.conftest import Room
from tests.collector.service import Disk, Service, opened
from tests.examples import num_examples

QUICK = settings(
    max_examples=num_examples(25),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

GOOD_TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60
) | st.sampled_from(
    ["", "ada@example.org 4111 1111 1111 1111", "a" * 5_000, "\u202e", "%s{}", "\x1b[2J", "NaN"]
)
TEXTS = GOOD_TEXTS | st.text(max_size=60) | st.sampled_from(["\x00", "\ud800"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(2**63), 2**63])
    | st.floats()
    | TEXTS
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": GOOD_TEXTS}
    ),
    min_size=1,
    max_size=3,
)
FEEDBACK = st.one_of(
    st.fixed_dictionaries({"type": st.just("correction"), "completion": GOOD_TEXTS}),
    st.fixed_dictionaries({"type": st.just("critique"), "text": GOOD_TEXTS}),
    st.fixed_dictionaries(
        {"type": st.just("preference"), "chosen": GOOD_TEXTS, "rejected": GOOD_TEXTS}
    ),
    st.fixed_dictionaries(
        {"type": st.just("outcome"), "metric": st.just("resolved"), "value": st.booleans()}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("rating"),
            "value": st.floats(-10, 10),
            "scale": st.just({"low": -1e308, "high": 1e308}),
        }
    ),
)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True)
EVENTS = st.fixed_dictionaries(
    {
        "event_id": IDS,
        "policy": st.just("default"),
        "source": st.just("helpdesk"),
        "subject_id": IDS,
        "occurred_at": st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
        "feedback": FEEDBACK,
        "interaction": st.fixed_dictionaries(
            {"prompt": MESSAGES, "completion": GOOD_TEXTS},
            optional={
                "policy_version": GOOD_TEXTS,
                "completion_ids": st.lists(st.integers(), min_size=2, max_size=2),
                "logprobs": st.lists(st.floats(-9, 0), min_size=2, max_size=2),
            },
        ),
    },
    optional={
        "interaction_id": IDS,
        "episode_id": IDS,
        "tags": st.dictionaries(
            st.sampled_from(["a", "kind"]), TEXTS.map(lambda t: t[:256]), max_size=3
        ),
    },
)


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """An event with one field replaced, taken away or added."""
    made = dict(draw(EVENTS))
    name = draw(st.sampled_from([*made, "surprise"]))
    if draw(st.booleans()):
        made[name] = draw(JSON)
    else:
        made.pop(name, None)
    return made


def encoded(value: object) -> bytes:
    """JSON as some clients write it: ASCII, with NaN, and with lone surrogates escaped."""
    return json.dumps(value).encode()


SENT = st.one_of(EVENTS, EVENTS, spoiled(), JSON).map(encoded)
RECORDS = st.one_of(SENT, st.binary(max_size=200), SENT.map(lambda data: data[:-1]))


@pytest.fixture
def service(tmp_path: Any, sqlite_database: Database) -> Any:
    with opened(load_settings(home=tmp_path), Disk()) as service:
        yield service


def parsed(data: bytes) -> FeedbackEvent | None:
    try:
        return parse_event(data)
    except InvalidInputError:
        return None


@QUICK
@given(data=SENT)
def test_any_json_is_refused_or_taken_whole(service: Service, data: bytes) -> None:
    answer = service.send(data)
    sent = parsed(data)
    if data[:1] == b"[":
        assert answer.status_code in (202, 207, 422), answer.text
        return
    if answer.status_code != 202:
        assert 400 <= answer.status_code < 500, answer.text
        return
    assert sent is not None
    kept = service.kept(sent.event_key)
    assert sent in kept
    service.screen()
    told = service.http.get(
        f"/v1/feedback/{sent.event_id}", headers=service.as_(service.product_key)
    )
    assert told.status_code == 200
    assert told.json()["status"] in set(EventStatus) - {EventStatus.QUEUED}


@QUICK
@given(items=st.lists(SENT, min_size=1, max_size=5))
def test_any_batch_is_answered_item_by_item(service: Service, items: list[bytes]) -> None:
    answer = service.send(b"\n".join(items), Content_Type="application/x-ndjson")
    assert answer.status_code in (202, 207), answer.text
    results = answer.json()["results"]
    assert [result["index"] for result in results] == list(range(len(items)))
    for item, result in zip(items, results, strict=True):
        assert (result["status"] == "rejected") == (not takes(service, item))


def takes(service: Service, item: bytes) -> bool:
    sent = parsed(item)
    return sent is not None and (sent.source, sent.policy) == ("helpdesk", "default")


@QUICK
@given(data=st.binary(max_size=300), kind=st.sampled_from(["json", "cloudevents+json", "x-ndjson"]))
def test_any_bytes_under_any_content_type_are_refused(
    service: Service, data: bytes, kind: str
) -> None:
    for encoding in ("identity", "gzip"):
        answer = service.send(data, Content_Type=f"application/{kind}", Content_Encoding=encoding)
        assert answer.status_code in (207, 422), answer.text


def dead_letters(room: Room, topic: str) -> dict[int, bytes]:
    query = select(DeadLetterRow.offset, DeadLetterRow.payload)
    with room.database.reader() as session:
        return dict(session.execute(query.where(DeadLetterRow.topic == topic)).all())


def produced(room: Room, topic: str, payloads: list[bytes]) -> list[StreamRecord]:
    """Append and screen ``payloads``; their records."""
    start = room.stream.end_offsets(topic)[0]
    room.stream.append(topic, [("k", payload) for payload in payloads])
    room.consumer.drain()
    return room.stream.read(topic, {0: start}, limit=len(payloads), timeout_s=0.0)


@QUICK
@given(payloads=st.lists(RECORDS, min_size=1, max_size=8))
def test_any_record_becomes_an_event_or_a_dead_letter(room: Room, payloads: list[bytes]) -> None:
    topic = feedback_topic(room.settings)
    records = produced(room, topic, [*payloads, event("e-good").model_dump_json().encode()])
    buried = dead_letters(room, topic)
    with room.database.reader() as session:
        keys = set(session.scalars(select(EventRow.event_key)))
    for record in records:
        if record.offset in buried:
            assert buried[record.offset] == record.value
        else:
            assert parse_event(record.value).event_key in keys
    assert "helpdesk/e-good" in keys


@QUICK
@given(payloads=st.lists(RECORDS, min_size=1, max_size=8))
def test_any_interaction_is_kept_or_a_dead_letter(room: Room, payloads: list[bytes]) -> None:
    topic = interactions_topic(room.settings)
    good = recorded("i-good").model_dump_json().encode()
    records = produced(room, topic, [*payloads, good])
    buried = dead_letters(room, topic)
    with room.database.reader() as session:
        ids = set(session.scalars(select(InteractionRow.interaction_id)))
    for record in records:
        if record.offset not in buried:
            assert parse_interaction(record.value).interaction_id in ids
    assert "i-good" in ids
