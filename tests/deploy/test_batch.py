"""Rows that join, grow, leave and move in a running batch get the answers they would get alone."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen3Config

from deploy.engines.base import Generation, GenerationRequest
from deploy.engines.batch import RunningBatch
from deploy.engines.row import Row
from tacit.checkpoints import CheckpointStore
from tacit.contracts import SamplingParameters
from tacit.errors import ConfigError
from tacit.policies import Policy, load_policy
from tests.builders import tiny_checkpoint, user

WORDS = ["where", "is", "my", "order", "shipping", "billing", "refund", "late", "again", "please"]
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1_024,
    "tie_word_embeddings": True,
}


def row_of(policy: Policy, prompt: str, **sampling: Any) -> Row:
    asked = GenerationRequest(user(prompt), SamplingParameters(**sampling))
    return Row(
        asked,
        policy,
        prompt_ids=policy.prompt_ids(asked.prompt),
        max_tokens=asked.sampling.max_tokens,
    )


def answer(row: Row) -> Generation:
    return row.ticket.future.result(timeout=0)


def run(policy: Policy, arrivals: Sequence[tuple[int, Row]], *, max_size: int = 8) -> int:
    """Let each row join at its step or as soon as there is room; how many rows ran at once."""
    batch, waiting, most, step = RunningBatch(policy, max_size=max_size), list(arrivals), 0, 0
    while waiting or batch.rows:
        if batch.rows:
            batch.step()
        ready = [row for at, row in waiting if at <= step]
        joining = batch.take_from(ready)
        if joining:
            batch.admit(joining)
        waiting = [(at, row) for at, row in waiting if row not in joining]
        most, step = max(most, len(batch.rows)), step + 1
    return most


def with_model(policy: Policy, config: Any) -> Policy:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    return Policy(model=model, tokenizer=policy.tokenizer, digest=policy.digest)


@pytest.fixture
def policy(store: CheckpointStore) -> Policy:
    return load_policy(store, tiny_checkpoint(store))


def models(policy: Policy) -> dict[str, Policy]:
    vocab = {"vocab_size": policy.model.config.vocab_size, **SHAPE}
    sliding = ["full_attention", "sliding_attention"]
    return {
        "full": with_model(policy, Qwen3Config(num_hidden_layers=2, **vocab)),
        "mixed": with_model(
            policy,
            Qwen3Config(
                num_hidden_layers=2,
                layer_types=sliding,
                use_sliding_window=True,
                sliding_window=12,
                **vocab,
            ),
        ),
        "mistral": with_model(
            policy, MistralConfig(num_hidden_layers=2, sliding_window=12, **vocab)
        ),
        "llama": with_model(policy, LlamaConfig(num_hidden_layers=2, **vocab)),
        "gemma": with_model(policy, Gemma2Config(num_hidden_layers=2, sliding_window=12, **vocab)),
    }


def test_only_a_model_of_another_shape_is_run_by_transformers(policy: Policy) -> None:
    by_transformers = {kind for kind, each in models(policy).items() if each.decoder is None}
    assert by_transformers == {"gemma"}


@pytest.mark.parametrize("kind", ["full", "mixed", "mistral", "llama", "gemma"])
def test_rows_that_come_and_go_answer_as_if_alone(policy: Policy, kind: str) -> None:
    asked, generator = models(policy)[kind], random.Random(3)
    plans = [
        (
            generator.randrange(60),
            " ".join(generator.choices(WORDS, k=generator.choice((1, 5, 60)))),
            generator.randrange(1, 90),
        )
        for _ in range(24)
    ]
    rows = [(at, row_of(asked, text, max_tokens=most)) for at, text, most in plans]
    assert run(asked, rows, max_size=6) == 6
    for (_, row), (_, text, most) in zip(rows, plans, strict=True):
        (alone,) = asked.generate([user(text)], max_new_tokens=most)
        got = answer(row)
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-3)
        assert got.token_ids == alone.token_ids


def test_a_short_request_joins_and_leaves_while_a_long_one_runs(policy: Policy) -> None:
    long, short = row_of(policy, "billing", max_tokens=200), row_of(policy, "order", max_tokens=3)
    batch = RunningBatch(policy, max_size=2)
    batch.admit([long])
    for _ in range(5):
        batch.step()
    batch.admit([short])
    batch.step()
    batch.step()
    assert len(answer(short).token_ids) == 3
    assert not long.done
    assert batch.rows == [long]


def test_prompts_are_read_in_passes_of_bounded_size(policy: Policy) -> None:
    batch = RunningBatch(policy, max_size=64)
    waiting = [row_of(policy, "order " * 100) for _ in range(64)]
    length = len(waiting[0].prompt_ids)
    assert len(batch.take_from(waiting)) == 4_096 // length
    huge = row_of(policy, "order " * 5_000)
    assert batch.take_from([huge, *waiting]) == [huge]


def test_a_failed_batch_begins_anew(policy: Policy) -> None:
    batch = RunningBatch(policy, max_size=2)
    batch.admit([row_of(policy, "order", max_tokens=9)])
    failed = batch.rows[0]
    batch.fail(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        answer(failed)
    after = row_of(policy, "billing", max_tokens=4)
    batch.admit([after])
    while batch.rows:
        batch.step()
    (alone,) = policy.generate([user("billing")], max_new_tokens=4)
    assert answer(after).token_ids == alone.token_ids


def test_a_model_with_other_layers_is_refused_by_name(policy: Policy) -> None:
    policy.model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ConfigError, match="linear_attention"):
        RunningBatch(policy, max_size=1)


def test_the_likeliest_tokens_are_named_and_hold_the_one_that_was_taken(policy: Policy) -> None:
    asked = GenerationRequest(
        user("order"), SamplingParameters(max_tokens=5), top_logprobs=3, with_pieces=True
    )
    row = Row(asked, policy, prompt_ids=policy.prompt_ids(user("order")), max_tokens=5)
    other = row_of(policy, "billing", max_tokens=5)
    run(policy, [(0, row), (0, other)])
    got = answer(row)
    assert [len(top) for top in got.tops] == [3] * len(got.token_ids)
    assert tuple(top[0].token_id for top in got.tops) == got.token_ids
    assert tuple(top[0].piece for top in got.tops) == got.pieces
    assert all(a.logprob >= b.logprob for top in got.tops for a, b in itertools.pairwise(top))
    assert answer(other).tops == ()
