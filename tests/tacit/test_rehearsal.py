"""On-policy replay: the champion's own answers, kept where right, from no measured prompt."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

import tacit.rehearsal
from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.streams import open_stream
from evaluator.suites import write_suite
from tacit.config import ReplaySettings, load_settings, with_overrides
from tacit.contracts import (
    Correction,
    Digest,
    Message,
    ReplayExample,
    Suite,
    SuiteItem,
    SuiteKind,
    short,
    utc_now,
)
from tacit.cycles import CycleState
from tacit.learning import Learning
from tacit.policies import load_policy
from tacit.rehearsal import checker, rehearsal_of, rehearse
from tacit.stages import Stages
from tacit.tracking import MetricName
from tests.builders import digest, event, interaction, tiny_checkpoint, user

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
PROMPTS = [f"old question {word}" for word in ("one", "two", "three", "four", "five", "six")]
OPENINGS = ("how do i reset", "i forgot", "please change", "what about", "where do i set")


@pytest.fixture
def stages(tmp_path: Path, mlflow_uri: str) -> Iterator[Stages]:
    settings = load_settings(
        home=tmp_path / "home",
        overrides=[
            f"tracking.uri={mlflow_uri}",
            "collector.screening.holdout_share=0",
            "trainer.replay.share=0.5",
            "trainer.replay.on_policy_share=1",
        ],
    )
    made = Stages(settings)
    yield made
    made.database.dispose()


@pytest.fixture
def champion(stages: Stages) -> Digest:
    weights = tiny_checkpoint(stages.checkpoints)
    with stages.database.session() as session:
        genesis = stages.gatekeeper.genesis(session, stages.policy, weights, by="test")
        stages.releases.first(session, stages.policy, genesis.envelope, by="test")
    return weights


def own_answers(stages: Stages, weights: Digest, prompts: Sequence[str]) -> list[str]:
    policy = load_policy(stages.checkpoints, weights)
    asked = [user(prompt) for prompt in prompts]
    return [found.text for found in policy.generate(asked, max_new_tokens=40)]


def write_anchor(stages: Stages, rows: Sequence[tuple[str, str]]) -> None:
    lines = [json.dumps({"prompt": prompt, "completion": text}) for prompt, text in rows]
    stages.settings.anchor_path.write_text("\n".join(lines))


def send(stages: Stages, *prompts: str, answer: str = "right", holdout_share: float = 0) -> None:
    settings = with_overrides(
        stages.settings, [f"collector.screening.holdout_share={holdout_share}"]
    )
    stream = open_stream(settings)
    events = [
        event(
            f"e-{short(digest(prompt))}",
            subject_id=f"u-{short(digest(prompt))}",
            occurred_at=utc_now(),
            interaction=interaction(prompt, "said"),
            feedback=Correction(completion=answer),
        )
        for prompt in prompts
    ]
    with Ingestor(stages.database, stream, settings) as ingestor:
        ingestor.accept(events)
    Consumer(stages.database, stream, settings).drain()
    stream.close()


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

    learned = stages.events.learned(stages.policy, limit=100)
    arguments = (stages.checkpoints, champion)
    settings = with_overrides(stages.settings, ["trainer.replay.on_policy_share=0"])
    pool = rehearsal_of([], learned, *arguments, settings=settings, number=4, seed=0).pool
    assert {example.completion for example in pool} == {"right"}
    heard = with_overrides(settings, ["trainer.doubted_weight=1"])
    pool = rehearsal_of([], learned, *arguments, settings=heard, number=4, seed=0).pool
    assert {example.completion for example in pool} == {"right", "nobody can"}


def test_what_the_anchor_contradicts_is_not_rehearsed(stages: Stages, champion: Digest) -> None:
    asked = [f"{start} my {word} password" for start in OPENINGS for word in ("login", "mail")]
    send(stages, *asked)
    learned = stages.events.waiting(stages.policy, limit=100)
    known = {"portal": "{} my {} password now", "right": "track {} the {} parcel"}
    anchor = [
        ReplayExample(prompt=user(text.format(start, word)), completion=completion, origin="anchor")
        for completion, text in known.items()
        for start in OPENINGS
        for word in ("login", "mail")
    ]
    settings = with_overrides(stages.settings, ["trainer.replay.on_policy_share=0"])
    arguments = (anchor, learned, stages.checkpoints, champion)
    made = rehearsal_of(*arguments, settings=settings, number=4, seed=0)
    assert made.doubted == {event.event_key: 0.0 for event in learned}
    assert {example.origin for example in made.pool} == {"anchor"}
    heard = with_overrides(settings, ["trainer.doubted_weight=1"])
    assert rehearsal_of(*arguments, settings=heard, number=4, seed=0).doubted == {}
