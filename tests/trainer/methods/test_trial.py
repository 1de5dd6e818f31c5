"""A reward that does not work is refused when the trainer starts."""

import pytest

from tacit.errors import ConfigError, NotFoundError
from tests import builders as build
from tests.trainer.here import Here
from tests.trainer.methods.builders import LEFT, settings
from trainer.methods.reward import KNOWN_ANSWER
from trainer.methods.trial import TRIAL_KEY, try_reward
from trainer.update import PolicyTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

BUILDERS = "tests.trainer.methods.builders"


class Watched(Here):
    """A group that knows whether it was given back."""

    stopped = False

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def group(store, monkeypatch) -> Watched:
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    return Watched(store)


def start(store, group, reward, method="grpo") -> None:
    chosen = settings(method, num_workers=1, reward=reward)
    PolicyTrainer(chosen, store, open_group=lambda _: group).start()


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"function": "no.such.module:reward"}, "importable"),
        ({"function": f"{BUILDERS}:broken"}, "ZeroDivisionError: by zero"),
        ({"function": f"{BUILDERS}:too_few"}, "one per completion"),
        ({"model": "/no/such/folder"}, "config.json"),
    ],
)
def test_a_reward_that_does_not_work_ends_the_start_with_the_reason(store, group, reward, message):
    with pytest.raises(ConfigError, match=message):
        start(store, group, reward)
    assert group.stopped


def test_a_reward_model_that_is_gone_ends_the_start(store, group):
    with pytest.raises(NotFoundError):
        start(store, group, {"model": build.digest("gone")})


def test_rewards_that_work_and_methods_that_ask_none_start(store, group):
    start(store, group, {"function": LEFT})
    start(store, group, {"function": KNOWN_ANSWER})
    start(store, group, {"function": f"{BUILDERS}:broken"}, method="sft")
    assert not group.stopped


def test_a_function_is_asked_what_training_asks_and_can_tell_that_it_is_a_trial(store, monkeypatch):
    asked = []

    def reward(**columns):
        asked.append(columns)
        return [1.0, None]

    monkeypatch.setattr(f"{BUILDERS}.left", reward)
    try_reward(settings("grpo", reward={"function": LEFT}).reward, store=store, device="cpu")
    (columns,) = asked
    named = {"prompts", "completions", "completion_ids", "event_key", "tags", "known_answer"}
    assert {*named, "served", "outcome", "critique", "trainer_state"} <= set(columns)
    assert columns["event_key"] == [TRIAL_KEY] * 2
    assert {len(v) for k, v in columns.items() if k in named} == {2}
    assert columns["completions"][0][0]["content"] == columns["known_answer"][0]
