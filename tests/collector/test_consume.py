"""Every acknowledged event is screened exactly once, whatever dies when."""

import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event as sql_event
from sqlalchemy import select

from collector.consume import Consumer
from collector.ingest import Ingestor, feedback_topic, interactions_topic
from collector.store import EventStore
from collector.tables import DeadLetterRow, EventRow, InteractionRow
from tacit.config import Settings
from tacit.contracts import EventStatus, FeedbackEvent, Interaction, ScreenedEvent, utc_now
from tacit.database import Database
from tests.builders import event, recorded, user
from tests.collector.conftest import MakeRoom, Room


def about(event_id: str, interaction_id: str = "i-1", **fields: object) -> FeedbackEvent:
    """Feedback that names an interaction rather than bring it."""
    return event(event_id, interaction_id=interaction_id, **fields)


def record(room: Room, *interactions: Interaction) -> None:
    """Put interactions into the stream as serving does."""
    records = [("k", i.model_dump_json().encode()) for i in interactions]
    room.stream.append(interactions_topic(room.settings), records)


def dead_letters(room: Room) -> list[tuple[bytes, str]]:
    with room.database.reader() as session:
        rows = session.scalars(select(DeadLetterRow).order_by(DeadLetterRow.offset))
        return [(row.payload, row.reason) for row in rows]


def test_feedback_joins_the_interaction_it_names(room: Room) -> None:
    said = recorded(prompt=user("hello there"), completion_ids=(1, 2), logprobs=(-0.5, -0.25))
    record(room, said)
    room.screen(about("e-1"))
    with room.database.session() as session:
        (taken,) = room.store.take(session, "default", limit=9)
    assert taken.interaction.prompt == user("hello there")
    assert taken.interaction.logprobs == (-0.5, -0.25)


def test_what_was_recorded_wins_over_what_the_product_says(room: Room) -> None:
    record(room, recorded(completion="truth"))
    said = recorded(completion="a lie")
    inline = {k: getattr(said, k) for k in ("prompt", "completion")}
    room.screen(about("e-1", interaction=inline))
    with room.database.session() as session:
        (taken,) = room.store.take(session, "default", limit=9)
    assert taken.interaction.completion == "truth"


def test_feedback_before_its_interaction_is_held_and_then_screened(room: Room) -> None:
    room.screen(about("e-1"), about("e-2", "i-2"))
    assert room.became("e-1") == ("held", "awaiting_interaction")
    record(room, recorded("i-1"))
    assert room.consumer.drain() == 1
    assert room.became("e-1") == ("accepted", None)
    assert room.became("e-2") == ("held", "awaiting_interaction")


def test_what_was_held_is_screened_by_the_same_rules(room: Room) -> None:
    room.screen(about("e-1"), about("e-2"))
    record(room, recorded("i-1"))
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)
    assert room.became("e-2") == ("quarantined", "duplicate_feedback")


def test_hold_ends_after_its_time(make: MakeRoom) -> None:
    room = make()
    room.screen(about("e-1"))
    now = utc_now()
    for days, status in ((2.9, "held"), (3.1, "quarantined")):
        later = now + timedelta(days=days)
        clock = lambda later=later: later  # noqa: E731
        Consumer(room.database, room.stream, room.settings, clock=clock).drain()
        assert room.became("e-1")[0] == status
    assert room.became("e-1") == ("quarantined", "hold_expired")


def test_interaction_of_another_source_is_not_to_be_had(room: Room) -> None:
    record(room, recorded("i-1", source="other"))
    room.screen(about("e-1"))
    assert room.became("e-1") == ("quarantined", "foreign_interaction")
    room.screen(about("e-2", "i-2"))
    record(room, recorded("i-2", source="other"))
    room.consumer.drain()
    assert room.became("e-2") == ("quarantined", "foreign_interaction")


def test_episode_joins_its_newest_interaction_and_no_other_sources(room: Room) -> None:
    moment = utc_now()
    record(
        room,
        recorded("i-1", episode_id="p-1", occurred_at=moment, completion="newest"),
        recorded("i-2", episode_id="p-1", occurred_at=moment - timedelta(hours=1)),
        recorded("i-3", episode_id="p-1", occurred_at=moment + timedelta(1), source="other"),
        recorded("i-4", episode_id="p-2", source="other"),
    )
    room.screen(event("e-1", episode_id="p-1"), event("e-2", episode_id="p-2"))
    with room.database.session() as session:
        (taken,) = room.store.take(session, "default", limit=9)
    assert taken.interaction.completion == "newest"
    assert room.became("e-2") == ("held", "awaiting_interaction")
    record(room, recorded("i-5", episode_id="p-2", prompt=user("other prompt")))
    room.consumer.drain()
    assert room.became("e-2") == ("accepted", None)


def test_of_a_long_episode_one_row_is_read(room: Room) -> None:
    moment = utc_now()
    turns = [
        recorded(f"i-{n}", episode_id="p-1", occurred_at=moment + timedelta(seconds=n % 40))
        for n in range(80)
    ]
    record(room, *turns)
    room.consumer.drain()
    read: list[str] = []

    def keep(row: InteractionRow, _context: object) -> None:
        read.append(row.interaction_id)

    sql_event.listen(InteractionRow, "load", keep)
    room.screen(*[event(f"e-{n}", episode_id="p-1", subject_id=f"u-{n}") for n in range(3)])
    sql_event.remove(InteractionRow, "load", keep)
    assert read == ["i-79"]
    row = room.store.find("helpdesk", "e-2")
    assert row is not None
    assert row.interaction_id == "i-79"


BAD_RECORDS = [
    b"",
    b"not json",
    b"[]",
    b"null",
    b'{"event_id": "e-1"}',
    b"\xff\xfe",
    b"[" * 5_000,
    event("e-9").model_dump_json().encode()[:-1],
    event("e-9").model_dump_json().replace("2026-01-02T03:04:05Z", "0001-01-01T00:00:00+09:00")
    .encode(),
]  # fmt: skip


def test_what_does_not_parse_is_kept_with_payload_and_reason(room: Room) -> None:
    good = event("e-1").model_dump_json().encode()
    topic = feedback_topic(room.settings)
    room.stream.append(topic, [("k", bad) for bad in BAD_RECORDS] + [("k", good)])
    record(room, recorded("i-1"))
    room.stream.append(interactions_topic(room.settings), [("k", b"{}")])
    room.consumer.drain()
    assert [p for p, _ in dead_letters(room)].count(b"{}") == 1
    assert {reason for _, reason in dead_letters(room)} == {"unparsable"}
    assert {p for p, _ in dead_letters(room)} == {*BAD_RECORDS, b"{}"}
    assert room.became("e-1") == ("accepted", None)


def test_undeclared_metric_produced_directly_is_accounted_for(room: Room) -> None:
    sent = event("e-1", feedback={"type": "outcome", "metric": "vibes", "value": True})
    other = event("e-2", policy="another")
    records = [("k", e.model_dump_json().encode()) for e in (sent, other)]
    room.stream.append(feedback_topic(room.settings), records)
    room.consumer.drain()
    assert room.became("e-1") == room.became("e-2") == ("dead_letter", "inadmissible")
    assert [reason for _, reason in dead_letters(room)] == ["inadmissible"] * 2


def test_event_mended_in_the_chunk_of_its_refusal_is_judged(room: Room) -> None:
    bad = event("e-1", feedback={"type": "outcome", "metric": "vibes", "value": True})
    good, rival = event("e-1"), event("e-1", subject_id="u-2")
    records = [("k", e.model_dump_json().encode()) for e in (bad, bad, good, rival)]
    room.stream.append(feedback_topic(room.settings), records)
    room.consumer.drain()
    assert room.became("e-1") == ("accepted", None)
    assert [reason for _, reason in dead_letters(room)] == ["inadmissible"] * 2 + ["conflict"]


def test_same_record_again_is_dropped_and_another_body_is_a_conflict(room: Room) -> None:
    first, rival = event("e-1"), event("e-1", subject_id="u-2")
    records = [("k", e.model_dump_json().encode()) for e in (first, first, rival)]
    for batch in (records, records):
        room.stream.append(feedback_topic(room.settings), batch)
        room.consumer.drain()
    assert dead_letters(room) == [(rival.model_dump_json().encode(), "conflict")] * 2
    row = room.store.find("helpdesk", "e-1")
    assert row is not None
    assert row.subject_id == "u-1"


def test_digest_stored_is_that_of_what_is_taken(room: Room) -> None:
    record(room, recorded("i-1"))
    room.screen(about("e-1"), event("e-2", interaction={"prompt": user("x"), "completion": "y"}))
    with room.database.session() as session:
        for taken in room.store.take(session, "default", limit=9):
            row = session.get(EventRow, taken.event_key)
            assert row is not None
            assert row.event_digest == taken.event_digest
            assert ScreenedEvent.model_validate_json(taken.model_dump_json()) == taken


def test_two_consumers_neither_lose_nor_double(room: Room) -> None:
    events = [event(f"e-{i}", subject_id=f"u-{i}", interaction=_said(i)) for i in range(1_500)]
    room.ingestor.accept(events)
    rivals = [Consumer(room.database, room.stream, room.settings) for _ in range(3)]
    threads = [threading.Thread(target=rival.drain) for rival in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with room.database.reader() as session:
        sequences = sorted(session.scalars(select(EventRow.sequence)))
    assert sequences == list(range(1_500))
    assert dead_letters(room) == []


def _said(number: int) -> dict[str, object]:
    word = "".join(chr(97 + int(digit)) for digit in str(number))
    return {"prompt": user(f"prompt {word}"), "completion": "billing"}


def test_rolled_back_chunk_leaves_no_trace_in_memory_either(
    make: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = make(max_events_per_phrase=2)
    shared = [{"prompt": user(f"{w} by the silver moon tonight"), "completion": ""} for w in "abc"]
    events = [event(f"e-{i}", interaction=said) for i, said in enumerate(shared)]
    room.ingestor.accept(events[:2])
    monkeypatch.setattr("collector.screening.writer.insert_rows", _broken)
    with pytest.raises(RuntimeError, match="broken"):
        room.consumer.drain()
    monkeypatch.undo()
    room.screen(*events)
    assert [room.became(f"e-{i}")[1] for i in range(3)] == [None, None, "phrase_burst"]


def _broken(*_: object) -> None:
    raise RuntimeError("broken")


DYING_CONSUMER = """
import os, signal, sys
from pathlib import Path
import collector.consume as consume
from collector.streams.embedded import EmbeddedStream
from tacit.config import load_settings
from tacit.database import Database

home, url, where = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
consume.CHUNK = 40

def live():
    settings = load_settings(home=home, overrides=["collector.screening.holdout_share=0"])
    consumer = consume.Consumer(Database(url), EmbeddedStream(home / "stream.db"), settings)
    num_chunks = 0

    def after(kept):
        def call(*arguments, **named):
            nonlocal num_chunks
            result = kept(*arguments, **named)
            num_chunks += 1
            if num_chunks == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call

    if where == "after_read":
        consumer._stream.read = after(consumer._stream.read)
    elif where == "before_commit":
        consumer._write = after(consumer._write)
    else:
        consumer._commit = after(consumer._commit)
    consumer.drain()

# Each life is a process of its own, forked from one that has imported what takes seconds. Only
# those that die after a commit ever get past the second chunk.
deaths = 0
while where == "after_commit" or deaths < 2:
    child = os.fork()
    if not child:
        live()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        break
    deaths += 1
print(deaths)
sys.exit(status > 0)
"""


@pytest.mark.parametrize("where", ["after_read", "before_commit", "after_commit"])
def test_killed_consumer_loses_none_and_doubles_none(room: Room, where: str) -> None:
    record(room, *[recorded(f"i-{i}", **_said(i)) for i in range(100)])
    sent = [about(f"e-{i}", f"i-{i}", subject_id=f"u-{i}") for i in range(100)]
    room.ingestor.accept(sent)
    arguments = [str(room.settings.home), room.database.url, where]
    command = [sys.executable, "-c", DYING_CONSUMER, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    room.consumer.drain()
    with room.database.reader() as session:
        keys = Counter(session.scalars(select(EventRow.event_key)))
        num_interactions = len(session.scalars(select(InteractionRow.interaction_id)).all())
        watermark = room.store.watermark(session)
    assert keys == Counter(e.event_key for e in sent)
    assert num_interactions == 100
    assert room.store.counts("default")[EventStatus.ACCEPTED] == 100
    assert watermark == {"tacit.feedback/0": 99, "tacit.interactions/0": 99}


def test_run_stops_when_told(room: Room) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=room.consumer.run, args=(stop,))
    thread.start()
    room.ingestor.accept([event("e-1")])
    for _ in range(400):
        if room.store.find("helpdesk", "e-1") is not None:
            break
        stop.wait(0.05)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert room.became("e-1") == ("accepted", None)


@pytest.mark.kafka
def test_the_whole_path_over_kafka(
    kafka_address: str, tmp_path: Path, sqlite_database: Database, topic: str
) -> None:
    from collector.streams import open_stream

    settings = Settings.model_validate(
        {
            "home": tmp_path,
            "collector": {
                "stream": "kafka",
                "topic_prefix": topic,
                "kafka": {"bootstrap_servers": kafka_address},
                "screening": {"holdout_share": 0},
            },
        }
    )
    stream = open_stream(settings)
    sent = [event(f"e-{i}", subject_id=f"u-{i}", interaction=_said(i)) for i in range(300)]
    with Ingestor(sqlite_database, stream, settings) as ingestor:
        assert {r.status for r in ingestor.accept(sent)} == {"queued"}
    assert Consumer(sqlite_database, stream, settings).drain() == 300
    assert Consumer(sqlite_database, stream, settings).drain() == 0
    store = EventStore(sqlite_database)
    assert store.count_trainable("default") == 300
    with sqlite_database.reader() as session:
        watermark = store.watermark(session)
    assert sum(offset + 1 for offset in watermark.values()) == 300
    assert len(watermark) == settings.collector.kafka.num_partitions
    stream.close()
