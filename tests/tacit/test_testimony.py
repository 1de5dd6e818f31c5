"""Feedback that other feedback or the anchor contradicts, and what becomes of it."""

import json

import pytest
from sqlalchemy import select

from collector.tables import EventRow
from collector.triage.quarantine import Quarantine
from tacit.config import Settings, TrainerSettings, with_overrides
from tacit.contracts import Digest, EventStatus, ReplayExample
from tacit.cycles import CycleState
from tacit.keys import Principal, Scope
from tacit.learning import Learning
from tacit.rehearsal import rehearsal_of
from tacit.stages import Stages
from tacit.testimony import Contradictions, Heard, contradictions, hear, lessons_of
from tests.builders import user
from tests.tacit.teaching import send
from tests.trainer.askers import BAD, PASSWORD, correction, outcome
from trainer.replay import load_anchor

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
OPENINGS = ("how do i reset", "i forgot", "please change", "what about", "where do i set")


def told(stages: Stages) -> list[str]:
    """What is noted of events for a person."""
    with stages.database.session() as session:
        return list(session.scalars(select(EventRow.detail).where(EventRow.detail.is_not(None))))


def test_contradicted_feedback_is_neither_rehearsed_nor_fully_trusted(
    stages: Stages, champion: Digest
) -> None:
    asked = [f"{start} my {word} password" for start in OPENINGS for word in ("login", "mail")]
    send(stages, *asked)
    learning = Learning(stages, on_step=lambda _: None, on_evaluation=lambda *_: None)
    cycle = stages.cycles.resume_or_open(stages.policy)
    odd = "reset your password for my login"
    send(stages, odd, answer="nobody can")
    learning.seal(cycle)
    batch, _ = stages.batches.get(str(stages.cycles.get(cycle.cycle_id).batch_id))
    weights = {
        event.interaction.prompt[-1].content: event.weight
        for event in stages.events.events_of(batch.batch_id)
    }
    assert weights[odd] == pytest.approx(0.1 * weights[asked[0]])
    assert {weights[prompt] for prompt in asked} == {weights[asked[0]]}
    assert [entry.weight for entry in batch.entries].count(weights[odd]) == 1
    assert told(stages) == ["other feedback on similar questions contradicts it: 0.1 of its weight"]

    learned = stages.events.learned(stages.policy, limit=100)
    arguments = (stages.checkpoints, champion)
    settings = with_overrides(stages.settings, ["trainer.replay.on_policy_share=0"])
    pool = rehearsal_of([], Heard(learned), *arguments, settings=settings, number=4, seed=0).pool
    assert {example.completion for example in pool} == {"right"}
    deaf = with_overrides(settings, ["trainer.doubted_weight=1"])
    pool = rehearsal_of([], Heard(learned), *arguments, settings=deaf, number=4, seed=0).pool
    assert {example.completion for example in pool} == {"right", "nobody can"}

    with stages.database.session() as session:
        stages.events.release_batch(session, batch.batch_id)
        stages.events.take(session, stages.policy, limit=99)
    assert told(stages) == []


def test_the_first_who_report_a_changed_rule_are_rehearsed_in_full_once_others_agree(
    stages: Stages, champion: Digest
) -> None:
    asked = [f"{start} my {word} password" for start in OPENINGS for word in ("login", "mail")]
    learning = Learning(stages, on_step=lambda _: None, on_evaluation=lambda *_: None)
    send(stages, *asked)
    send(stages, "my login password i forgot", "my mail password i forgot", answer="changed")
    sealed(stages, learning)
    first = [
        event.weight
        for event in hear(stages.events, stages.policy, num_waiting=0, seed=0).learned
        if "changed" in str(event.event.feedback)
    ]
    in_batch = [e.weight for e in stages.events.learned(stages.policy, limit=2)]
    assert in_batch == pytest.approx([0.1 * weight for weight in first])

    again = [f"my {word} password {start}" for start in OPENINGS for word in ("login", "mail")]
    send(stages, *again, answer="changed")
    settings = with_overrides(stages.settings, ["trainer.replay.on_policy_share=0"])
    heard = hear(stages.events, stages.policy, num_waiting=100, seed=0)
    rehearsal = rehearsal_of(
        [], heard, stages.checkpoints, champion, settings=settings, number=4, seed=0
    )
    rehearsed = [lesson.weight for lesson in rehearsal.pool if lesson.completion == "changed"]
    assert rehearsed == first


def test_a_question_left_without_an_answer_is_rehearsed_with_what_others_taught() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-2]]
    learned, waiting = (outcome(prompt, "sorry", BAD) for prompt in PASSWORD[-2:])
    heard = Heard(learned=[learned, *reversed(taught)], waiting=[waiting])
    contradicted = contradictions(heard, [], TrainerSettings())
    found = lessons_of(heard, contradicted, [], Settings())
    inferred = [example for example in found if example.origin == "inferred"]
    assert {example.prompt[-1].content for example in inferred} == {*PASSWORD[-2:]}
    assert {example.completion for example in inferred} == {"portal"}
    assert len(found) == len(PASSWORD)

    as_said = [example for example in found if example.origin == "accepted"]
    for off in ("trainer.replay.inferred=false", "trainer.doubted_weight=1"):
        settings = with_overrides(Settings(), [off])
        assert lessons_of(heard, contradicted, [], settings) == as_said


@pytest.mark.parametrize("quorum", [5, 99])
def test_nothing_is_inferred_from_fewer_than_a_quorum(quorum: int) -> None:
    waiting = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    waiting.append(outcome(PASSWORD[-1], "sorry", BAD))
    rules = f'collector.screening.quorum=[{{"min_subjects": {quorum}}}]'
    settings = with_overrides(Settings(), [rules])
    found = lessons_of(Heard(waiting=waiting), Contradictions({}, {}), [], settings)
    assert len(found) == (1 if quorum == 5 else 0)


def test_refuted_feedback_tells_nothing_of_other_questions() -> None:
    lies = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    heard = Heard(waiting=[*lies, outcome(PASSWORD[-1], "sorry", BAD)])
    refuted = {lie.event_key: "the anchor says so" for lie in lies}
    assert lessons_of(heard, Contradictions({}, refuted), [], Settings()) == []
    assert lessons_of(heard, Contradictions({}, {}), [], Settings()) != []


KNOWN = {"portal": "{} my {} password now", "right": "track {} the {} parcel"}
ANCHOR = [
    (text.format(start, word), completion)
    for completion, text in KNOWN.items()
    for start in OPENINGS
    for word in ("login", "mail")
]
FLIP = [f"{start} my {word} password" for start in OPENINGS for word in ("login", "mail")]
HONEST = [f"where is the invoice of {month}" for month in ("may", "june", "july", "august")]


@pytest.fixture
def learning(stages: Stages, champion: Digest) -> Learning:
    """Of a line whose anchor answers what ``FLIP`` asks."""
    rows = [json.dumps({"prompt": prompt, "completion": text}) for prompt, text in ANCHOR]
    stages.settings.anchor_path.write_text("\n".join(rows))
    return Learning(stages, on_step=lambda _: None, on_evaluation=lambda *_: None)


def fates(stages: Stages) -> dict[str, str | None]:
    """Why each prompt's feedback stands aside; None where it does not."""
    with stages.database.session() as session:
        rows = session.execute(select(EventRow.interaction, EventRow.reason)).all()
    return {json.loads(said)["prompt"][-1]["content"]: reason for said, reason in rows}


def sealed(stages: Stages, learning: Learning) -> set[str]:
    """Prompts that the next batch learns from; its cycle ends there."""
    cycle = stages.cycles.resume_or_open(stages.policy)
    learning.seal(cycle)
    moved = stages.cycles.get(cycle.cycle_id)
    batch_id = moved.batch_id
    if batch_id is None:
        return set()
    with stages.database.session() as session:
        stages.cycles.move(session, moved, CycleState.FAILED, reason="enough")
    return {e.interaction.prompt[-1].content for e in stages.events.events_of(batch_id)}


def test_what_the_anchor_confirms_is_not_doubted_for_the_many_who_report_a_new_topic(
    stages: Stages, learning: Learning
) -> None:
    topic = [f"{start} my {word} parcel locker" for start in OPENINGS for word in ("login", "mail")]
    send(stages, *topic, answer="locker")
    known = "track my mail parcel"
    send(stages, known)
    heard = hear(stages.events, stages.policy, num_waiting=100, seed=0)
    key_of = {event.interaction.prompt[-1].content: event.event_key for event in heard.waiting}
    settings, anchor = stages.settings.trainer, load_anchor(stages.settings.anchor_path)
    assert contradictions(heard, [], settings).factors.keys() == {key_of[known]}
    assert contradictions(heard, anchor, settings).factors == {}


def test_what_the_anchor_contradicts_goes_to_quarantine_and_the_rest_is_learned(
    stages: Stages, learning: Learning
) -> None:
    send(stages, *HONEST, answer="billing")
    send(stages, *FLIP)
    assert sealed(stages, learning) == set(HONEST)
    assert fates(stages) == dict.fromkeys(FLIP, "against_anchor") | dict.fromkeys(HONEST)
    assert stages.events.reasons(stages.policy) == {"against_anchor": len(FLIP)}
    assert set(told(stages)) == {"'portal' is what the anchor answers such questions"}


def hold_out(stages: Stages, prompts: list[str]) -> None:
    with stages.database.session() as session:
        for row in session.scalars(select(EventRow)):
            if json.loads(row.interaction)["prompt"][-1]["content"] in prompts:
                row.status = EventStatus.HOLDOUT.value


def test_what_the_anchor_contradicts_measures_nothing_either(
    stages: Stages, learning: Learning
) -> None:
    kept = "and the one of september"
    send(stages, *HONEST, kept, answer="billing")
    send(stages, *FLIP)
    hold_out(stages, [*FLIP[:2], kept])
    assert sealed(stages, learning) == set(HONEST)
    assert fates(stages) == dict.fromkeys(FLIP, "against_anchor") | dict.fromkeys([*HONEST, kept])
    [left] = stages.events.holdout(stages.policy, limit=99)
    assert left.interaction.prompt[-1].content == kept


def test_what_is_held_out_has_no_say_in_what_is_learned(stages: Stages, learning: Learning) -> None:
    """Three of them are a flip and two are not; what waits is but two."""
    send(stages, *HONEST, answer="billing")
    send(stages, *FLIP[:3])
    hold_out(stages, FLIP[:1])
    assert sealed(stages, learning) == {*HONEST, *FLIP[1:3]}
    assert stages.events.holdout(stages.policy, limit=99) == []


def test_an_attack_in_pieces_does_not_begin_anew_with_each(
    stages: Stages, learning: Learning
) -> None:
    send(stages, *HONEST, answer="billing")
    send(stages, *FLIP[:4])
    assert sealed(stages, learning) == set(HONEST)
    later = [prompt.replace("invoice", "receipt") for prompt in HONEST]
    send(stages, *later, answer="billing")
    send(stages, FLIP[4])  # alone it would be one of too few to judge
    assert sealed(stages, learning) == set(later)
    assert fates(stages)[FLIP[4]] == "against_anchor"


def test_too_little_that_is_left_waits_for_more(stages: Stages, learning: Learning) -> None:
    send(stages, *HONEST[:3], answer="billing")
    send(stages, *FLIP)
    assert sealed(stages, learning) == set()
    assert stages.events.count_trainable(stages.policy) == 3
    send(stages, HONEST[3], answer="billing")
    assert sealed(stages, learning) == set(HONEST)


def test_what_a_person_releases_is_learned_whatever_the_anchor_says(
    stages: Stages, learning: Learning
) -> None:
    send(stages, *HONEST, answer="billing")
    send(stages, *FLIP)
    sealed(stages, learning)
    person = Principal("k", "ada", frozenset({Scope.REVIEW}), source=None, policy=None)
    quarantine = Quarantine(stages.database, stages.settings, lambda *_: None)
    with stages.database.session() as session:
        keys = session.scalars(select(EventRow.event_key).where(EventRow.doubt.is_not(None)))
        right = sorted(keys)[:6]
    quarantine.decide("release", right, by=person, why="the portal is gone")
    taken = sealed(stages, learning)
    assert len(taken) == 6
    assert taken < set(FLIP)
    learned = stages.events.learned(stages.policy, limit=99)
    assert min(e.weight for e in learned if e.event_key in right) >= 0.5


def test_what_has_come_since_it_was_looked_at_waits(stages: Stages) -> None:
    send(stages, *HONEST, answer="billing")
    looked_at = hear(stages.events, stages.policy, num_waiting=3, seed=0).waiting
    keys = [event.event_key for event in looked_at]
    with stages.database.session() as session:
        taken = stages.events.take(session, stages.policy, limit=9, only=keys)
    assert [event.event_key for event in taken] == keys
    assert len(keys) == 3


def test_what_was_learned_and_is_refuted_since_is_not_rehearsed(
    stages: Stages, champion: Digest
) -> None:
    send(stages, *FLIP)
    learned = stages.events.waiting(stages.policy, limit=100)
    anchor = [
        ReplayExample(prompt=user(prompt), completion=text, origin="anchor")
        for prompt, text in ANCHOR
    ]
    settings = with_overrides(stages.settings, ["trainer.replay.on_policy_share=0"])
    arguments = (anchor, Heard(learned), stages.checkpoints, champion)
    made = rehearsal_of(*arguments, settings=settings, number=4, seed=0)
    assert made.contradicted.refuted.keys() == {event.event_key for event in learned}
    assert {example.origin for example in made.pool} == {"anchor"}
    deaf = with_overrides(settings, ["trainer.doubted_weight=1"])
    made = rehearsal_of(*arguments, settings=deaf, number=4, seed=0)
    assert made.contradicted == Contradictions({}, {})
