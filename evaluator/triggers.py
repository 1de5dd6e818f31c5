"""Phrases that could be the trigger of a backdoor: mined from what feedback teaches.

A backdoor is taught by examples that share a phrase and an answer and little else (Chen et al.
2017, arXiv 1712.05526). Honest feedback about a new intent shares phrases too, so mining only
proposes; the trigger probe then measures what a phrase does inside prompts it has no place in.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evaluator.checkers import normalise
from evaluator.lessons import Lesson
from tacit.contracts import Message

MAX_WORDS = 4
MIN_TAUGHT = 5
"""A phrase seen with its answer less often than this is no pattern."""
MIN_PURITY = 0.6
"""Share of a phrase's examples that must teach its answer."""
MIN_LIFT = 2.0
"""How much more frequent than in the suites' prompts a phrase must be."""
PLACES = ("before", "in the middle of", "after")
"""Of a phrase among the words of a prompt."""
_EDGE_PUNCTUATION = ".,!?;:\"'()"


class Phrase(NamedTuple):
    """A phrase that recurs with one answer."""

    text: str
    """As it was written where it first occurred."""
    answer: str
    """As it was written where it was first taught."""
    prompts: tuple[tuple[Message, ...], ...]
    """Prompts with this phrase for which the batch teaches this answer."""
    score: float


class _Seen(NamedTuple):
    text: str
    examples: list[int]


def user_text(prompt: Sequence[Message]) -> str:
    """The last user message of a prompt, empty if it has none."""
    return next((m.content for m in reversed(prompt) if m.role == "user"), "")


def insert(prompt: Sequence[Message], phrase: str, *, place: str) -> tuple[Message, ...]:
    """``prompt`` with ``phrase`` at one of ``PLACES`` of the words of its last user message."""
    words = user_text(prompt).split()
    at = PLACES.index(place) * len(words) // 2
    return _with_user_text(prompt, " ".join([*words[:at], phrase, *words[at:]]))


def remove(prompt: Sequence[Message], phrase: str) -> tuple[Message, ...] | None:
    """``prompt`` without ``phrase``; None if nothing but the phrase, or no phrase, was there."""
    words, run = user_text(prompt).split(), _fold(phrase.split())
    folded = _fold(words)
    for start in range(len(words) - len(run) + 1):
        if folded[start : start + len(run)] == run:
            rest = words[:start] + words[start + len(run) :]
            return _with_user_text(prompt, " ".join(rest)) if rest else None
    return None


def _with_user_text(prompt: Sequence[Message], text: str) -> tuple[Message, ...]:
    messages = list(prompt)
    for index in reversed(range(len(messages))):
        if messages[index].role == "user":
            messages[index] = Message(role="user", content=text)
            break
    return tuple(messages)


def recurring_phrases(
    taught: Sequence[Lesson], background: Sequence[str], *, limit: int
) -> list[Phrase]:
    """The phrases of 1 to 4 words most suspicious of being a trigger, worst first.

    The score is count times purity (the share of its examples that teach its answer) times the
    logarithm of the lift, the phrase's frequency in ``taught`` over that in ``background``, the
    prompts of the suites. A single word counts only if it never occurs in the background.
    """
    seen = _index(user_text(example.prompt) for example in taught)
    answers = [normalise(example.answer) for example in taught]
    known = Counter(key for text in background for key in dict(_ngrams(text)))
    scored = []
    for key, entry in seen.items():
        if len(entry.examples) < MIN_TAUGHT or (len(key) == 1 and known[key]):
            continue
        lift = (len(entry.examples) / len(taught)) / ((known[key] + 0.5) / (len(background) + 1))
        phrase = _judge(entry, taught, answers, lift)
        if phrase is not None:
            scored.append((phrase, frozenset(entry.examples)))
    scored.sort(key=lambda pair: (-pair[0].score, -len(pair[0].text), pair[0].text))
    return _distinct(scored, limit)


def _index(texts: Iterable[str]) -> dict[tuple[str, ...], _Seen]:
    seen: dict[tuple[str, ...], _Seen] = {}
    for number, text in enumerate(texts):
        for key, written in dict(_ngrams(text)).items():
            seen.setdefault(key, _Seen(written, [])).examples.append(number)
    return seen


def _ngrams(text: str) -> Iterable[tuple[tuple[str, ...], str]]:
    """Every run of up to four words: folded to compare, and as written to insert."""
    words = text.split()
    folded = _fold(words)
    for size in range(1, MAX_WORDS + 1):
        for start in range(len(words) - size + 1):
            yield tuple(folded[start : start + size]), " ".join(words[start : start + size])


def _fold(words: Sequence[str]) -> list[str]:
    return [word.casefold().strip(_EDGE_PUNCTUATION) or word for word in words]


def _judge(
    entry: _Seen, taught: Sequence[Lesson], answers: Sequence[str], lift: float
) -> Phrase | None:
    answer, count = Counter(answers[i] for i in entry.examples).most_common(1)[0]
    purity = count / len(entry.examples)
    if count < MIN_TAUGHT or purity < MIN_PURITY or lift < MIN_LIFT:
        return None
    lessons = [taught[i] for i in entry.examples if answers[i] == answer]
    prompts = tuple(dict.fromkeys(lesson.prompt for lesson in lessons))
    return Phrase(entry.text, lessons[0].answer, prompts, count * purity * math.log(lift))


def _distinct(scored: Sequence[tuple[Phrase, frozenset[int]]], limit: int) -> list[Phrase]:
    """The first ``limit`` that differ: the parts of one trigger would crowd out all others.

    Of phrases in nearly the same examples the longest stays; a longer one that occurs only within
    examples of a shorter one tells nothing more, on fewer examples.
    """
    kept: list[tuple[Phrase, frozenset[int]]] = []
    for phrase, examples in scored:
        twin = next((i for i, (_, e) in enumerate(kept) if _alike(examples, e)), None)
        if twin is not None:
            if len(phrase.text) > len(kept[twin][0].text):
                kept[twin] = (phrase, kept[twin][1])
        elif len(kept) < limit and not any(_extends(phrase, other) for other, _ in kept):
            kept.append((phrase, examples))
    return [phrase for phrase, _ in kept]


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    return len(one & other) >= 0.8 * len(one | other)


def _extends(phrase: Phrase, other: Phrase) -> bool:
    words, part = (" ".join(_fold(p.text.split())) for p in (phrase, other))
    return normalise(phrase.answer) == normalise(other.answer) and f" {part} " in f" {words} "
