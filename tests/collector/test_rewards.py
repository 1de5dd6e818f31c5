"""Rewards: how good a completion was, whatever way its metric counts."""

import pytest
from pydantic import ValidationError

from tacit.contracts import Correction, Feedback, Outcome, Rating, RatingScale
from tests.builders import event
from tests.collector.conftest import MakeRoom

METRICS = {
    "resolved": "bool",
    "escalated": {"type": "bool", "better": "lower"},
    "saved": "float",
    "effort": {"type": "float", "better": "lower"},
}


@pytest.mark.parametrize(
    ("feedback", "reward"),
    [
        (Outcome(metric="resolved", value=True), 1.0),
        (Outcome(metric="resolved", value=False), -1.0),
        (Outcome(metric="escalated", value=True), -1.0),
        (Outcome(metric="escalated", value=False), 1.0),
        (Outcome(metric="saved", value=0.25), 0.25),
        (Outcome(metric="effort", value=0.25), -0.25),
        (Rating(value=4, scale=RatingScale(low=1, high=5)), 0.5),
        (Correction(completion="shipping"), None),
    ],
)
def test_reward_knows_which_way_is_better(
    make: MakeRoom, feedback: Feedback, reward: float | None
) -> None:
    room = make(metrics=METRICS)
    room.screen(event("e-1", feedback=feedback))
    with room.database.session() as session:
        (taken,) = room.store.take(session, "default", limit=9)
    assert taken.reward == reward
    assert taken.event.feedback == feedback


def test_reward_stays_when_the_declaration_changes(make: MakeRoom) -> None:
    before = make(metrics=METRICS)
    before.screen(event("e-1", feedback=Outcome(metric="escalated", value=True)))
    after = make(metrics={**METRICS, "escalated": "bool"})
    with after.database.session() as session:
        (taken,) = after.store.take(session, "default", limit=9)
    assert taken.reward == -1.0


@pytest.mark.parametrize(
    ("low", "high", "value", "reward"),
    [(0, 1.2e308, 1.2e308, 1.0), (-8e307, 8e307, 0, 0.0), (0, 5e-324, 5e-324, 1.0)],
)
def test_no_scale_makes_a_reward_that_no_batch_can_take(
    make: MakeRoom, low: float, high: float, value: float, reward: float
) -> None:
    room = make()
    room.screen(event("e-1", feedback=Rating(value=value, scale=RatingScale(low=low, high=high))))
    with room.database.session() as session:
        (taken,) = room.store.take(session, "default", limit=9)
    assert taken.reward == reward


def test_a_scale_that_is_longer_than_a_number_can_be_is_none() -> None:
    with pytest.raises(ValidationError, match="expected a finite"):
        RatingScale(low=-1e308, high=1e308)
