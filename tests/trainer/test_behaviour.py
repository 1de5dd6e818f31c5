import pytest

from tacit.contracts import InlineInteraction, Outcome, SamplingParameters
from tacit.policies import load_policy, load_tokenizer, prompt_ids
from tests import builders as build
from trainer.behaviour import MIN_TEMPERATURE, sampled_completion
from trainer.examples import ExampleKind, build_examples


@pytest.fixture
def tokenizer(store):
    return load_tokenizer(store, build.tiny_checkpoint(store))


def ids_of(tokenizer, text) -> tuple[int, ...]:
    """One token a byte: not the ids that the tokenizer itself would choose."""
    ids = tuple(tokenizer(c)["input_ids"][0] for c in text)
    assert list(ids) != tokenizer(text)["input_ids"]
    return ids


def interaction(tokenizer, text="billing", **fields) -> InlineInteraction:
    ids = (*ids_of(tokenizer, text), tokenizer.eos_token_id)
    values = {
        "prompt": build.user("where is my order"),
        "completion": text,
        "completion_ids": ids,
        "logprobs": tuple(-0.1 * (i + 1) for i in range(len(ids))),
        "sampling": SamplingParameters(temperature=0.7, top_p=0.9),
    }
    return InlineInteraction(**{**values, **fields})


def example_of(tokenizer, said, *, value=True, max_length=512):
    event = build.screened(feedback=Outcome(metric="resolved", value=value), weight=0.5)
    event = event.model_copy(update={"interaction": said})
    return build_examples(tokenizer, [event], [], max_length=max_length)[0]


def test_tokens_are_used_as_they_were_sampled(tokenizer):
    said = interaction(tokenizer)
    example = example_of(tokenizer, said, value=-0.5)
    assert example.kind is ExampleKind.UNDESIRABLE
    assert example.weight == 0.25
    assert example.completion == said.completion_ids
    assert list(example.prompt) == prompt_ids(tokenizer, said.prompt)
    assert example.behaviour.logprobs == said.logprobs
    assert (example.behaviour.temperature, example.behaviour.top_p) == (0.7, 0.9)


def test_an_answer_without_its_end_is_used_as_it_is(tokenizer):
    ids = ids_of(tokenizer, "billing")
    said = interaction(tokenizer, completion_ids=ids, logprobs=(-0.1,) * len(ids))
    assert example_of(tokenizer, said).completion == ids


def test_greedy_answers_are_logged_untempered(tokenizer):
    said = interaction(tokenizer, sampling=SamplingParameters(temperature=0, top_p=0.5))
    _, behaviour = sampled_completion(tokenizer, said)
    assert (behaviour.temperature, behaviour.top_p) == (1.0, 1.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"completion_ids": None},
        {"completion_ids": (), "logprobs": ()},
        {"logprobs": None},
        {"sampling": None},
        {"sampling": SamplingParameters(temperature=MIN_TEMPERATURE / 2)},
        {"completion": "shipping"},
        {"completion_ids": (7, 10**9), "logprobs": (-0.1, -0.1)},
        {"logprobs": (-0.1,) * 7 + (0.5,)},
        {"logprobs": (-0.1,) * 7 + (-1e39,)},
    ],
)
def test_what_cannot_be_trusted_is_learned_by_kto(tokenizer, changed):
    said = interaction(tokenizer, **changed)
    assert sampled_completion(tokenizer, said) is None
    example = example_of(tokenizer, said)
    assert example.behaviour is None
    assert example.completion[-1] == tokenizer.eos_token_id


def test_a_prompt_that_must_be_cut_is_another_prompt(tokenizer):
    said = interaction(tokenizer)
    whole = len(prompt_ids(tokenizer, said.prompt)) + len(said.completion_ids)
    assert example_of(tokenizer, said, max_length=whole).behaviour is not None
    cut = example_of(tokenizer, said, max_length=whole - 1)
    assert cut.behaviour is None
    assert cut.num_tokens <= whole - 1


def test_what_serving_records_is_usable(store, tokenizer):
    policy = load_policy(store, build.tiny_checkpoint(store))
    prompt = build.user("where is my order")
    (answer,) = policy.generate([prompt], max_new_tokens=8)
    said = InlineInteraction(
        prompt=prompt,
        completion=answer.text,
        completion_ids=answer.token_ids,
        logprobs=answer.logprobs,
        sampling=SamplingParameters(),
    )
    ids, behaviour = sampled_completion(tokenizer, said)
    assert (ids, behaviour.logprobs) == (answer.token_ids, answer.logprobs)
