"""Each term against a slow and obvious reference, and against TRL's own losses."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trl import DPOConfig, KTOConfig, SFTConfig, SFTTrainer

from tests.trainer.builders import settings
from tests.trainer.scored import (
    Models,
    divergence,
    logprob,
    loss_of,
    make_models,
    pack,
    ratio,
    sigmoid,
    tokens,
)
from trainer.examples import Example, ExampleKind
from trainer.losses import kl_divergence, kto_reference_point
from trainer.methods.offline import TokenizedDPOTrainer, TokenizedKTOTrainer, method_rows
from trainer.stats import Stat

PAIRS = [
    Example(ExampleKind.PAIR, (3, 4, 5, 6), (10, 11), rejected=(12,), weight=1.0),
    Example(ExampleKind.PAIR, (7, 8), (20, 21, 22, 23), rejected=(24, 25), weight=1.0),
    Example(ExampleKind.PAIR, (9, 8, 7), (30,), rejected=(31, 32, 33), weight=1.0),
]
JUDGED = [
    Example(ExampleKind.DESIRABLE, (3, 4), (40, 41)),
    Example(ExampleKind.UNDESIRABLE, (5, 6, 7), (42,)),
    Example(ExampleKind.DESIRABLE, (8,), (43, 44, 45)),
    Example(ExampleKind.UNDESIRABLE, (9, 10), (46, 47)),
]
OTHERS = [
    Example(ExampleKind.CHOSEN, (11, 12), (50, 51, 52), weight=0.25),
    Example(ExampleKind.REPLAY, (13, 14, 15), (60, 61)),
    Example(ExampleKind.REPLAY, (16,), (62, 63, 64)),
]


@pytest.fixture
def models(store):
    return make_models(store)


@torch.no_grad()
def test_dpo_and_nll_equal_the_formulas(models):
    _, sums = loss_of(models, [*PAIRS, OTHERS[0]], dpo_beta=0.3)
    dpo = sum(
        -math.log(
            sigmoid(
                0.3 * (ratio(models, e.prompt, e.completion) - ratio(models, e.prompt, e.rejected))
            )
        )
        for e in PAIRS
    )
    nll = sum(
        -e.weight * logprob(models.policy, e.prompt, e.completion) / len(e.completion)
        for e in [*PAIRS, OTHERS[0]]
    )
    assert float(sums[Stat.DPO]) == pytest.approx(dpo, rel=1e-5)
    assert float(sums[Stat.NLL]) == pytest.approx(nll, rel=1e-5)


@torch.no_grad()
def test_kto_equals_the_formula(models):
    examples = [replace(e, weight=w) for e, w in zip(JUDGED, (1.0, 0.5, 0.25, 0.8), strict=True)]
    _, sums = loss_of(models, examples, kto_beta=0.4)
    others = mismatched(examples)
    weight = sum(e.weight for e in examples)
    mean = sum(e.weight * ratio(models, e.prompt, others[e.prompt]) for e in examples) / weight
    expected = 0.0
    for example in examples:
        advantage = ratio(models, example.prompt, example.completion) - max(0.0, mean)
        sign = 1 if example.kind is ExampleKind.DESIRABLE else -1
        expected += example.weight * (1 - sigmoid(0.4 * sign * advantage))
    assert float(sums[Stat.KTO]) == pytest.approx(expected, rel=1e-5)


def mismatched(examples) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The mismatched completion of each prompt."""
    sequences = pack(examples).mismatched
    return {
        example.prompt: tuple(sequences.targets[sequences.owners == row].tolist())
        for row, example in enumerate(examples)
    }


def test_the_reference_point_is_never_negative_and_has_no_gradient():
    mean = torch.tensor(1.0, requires_grad=True)
    assert float(kto_reference_point(mean)) == 1.0
    assert float(kto_reference_point(-mean)) == 0.0
    assert not kto_reference_point(mean).requires_grad


@torch.no_grad()
def test_replay_kl_covers_the_whole_vocabulary(models):
    _, sums = loss_of(models, OTHERS[1:])
    expected = 0.0
    for example in OTHERS[1:]:
        policy = tokens(models.policy, example.prompt, example.completion)
        reference = tokens(models.reference, example.prompt, example.completion)
        per_token = [divergence(p, q) for p, q in zip(policy, reference, strict=True)]
        expected += sum(per_token) / len(per_token)
    assert expected > 0.1
    assert float(sums[Stat.KL]) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_what_feedback_taught_is_rehearsed_but_not_held_to_the_parent(models):
    lesson = replace(OTHERS[1], anchored=False)
    _, sums = loss_of(models, [lesson, OTHERS[2]])
    _, held = loss_of(models, [OTHERS[2]])
    _, both = loss_of(models, OTHERS[1:])
    assert float(sums[Stat.KL]) == pytest.approx(float(held[Stat.KL]), rel=1e-5)
    assert float(sums[Stat.REPLAY]) == pytest.approx(float(both[Stat.REPLAY]), rel=1e-5)
    assert float(sums[Stat.ANCHORED_WEIGHT]) == 1.0


@torch.no_grad()
def test_replay_can_be_held_to_another_policy_than_the_parent(models):
    anchor = copy.deepcopy(models.policy)
    for weight in anchor.parameters():
        weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    lesson = replace(OTHERS[1], anchored=False)
    _, sums = loss_of(models, [lesson, OTHERS[2], *JUDGED], anchor=anchor)
    _, plain = loss_of(models, [lesson, OTHERS[2], *JUDGED])
    asked, said = OTHERS[2].prompt, OTHERS[2].completion
    policy, kept = (tokens(m, asked, said) for m in (models.policy, anchor))
    per_token = [divergence(p, q) for p, q in zip(policy, kept, strict=True)]
    expected = sum(per_token) / len(per_token)
    assert float(sums[Stat.KL]) == pytest.approx(expected, rel=1e-4)
    assert float(plain[Stat.KL]) != pytest.approx(expected, rel=1e-2)
    assert float(sums[Stat.KTO]) == pytest.approx(float(plain[Stat.KTO]), rel=1e-6)


def test_kl_of_a_policy_to_itself_is_nothing():
    logprobs = torch.randn(3, 7).log_softmax(-1)
    assert torch.equal(kl_divergence(logprobs, logprobs), torch.zeros(3))


@torch.no_grad()
def test_the_loss_is_the_weighted_sum_of_all_terms(models):
    weights = {"dpo_weight": 0.5, "nll_weight": 0.7, "kto_weight": 1.3, "kl_weight": 0.2}
    loss, sums = loss_of(models, [*PAIRS, *JUDGED, *OTHERS], **weights)
    expected = (
        0.5 * sums[Stat.DPO]
        + 0.7 * (sums[Stat.NLL] + sums[Stat.REPLAY])
        + 1.3 * sums[Stat.KTO]
        + 0.2 * sums[Stat.KL]
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(sums[Stat.LOSS]) == pytest.approx(float(loss), rel=1e-6)


@torch.no_grad()
def test_an_example_of_half_the_weight_counts_half(models):
    half = [Example(e.kind, e.prompt, e.completion, e.rejected, 0.5) for e in [*PAIRS, *JUDGED]]
    whole, _ = loss_of(models, [*PAIRS, *JUDGED])
    halved, _ = loss_of(models, half)
    assert float(halved) == pytest.approx(0.5 * float(whole), rel=1e-6)


def as_compared(examples) -> list[Example]:
    """In the order in which each takes the completion of the one before it, as TRL pairs rows."""
    others = mismatched(examples)
    ordered = [examples[0]]
    while len(ordered) < len(examples):
        said = ordered[-1].completion
        ordered.append(next(e for e in examples if others[e.prompt] == said))
    return ordered


def trl(method: str, models, examples, folder: Path, **fields):
    """A trainer of TRL's with our two models, and the batch it would train on."""
    from datasets import Dataset

    config, trainer, references = {
        "sft": (SFTConfig, SFTTrainer, {}),
        "dpo": (DPOConfig, TokenizedDPOTrainer, {"ref_model": copy.deepcopy(models.reference)}),
        "kto": (KTOConfig, TokenizedKTOTrainer, {"ref_model": copy.deepcopy(models.reference)}),
    }[method]
    built = trainer(
        model=copy.deepcopy(models.policy),
        **references,
        args=config(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            **fields,
        ),
        processing_class=models.tokenizer,
        train_dataset=Dataset.from_list(method_rows(examples, settings(method=method))),
    )
    built.model.eval()
    return built


def trl_loss(trainer, rows) -> float:
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, trainer.data_collator(list(rows))))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_dpo_with_nll_equals_trl(models, tmp_path):
    trainer = trl(
        "dpo",
        models,
        PAIRS,
        tmp_path,
        beta=0.3,
        loss_type=["sigmoid", "sft"],
        loss_weights=[0.8, 0.6],
    )
    # TRL takes the mean over a batch's tokens; one example a batch gives RPO's mean per example.
    theirs = sum(trl_loss(trainer, [row]) for row in trainer.train_dataset)
    ours, _ = loss_of(models, PAIRS, dpo_beta=0.3, dpo_weight=0.8, nll_weight=0.6)
    assert float(ours) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_dpo_alone_equals_trl_on_a_ragged_batch(models, tmp_path):
    trainer = trl("dpo", models, PAIRS, tmp_path, beta=0.3)
    ours, _ = loss_of(models, PAIRS, dpo_beta=0.3, nll_weight=0.0)
    assert float(ours) / 3 == pytest.approx(trl_loss(trainer, trainer.train_dataset), rel=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("swap", [False, True])
def test_kto_equals_trl(models, tmp_path, swap):
    # With policy and reference swapped the KL estimate changes sign, so both sides of z0 are met.
    if swap:
        models = Models(models.reference, models.policy, models.tokenizer)
    trainer = trl("kto", models, as_compared(JUDGED), tmp_path, beta=0.4)
    ours, _ = loss_of(models, JUDGED, kto_beta=0.4)
    assert float(ours) / 4 == pytest.approx(trl_loss(trainer, trainer.train_dataset), rel=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_nll_equals_trl(models, tmp_path):
    examples = [replace(OTHERS[0], completion=(50, 51, 52, 53)[:n], weight=1.0) for n in (2, 4)]
    trainer = trl("sft", models, examples, tmp_path, completion_only_loss=True)
    theirs = sum(trl_loss(trainer, [row]) for row in trainer.train_dataset)
    ours, _ = loss_of(models, examples)
    assert float(ours) == pytest.approx(theirs, rel=1e-5)
