"""Live feedback: which events count for which release, as what, and that none is read twice."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.streams.embedded import EmbeddedStream
from collector.tables import EventRow, InteractionRow
from tacit.config import Settings, load_settings
from tacit.contracts import (
    Correction,
    Critique,
    Feedback,
    Interaction,
    Outcome,
    Preference,
    Rating,
    RatingScale,
)
from tacit.database import Database
from tacit.live import LiveFeedback, LiveOutcome, last_sequence, version_of
from tests import builders

OLD, NEW = builders.digest("old"), builders.digest("new")


class Line:
    """A policy line whose answers and feedback are screened at once."""

    def __init__(self, settings: Settings, database: Database, stream: EmbeddedStream) -> None:
        self.database = database
        self._stream = stream
        self._ingestor = Ingestor(database, stream, settings)
        self._consumer = Consumer(database, stream, settings)
        self._topic = f"{settings.collector.topic_prefix}.interactions"
        self._number = 0

    def answer(self, weights: str, **fields: object) -> str:
        """Record an answer of ``weights``; its id."""
        self._number += 1
        values = {"policy_version": version_of("default", weights), "arm": "champion"} | fields
        made: Interaction = builders.recorded(f"i-{self._number}", **values)
        self._stream.append(self._topic, [("key", made.model_dump_json().encode())])
        self._consumer.drain()
        return made.interaction_id

    def say(self, about: str, feedback: Feedback, **fields: object) -> str:
        """Send feedback on an answer and screen it; its event key."""
        self._number += 1
        made = builders.event(
            f"e-{self._number}", interaction_id=about, feedback=feedback, **fields
        )
        self._ingestor.accept([made])
        self._consumer.drain()
        return made.event_key

    def read(self, **fields: object) -> list[LiveOutcome]:
        """What a new reader finds."""
        return self.reader(**fields).read()

    def reader(self, **fields: object) -> LiveFeedback:
        """A reader of both releases from the beginning."""
        values: dict[str, object] = {"since": builders.MOMENT, **fields}
        arms = {OLD: "champion", NEW: "canary"}
        return LiveFeedback(self.database, "default", arms=arms, **values)  # type: ignore[arg-type]

    def close(self) -> None:
        self._ingestor.close()


@pytest.fixture
def make(tmp_path: Path, sqlite_database: Database) -> Iterator[Callable[..., Line]]:
    stream = EmbeddedStream(tmp_path / "stream.db")
    made: list[Line] = []

    def build(holdout_share: float = 0.0) -> Line:
        metrics = {
            "resolved": {"type": "bool"},
            "escalated": {"type": "bool", "better": "lower"},
            "score": {"type": "float"},
        }
        collector = {"metrics": metrics, "screening": {"holdout_share": holdout_share}}
        settings = load_settings(home=tmp_path, collector=collector)
        made.append(Line(settings, sqlite_database, stream))
        return made[-1]

    yield build
    for line in made:
        line.close()
    stream.close()


@pytest.fixture
def line(make: Callable[..., Line]) -> Line:
    return make()


@pytest.mark.parametrize(
    ("feedback", "success"),
    [
        (Outcome(metric="resolved", value=True), 1.0),
        (Outcome(metric="escalated", value=True), 0.0),
        (Outcome(metric="score", value=-0.5), 0.25),
        (Rating(value=4, scale=RatingScale(low=1, high=5)), 0.75),
        (Correction(completion="shipping"), 0.0),
        (Preference(chosen="billing", rejected="shipping"), 1.0),
        (Preference(chosen="shipping", rejected="billing"), 0.0),
        (Preference(chosen="shipping", rejected="returns"), None),
        (Critique(text="far too short"), None),
    ],
)
def test_what_feedback_says_of_an_answer(
    line: Line, feedback: Feedback, success: float | None
) -> None:
    key = line.say(line.answer(NEW), feedback)
    expected = [LiveOutcome("helpdesk/u-1", "canary", success, builders.MOMENT, key)]
    assert line.read() == ([] if success is None else expected)


def test_the_version_that_serving_recorded_says_who_answered(line: Line) -> None:
    for weights in (OLD, NEW, builders.digest("older")):
        line.say(line.answer(weights), Outcome(metric="resolved", value=True))
    assert [outcome.arm for outcome in line.read()] == ["champion", "canary"]


def test_what_a_product_claims_inline_does_not_count(line: Line) -> None:
    claimed = builders.interaction().model_copy(
        update={"policy_version": version_of("default", NEW)}
    )
    line.say("i-unknown", Correction(completion="shipping"), interaction=claimed)
    assert line.read() == []


def test_only_answers_given_since_the_beginning_count(line: Line) -> None:
    line.say(line.answer(NEW), Correction(completion="shipping"))
    assert line.read(since=builders.MOMENT + timedelta(seconds=1)) == []


def test_held_out_feedback_counts_and_quarantined_does_not(make: Callable[..., Line]) -> None:
    line = make(holdout_share=0.999)
    about = line.answer(NEW)
    first = line.say(about, Correction(completion="shipping"))
    line.say(about, Correction(completion="returns"))
    with line.database.reader() as session:
        statuses = {row.status for row in session.query(EventRow)}
    assert statuses == {"holdout", "quarantined"}
    assert [outcome.event_key for outcome in line.read()] == [first]


def test_feedback_that_waited_for_its_interaction_is_read_when_it_is_judged(line: Line) -> None:
    reader = line.reader()
    line.say("i-2", Correction(completion="shipping"))
    line.say(line.answer(OLD), Outcome(metric="resolved", value=True))
    found = reader.read()
    assert [outcome.arm for outcome in found] == ["champion", "champion"]


def test_each_read_has_what_is_new_and_reads_nothing_else(line: Line) -> None:
    reader = line.reader()
    keys = [line.say(line.answer(NEW), Correction(completion="shipping")) for _ in range(3)]
    assert [outcome.event_key for outcome in reader.read()] == keys
    assert reader.read() == []
    with line.database.session() as session:
        session.execute(update(EventRow).values(payload="unreadable"))
        session.execute(update(InteractionRow).values(payload="unreadable"))
    assert reader.read() == []


def test_pages_are_read_to_the_end(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tacit.live.PAGE_SIZE", 2)
    for _ in range(5):
        line.say(line.answer(NEW), Correction(completion="shipping"))
    assert len(line.read()) == 5


def test_reading_begins_after_the_batch_that_taught_the_canary(line: Line) -> None:
    early = line.say(line.answer(NEW), Correction(completion="shipping"))
    late = line.say(line.answer(NEW), Correction(completion="shipping"))
    with line.database.session() as session:
        session.execute(update(EventRow).where(EventRow.event_key == early).values(batch_id="b-1"))
        after = last_sequence(session, ["b-1"])
        assert last_sequence(session, ["b-none"]) == -1
    assert [outcome.event_key for outcome in line.read(after=after)] == [late]
