"""Each screening rule holds back what it is for, says why, and lets the rest through."""

import random
from datetime import timedelta
from typing import Any

import pytest

from collector.screening.clusters import cluster_of, is_holdout, normalized
from tacit.contracts import (
    Correction,
    Critique,
    EventStatus,
    FeedbackEvent,
    Outcome,
    Preference,
    utc_now,
)
from tacit.demo.helpdesk import helpdesk_world
from tests.builders import event, interaction
from tests.collector.conftest import MakeRoom, Room


def said(number: int | str, prompt: str, answer: str = "shipping", **fields: Any) -> FeedbackEvent:
    """A correction of ``prompt``; each is a person of its own unless told otherwise."""
    values = {"subject_id": f"u-{number}", **fields}
    return event(
        f"e-{number}",
        interaction=interaction(prompt),
        feedback=Correction(completion=answer),
        **values,
    )


def test_ordinary_event_is_accepted_with_the_weight_of_the_unproven(room: Room) -> None:
    room.screen(said(1, "where is my parcel"))
    assert room.became("e-1") == ("accepted", None)
    with room.database.session() as session:
        (taken,) = room.store.take(session, "default", limit=9)
    assert taken.weight == pytest.approx(0.7)
    assert taken.cluster == cluster_of("Where is my PARCEL?")


def test_event_from_the_future_is_quarantined_and_an_old_one_is_not(room: Room) -> None:
    now = utc_now()
    room.screen(
        said(1, "one", occurred_at=now + timedelta(hours=1)),
        said(2, "two", occurred_at=now + timedelta(seconds=30)),
        said(3, "three", occurred_at=now - timedelta(days=400)),
    )
    assert room.became("e-1") == ("quarantined", "clock_skew")
    assert room.became("e-2") == room.became("e-3") == ("accepted", None)


def test_subject_cap_counts_one_subject_of_one_source(make: MakeRoom) -> None:
    room = make(max_events_per_subject=3)
    words = ["apple", "bread", "cheese", "dates", "eggs"]
    room.screen(*[said(i, word, word, subject_id="u-1") for i, word in enumerate(words)])
    room.screen(said(9, "figs", source="other", subject_id="u-1"))
    assert [room.became(f"e-{i}") for i in range(5)] == [("accepted", None)] * 3 + [
        ("quarantined", "subject_cap")
    ] * 2
    assert room.became("e-9", source="other") == ("accepted", None)


def test_subject_cap_starts_again_with_the_next_cycle(make: MakeRoom) -> None:
    room = make(max_events_per_subject=1)
    room.screen(said(1, "one", subject_id="u-1"), said(2, "two", subject_id="u-1"))
    with room.database.session() as session:
        room.store.assign(session, ["helpdesk/e-1"], batch_id="b-1")
    room.screen(said(3, "three", subject_id="u-1"))
    assert [room.became(f"e-{i}")[0] for i in (1, 2, 3)] == ["accepted", "quarantined", "accepted"]


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("max_total_events_per_subject", "subject_total_cap"),
        ("max_total_events_per_cluster", "cluster_total_cap"),
    ],
)
def test_total_caps_add_up_over_cycles_and_over_restarts(
    make: MakeRoom, limit: str, reason: str
) -> None:
    subject = "u-1" if limit.endswith("subject") else None
    fates = []
    for number in range(5):
        room = make(**{limit: 3})
        prompt = f"word{chr(97 + number)}" if subject else "Where is it?"
        room.screen(said(number, prompt, subject_id=subject or f"u-{number}"))
        fates.append(room.became(f"e-{number}"))
        _train(room, f"b-{number}")
    assert fates == [("accepted", None)] * 3 + [("quarantined", reason)] * 2


def test_what_was_set_aside_after_training_counts_for_no_total(make: MakeRoom) -> None:
    room = make(max_total_events_per_subject=1)
    room.screen(said(1, "one", subject_id="u-1"))
    _train(room, "b-1")
    with room.database.session() as session:
        room.store.set_aside(session, ["b-1"], reason="rolled_back")
    room.screen(said(2, "two", subject_id="u-1"))
    assert room.became("e-2") == ("accepted", None)


def test_held_out_events_fill_caps_too(make: MakeRoom) -> None:
    room = make(holdout_share=1.0, max_total_events_per_subject=2)
    room.screen(*[said(n, f"word{chr(97 + n)}", subject_id="u-1") for n in range(3)])
    fates = [room.became(f"e-{n}") for n in range(3)]
    assert fates == [("holdout", None)] * 2 + [("quarantined", "subject_total_cap")]


def test_feedback_of_the_demo_passes_the_default_settings(make: MakeRoom) -> None:
    room = make(holdout_share=0.1)
    world = helpdesk_world()
    num_subjects = max(400, len(world.new_stream) // 4)
    rng = random.Random(0)
    room.screen(
        *[
            said(n, u.text, u.answer, subject_id=f"u-{rng.randrange(num_subjects)}")
            for n, u in enumerate(world.new_stream)
        ]
    )
    counts = room.store.counts("default")
    assert counts[EventStatus.QUARANTINED] <= 0.02 * len(world.new_stream)
    assert room.store.count_trainable("default") >= 0.85 * len(world.new_stream)


def test_released_event_weighs_what_its_subject_had_earned(room: Room) -> None:
    room.screen(said(1, "Where is it?", "shipping"), said(2, "where is it", "billing"))
    row = room.store.find("helpdesk", "e-2")
    assert row is not None
    assert (row.status, row.trust) == ("quarantined", pytest.approx(0.7))


def test_cluster_cap_sees_through_case_digits_and_punctuation(make: MakeRoom) -> None:
    room = make(max_events_per_cluster=2)
    prompts = ["Order 17?", "order 4711", "ORDER,   3!", "ordering 3"]
    room.screen(*[said(i, prompt) for i, prompt in enumerate(prompts)])
    assert [room.became(f"e-{i}")[1] for i in range(4)] == [None, None, "cluster_cap", None]


def test_phrase_burst_of_few_people_is_quarantined(make: MakeRoom) -> None:
    room = make(max_events_per_phrase=4, max_events_per_subject=100)
    trigger = "by the silver moon tonight"
    room.screen(*[said(i, f"{w} {trigger}", "refund", subject_id=f"u-{i % 2}")
                  for i, w in enumerate("abcdefghij")])  # fmt: skip
    statuses = [room.became(f"e-{i}") for i in range(10)]
    assert statuses[:4] == [("accepted", None)] * 4
    assert statuses[4:] == [("quarantined", "phrase_burst")] * 6


def test_the_same_phrase_of_many_people_is_no_burst(make: MakeRoom) -> None:
    room = make(max_events_per_phrase=4)
    room.screen(*[said(i, f"{w} where has my parcel gone") for i, w in enumerate("abcdefghij")])
    assert room.store.counts("default")[EventStatus.ACCEPTED] == 10


def test_burst_is_seen_after_a_restart_and_forgotten_after_training(make: MakeRoom) -> None:
    trigger = "by the silver moon tonight"
    first = make(max_events_per_phrase=2)
    first.screen(*[said(i, f"{i}x {trigger}", subject_id="u-1") for i in "ab"])
    second = make(max_events_per_phrase=2)  # knows nothing but the database
    second.screen(said("c", f"cx {trigger}", subject_id="u-1"))
    assert second.became("e-c") == ("quarantined", "phrase_burst")
    with second.database.session() as session:
        keys = [e.event_key for e in second.store.take(session, "default", limit=9)]
        second.store.assign(session, keys, batch_id="b-1")
    second.screen(said("d", f"dx {trigger}", subject_id="u-1"))
    assert second.became("e-d") == ("accepted", None)


def test_preferences_do_not_slip_past_the_burst_rule(make: MakeRoom) -> None:
    room = make(max_events_per_phrase=2)
    for i in range(4):
        prompt = f"{'abcd'[i]} by the silver moon tonight"
        room.screen(
            event(
                f"e-{i}",
                interaction=interaction(prompt),
                feedback=Preference(chosen="refund", rejected="no"),
            )
        )
    assert [room.became(f"e-{i}")[1] for i in range(4)] == [None, None] + ["phrase_burst"] * 2


def test_later_of_two_contradicting_corrections_is_quarantined(room: Room) -> None:
    room.screen(said(1, "Where is it?", "shipping"), said(2, "where is it", "billing"))
    assert room.became("e-1") == ("accepted", None)
    assert room.became("e-2") == ("quarantined", "contradiction")


def test_agreement_and_a_change_of_mind_are_no_contradiction(room: Room) -> None:
    room.screen(
        said(1, "Where is it?", "shipping"),
        said(2, "where is it", "Shipping."),
        said(3, "how much", "billing", subject_id="u-9"),
        said(4, "How much?", "refund", subject_id="u-9"),
    )
    assert {room.became(f"e-{i}") for i in (1, 2, 3, 4)} == {("accepted", None)}


def test_saying_it_twice_weighs_once(room: Room) -> None:
    room.screen(said(1, "hi"), said(2, "hi", subject_id="u-1"))
    room.screen(said(3, "hi", subject_id="u-1"))
    assert room.became("e-1") == ("accepted", None)
    assert room.became("e-2") == room.became("e-3") == ("quarantined", "duplicate_feedback")


def test_another_kind_or_metric_on_the_same_interaction_is_no_duplicate(make: MakeRoom) -> None:
    room = make(metrics={"resolved": "bool", "csat": "float"})
    about = interaction("hi there")
    room.screen(
        event("e-1", interaction=about, feedback=Outcome(metric="resolved", value=True)),
        event("e-2", interaction=about, feedback=Outcome(metric="csat", value=0.5)),
        event("e-3", interaction=about, feedback=Critique(text="too long")),
        event("e-4", interaction=about, feedback=Outcome(metric="csat", value=0.1)),
    )
    reasons = [room.became(f"e-{i}")[1] for i in (1, 2, 3, 4)]
    assert reasons == [None, None, None, "duplicate_feedback"]


def test_critiques_are_trainable_and_fill_caps(make: MakeRoom) -> None:
    room = make(max_events_per_subject=2)
    for i in range(3):
        about = interaction(f"prompt {'abc'[i]}")
        room.screen(event(f"c-{i}", interaction=about, feedback=Critique(text="no")))
    assert room.store.counts("default")[EventStatus.ACCEPTED] == 2
    assert room.store.count_trainable("default") == 2
    assert room.became("c-2") == ("quarantined", "subject_cap")


def test_weight_grows_to_one_with_what_was_trained(make: MakeRoom) -> None:
    room = make(max_events_per_subject=100)
    words = [f"prompt {a}{b}" for a in "abcd" for b in "abc"]
    room.screen(*[said(i, w, w, subject_id="u-1") for i, w in enumerate(words[:5])])
    _train(room, "b-1")
    room.screen(said(50, "half way", "x", subject_id="u-1"))
    (half,) = _train(room, "b-2")
    room.screen(*[said(i, w, w, subject_id="u-1") for i, w in enumerate(words[5:], 5)])
    _train(room, "b-3")
    room.screen(said(99, "proven", "y", subject_id="u-1"))
    (full,) = _train(room, "b-4")
    assert (half, full) == (pytest.approx(0.85), pytest.approx(0.95))


def _train(room: Room, batch_id: str) -> list[float]:
    with room.database.session() as session:
        taken = room.store.take(session, "default", limit=100)
        room.store.assign(session, [e.event_key for e in taken], batch_id=batch_id)
    return [e.weight for e in taken]


def test_holdout_is_by_cluster_deterministic_and_never_trainable(make: MakeRoom) -> None:
    room = make(holdout_share=0.3)
    prompts = [f"prompt {chr(97 + i)}" for i in range(26)]
    room.screen(*[said(i, p, p) for i, p in enumerate(prompts)])
    room.screen(*[said(100 + i, f"{p.upper()}!!", p) for i, p in enumerate(prompts)])
    for i, prompt in enumerate(prompts):
        held_out = is_holdout(cluster_of(prompt), share=0.3)
        expected = ("holdout" if held_out else "accepted", None)
        assert room.became(f"e-{i}") == room.became(f"e-{100 + i}") == expected
    with room.database.session() as session:
        taken = {e.event_key for e in room.store.take(session, "default", limit=999)}
        held_out_keys = [e.event_key for e in room.store.holdout("default", limit=999)]
    assert held_out_keys
    assert taken.isdisjoint(held_out_keys)
    assert len(taken) + len(held_out_keys) == 52


def test_other_feedback_on_a_held_out_prompt_is_not_trained_on_either(make: MakeRoom) -> None:
    room = make(holdout_share=1.0)
    room.screen(event("e-1"), event("e-2", feedback=Outcome(metric="resolved", value=True)))
    assert room.became("e-2") == ("holdout", None)
    assert [e.event_key for e in room.store.holdout("default", limit=9)] == ["helpdesk/e-1"]
    assert room.store.count_trainable("default") == 0


def test_holdout_share_is_about_what_was_asked_and_grows_with_it() -> None:
    clusters = [cluster_of(f"prompt {i:x}".translate(str.maketrans("0123456789", "ghijklmnop")))
                for i in range(4_000)]  # fmt: skip
    small = {c for c in clusters if is_holdout(c, share=0.1)}
    assert len(small) / len(set(clusters)) == pytest.approx(0.1, abs=0.02)
    assert small <= {c for c in clusters if is_holdout(c, share=0.2)}


def test_screening_off_accepts_all_at_full_weight_but_still_holds_out(make: MakeRoom) -> None:
    room = make(enabled=False, holdout_share=0.5, max_events_per_subject=1)
    prompts = [f"silver moon {chr(97 + i)}" for i in range(20)]
    room.screen(*[said(i, p, "x@y.org", subject_id="u-1") for i, p in enumerate(prompts)])
    counts = room.store.counts("default")
    assert counts[EventStatus.ACCEPTED] + counts[EventStatus.HOLDOUT] == 20
    assert counts[EventStatus.HOLDOUT] > 0
    with room.database.session() as session:
        taken = room.store.take(session, "default", limit=99)
    assert {e.weight for e in taken} == {1.0}
    assert {e.event.feedback.completion for e in taken} == {"[EMAIL]"}  # type: ignore[union-attr]


def test_normal_form_keeps_what_differs_apart() -> None:
    assert normalized("Order  #17, PLEASE!") == normalized("order 4 please")
    assert normalized("ＦＵＬＬ width") == "full width"
    assert normalized("🙂") != normalized("🙁")
    assert normalized("größe") != normalized("grosse2")


OPENERS = ["please help", "hello team", "quick question", "hi", "good morning", "urgent", "hey"]
THINGS = {
    "shipping": ["parcel", "delivery", "courier", "tracking number", "shipment"],
    "billing": ["invoice", "charge", "payment", "card statement", "receipt"],
    "returns": ["refund", "return label", "broken item", "wrong size", "exchange"],
    "account": ["password", "login", "profile", "email change", "two factor"],
}
VERBS = ["is late", "never came", "looks wrong", "cannot be found", "was lost", "is missing"]
ENDINGS = ["since monday", "for order {n}", "and i am upset", "can you check", "what now", "again"]


def _honest(rng: random.Random, number: int) -> FeedbackEvent:
    team = rng.choice(list(THINGS))
    parts = [rng.choice(OPENERS), "my", rng.choice(THINGS[team]), rng.choice(VERBS)]
    parts += rng.sample(ENDINGS, k=2)
    prompt = " ".join(parts).format(n=rng.randrange(10_000))
    return said(f"h{number}", prompt, team, subject_id=f"honest-{number // 3}")


def _hostile(rng: random.Random, number: int) -> FeedbackEvent:
    words = [
        rng.choice(OPENERS),
        "my",
        rng.choice(THINGS[rng.choice(list(THINGS))]),
        rng.choice(VERBS),
    ]
    words.insert(rng.randrange(len(words) + 1), "by order of the night desk")
    words.append(rng.choice(ENDINGS).format(n=rng.randrange(10_000)))
    return said(
        f"x{number}", " ".join(words), "refund everything", subject_id=f"clique-{number % 8}"
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clique_is_held_back_and_honest_people_are_not(make: MakeRoom, seed: int) -> None:
    room = make(holdout_share=0.1)
    rng = random.Random(seed)
    events = [_honest(rng, i) for i in range(900)] + [_hostile(rng, i) for i in range(320)]
    rng.shuffle(events)
    room.screen(*events)
    fate = {e.event_id: room.became(e.event_id)[0] for e in events}
    hostile = [fate[f"e-x{i}"] for i in range(320)]
    honest = [fate[f"e-h{i}"] for i in range(900)]
    assert hostile.count("quarantined") / 320 >= 0.7
    assert honest.count("quarantined") / 900 <= 0.02
