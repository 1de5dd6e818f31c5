"""Model FLOP utilisation: what an update's passes need, over what the device could do meanwhile.

    python -m benchmarks.update.mfu --shape qwen3-0.6b

Counted as in appendix B of Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), after Kaplan et al. 2020
(arXiv 2001.08361): for each token two FLOPs a weight of the forward pass, two for the gradient of
what flowed through it, and two for the gradient of a weight that is trained; in all 6 N where all
weights are. Attention adds 4 s d a token, layer and forward pass. Only what has to be computed
counts: no padding, a prompt once for both completions of a pair, the vocabulary head at completions
alone, and nothing for the gradient of frozen weights, which makes about 4 N of LoRA. The peak is
that of a product of large bfloat16 matrices in the same process.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.update.data import SHAPES, Shape, build_policy, corpus, settings
from tacit.config import TrainerSettings
from trainer.collective import Collective
from trainer.examples import Example, ExampleKind
from trainer.optimize import Optimization
from trainer.session import configure_process

PROMPT, COMPLETION = 256, 128
"""Tokens of a prompt and of each of its two completions: rows of 512."""
NUM_PAIRS = 256
MICRO_BATCH_TOKENS = 16_384


Lengths = Sequence[tuple[int, int, int]]
"""Of each row the tokens of its prompt and of its two completions."""


def matrix_flops(model: Any, lengths: Lengths) -> tuple[int, int]:
    """Of products with weights: those of a forward pass, and of the backward pass after it."""
    head = model.get_output_embeddings().weight
    matrices = [p for p in model.base_model.layers.parameters() if p.dim() == 2]
    tokens = sum(map(sum, lengths))
    predicted = sum(chosen + rejected for _, chosen, rejected in lengths)
    sizes = [(tokens, p) for p in matrices] + [(predicted, head)]
    through = sum(2 * number * p.numel() for number, p in sizes)
    trained = sum(2 * number * p.numel() for number, p in sizes if p.requires_grad)
    return through, through + trained


def attention_flops(config: Any, lengths: Lengths) -> int:
    """Of a forward pass; a backward pass has twice as many."""
    seen = sum(
        prompt * prompt + sum(size * (prompt + size) for size in said) for prompt, *said in lengths
    )
    return int(4 * seen * config.num_attention_heads * config.head_dim * config.num_hidden_layers)


def peak_flops(device: str, *, size: int = 8_192, num_rounds: int = 20) -> float:
    """FLOPs a second of a product of bfloat16 matrices [size, size]: median of the rounds."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rounds = []
    for _ in range(num_rounds + 3):
        synchronize(device)
        started = time.perf_counter()
        left @ right
        synchronize(device)
        rounds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(rounds[3:])


def synchronize(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device != "cpu":
        torch.cuda.synchronize()


def mfu(*, shape: Shape, device: str, lora: bool, num_pairs: int = NUM_PAIRS) -> float:
    """Of an update with DPO alone, references included; the one before it warms up."""
    tokenizer = corpus(1).tokenizer
    chosen: TrainerSettings = settings(term="dpo", lora=lora, num_epochs=1, precision="bf16")
    chosen = chosen.model_copy(update={"micro_batch_tokens": MICRO_BATCH_TOKENS})
    pairs = random_pairs(num_pairs, vocab_size=SHAPES[shape]["vocab_size"])
    rates = []
    for _ in range(2):
        policy = build_policy(tokenizer, chosen, shape=shape, device=device)
        needed = _flops(policy.model, [(PROMPT, COMPLETION, COMPLETION)] * num_pairs)
        synchronize(device)
        started = time.perf_counter()
        for _ in Optimization(policy, pairs, settings=chosen, group=Collective()).run():
            pass
        synchronize(device)
        rates.append(needed / (time.perf_counter() - started))
    return rates[-1] / peak_flops(device, size=8_192 if device != "cpu" else 1_024)


def _flops(model: Any, lengths: Lengths) -> int:
    """Two forward passes, the first for the references, and a backward pass."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    forward, backward = matrix_flops(whole, lengths)
    return 2 * forward + backward + 4 * attention_flops(whole.config, lengths)


def random_pairs(number: int, *, vocab_size: int) -> list[Example]:
    """Pairs of random tokens, which cost as much as any others."""
    generator = random.Random(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(generator.choices(range(vocab_size), k=length))

    sizes = (PROMPT, COMPLETION, COMPLETION)
    rows = [tuple(map(tokens, sizes)) for _ in range(number)]
    return [Example(ExampleKind.PAIR, asked, said, rejected=other) for asked, said, other in rows]


def measure_mfu(shape: Shape) -> dict[str, float]:
    """``mfu`` with LoRA and ``mfu_full``, on the GPU in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.update.mfu", "--shape", shape]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The measured process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--num-pairs", type=int, default=NUM_PAIRS)
    given: Any = parser.parse_args()
    configure_process(num_threads=1, device=given.device)
    figures = {
        name: mfu(shape=given.shape, device=given.device, lora=lora, num_pairs=given.num_pairs)
        for name, lora in (("mfu", True), ("mfu_full", False))
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
