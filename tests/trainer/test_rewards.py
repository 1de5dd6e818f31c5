import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.contracts import Correction, Critique, Outcome, Rating, RatingScale
from tests import builders as build
from trainer.rewards import rewards

STARS = RatingScale(low=1, high=5)


def rating(value, *, subject="u-1", number=0):
    return build.screened(
        f"e-{subject}-{number}", subject_id=subject, feedback=Rating(value=value, scale=STARS)
    )


def ratings(*values, subject="u-1"):
    return [rating(value, subject=subject, number=i) for i, value in enumerate(values)]


def outcome(value, reward=None):
    event = build.screened(feedback=Outcome(metric="resolved", value=value))
    return event.model_copy(update={"reward": reward})


def test_an_outcome_is_the_reward_that_screening_gave_it():
    # "escalated": true is the metric's value, and a bad thing.
    assert rewards([outcome(True, reward=-1.0)]) == [-1.0]
    assert rewards([outcome(0.25, reward=0.0)]) == [0.0]


@pytest.mark.parametrize(("value", "reward"), [(True, 1.0), (False, -1.0), (-0.4, -0.4)])
def test_without_one_its_value_is_the_reward(value, reward):
    assert rewards([outcome(value)]) == [reward]


def test_words_have_no_reward():
    events = [
        build.screened(feedback=Correction(completion="x")),
        build.screened(feedback=Critique(text="x")),
    ]
    assert rewards(events) == [None, None]


def test_few_ratings_count_as_they_are():
    assert rewards(ratings(5, 4)) == [1.0, 0.5]
    assert rewards([*ratings(5, 4), *ratings(1, 2, subject="u-2")]) == [1.0, 0.5, -1.0, -0.5]


def test_many_ratings_count_relative_to_the_subjects_own():
    # Stars 5, 5, 3 are 1, 1, 0, of mean 2 / (3 + 1) once damped.
    generous = rewards(ratings(5, 5, 3))
    assert generous == pytest.approx([0.5 / 1.5, 0.5 / 1.5, -0.5 / 1.5])
    # The same 3 stars from someone harsh are praise.
    harsh = rewards(ratings(1, 1, 3))
    assert harsh[2] == pytest.approx(1 / 3)


def test_others_do_not_change_a_subjects_ratings():
    alone = rewards(ratings(5, 5, 3))
    together = rewards([*ratings(5, 5, 3), *ratings(1, 1, 1, 1, subject="u-2"), outcome(True)])
    assert together[:3] == alone
    assert together[-1] == 1.0


def test_the_same_subject_id_in_another_product_is_someone_else():
    event = rating(1, number=9)
    elsewhere = event.model_copy(
        update={"event": event.event.model_copy(update={"source": "shop"})}
    )
    assert rewards([*ratings(5, 5), elsewhere]) == [1.0, 1.0, -1.0]


def test_who_rates_everything_alike_is_heard_more_softly_and_never_turned_round():
    few, many = rewards(ratings(2, 2, 2))[0], rewards(ratings(*[2] * 30))[0]
    assert -0.5 < few < many < 0


def test_thumbs_are_taken_at_their_word():
    assert rewards(ratings(*[1] * 9)) == [-1.0] * 9
    assert rewards(ratings(1, 1, 1, 5)) == [-1.0, -1.0, -1.0, 1.0]


values = st.lists(st.floats(min_value=1, max_value=5), min_size=1, max_size=12)


@given(values, st.randoms(use_true_random=False))
def test_rewards_keep_to_their_bounds_and_order_and_not_to_that_of_events(stars, chance):
    events = ratings(*stars)
    found = rewards(events)
    assert all(-1 <= reward <= 1 for reward in found)
    by_stars = sorted(zip(stars, found, strict=True))
    assert [reward for _, reward in by_stars] == sorted(found)
    order = list(range(len(events)))
    random.Random(chance.random()).shuffle(order)
    assert rewards([events[i] for i in order]) == [found[i] for i in order]
