"""Batches of one kind, of nothing, and of odd texts: a sane candidate or a clear reason."""

import math
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from tacit.contracts import (
    Correction,
    Critique,
    Feedback,
    Outcome,
    Preference,
    Rating,
    RatingScale,
    ScreenedEvent,
)
from tacit.errors import TrainingError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from trainer.session import TrainingSession

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

GOOD, BAD = Outcome(metric="resolved", value=True), Outcome(metric="resolved", value=-0.5)
LONG = "where is my order " * 40
STARS = RatingScale(low=1, high=5)


def events(feedback: Feedback, count: int = 3, **fields: Any) -> list[ScreenedEvent]:
    """Events that say the same about different prompts."""
    texts = {"prompt": "order {}", **fields}
    return [
        build.screened(
            f"e-{i}", feedback=feedback, **{**texts, "prompt": texts["prompt"].format(i)}
        )
        for i in range(count)
    ]


class Case(NamedTuple):
    """A batch and the settings that it meets."""

    events: list[ScreenedEvent]
    settings: dict[str, Any] = {}
    num_replay: int = 0


TRAINED = {
    "all desirable": Case(events(GOOD)),
    "all undesirable": Case(events(BAD)),
    "all undesirable with replay": Case(events(BAD), num_replay=3),
    "critiques alone": Case(events(Critique(text="too curt"))),
    "corrections that change nothing": Case(events(Correction(completion="billing"))),
    "one correction": Case(events(Correction(completion="shipping"), 1)),
    "one good answer": Case(events(GOOD, 1)),
    "one bad answer": Case(events(BAD, 1)),
    "one critique": Case(events(Critique(text="too curt"), 1)),
    "one event among replay": Case(events(GOOD, 1), num_replay=9),
    "the same answer judged both ways": Case(
        [*events(GOOD, 1), *events(BAD, 2, prompt="order 0")], {"batch_size": 2}
    ),
    "prompts beyond max_length": Case(
        events(Correction(completion="shipping"), prompt=LONG + "{}"), {"max_length": 24}
    ),
    "answers beyond max_length": Case(events(GOOD, completion=LONG), {"max_length": 24}),
    "corrections beyond max_length": Case(events(Correction(completion=LONG)), {"max_length": 24}),
    "critiques beyond max_length": Case(events(Critique(text=LONG)), {"max_length": 24}),
    "replay beyond max_length": Case(mixed_events(6), {"max_length": 4}, num_replay=2),
    "the smallest max_length": Case(mixed_events(6), {"max_length": 2}, num_replay=2),
    "empty answers": Case(events(GOOD, completion="")),
    "empty answers corrected": Case(events(Correction(completion="shipping"), completion="")),
    "corrections to nothing": Case(events(Correction(completion=""))),
    "empty answers criticised": Case(events(Critique(text=""), completion="")),
    "empty prompts": Case(events(Correction(completion="shipping"), prompt="")),
    "microbatches smaller than an example": Case(
        mixed_events(6), {"micro_batch_tokens": 1}, num_replay=2
    ),
    "add-ons on one event": Case(
        events(BAD, 1),
        {"ewc": {"weight": 1.0}, "distillation": {"weight": 1.0}, "sparse": {"fraction": 1e-6}},
    ),
    "add-ons on replay alike": Case(
        events(GOOD, 1),
        {"ewc": {"weight": 1e6}, "distillation": {"weight": 9.0}, "sparse": {"fraction": 0.5}},
        num_replay=5,
    ),
}

REFUSED = {
    "all neutral": (Case(events(Outcome(metric="resolved", value=0.0))), "all neutral"),
    "middling ratings": (Case(events(Rating(value=3, scale=STARS))), "all neutral"),
    "no trust": (Case([e.model_copy(update={"weight": 0.0}) for e in mixed_events(6)]), "trust"),
    "nothing": (Case([]), "0 events"),
    "nothing but replay": (Case([], num_replay=3), "0 events"),
    "pairs equal up to max_length": (
        Case(events(Preference(chosen=LONG + "yes", rejected=LONG + "no")), {"max_length": 24}),
        "max_length",
    ),
    "terms switched off": (Case(events(GOOD), {"kto_weight": 0.0}), "weight above 0"),
    "pairs switched off": (
        Case(
            events(Correction(completion="shipping")),
            {"dpo_weight": 0.0, "nll_weight": 0.0},
            num_replay=2,
        ),
        "weight above 0",
    ),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A warm session, its store and a parent."""
    from tacit.checkpoints import CheckpointStore

    store = CheckpointStore(tmp_path_factory.mktemp("one-sided") / "checkpoints")
    return store, build.tiny_checkpoint(store), TrainingSession(store)


def run(here, case: Case):
    store, parent, session = here
    return train(
        store,
        parent,
        case.events,
        replay_examples(case.num_replay),
        settings=settings(**case.settings),
        session=session,
    )


@pytest.mark.parametrize("name", list(TRAINED))
def test_what_can_be_learned_from_gives_a_sane_candidate(here, name):
    store, parent, _ = here
    digest, steps = run(here, TRAINED[name])
    assert len(steps) == steps[0].num_steps
    for step in steps:
        assert all(math.isfinite(value) for value in step.metrics.values()), step
    assert digest != parent
    store.verify(digest)
    weights = load_file(store.path(digest) / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert any(tensor.any() for key, tensor in weights.items() if "lora_B" in key)


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_says_why_and_leaves_nothing(here, name):
    store, *_ = here
    case, reason = REFUSED[name]
    before = set(store.root.iterdir())
    with pytest.raises(TrainingError, match=reason):
        run(here, case)
    assert set(store.root.iterdir()) == before
