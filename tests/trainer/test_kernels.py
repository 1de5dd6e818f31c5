"""Kernels that bfloat16 on CPUs compiles: few of them, and the same answers as without."""

import os
import subprocess
import sys

import pytest
import torch

from tacit.policies import load_model
from tests import builders as build
from trainer.kernels import MAX_KERNELS, bound_kernel_caches, rounded_up, with_filler
from trainer.precision import FLOAT32_ATTENTION, has_fast_bf16
from trainer.scoring import CompletionScorer
from trainer.sequences import collate


def rows(count: int, *, completions: int = 1):
    """``count`` prompts with completions, that take some filler."""
    said = [(4 + i, 5, 6 + i)[: 1 + i % 3] for i in range(completions)]
    return collate([((1, 2 + i % 5), *said) for i in range(count)], pad_id=0)


def test_compiled_kernels_are_bounded_unless_the_environment_says_otherwise(monkeypatch):
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    monkeypatch.setattr("os.environ", {names[1]: "7"})
    bound_kernel_caches()
    assert [os.environ[name] for name in names] == [str(MAX_KERNELS), "7"]


def test_sizes_are_few_and_little_larger_than_what_they_hold():
    assert [rounded_up(n) for n in (1, 8, 9, 16, 17, 33, 64, 65)] == [1, 8, 10, 16, 20, 40, 64, 80]
    sizes = {rounded_up(n) for n in range(1, 1025)}
    assert len(sizes) == 36
    assert all(n <= rounded_up(n) < 1.25 * n + 1 for n in range(1, 1025))


def test_filler_stands_behind_and_says_what_it_is_told():
    assert with_filler(torch.zeros(9, 1, 2), value=1).sum((1, 2)).tolist() == [0] * 9 + [2]
    assert with_filler(torch.ones(17, 2, dtype=torch.bool)).sum(-1).tolist() == [2] * 17 + [0] * 3
    assert len(with_filler(torch.ones(8, 3))) == 8


@pytest.mark.parametrize("completions", [1, 2])
def test_filler_changes_neither_logprobs_nor_gradients(store, monkeypatch, completions):
    model = load_model(store, build.tiny_checkpoint(store)).eval()
    sequences, found = rows(9, completions=completions), []
    for fill in (True, False):
        scorer = CompletionScorer(model, bf16=True)
        if not fill:
            monkeypatch.setattr(scorer, "_compiles", lambda _: False)
        model.zero_grad()
        logprobs = scorer.logprobs(scorer.hidden(sequences))
        logprobs.gather(-1, sequences.targets[:, None]).sum().backward()
        found.append([logprobs.detach(), *(p.grad.clone() for p in model.parameters())])
    assert len(found[0][0]) == len(sequences.targets)
    for filled, plain in zip(*found, strict=True):
        assert torch.allclose(filled, plain, rtol=0.02, atol=0.02 * float(plain.abs().max()))


COMPILED = """
from pathlib import Path
import sys, torch
from tacit.checkpoints import CheckpointStore
from tests import builders as build
from tests.trainer.test_kernels import rows
from tacit.policies import load_model
from trainer.scoring import CompletionScorer

store = CheckpointStore(Path(sys.argv[1]))
model = load_model(store, build.tiny_checkpoint(store)).eval()
scorer = CompletionScorer(model, bf16=True)
for count in map(int, sys.argv[2:]):
    print("of", count, flush=True)
    scorer.logprobs(scorer.hidden(rows(count))).sum().backward()
"""


@pytest.mark.skipif(not has_fast_bf16("cpu"), reason="needs a CPU with units for bfloat16")
def test_nearly_as_many_rows_need_no_new_kernel(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", COMPILED, str(tmp_path), "39", "37", "40", "41"],
        env={**os.environ, "ONEDNN_VERBOSE": "profile_create"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    first, *alike, larger = (part.count("cache_miss") for part in told.split("\nof ")[-4:])
    assert first > 0
    assert alike == [0, 0]
    assert larger > 0


def test_attention_on_cpus_stays_in_float32(store, monkeypatch):
    model, seen = load_model(store, build.tiny_checkpoint(store)).eval(), []
    attend = torch.nn.functional.scaled_dot_product_attention

    def noted(query, key, value, **options):
        seen.append((query.dtype, key.dtype, value.dtype, options["attn_mask"]))
        return attend(query, key, value, **options)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", noted)
    plain = CompletionScorer(model).hidden(rows(3))
    before = seen[-1]
    rounded = CompletionScorer(model, bf16=True).hidden(rows(3))
    assert model.config._attn_implementation == FLOAT32_ATTENTION
    assert seen[-1][:3] == (torch.float32,) * 3
    # The mask is made as for sdpa, or left out as there.
    assert seen[-1][3] is before[3] or torch.equal(seen[-1][3], before[3])
    assert not torch.equal(plain, rounded)
    assert torch.equal(CompletionScorer(model).hidden(rows(3)), plain)
    assert "sdpa_float32" not in model.config.to_json_string()
