"""Random models of several architectures, and the plain way to what is tested."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)

PAD = 0
ENDS = tuple(range(1, 6))
"""So many, so that random models come to an end at different times."""
_SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": PAD,
    "eos_token_id": list(ENDS),
    "bos_token_id": None,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config(**_SMALL, head_dim=8, tie_word_embeddings=True),
    "llama": LlamaConfig(**_SMALL),
    "gpt2": GPT2Config(
        vocab_size=40, n_positions=128, n_embd=32, n_layer=2, n_head=4, eos_token_id=ENDS[0]
    ),
    "windowed": MistralConfig(**_SMALL, sliding_window=6),
}
TAKEN_APART = ("qwen3", "llama", "gpt2")


def build(name: str, *, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
    """The model, the same weights every time; its logits are far apart."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model.to(dtype).eval()


def prompts(num: int, *, shared: int = 0, seed: int = 0) -> list[list[int]]:
    """Token ids of prompts of 1 to 14 tokens behind ``shared`` that are the same."""
    generator = torch.Generator().manual_seed(seed)

    def some(length: int) -> list[int]:
        return torch.randint(2, 40, (length,), generator=generator).tolist()

    beginning = some(shared)
    return [beginning + some(1 + (5 * i) % 14) for i in range(num)]


def plainly(model: Any, prompt: list[int], max_new_tokens: int) -> list[int]:
    """What ``generate`` says to one prompt alone."""
    output = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=PAD,
        eos_token_id=list(ENDS),
    )
    ids: list[int] = output[0, len(prompt) :].tolist()
    return ids


def logprob(model: Any, prompt: list[int], continuation: tuple[int, ...]) -> float:
    """Sum of the natural-log probabilities of ``continuation``, all computed at once, alone."""
    ids = torch.tensor([[*prompt, *continuation]])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) - 1 + len(continuation))
    return float(sum(logprobs[at, token] for at, token in zip(places, continuation, strict=True)))
