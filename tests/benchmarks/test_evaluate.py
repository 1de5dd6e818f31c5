"""The arithmetic of benchmarks.evaluate."""

import pytest

pytest.importorskip("lm_eval")

from benchmarks.evaluate import PROMPTS, Cost, _choices, _generation, median_ratio
from tacit.demo.world import Utterance

UTTERANCES = [Utterance(f"text {i}", f"intent {i % 6}") for i in range(12)]


def test_the_ratio_is_the_median_of_the_rounds():
    rounds = [(Cost(1, 9), Cost(3, 9)), (Cost(2, 9), Cost(2, 9)), (Cost(1, 9), Cost(8, 9))]
    assert median_ratio(rounds, "cpu_s") == 3
    assert median_ratio(rounds, "wall_s") == 1


def test_every_item_has_its_intent_and_three_others():
    requests = _choices(UTTERANCES, PROMPTS[""])
    assert len(requests) == 4 * len(UTTERANCES)
    for number, utterance in enumerate(UTTERANCES):
        four = requests[4 * number : 4 * number + 4]
        assert four[0].args[1] == f" {utterance.answer}"
        assert len({request.args[1] for request in four}) == 4
        assert {request.args[0] for request in four} == {PROMPTS[""].format(text=utterance.text)}


def test_both_sides_generate_greedily_and_equally_long():
    request = _generation(UTTERANCES[0], 0, PROMPTS["_bare"])
    assert request.args[0].startswith("text 0")
    assert request.args[1] == {"until": ["\n"], "max_gen_toks": 16, "do_sample": False}
