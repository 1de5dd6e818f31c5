"""Answers that newer ones succeed although the policy did not give them: and when they do not."""

import random

import pytest

from tests.trainer.askers import GOOD, PASSWORD, correction, keys, outcome, preference
from trainer.claims import claims_of
from trainer.doubts import doubts_of

ASKED = [f"{prompt}{end}" for prompt in PASSWORD for end in ("", " please", " thanks")]
SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_answer_that_the_policy_never_gave_is_overtaken_by_the_one_that_succeeds_it(
    seed: int,
) -> None:
    rng = random.Random(seed)
    old = [correction(prompt, "portal") for prompt in rng.sample(ASKED, 40)]
    new = [correction(prompt, "desk") for prompt in rng.sample(ASKED, 20)]
    confirmed = [outcome(prompt, "desk", GOOD) for prompt in rng.sample(ASKED, 20)]
    assert doubts_of([*old, *new, *confirmed]).overtaken.keys() == keys(*old)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("right", "share"), [(0.0, 0.1), (0.6, 0.2)])
def test_labels_that_the_words_do_not_tell_are_not_overtaken_when_their_shares_shift(
    right: float, share: float, seed: int
) -> None:
    rng, said = random.Random(seed), []
    for number in range(240):
        denied = rng.random() < (share if number < 120 else 1 - share)
        amount = rng.randint(501, 999) if denied else rng.randint(20, 499)
        what, who = rng.choice(("laptop", "hotel", "taxi")), rng.choice(("anna", "ben", "eva"))
        prompt = f"expense: {what} for {who}, {amount} euros, ok?"
        answer, other = ("deny", "approve") if denied else ("approve", "deny")
        if rng.random() < right:
            said.append(outcome(prompt, answer, GOOD))
        else:
            said.append(correction(prompt, answer, said=other if right else "sorry"))
    assert doubts_of(said).overtaken == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_an_account_that_speaks_often_makes_no_succession(seed: int) -> None:
    rng = random.Random(seed)
    both = [correction(rng.choice(ASKED), to) for _ in range(30) for to in ("portal", "desk")]
    often = [correction(rng.choice(ASKED), "desk", by="mallory") for _ in range(300)]
    assert doubts_of([*both, *often]).overtaken == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_three_accounts_do_not_lead_a_new_topic_onto_the_questions_of_an_older_one(
    seed: int,
) -> None:
    rng = random.Random(seed)
    old = [correction(prompt, "portal") for prompt in rng.sample(ASKED, 30)]
    alike = [prompt.replace("password", "alarm clock") for prompt in rng.sample(ASKED, 30)]
    topic = [correction(prompt, "clock") for prompt in alike]
    topic += [
        correction(rng.choice(ASKED), "clock", by=f"mallory-{account}")
        for account in range(3)
        for _ in range(15)
    ]
    rng.shuffle(topic)
    assert not doubts_of([*old, *topic]).overtaken.keys() & keys(*old)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_confirms_or_prefers_an_answer_does_not_say_that_another_is_wrong(seed: int) -> None:
    rng = random.Random(seed)
    old = [correction(prompt, "portal") for prompt in rng.sample(ASKED, 40)]
    later = rng.sample(ASKED, 30)
    confirmed = [outcome(prompt, "use the portal", GOOD) for prompt in later]
    preferred = [preference(prompt, "desk", "nothing") for prompt in later]
    assert doubts_of([*old, *confirmed]).overtaken == {}
    assert doubts_of([*old, *preferred]).overtaken == {}


def test_a_preference_between_two_that_are_the_same_says_no_more_than_that_it_is_good() -> None:
    [claim] = claims_of([preference(PASSWORD[0], "portal", "Portal ")])
    assert claim.good
