"""Rolling back takes learning back: what was bad does not return with the next candidate.

The worker is this process, warm from one cycle to the next, as a worker of the service is.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tacit.config import Settings
from tacit.control import create_control
from tacit.cycles import CycleRow, CycleState
from tacit.keys import KeyStore, Scope
from tacit.loop import LoopObserver, OnlineLoop
from tests.integration.learning_scene import (
    BAD,
    HONEST,
    LEARNED,
    TOPICS,
    learned_from,
    learning_settings,
    likes,
    promoted,
    roll_back,
    running,
    teach,
)
from tests.trainer.here import Here
from trainer.reproduce import reproduce
from trainer.update import PolicyTrainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
        "ignore::sqlalchemy.exc.SADeprecationWarning",
    ),
]


@pytest.fixture
def settings(
    tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Of a home that is thrown away; Ray is not started."""
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    yield learning_settings(tmp_path / "home", mlflow_uri)
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


def test_the_bad_version_does_not_come_back_in_the_next_step(settings: Settings) -> None:
    with running(settings) as loop:
        first = loop.champion()
        teach(loop, HONEST, where="good")
        good = promoted(loop)
        bad_keys = teach(loop, BAD, where="bad")
        bad = promoted(loop)
        before, after = (likes(loop, made.weights, BAD) for made in (good, bad))
        assert after > before + LEARNED

        back = roll_back(loop)
        assert (back.weights, loop.champion()) == (good.weights, good.weights)
        assert loop.events.reasons(loop.policy) == {"rolled_back": len(TOPICS)}

        honest_keys = teach(loop, HONEST, where="later")
        following = promoted(loop)
        assert following.parent == good.weights
        assert [c.weights for c in loop.candidates.lineage(following.weights)] == [
            following.weights,
            good.weights,
        ]
        assert loop.releases.anchor(loop.policy) == first
        taught = learned_from(loop, following)
        assert honest_keys <= taught
        assert not bad_keys & taught
        _, replay = loop.batches.get(following.batch_id)
        rehearsed = {example.completion for example in replay}
        assert HONEST in rehearsed
        assert BAD not in rehearsed
        assert likes(loop, following.weights, BAD) < before + LEARNED / 4
        asked = {suite.name: suite for suite in loop.suites()}
        assert all(item.expected != BAD for item in asked["retention"].items)

        # A worker that never saw the bad update makes the same bytes: none of it stayed warm.
        batch, replay = loop.batches.get(following.batch_id)
        found = reproduce(
            following,
            batch,
            loop.events.events_of(batch.batch_id),
            replay,
            store=loop.checkpoints,
            on_step=lambda _: None,
            open_trainer=lambda chosen, store: PolicyTrainer(
                chosen, store, open_group=lambda _: Here(store)
            ),
        )
        assert found.same


def test_with_its_feedback_kept_the_next_step_learns_it_again(settings: Settings) -> None:
    with running(settings) as loop:
        first = loop.champion()
        bad_keys = teach(loop, BAD, where="bad")
        promoted(loop)
        key = KeyStore(loop.database, journal=loop.ledger.append).create(
            "ada", scopes={Scope.REVIEW}
        )
        with TestClient(create_control(settings)) as client:
            answer = client.post(
                "/v1/releases/rollback",
                json={"reason": "too fast", "keep_feedback": True},
                headers={"Authorization": f"Bearer {key}"},
            )
        assert answer.status_code == 200, answer.text
        assert loop.events.reasons(loop.policy) == {}
        assert loop.events.count_trainable(loop.policy) == len(TOPICS)
        again = promoted(loop)
        assert again.parent == first
        assert learned_from(loop, again) >= bad_keys
        assert likes(loop, again.weights, BAD) > likes(loop, first, BAD) + LEARNED
        entry = next(e for e in loop.ledger.entries() if e.kind == "rollback")
        assert entry.body()["keep_feedback"] is True


class RollsBackIn(LoopObserver):
    """Rolls back as a person would while a cycle is in a state."""

    def __init__(self, state: CycleState) -> None:
        self.loop: OnlineLoop | None = None
        self._state = state

    def on_state(self, cycle: CycleRow) -> None:
        """Once."""
        if self.loop is not None and cycle.state == self._state:
            loop, self.loop = self.loop, None
            roll_back(loop)


@pytest.mark.parametrize("state", [CycleState.EVALUATING, CycleState.AWAITING_DECISION])
def test_what_is_under_way_on_top_of_the_bad_version_is_given_up(
    settings: Settings, state: CycleState
) -> None:
    observer = RollsBackIn(state)
    with running(settings, observer) as loop:
        first = loop.champion()
        bad_keys = teach(loop, BAD, where="bad")
        bad = promoted(loop)
        honest_keys = teach(loop, HONEST, where="later")
        observer.loop = loop
        ended = loop.run_cycle()
        assert ended.state in {CycleState.FAILED, CycleState.REJECTED}
        assert bad.weights not in {loop.champion()}
        assert loop.champion() == first
        # Nothing is wrong with honest feedback: the next batch has it.
        following = promoted(loop)
        assert following.parent == first
        assert honest_keys <= learned_from(loop, following)
        assert not bad_keys & learned_from(loop, following)
