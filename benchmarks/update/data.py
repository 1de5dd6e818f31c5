"""What the arms train on and what they train: the same examples and the same weights for all.

Examples are tickets of the demo's helpdesk of at most ``MAX_PROMPT`` tokens, each with the right
answer and another one, so that a sequence has about 26 tokens.
"""

import random
from typing import Any, Literal, NamedTuple

import torch
from peft import get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from tacit.config import TrainerSettings
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.network import build_tokenizer
from tacit.demo.world import prompt
from tacit.policies import completion_ids, prompt_ids
from trainer.checkpoint import OpenPolicy, _lora_config
from trainer.examples import Example, ExampleKind

MAX_PROMPT = 24
BATCH_SIZE = 32

Shape = Literal["tiny", "qwen3-0.6b"]
Term = Literal["dpo", "kto"]

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "vocab_size": 3_072,
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 32,
    },
    # Qwen/Qwen3-0.6B, config.json
    "qwen3-0.6b": {
        "vocab_size": 151_936,
        "hidden_size": 1_024,
        "intermediate_size": 3_072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}


class Corpus(NamedTuple):
    """Examples with the tokenizer they were made with."""

    tokenizer: Any
    pairs: list[Example]
    judged: list[Example]
    """Their chosen and rejected completions in turn, as DESIRABLE and UNDESIRABLE."""


def corpus(num_examples: int) -> Corpus:
    """``num_examples`` pairs, and as many judged completions."""
    world, generator = helpdesk_world(), random.Random(0)
    texts = [text for u in world.old_train for text in (u.text, u.answer)]
    tokenizer = build_tokenizer(texts, vocab_size=SHAPES["tiny"]["vocab_size"])
    answers = sorted({u.answer for u in world.new_stream})
    pairs: list[Example] = []
    for utterance in world.new_stream:
        asked = tuple(prompt_ids(tokenizer, prompt(utterance)))
        if len(asked) <= MAX_PROMPT and len(pairs) < num_examples:
            other = generator.choice([a for a in answers if a != utterance.answer])
            chosen, rejected = (
                tuple(completion_ids(tokenizer, text)) for text in (utterance.answer, other)
            )
            pairs.append(Example(ExampleKind.PAIR, asked, chosen, rejected=rejected))
    judged = [
        Example(ExampleKind.UNDESIRABLE, pair.prompt, pair.rejected)
        if number % 2
        else Example(ExampleKind.DESIRABLE, pair.prompt, pair.completion)
        for number, pair in enumerate(pairs)
    ]
    return Corpus(tokenizer, pairs, judged)


def num_useful_tokens(examples: list[Example]) -> int:
    """Prompt and completion of every sequence, the prompt of a pair twice; no padding."""
    return sum(
        len(e.prompt) * (2 if e.rejected else 1) + len(e.completion) + len(e.rejected)
        for e in examples
    )


def settings(*, term: Term, lora: bool, num_epochs: int, precision: str) -> TrainerSettings:
    """One term of the mixed objective alone, at a constant batch, without warm-up."""
    return TrainerSettings.model_validate(
        {
            "batch_size": BATCH_SIZE,
            "num_epochs": num_epochs,
            "learning_rate": 1e-4,
            "warmup_share": 0.0,
            "nll_weight": 0.0,
            "full_fine_tuning": not lora,
            "precision": precision,
        }
    )


def build_policy(
    tokenizer: Any, chosen: TrainerSettings, *, shape: Shape, device: str
) -> OpenPolicy:
    """The random policy, the same weights every time, open for training."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **SHAPES[shape],
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model: Any = Qwen3ForCausalLM(config)
    if shape == "qwen3-0.6b" and not chosen.full_fine_tuning:
        model = model.to(torch.bfloat16)  # as it is published; the adapter is float32
    if not chosen.full_fine_tuning:
        model = get_peft_model(model, _lora_config(chosen, model))
    return OpenPolicy(model=model.to(device).eval(), tokenizer=tokenizer, base=None)
