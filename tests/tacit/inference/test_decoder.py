"""Our own forward pass says what the model says, or is not used."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tacit.inference import kv
from tacit.inference.decoder import Decoder, decoder_of

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2_048,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
OURS = {
    "llama": LlamaConfig(**SHAPE),
    "llama with biases": LlamaConfig(attention_bias=True, mlp_bias=True, **SHAPE),
    "llama 3 positions": LlamaConfig(rope_parameters=LLAMA3, **SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(head_dim=16, **SHAPE),
    "qwen3 tied": Qwen3Config(head_dim=16, tie_word_embeddings=True, **SHAPE),
    "mistral": MistralConfig(sliding_window=64, **SHAPE),
}
OTHERS = {
    "gpt2": GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4),
    "gemma2": Gemma2Config(head_dim=8, **SHAPE),
    "same parts, other scale": GraniteConfig(embedding_multiplier=3.0, **SHAPE),
    "positions that depend on length": LlamaConfig(
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, **SHAPE
    ),
}


def model_of(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Random weights are almost the same everywhere: where they matter they must differ.
            if "norm" in name:
                weight.normal_(1, 0.3)
            else:
                weight.normal_(0, 0.3 if name.endswith("bias") else 0.1)
    return model


def greedy(decoder: Decoder, config: Any, prompt: list[int], num_tokens: int) -> list[int]:
    cache, ids, said = kv.new_cache(config, capacity=8), prompt, list[int]()
    for _ in range(num_tokens):
        end = len(prompt) + len(said)
        start = end - len(ids)
        visible = torch.ones(1, 1, len(ids), end, dtype=torch.bool).tril(start)
        mask = kv.float_mask(visible, torch.float32)
        with torch.inference_mode():
            masks = dict.fromkeys(decoder.kinds, mask)
            positions = torch.arange(start, end)[None]
            logits = decoder.logits(torch.tensor([ids]), positions, masks, cache)
        ids = [int(logits.argmax())]
        said += ids
    return said


@pytest.mark.parametrize("name", OURS)
def test_it_says_what_generate_says(name: str) -> None:
    model, prompt = model_of(OURS[name]), [5, 17, 3, 88, 41]
    alone = model.generate(
        torch.tensor([prompt]), max_new_tokens=40, do_sample=False, pad_token_id=0
    )
    decoder = decoder_of(model)
    assert decoder is not None
    assert greedy(decoder, model.config, prompt, 40) == alone[0, len(prompt) :].tolist()


def test_it_goes_on_past_the_positions_it_knows() -> None:
    model = model_of(OURS["llama"])
    decoder = decoder_of(model)
    assert decoder is not None
    ids = torch.arange(1_100)[None] % 96
    mask = kv.float_mask(torch.ones(1, 1, 1_100, 1_100, dtype=torch.bool).tril(), torch.float32)
    with torch.inference_mode():
        got = decoder.logits(
            ids, torch.arange(1_100)[None], mask, kv.new_cache(model.config, capacity=1_100)
        )
        expected = model(input_ids=ids).logits[:, -1]
    assert torch.allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["llama with biases", "qwen3"])
def test_it_takes_a_model_in_half_precision(name: str) -> None:
    assert decoder_of(model_of(OURS[name], torch.bfloat16)) is not None


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_computes_something_else_is_left_to_transformers(name: str) -> None:
    model = model_of(OTHERS[name])
    ids = torch.tensor([[5, 17, 3]])
    before = model(input_ids=ids).logits
    assert decoder_of(model) is None
    assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)


def test_weights_are_in_memory_once_and_the_model_computes_what_it_did() -> None:
    model = model_of(OURS["qwen3"])
    ids = torch.tensor([[5, 17, 3]])
    before = model(input_ids=ids).logits
    assert decoder_of(model) is not None
    attention = model.model.layers[0].self_attn
    storages = {p.weight.untyped_storage().data_ptr() for p in (attention.q_proj, attention.k_proj)}
    assert len(storages) == 1
    assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)
