"""The arithmetic of benchmarks.update: what is counted, and what is divided by what."""

import pytest

from benchmarks.update.arms import Round
from benchmarks.update.compare import loss_error, ratio, wall_ratio
from benchmarks.update.data import num_useful_tokens
from benchmarks.update.feedback import corrections, mixed
from benchmarks.update.memory import peak_mb
from trainer.examples import Example, ExampleKind

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
