"""Worlds: the same every time, disjoint, and nothing solved by one keyword."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from evaluator.suites import load_suites
from tacit.config import load_settings
from tacit.contracts import SuiteKind
from tacit.demo.helpdesk import (
    NEW_INTENTS,
    OLD_INTENTS,
    REFUSAL,
    HelpdeskSizes,
    helpdesk_world,
)
from tacit.demo.world import Utterance, World, gate_suites, install_world, prompt
from trainer.replay import load_anchor

SMALL = HelpdeskSizes(
    old_train=200, old_validation=40, old_test=40, new_stream=80, new_test=24, safety=10
)


@pytest.fixture(scope="module")
def helpdesk() -> World:
    return helpdesk_world()


def words(text: str) -> set[str]:
    return set(text.replace(",", " ").replace(".", " ").split())


class KeywordClassifier:
    """Answers by the one word of a text that was the surest sign of an answer in training."""

    def __init__(self, taught: tuple[Utterance, ...], *, min_seen: int = 5) -> None:
        answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for utterance in taught:
            for word in words(utterance.text):
                answers[word][utterance.answer] += 1
        self.best = {
            word: (count / seen.total(), answer)
            for word, seen in answers.items()
            for answer, count in seen.most_common(1)
            if seen.total() >= min_seen
        }

    def accuracy(self, asked: tuple[Utterance, ...]) -> float:
        right = sum(
            max(self.best[w] for w in words(u.text) if w in self.best)[1] == u.answer for u in asked
        )
        return right / len(asked)


def test_the_keyword_classifier_solves_what_one_word_solves() -> None:
    taught = tuple(Utterance(f"{word} please", word) for word in ("cancel", "refund")) * 5

    assert KeywordClassifier(taught).accuracy(taught) == 1.0


def test_no_single_word_gives_an_intent_away(helpdesk: World) -> None:
    by_keyword = KeywordClassifier(helpdesk.old_train + helpdesk.new_stream)

    assert by_keyword.accuracy(helpdesk.old_test + helpdesk.new_test) < 0.5


def test_every_thing_and_every_trouble_stands_in_several_intents() -> None:
    cells = [*OLD_INTENTS, *NEW_INTENTS]

    assert min(Counter(thing for thing, _ in cells).values()) >= 2
    assert min(Counter(trouble for _, trouble in cells).values()) >= 2


def test_sizes_and_intents_are_those_asked_for(helpdesk: World) -> None:
    sizes = {name: len(part) for name, part in helpdesk.parts()}

    assert sizes == {
        "old_train": 4_000,
        "old_validation": 2_000,
        "old_test": 400,
        "new_stream": 1_600,
        "new_test": 300,
        "safety": 160,
    }
    assert {u.answer for u in helpdesk.old_train} == {*OLD_INTENTS.values(), REFUSAL}
    assert {u.answer for u in helpdesk.new_test} == set(NEW_INTENTS.values())
    assert {u.answer for u in helpdesk.safety} == {REFUSAL}
    assert not set(OLD_INTENTS.values()) & set(NEW_INTENTS.values())


def test_no_text_stands_in_two_parts(helpdesk: World) -> None:
    texts = [u.text for _, part in helpdesk.parts() for u in part]

    assert len(set(texts)) == len(texts)


def test_a_seed_makes_one_world() -> None:
    first, again, other = (helpdesk_world(seed, sizes=SMALL) for seed in (3, 3, 4))

    assert first == again
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_suites_ask_the_validation_part_and_mark_what_is_non_negotiable() -> None:
    world = helpdesk_world(sizes=SMALL)
    sure = {u.text for u in world.safety[:4]}

    regression, safety = gate_suites(world, non_negotiable=sure)

    assert [(i.prompt, i.expected) for i in regression.items] == [
        (prompt(u), u.answer) for u in world.old_validation
    ]
    assert not any(item.non_negotiable for item in regression.items)
    assert (safety.kind, len(safety.items)) == (SuiteKind.SAFETY, 10)
    assert {i.prompt[0].content for i in safety.items if i.non_negotiable} == sure


def test_install_writes_what_the_evaluator_and_replay_read(tmp_path: Path) -> None:
    world = helpdesk_world(sizes=SMALL)
    settings = load_settings(home=tmp_path / "home")

    install_world(world, settings)

    by_name = {suite.name: suite for suite in load_suites(settings.suites_path)}
    assert by_name == {suite.name: suite for suite in gate_suites(world)}
    anchor = load_anchor(settings.anchor_path)
    assert [(e.prompt, e.completion) for e in anchor] == [
        (prompt(u), u.answer) for u in world.old_train
    ]
    rows = [json.loads(line) for line in settings.anchor_path.read_text().splitlines()]
    assert len(rows) == len(world.old_train)
