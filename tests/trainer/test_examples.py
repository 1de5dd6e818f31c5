import pytest

from tacit.contracts import Correction, Critique, Outcome, Preference, Rating, RatingScale
from tacit.errors import TrainingError
from tacit.policies import completion_ids, load_tokenizer, prompt_ids
from tests import builders as build
from tests.trainer.builders import replay_examples
from trainer.examples import ExampleKind, build_examples


@pytest.fixture
def tokenizer(store):
    return load_tokenizer(store, build.tiny_checkpoint(store))


def example_of(tokenizer, feedback, *, weight=1.0, max_length=512):
    event = build.screened(completion="billing", feedback=feedback, weight=weight)
    return build_examples(tokenizer, [event], [], max_length=max_length)[0]


def test_a_correction_is_a_pair(tokenizer):
    example = example_of(tokenizer, Correction(completion="shipping"), weight=0.7)
    assert example.kind is ExampleKind.PAIR
    assert list(example.prompt) == prompt_ids(tokenizer, build.user("where is my order"))
    assert list(example.completion) == completion_ids(tokenizer, "shipping")
    assert list(example.rejected) == completion_ids(tokenizer, "billing")
    assert example.weight == 0.7


def test_a_correction_that_says_the_same_is_likelihood_only(tokenizer):
    example = example_of(tokenizer, Correction(completion=" billing "))
    assert (example.kind, example.rejected) == (ExampleKind.CHOSEN, ())


def test_a_preference_is_a_pair_of_its_own_texts(tokenizer):
    example = example_of(tokenizer, Preference(chosen="yes", rejected="no"))
    assert list(example.completion) == completion_ids(tokenizer, "yes")
    assert list(example.rejected) == completion_ids(tokenizer, "no")


@pytest.mark.parametrize(
    ("feedback", "kind", "weight"),
    [
        (Outcome(metric="resolved", value=True), ExampleKind.DESIRABLE, 0.5),
        (Outcome(metric="resolved", value=False), ExampleKind.UNDESIRABLE, 0.5),
        (Outcome(metric="resolved", value=-0.4), ExampleKind.UNDESIRABLE, 0.2),
        (Rating(value=4, scale=RatingScale(low=1, high=5)), ExampleKind.DESIRABLE, 0.25),
        (Rating(value=0, scale=RatingScale(low=0, high=1)), ExampleKind.UNDESIRABLE, 0.5),
    ],
)
def test_outcomes_and_ratings_weigh_their_size_times_trust(tokenizer, feedback, kind, weight):
    example = example_of(tokenizer, feedback, weight=0.5)
    assert (example.kind, example.weight) == (kind, pytest.approx(weight))
    assert list(example.completion) == completion_ids(tokenizer, "billing")


def test_events_without_a_signal_are_left_out(tokenizer):
    silent = [
        build.screened("e-1", feedback=Outcome(metric="resolved", value=0.0)),
        build.screened("e-2", feedback=Critique(text="too long")),
        build.screened("e-3", weight=0.0),
        build.screened("e-4", feedback=Outcome(metric="resolved", value=1e-9)),
    ]
    examples = build_examples(
        tokenizer, [*silent, build.screened("e-5")], replay_examples(1), max_length=512
    )
    assert [example.kind for example in examples] == [ExampleKind.PAIR, ExampleKind.REPLAY]
    with pytest.raises(TrainingError, match="training signal"):
        build_examples(tokenizer, silent, replay_examples(1), max_length=512)


def test_a_long_prompt_loses_its_beginning(tokenizer):
    whole = example_of(tokenizer, Correction(completion="shipping"))
    cut = example_of(tokenizer, Correction(completion="shipping"), max_length=6)
    longest = max(len(whole.completion), len(whole.rejected))
    assert cut.num_tokens == 6
    assert cut.completion == whole.completion
    assert cut.prompt == whole.prompt[-(6 - longest) :]


def test_a_completion_longer_than_everything_keeps_one_prompt_token(tokenizer):
    example = example_of(tokenizer, Correction(completion="very long " * 20), max_length=8)
    assert (len(example.prompt), len(example.completion)) == (1, 7)


@pytest.mark.parametrize("origin", ["accepted", "inferred"])
def test_replay_is_held_to_the_parent_but_for_what_feedback_taught(tokenizer, origin):
    event = build.screened(completion="billing", feedback=Correction(completion="shipping"))
    lesson = replay_examples(1, origin=origin)[0].model_copy(update={"weight": 0.3})
    replay = [*replay_examples(1), lesson]
    _, anchor, taught = build_examples(tokenizer, [event], replay, max_length=512)
    assert (anchor.weight, taught.weight) == (1.0, 0.3)
    assert (anchor.kind, taught.kind) == (ExampleKind.REPLAY, ExampleKind.REPLAY)
    assert (anchor.anchored, taught.anchored) == (True, False)
