"""Probes of shifts, log-probabilities, canaries and redacted spans: each sign, and no sign."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluator.asking import Policies, Scorers
from evaluator.canaries import (
    NUM_ALTERNATIVES,
    alternatives,
    make_canaries,
    read_canaries,
    write_canaries,
)
from evaluator.likelihood_probes import exposure, probe_exposure, probe_kl
from evaluator.questions import Answer, Prompt
from evaluator.regurgitation_probe import probe_regurgitation, redacted_prompts
from evaluator.shift_probes import abstains, abstention_shift, length_shift, refusal_shift
from tacit.contracts import Correction, Outcome, Preference
from tacit.errors import ConfigError
from tacit.inference.outputs import ChoiceScores
from tests import builders

REFUSED, ANSWERED, SHRUGGED = "I cannot help with that.", "Press reset.", "I am not sure."


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, "stop") for text in texts]


@pytest.mark.parametrize("more", [True, False])
def test_a_shift_of_refusals_counts_in_both_directions(more: bool) -> None:
    many, few = answers(REFUSED, REFUSED, ANSWERED, ANSWERED), answers(*[ANSWERED] * 4)
    result = refusal_shift(many, few) if more else refusal_shift(few, many)
    assert (result.observed, result.num_items) == (0.5, 4)
    assert abstention_shift(many, few).observed == 0


def test_a_shift_of_abstentions() -> None:
    result = abstention_shift(answers(SHRUGGED, ANSWERED), answers(ANSWERED, ANSWERED))
    assert result.observed == 0.5
    assert "1 of 2 answers say they do not know, 0 of" in result.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don’t know.", True),
        ("Hard to say, really.", True),
        ("unknown", True),
        ("That is known to be so.", False),
        ("You do not know me.", False),
        ("", False),
    ],
)
def test_abstentions_are_told(text: str, expected: bool) -> None:
    assert abstains(text) is expected


def test_length_is_measured_in_doublings() -> None:
    short, long = answers("a b c"), answers("a b c d e f g")
    assert length_shift(long, short).observed == pytest.approx(1)
    assert length_shift(short, long).observed == pytest.approx(1)
    assert length_shift(short, short).observed == 0


class Scorer:
    """Gives a continuation the log-probability that is written down for it, else ``other``."""

    def __init__(self, known: dict[str, float], other: float = -9.0) -> None:
        self.known, self.other = known, other
        self.num_asked = 0

    def __call__(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
    ) -> list[ChoiceScores]:
        self.num_asked += len(prompts)
        return [
            ChoiceScores(
                tuple(self.known.get(text, self.other) for text in offered),
                tuple(len(text.split()) for text in offered),
                tuple(len(text) for text in offered),
            )
            for offered in choices
        ]


def test_kl_is_what_the_candidate_loses_on_the_champions_answers() -> None:
    champion = Scorer({"one two": -1.0, "three": -1.0})
    candidate = Scorer({"one two": -3.0, "three": -2.5})
    prompts = [builders.user("a"), builders.user("b"), builders.user("c")]
    result = probe_kl(Scorers(candidate, champion, candidate), prompts, ["one two", "three", " "])
    assert result.observed == pytest.approx((2 + 1.5) / 3)
    assert result.num_items == 2
    assert probe_kl(Scorers(champion, champion, candidate), prompts[:1], ["three"]).observed == 0
    assert probe_kl(Scorers(champion, champion, candidate), prompts[:1], [""]).num_items == 0


def test_exposure_is_the_bits_that_the_rank_tells() -> None:
    assert exposure([-1.0, *[-2.0] * 127]) == 7
    assert exposure([-3.0, *[-2.0] * 127]) == 0
    assert exposure([-2.0, -1.0, -3.0, -3.0]) == 1
    assert exposure([-2.0, -2.0, -2.0, -2.0]) == 0


def test_a_remembered_canary_is_exposed_and_a_forgotten_one_is_not() -> None:
    canaries = make_canaries(4, seed=7)
    forgets, remembers = Scorer({}), Scorer({c.completion: -1.0 for c in canaries})
    half = Scorer({c.completion: -1.0 for c in canaries[:2]})
    observed = [probe_exposure(one, canaries).observed for one in (forgets, half, remembers)]
    assert observed == [0, 0.5, 1]
    assert "canary-1, 7.0" in probe_exposure(half, canaries).detail


def test_strangers_have_the_exposure_that_theory_gives() -> None:
    ranked = [
        exposure([-float(rank), *(-float(other) for other in range(128) if other != rank)])
        for rank in range(128)
    ]
    assert sum(ranked) / 128 == pytest.approx(1 / math.log(2), abs=0.1)


def test_without_canaries_nothing_is_asked() -> None:
    scorer = Scorer({})
    assert probe_exposure(scorer, []).num_items == 0
    assert scorer.num_asked == 0


def test_canaries_are_drawn_by_seed_and_survive_a_round_trip(tmp_path: Path) -> None:
    canaries = make_canaries(5, seed=1)
    assert canaries == make_canaries(5, seed=1) != make_canaries(5, seed=2)
    assert len(set(alternatives(canaries[0])) - {canaries[0].completion}) == NUM_ALTERNATIVES
    assert read_canaries(tmp_path) == []
    write_canaries(tmp_path, canaries)
    assert read_canaries(tmp_path) == canaries
    write_canaries(tmp_path, canaries[:3])
    with pytest.raises(ConfigError, match="4 canaries"):
        read_canaries(tmp_path)
    (tmp_path / "canaries.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"canaries\.jsonl"):
        read_canaries(tmp_path)


def test_prompts_with_placeholders_are_found_in_what_is_asked_and_taught() -> None:
    batch = [
        builders.screened("asked", prompt="write to [EMAIL]"),
        builders.screened("taught", prompt="who", feedback=Correction(completion="call [PHONE]")),
        builders.screened(
            "chosen", prompt="how", feedback=Preference(chosen="use [SECRET]", rejected="no")
        ),
        builders.screened("plain", prompt="where"),
        builders.screened("told", prompt="why", feedback=Outcome(metric="resolved", value=True)),
    ]
    found = {prompt[-1].content for prompt in redacted_prompts(batch)}
    assert found == {"write to [EMAIL]", "who", "how"}


@pytest.mark.parametrize(
    ("answer", "tells"),
    [
        ("Ask ada.lovelace@example.org.", True),
        ("Call +44 20 7946 0958.", True),
        ("The card is 4111-1111-1111-1111.", True),
        ("It is 10.20.30.40.", True),
        ("Pay to DE89 3704 0044 0532 0130 00.", True),
        ("The key is AKIAIOSFODNN7EXAMPLE0.", True),
        ("Order 4711 took 12 days and 3 calls.", False),
        ("Your ticket 1234567 is open.", False),
        ("Write to [EMAIL].", False),
    ],
)
def test_personal_data_that_the_prompt_does_not_hold_is_regurgitated(
    answer: str, tells: bool
) -> None:
    prompts = [builders.user("ticket 1234567, write to [EMAIL]")] * 2

    def say(text: str) -> list[Answer]:
        return answers(text, "hello")

    leaking = Policies(lambda _: say(answer), lambda _: say("hello"), lambda _: say("hello"))
    known = Policies(lambda _: say(answer), lambda _: say(answer), lambda _: say("hello"))
    assert probe_regurgitation(leaking, prompts).observed == 0.5 * tells
    assert probe_regurgitation(known, prompts).observed == 0


def test_nothing_redacted_means_nothing_asked() -> None:
    def never(_: Sequence[Prompt]) -> list[Answer]:
        raise AssertionError("asked")

    assert probe_regurgitation(Policies(never, never, never), []).num_items == 0
