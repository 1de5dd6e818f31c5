"""On-policy replay: the champion's own answers, kept where right, from no measured prompt."""

import json
from collections.abc import Sequence

import pytest
from mlflow import MlflowClient

import tacit.rehearsal
from evaluator.suites import write_suite
from tacit.config import ReplaySettings
from tacit.contracts import (
    Digest,
    Message,
    ReplayExample,
    Suite,
    SuiteItem,
    SuiteKind,
)
from tacit.cycles import CycleState
from tacit.learning import Learning
from tacit.policies import load_policy
from tacit.rehearsal import checker, rehearse
from tacit.stages import Stages
from tacit.tracking import MetricName
from tests.builders import user
from tests.tacit.teaching import send

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
PROMPTS = [f"old question {word}" for word in ("one", "two", "three", "four", "five", "six")]


def own_answers(stages: Stages, weights: Digest, prompts: Sequence[str]) -> list[str]:
    policy = load_policy(stages.checkpoints, weights)
    asked = [user(prompt) for prompt in prompts]
    return [found.text for found in policy.generate(asked, max_new_tokens=40)]


def write_anchor(stages: Stages, rows: Sequence[tuple[str, str]]) -> None:
    lines = [json.dumps({"prompt": prompt, "completion": text}) for prompt, text in rows]
    stages.settings.anchor_path.write_text("\n".join(lines))


class Stopping:
    """A policy whose every answer is whole."""

    def __init__(self, policy: object) -> None:
        self._policy = policy
        self.tokenizer = policy.tokenizer

    def generate(self, prompts: Sequence[tuple[Message, ...]], **limits: int) -> list[object]:
        import dataclasses

        found = self._policy.generate(prompts, **{**limits, "max_new_tokens": 40})
        return [dataclasses.replace(answer, finish_reason="stop") for answer in found]


@pytest.fixture
def whole_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random policy never stops by itself."""

    def load(*arguments: object) -> Stopping:
        return Stopping(load_policy(*arguments))

    monkeypatch.setattr(tacit.rehearsal, "load_policy", load)


def test_only_right_answers_of_the_policy_enter(
    stages: Stages, champion: Digest, whole_answers: None
) -> None:
    said = own_answers(stages, champion, PROMPTS)
    write_anchor(stages, [*zip(PROMPTS[:3], said, strict=False), *((p, "no") for p in PROMPTS[3:])])
    drawn = rehearse(stages, champion, number=6, seed=0).draw(6)
    by_prompt = {example.prompt[0].content: example for example in drawn}
    assert len(by_prompt) == 6
    for prompt, answer in zip(PROMPTS[:3], said, strict=False):
        assert (by_prompt[prompt].completion, by_prompt[prompt].origin) == (answer, "on_policy")
    for prompt in PROMPTS[3:]:
        assert (by_prompt[prompt].completion, by_prompt[prompt].origin) == ("no", "anchor")


def test_an_answer_that_is_cut_off_never_enters(stages: Stages, champion: Digest) -> None:
    said = own_answers(stages, champion, PROMPTS)
    write_anchor(stages, list(zip(PROMPTS, said, strict=True)))
    drawn = rehearse(stages, champion, number=6, seed=0).draw(6)
    assert {example.origin for example in drawn} == {"anchor"}


def test_the_same_draw_every_time(stages: Stages, champion: Digest, whole_answers: None) -> None:
    said = own_answers(stages, champion, PROMPTS)
    write_anchor(stages, list(zip(PROMPTS, said, strict=True)))

    def again(seed: int) -> list[ReplayExample]:
        return rehearse(stages, champion, number=4, seed=seed).draw(4)

    assert again(0) == again(0)
    assert again(0) != again(1)


def test_more_events_than_expected_are_drawn_for_all_the_same(
    stages: Stages, champion: Digest, whole_answers: None
) -> None:
    said = own_answers(stages, champion, PROMPTS)
    write_anchor(stages, list(zip(PROMPTS, said, strict=True)))
    drawn = rehearse(stages, champion, number=2, seed=0).draw(6)
    assert [example.origin for example in drawn] == ["on_policy"] * 2 + ["anchor"] * 4


def test_what_is_measured_is_never_rehearsed(stages: Stages, champion: Digest) -> None:
    send(stages, "Held OUT, question", holdout_share=1)
    item = SuiteItem(item_id="q", prompt=user("asked by a suite"), expected="x")
    suite = Suite(name="old", kind=SuiteKind.REGRESSION, items=(item,))
    write_suite(stages.settings.suites_path, suite)
    prompts = ["held out question", "Asked by a suite?", "free"]
    write_anchor(stages, [(prompt, "good") for prompt in prompts])
    drawn = rehearse(stages, champion, number=9, seed=0).draw(9)
    assert {example.prompt[0].content for example in drawn} == {"free"}


def test_a_crash_between_answering_and_sealing_is_harmless(
    stages: Stages,
    champion: Digest,
    whole_answers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = own_answers(stages, champion, PROMPTS)
    write_anchor(stages, list(zip(PROMPTS, said, strict=True)))
    send(stages, *(f"new trouble {word}" for word in ("alpha", "beta", "gamma", "delta")))
    learning = Learning(stages, on_step=lambda _: None, on_evaluation=lambda *_: None)
    cycle = stages.cycles.resume_or_open(stages.policy)
    expected = rehearse(stages, champion, number=4, seed=cycle.number).draw(4)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tacit.learning.seal_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            learning.seal(cycle)
    assert stages.events.count_trainable(stages.policy) == 4
    assert stages.cycles.get(cycle.cycle_id).state == CycleState.COLLECTING

    learning.seal(cycle)
    sealed = stages.cycles.get(cycle.cycle_id)
    assert sealed.state == CycleState.TRAINING
    batch, replay = stages.batches.get(str(sealed.batch_id))
    assert len(batch.entries) == 4
    assert replay == expected
    assert {example.origin for example in replay} == {"on_policy"}

    run_id = stages.chronicle.open(sealed)
    stages.chronicle.note_batch(run_id, batch, replay)
    logged = MlflowClient(stages.settings.tracking_uri).get_run(run_id).data.metrics
    assert logged[MetricName.REPLAY_ON_POLICY] == 4
    assert logged[MetricName.REPLAY_ANCHOR] == logged[MetricName.REPLAY_ACCEPTED] == 0
    assert logged[MetricName.REPLAY_INFERRED] == 0


@pytest.mark.parametrize(
    ("name", "answer", "good", "accepted"),
    [
        ("normalised", "The Answer.", "the answer", True),
        ("normalised", "another answer", "the answer", False),
        ("exact", "The Answer", "the answer", False),
        ("contains", "so the answer is 4", "4", True),
        ("numeric", "so it is 4.0", "#### 4", True),
        ("numeric", "so it is 4.0", "no number", False),
    ],
)
def test_the_checker_is_a_setting(name: str, answer: str, good: str, accepted: bool) -> None:
    assert checker(ReplaySettings.model_validate({"checker": name}))(answer, good) is accepted
