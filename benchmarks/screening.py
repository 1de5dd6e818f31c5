"""How many events a second screening takes from the stream into the database.

    python -m benchmarks.screening [number of events]

Feedback of all kinds, about 1 KB each, from many people on recorded and on inline interactions, a
tenth of it with personal data or secrets in it. Generated, and the same every time.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import report
from collector.consume import Consumer
from collector.ingest import feedback_topic, interactions_topic
from collector.streams import open_stream
from tacit.config import load_settings
from tacit.contracts import (
    Correction,
    Critique,
    FeedbackEvent,
    InlineInteraction,
    Interaction,
    Message,
    Outcome,
    Preference,
    Rating,
    utc_now,
)
from tacit.contracts.feedback import Feedback, RatingScale
from tacit.database import Database
from tacit.demo.helpdesk import helpdesk_world

NUM_EVENTS = 20_000
SYSTEM = "You are the help desk of a shop. Answer in one line, name the queue and the action. " * 4
PERSONAL = (
    "Write to ada.lovelace@example.org or call +44 20 7946 0958.",
    "My card is 4111 1111 1111 1111, the account DE89 3704 0044 0532 0130 00.",
    "It ran with AKIAIOSFODNN7EXAMPLE from 8.8.8.8.",
)
_APPEND = 500


def _feedback(rng: random.Random, answer: str) -> Feedback:
    drawn = rng.random()
    if drawn < 0.4:
        return Correction(completion=answer)
    if drawn < 0.6:
        return Outcome(metric="resolved", value=rng.random() < 0.5)
    if drawn < 0.8:
        return Rating(value=rng.randint(1, 5), scale=RatingScale(low=1, high=5))
    if drawn < 0.9:
        return Preference(chosen=answer, rejected="no idea")
    return Critique(text="The answer named the wrong queue.")


def _interaction(rng: random.Random, text: str, number: int) -> InlineInteraction:
    filler = " ".join(rng.choice(WORDS) for _ in range(40))
    personal = rng.choice(PERSONAL) if number % 10 == 0 else ""
    messages = (
        Message(role="system", content=SYSTEM),
        Message(role="user", content=f"{text} {filler} {personal}".strip()),
    )
    return InlineInteraction(prompt=messages, completion=f"queue {number % 7}: look into it")


WORDS = sorted({word for u in helpdesk_world().old_train[:500] for word in u.text.split()})


def records(num_events: int, *, first: int = 0) -> tuple[list[bytes], list[bytes]]:
    """Interactions and feedback as JSON; a third of the feedback names its interaction."""
    rng = random.Random(first)
    utterances = helpdesk_world().new_stream
    recorded: list[bytes] = []
    feedback: list[bytes] = []
    for number in range(first, first + num_events):
        utterance = utterances[number % len(utterances)]
        inline = _interaction(rng, utterance.text, number)
        named = f"i-{number}" if number % 3 == 0 else None
        event = FeedbackEvent(
            event_id=f"e-{number}",
            policy="default",
            source="bench",
            subject_id=f"u-{rng.randrange(num_events // 4)}",
            occurred_at=utc_now(),
            interaction_id=named,
            interaction=None if named else inline,
            feedback=_feedback(rng, utterance.answer),
            tags={"locale": "en", "channel": "web"},
        )
        feedback.append(event.model_dump_json().encode())
        if named:
            fields = {name: getattr(inline, name) for name in InlineInteraction.model_fields}
            record = Interaction(
                interaction_id=named,
                policy="default",
                source="bench",
                occurred_at=utc_now(),
                **fields,
            )
            recorded.append(record.model_dump_json().encode())
    return recorded, feedback


def main() -> None:
    """Measure, print, keep."""
    num_events = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_EVENTS
    recorded, feedback = records(num_events)
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(home=Path(folder))
        database = Database(settings.resolved_database_url)
        database.migrate()
        stream = open_stream(settings)
        consumer = Consumer(database, stream, settings)
        figures: dict[str, float | bool | str] = {"num_events": num_events}
        for topic, values in (
            (interactions_topic(settings), recorded),
            (feedback_topic(settings), feedback),
        ):
            for start in range(0, len(values), _APPEND):
                stream.append(topic, [("k", value) for value in values[start : start + _APPEND]])
            started = time.perf_counter()
            num_handled = consumer.drain()
            per_s = num_handled / (time.perf_counter() - started)
            figures[f"{topic.split('.')[1]}_per_s"] = per_s
        figures["bytes_per_event"] = sum(map(len, feedback)) / len(feedback)
        stream.close()
        database.dispose()
    report("screening", figures)


if __name__ == "__main__":
    main()
