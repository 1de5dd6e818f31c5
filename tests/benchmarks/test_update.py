"""The arithmetic of benchmarks.update: what is counted, and what is divided by what."""

from types import SimpleNamespace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.update.arms import Round
from benchmarks.update.compare import loss_error, ratio, wall_ratio
from benchmarks.update.data import build_policy, corpus, num_useful_tokens, settings
from benchmarks.update.feedback import corrections, mixed
from benchmarks.update.memory import peak_mb
from benchmarks.update.mfu import attention_flops, matrix_flops
from benchmarks.update.scaling import after_first_epoch
from tacit.metrics import MetricName
from trainer.examples import Example, ExampleKind
from trainer.progress import StepMetrics
from trainer.scoring import CompletionScorer
from trainer.sequences import collate

ROUNDS = {
    "ours": [Round(100, 1.0, 2.0, [1.0, 2.2]), Round(300, 1.0, 1.0, [])],
    "theirs": [Round(100, 4.0, 4.0, [1.0, 2.0]), Round(100, 2.0, 3.0, [])],
}


def test_ratios_are_medians_of_tokens_a_second_round_by_round():
    assert ratio(ROUNDS, "ours", "theirs") == pytest.approx((4 + 6) / 2)
    assert wall_ratio(ROUNDS, "ours", "theirs") == pytest.approx((2 + 9) / 2)


def test_the_loss_error_is_relative_and_of_the_steps_asked_for():
    assert loss_error(ROUNDS, "ours", "theirs", num_steps=2) == pytest.approx(0.1)
    assert loss_error(ROUNDS, "ours", "theirs", num_steps=1) == 0


def test_the_prompt_of_a_pair_counts_for_both_sides():
    pair = Example(ExampleKind.PAIR, (1, 2, 3), (4,), rejected=(5, 6))
    judged = Example(ExampleKind.DESIRABLE, (1, 2, 3), (4,))
    assert num_useful_tokens([pair, judged]) == (3 + 1) + (3 + 2) + (3 + 1)


def test_peak_memory_is_the_high_water_mark(tmp_path):
    status = tmp_path / "status"
    status.write_text("VmPeak:\t    9999 kB\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n")
    assert peak_mb(status=status) == pytest.approx(2.048)


def test_feedback_goes_on_beyond_the_tickets_there_are_with_ids_of_its_own():
    events = list(mixed(2_000))
    assert len({event.event_key for event in events}) == 2_000
    assert {type(event.event.feedback).__name__ for event in events} == {
        "Correction",
        "Outcome",
        "Critique",
        "Rating",
    }
    assert [sent.event_id for sent in corrections(2)] == ["e-0", "e-1"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("lora", [False, True])
def test_flops_of_products_with_weights_are_those_that_torch_counts(lora):
    tokenizer = corpus(1).tokenizer
    chosen = settings(term="dpo", lora=lora, num_epochs=1, precision="fp32")
    policy = build_policy(tokenizer, chosen, shape="tiny", device="cpu")
    scorer = CompletionScorer(policy.model)
    lengths = [(5, 2, 1), (3, 2, 3)]  # of 8 tokens: no padding
    sequences = collate([tuple((1,) * size for size in row) for row in lengths], pad_id=0)
    assert sequences.attention_mask.all()
    with FlopCounterMode(display=False) as counter:
        scorer.logprobs(scorer.hidden(sequences)).sum().backward()
    by_operation = counter.get_flop_counts()["Global"]
    counted = sum(number for operation, number in by_operation.items() if "mm" in str(operation))
    forward, backward = matrix_flops(scorer.model, lengths)
    # With frozen embeddings nothing flows back through the first layer's inputs.
    assert counted == pytest.approx(forward + backward, rel=0.06 if lora else 1e-6)


def test_flops_of_attention_count_what_a_token_may_see():
    config = SimpleNamespace(num_attention_heads=2, head_dim=8, num_hidden_layers=3)
    prompt, completions = 4 * 4, 2 * (4 + 2) + 1 * (4 + 1)
    assert attention_flops(config, [(4, 2, 1)]) == 4 * (prompt + completions) * 16 * 3


def test_scaling_leaves_out_the_epoch_in_which_kernels_are_compiled():
    tokens, rate = MetricName.TOKENS.value, MetricName.TOKENS_PER_SECOND.value
    measured = [(900, 1), (900, 1), *[(300, 300), (100, 50)] * 3]
    steps = [StepMetrics(i, 8, {tokens: n, rate: r}) for i, (n, r) in enumerate(measured)]
    assert after_first_epoch(steps) == pytest.approx((3 * 300 + 3 * 100) / (3 * 1 + 3 * 2))
