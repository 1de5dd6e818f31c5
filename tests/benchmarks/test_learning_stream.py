"""benchmarks.learning: who asks what when, and what users say of the answers."""

from collections import Counter

import pytest

from benchmarks.learning.feedback import Users
from benchmarks.learning.traffic import make_traffic
from benchmarks.learning.variants import VARIANTS, Variant
from tacit.contracts import Correction, FeedbackEvent, Outcome
from tacit.demo.world import Utterance
from tacit.inference.outputs import Completion
from tests.benchmarks.toy_world import TOY


def saying(text: str, number: int) -> list[Completion]:
    return [Completion(text, (1,), (-0.1,), 3, "stop")] * number


def sent(variant: Variant, *, said: str, number: int = 1_000) -> list[FeedbackEvent]:
    asked = [Utterance(f"question {n}", "right") for n in range(number)]
    users = Users(variant, ["right", "wrong", "worse"], seed=0)
    return users.react(asked, saying(said, number), version="default@0")


def kinds(events: list[FeedbackEvent]) -> Counter[str]:
    return Counter(event.feedback.type for event in events)


def test_users_react_as_the_demos_product() -> None:
    of_wrong, of_right = (kinds(sent(Variant(), said=said)) for said in ("worse", "right"))

    assert of_wrong["correction"] / 1_000 == pytest.approx(0.85, abs=0.03)
    assert sum(of_wrong.values()) == 1_000
    assert of_right["outcome"] / 1_000 == pytest.approx(0.3, abs=0.05)
    assert of_right["rating"] / 1_000 == pytest.approx(0.2, abs=0.05)


def test_noise_is_the_share_of_feedback_that_is_wrong() -> None:
    said_wrong = [e.feedback for e in sent(VARIANTS["noise-0.3"], said="worse")]
    said_right = [e.feedback for e in sent(VARIANTS["noise-0.3"], said="right")]

    corrected = [f for f in said_wrong if isinstance(f, Correction)]
    judged = [f for f in said_right if isinstance(f, Outcome)]
    assert sum(f.completion != "right" for f in corrected) / len(corrected) == pytest.approx(
        0.3, abs=0.05
    )
    assert sum(f.value is False for f in judged) / len(judged) == pytest.approx(0.3, abs=0.08)
    clean = [e.feedback for e in sent(Variant(), said="worse")]
    assert all(f.completion == "right" for f in clean if isinstance(f, Correction))


def test_variants_of_one_kind_send_nothing_else() -> None:
    assert kinds(sent(VARIANTS["corrections"], said="worse")).keys() == {"correction"}
    assert not sent(VARIANTS["corrections"], said="right")
    assert kinds(sent(VARIANTS["outcomes"], said="worse")) == {"outcome": 1_000}


def test_feedback_carries_what_the_policy_thought_of_its_answer() -> None:
    (event, *_) = sent(Variant(), said="worse", number=20)

    assert event.interaction is not None
    assert event.interaction.completion_ids == (1,)
    assert event.interaction.logprobs == (-0.1,)
    assert event.interaction.sampling is not None


def test_traffic_brings_intents_round_by_round_and_asks_nothing_twice() -> None:
    traffic = make_traffic(TOY, num_rounds=5, per_round=10)

    asked = [u for each in traffic.rounds for u in each]
    assert len({u.text for u in asked}) == len(asked) == 50
    assert Counter(traffic.arrival.values()) == dict.fromkeys(range(1, 6), 2)
    for number, each in enumerate(traffic.rounds, start=1):
        assert all(traffic.arrival[u.answer] <= number for u in each)
        arriving = sum(traffic.arrival[u.answer] == number for u in each)
        assert arriving == (10 if number == 1 else 6)


def test_an_overturned_rule_has_one_right_answer_before_the_turn_and_another_after() -> None:
    traffic = make_traffic(TOY, num_rounds=4, per_round=10, num_overturned=2)
    plain = make_traffic(TOY, num_rounds=4, per_round=10)

    first = {u.text: u.answer for u in TOY.new_stream}
    changed = set(traffic.overturned)
    assert len(changed) == 2
    for number, each in enumerate(traffic.rounds, start=1):
        about = [u for u in each if first[u.text] in changed]
        right = {u.answer for u in about}
        if number < traffic.turn:
            assert right <= changed
        else:
            assert right <= set(traffic.overturned.values())
        assert not about or number != traffic.turn or len(about) >= 2
    others = [[u for u in each if u.answer not in changed] for each in plain.rounds]
    assert [len([u for u in each if first[u.text] not in changed]) for each in traffic.rounds] == [
        len(each) for each in others
    ]


def test_what_is_still_right_leaves_out_what_was_overturned_since() -> None:
    traffic = make_traffic(TOY, num_rounds=4, per_round=10, num_overturned=2)
    answers = {u.answer for u in traffic.still_right()}
    assert set(traffic.overturned.values()) <= answers
    assert not answers & set(traffic.overturned)
    asked = [u for each in make_traffic(TOY, num_rounds=4, per_round=10).rounds for u in each]
    assert make_traffic(TOY, num_rounds=4, per_round=10).still_right() == asked


def test_however_much_is_asked_an_overturned_rule_is_asked_about_afterwards() -> None:
    traffic = make_traffic(TOY, num_rounds=4, per_round=200, num_overturned=2)
    first = {u.text: u.answer for u in TOY.new_stream}
    numbers = [
        Counter(first[u.text] for u in each if first[u.text] in traffic.overturned)
        for each in traffic.rounds
    ]
    for intent in traffic.overturned:
        assert sum(number[intent] for number in numbers[: traffic.turn - 1]) == 15
        assert sum(number[intent] for number in numbers) == 30
