"""What a quorum is asked for teaches nobody until enough people have said it."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from collector.consume import Consumer
from tacit.config import ScreeningSettings, load_settings
from tacit.contracts import Correction, FeedbackEvent, Outcome, Preference, utc_now
from tests.builders import event, interaction, recorded
from tests.collector.conftest import MakeRoom, Room
from tests.collector.test_consume import record

FACTS = ({"tag": "kind", "value": "fact", "min_subjects": 3},)
WAITS = ("held", "awaiting_quorum")
ACCEPTED = ("accepted", None)


def claim(number: int | str, answer: str = "Berlin", **fields: Any) -> FeedbackEvent:
    """Somebody's correction of the capital; each is a person of its own unless told otherwise."""
    values: dict[str, Any] = {
        "subject_id": f"u-{number}",
        "tags": {"kind": "fact"},
        "interaction": interaction("what is the capital of the country", f"no idea {number}"),
        "feedback": Correction(completion=answer),
    }
    return event(f"e-{number}", **{**values, **fields})


def fates(room: Room, *numbers: int) -> list[tuple[str, str | None]]:
    return [room.became(f"e-{number}") for number in numbers]


def test_the_third_person_lets_all_three_go_in_order(make: MakeRoom) -> None:
    room = make(quorum=FACTS)
    room.screen(claim(1), claim(2))
    assert fates(room, 1, 2) == [WAITS] * 2
    assert room.store.count_trainable("default") == 0
    room.screen(claim(3), claim(4))
    assert fates(room, 1, 2, 3, 4) == [ACCEPTED] * 4
    with room.database.session() as session:
        taken = room.store.take(session, "default", limit=9)
    assert [e.event.event_id for e in taken] == ["e-1", "e-2", "e-3", "e-4"]


def test_it_is_reached_within_one_chunk_and_across_restarts_alike(make: MakeRoom) -> None:
    make(quorum=FACTS).screen(claim(1))
    make(quorum=FACTS).screen(claim(2))
    room = make(quorum=FACTS)
    room.screen(claim(3))
    assert fates(room, 1, 2, 3) == [ACCEPTED] * 3
    room.screen(*[claim(n, "Paris", interaction=interaction("and of the other country", f"{n}"))
                  for n in (5, 6, 7)])  # fmt: skip
    assert fates(room, 5, 6, 7) == [ACCEPTED] * 3


def test_the_same_person_and_another_answer_do_not_count(make: MakeRoom) -> None:
    room = make(quorum=FACTS)
    room.screen(
        claim(1),
        claim(2, subject_id="u-1"),
        claim(3, "Paris"),
        claim(4, source="other", subject_id="u-1"),
    )
    assert fates(room, 1, 2, 3) == [WAITS] * 3
    assert room.became("e-4", source="other") == WAITS
    room.screen(claim(5, "BERLIN!"))
    assert fates(room, 1, 2, 5) == [ACCEPTED] * 3
    assert fates(room, 3) == [WAITS]


def test_near_duplicates_of_the_prompt_count(make: MakeRoom) -> None:
    room = make(quorum=FACTS)
    prompts = ["what is the capital of the country", "what is teh capital of the country",
               "what is the capital of that country"]  # fmt: skip
    room.screen(*[claim(n, interaction=interaction(p)) for n, p in enumerate(prompts)])
    assert fates(room, 0, 1, 2) == [ACCEPTED] * 3


def test_rules_are_about_their_tags_and_about_what_teaches(make: MakeRoom) -> None:
    room = make(quorum=FACTS)
    room.screen(
        claim(1, tags={}),
        claim(2, tags={"kind": "style"}),
        claim(3, feedback=Outcome(metric="resolved", value=False)),
        claim(4, feedback=Preference(chosen="Rome", rejected="no idea")),
    )
    assert fates(room, 1, 2, 3) == [ACCEPTED] * 3
    assert fates(room, 4) == [WAITS]


def test_the_strictest_rule_counts_and_a_rule_may_be_about_everything(make: MakeRoom) -> None:
    room = make(quorum=({"min_subjects": 2}, {"tag": "kind", "min_subjects": 3}))
    room.screen(claim(1, tags={}))
    assert fates(room, 1) == [WAITS]
    room.screen(claim(2))
    assert fates(room, 1, 2) == [ACCEPTED, WAITS]
    room.screen(claim(3))
    assert fates(room, 1, 2, 3) == [ACCEPTED] * 3


def test_a_laxer_event_lets_no_stricter_one_go(make: MakeRoom) -> None:
    room = make(quorum=({"min_subjects": 2}, {"tag": "kind", "min_subjects": 3}))
    room.screen(claim(1))
    room.screen(claim(2, tags={}))
    assert fates(room, 1, 2) == [WAITS, ACCEPTED]


def test_a_rule_that_was_relaxed_lets_those_go_who_wait(make: MakeRoom) -> None:
    make(quorum=({"min_subjects": 9},)).screen(claim(1), claim(2), claim(3))
    room = make(quorum=FACTS)
    room.screen(claim(4))
    assert fates(room, 1, 2, 3, 4) == [ACCEPTED] * 4


def test_caps_hold_when_the_quorum_is_reached(make: MakeRoom) -> None:
    room = make(quorum=FACTS, max_events_per_cluster=2)
    room.screen(claim(1), claim(2), claim(3))
    assert fates(room, 1, 2, 3) == [ACCEPTED, ACCEPTED, ("quarantined", "cluster_cap")]


def test_what_a_rule_refuses_neither_waits_nor_counts(make: MakeRoom) -> None:
    room = make(quorum=FACTS)
    ahead = utc_now() + timedelta(hours=1)
    room.screen(claim(1), claim(2), claim(3, occurred_at=ahead))
    assert fates(room, 1, 2, 3) == [WAITS, WAITS, ("quarantined", "clock_skew")]


def test_once_reached_it_stays_reached(make: MakeRoom) -> None:
    room = make(quorum=FACTS)
    room.screen(claim(1), claim(2), claim(3))
    with room.database.session() as session:
        keys = [e.event_key for e in room.store.take(session, "default", limit=9)]
        room.store.assign(session, keys, batch_id="b-1")
    room.screen(claim(4))
    assert fates(room, 4) == [ACCEPTED]


def test_waiting_for_people_ends(make: MakeRoom) -> None:
    room = make(quorum=FACTS, quorum_ttl_s=3600)
    room.screen(claim(1))
    now = utc_now()
    for minutes, fate in ((59, WAITS), (61, ("quarantined", "quorum_expired"))):
        later = now + timedelta(minutes=minutes)
        clock = lambda later=later: later  # noqa: E731
        Consumer(room.database, room.stream, room.settings, clock=clock).drain()
        assert room.became("e-1") == fate


def test_feedback_before_its_interaction_waits_for_both(make: MakeRoom) -> None:
    room = make(quorum=FACTS)
    for number in (1, 2, 3):
        room.screen(claim(number, interaction=None, interaction_id=f"i-{number}"))
    assert fates(room, 1, 2, 3) == [("held", "awaiting_interaction")] * 3
    prompt = interaction("what is the capital of the country").prompt
    record(room, recorded("i-1", prompt=prompt), recorded("i-2", prompt=prompt))
    room.consumer.drain()
    assert fates(room, 1, 2, 3) == [WAITS, WAITS, ("held", "awaiting_interaction")]
    record(room, recorded("i-3", prompt=prompt))
    room.consumer.drain()
    assert fates(room, 1, 2, 3) == [ACCEPTED] * 3


def test_without_screening_there_is_no_quorum(make: MakeRoom) -> None:
    room = make(quorum=FACTS, enabled=False)
    room.screen(claim(1))
    assert fates(room, 1) == [ACCEPTED]


def test_rules_from_the_command_line_and_what_they_refuse() -> None:
    rules = '[{"tag": "kind", "value": "fact", "min_subjects": 3}]'
    settings = load_settings(overrides=[f"collector.screening.quorum={rules}"])
    (rule,) = settings.collector.screening.quorum
    assert (rule.tag, rule.value, rule.min_subjects) == ("kind", "fact", 3)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        ScreeningSettings.model_validate({"quorum": [{"min_subjects": 1}]})
    with pytest.raises(ValidationError, match="expected a tag beside value"):
        ScreeningSettings.model_validate({"quorum": [{"value": "fact", "min_subjects": 2}]})
