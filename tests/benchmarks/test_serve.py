"""The arithmetic of benchmarks.serve: what is counted, and what is divided by what."""

import sys

import pytest

from benchmarks.serve.__main__ import require_peer
from benchmarks.serve.compare import Round, cpu_ratio, ratio
from benchmarks.serve.swaps import Answer, Swap, figures

ROUNDS = {
    ("ours", 16): [Round(100, 1.0, 2.0), Round(300, 1.0, 1.0)],
    ("theirs", 16): [Round(100, 4.0, 4.0), Round(100, 2.0, 3.0)],
}


def test_ratios_are_medians_of_tokens_a_second_round_by_round() -> None:
    assert ratio(ROUNDS, "ours", "theirs", clients=16) == pytest.approx((4 + 6) / 2)
    assert cpu_ratio(ROUNDS, "ours", "theirs", clients=16) == pytest.approx((2 + 9) / 2)


def answer(sent_s: float, took_s: float, *, model: str = "a", text: str = "x") -> Answer:
    return Answer(200, model, text, sent_s, sent_s + took_s)


def test_slow_answers_around_a_swap_are_held_against_those_at_rest() -> None:
    swaps = [Swap(commanded_s=10.0, first_answer_s=11.0)]
    at_rest = [answer(s, 0.2) for s in (1.0, 2.0, 20.0)]
    around = [answer(9.9, 0.2), answer(10.5, 0.6), answer(11.4, 0.3)]
    found = figures([*at_rest, *around], swaps, {"a": {"x"}})
    assert found["swap_answers"] == 3
    assert found["swap_p99_ratio"] == pytest.approx(3.0)
    assert (found["swap_failed"], found["mixed_versions"]) == (0, 0)


def test_failures_and_texts_of_another_version_are_counted() -> None:
    swaps = [Swap(commanded_s=1.5, first_answer_s=1.6)]
    answers = [
        answer(0.0, 0.1),
        answer(1.5, 0.1, model="b", text="y"),
        answer(1.6, 0.1, model="b", text="x"),
        answer(1.7, 0.1, model="b", text="xy"),
        Answer(503, "", "", 1.8, 1.9),
    ]
    found = figures(answers, swaps, {"a": {"x"}, "b": {"y"}})
    assert (found["swap_failed"], found["mixed_versions"]) == (1, 2)


def test_a_peer_that_is_missing_is_told_how_to_get() -> None:
    require_peer(sys.executable)
    with pytest.raises(SystemExit, match=r"pip install 'transformers\[serving\]'"):
        require_peer("/bin/false")
