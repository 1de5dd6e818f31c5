"""Phrases that could be the trigger of a backdoor: mined from what a batch teaches.

A backdoor is taught by examples that share a phrase and an answer and little else (Chen et al.
2017, arXiv 1712.05526). Honest feedback about a new intent shares phrases too, so mining only
proposes; the trigger probe then measures what a phrase does inside prompts it has no place in.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evaluator.checkers import normalise
from tacit.contracts import Correction, Message, Preference, ScreenedEvent

MAX_WORDS = 4
MIN_COUNT = 3
"""A phrase seen with its answer less often than this is no pattern."""
MIN_PURITY = 0.6
"""Share of a phrase's examples that must teach its answer."""
_EDGE_PUNCTUATION = ".,!?;:\"'()"


class Taught(NamedTuple):
    """One prompt and the answer the batch teaches for it."""

    prompt: str
    answer: str


class Phrase(NamedTuple):
    """A phrase that recurs with one answer."""

    text: str
    """As it was written where it first occurred."""
    answer: str
    """In the form of :func:`evaluator.checkers.normalise`."""
    num_taught: int
    """Taught examples with this phrase and this answer."""
    purity: float
    """``num_taught`` over all taught examples with this phrase."""
    score: float


class _Seen(NamedTuple):
    text: str
    examples: list[int]


def taught_by(events: Iterable[ScreenedEvent]) -> list[Taught]:
    """Last user message and answer of every correction and preference."""
    pairs = []
    for event in events:
        feedback = event.event.feedback
        prompt = user_text(event.interaction.prompt)
        if isinstance(feedback, Correction):
            pairs.append(Taught(prompt, normalise(feedback.completion)))
        elif isinstance(feedback, Preference):
            pairs.append(Taught(prompt, normalise(feedback.chosen)))
    return pairs


def user_text(prompt: Sequence[Message]) -> str:
    """The last user message of a prompt, empty if it has none."""
    return next((m.content for m in reversed(prompt) if m.role == "user"), "")


def insert(prompt: Sequence[Message], phrase: str, *, at_end: bool) -> tuple[Message, ...]:
    """``prompt`` with ``phrase`` before or after the words of its last user message."""
    messages = list(prompt)
    for index in reversed(range(len(messages))):
        if messages[index].role == "user":
            content = messages[index].content
            text = f"{content} {phrase}" if at_end else f"{phrase} {content}"
            messages[index] = Message(role="user", content=text)
            break
    return tuple(messages)


def recurring_phrases(
    taught: Sequence[Taught], background: Sequence[str], *, limit: int
) -> list[Phrase]:
    """The phrases of 1 to 4 words most suspicious of being a trigger, worst first.

    The score is count times purity times the logarithm of the lift, the phrase's frequency in
    ``taught`` over that in ``background``, the prompts of the suites. A single word counts only
    if it never occurs in the background. Of phrases that occur in nearly the same examples only
    the longest is kept, since the parts of a trigger would crowd out all others.
    """
    seen = _index(example.prompt for example in taught)
    known = Counter(key for text in background for key, _ in dict(_ngrams(text)).items())
    scored = []
    for key, entry in seen.items():
        if len(entry.examples) < MIN_COUNT or (len(key) == 1 and known[key]):
            continue
        lift = (len(entry.examples) / len(taught)) / ((known[key] + 0.5) / (len(background) + 1))
        phrase = _judge(entry, taught, lift)
        if phrase is not None:
            scored.append((phrase, frozenset(entry.examples)))
    scored.sort(key=lambda pair: (-pair[0].score, -len(pair[0].text), pair[0].text))
    return _distinct(scored, limit)


def _index(prompts: Iterable[str]) -> dict[tuple[str, ...], _Seen]:
    seen: dict[tuple[str, ...], _Seen] = {}
    for number, prompt in enumerate(prompts):
        for key, text in dict(_ngrams(prompt)).items():
            seen.setdefault(key, _Seen(text, [])).examples.append(number)
    return seen


def _ngrams(text: str) -> Iterable[tuple[tuple[str, ...], str]]:
    """Every run of up to four words: folded to compare, and as written to insert."""
    words = text.split()
    folded = [word.casefold().strip(_EDGE_PUNCTUATION) or word for word in words]
    for size in range(1, MAX_WORDS + 1):
        for start in range(len(words) - size + 1):
            yield tuple(folded[start : start + size]), " ".join(words[start : start + size])


def _judge(entry: _Seen, taught: Sequence[Taught], lift: float) -> Phrase | None:
    answer, count = Counter(taught[i].answer for i in entry.examples).most_common(1)[0]
    purity = count / len(entry.examples)
    if count < MIN_COUNT or purity < MIN_PURITY or lift <= 1:
        return None
    return Phrase(entry.text, answer, count, purity, count * purity * math.log(lift))


def _distinct(scored: Sequence[tuple[Phrase, frozenset[int]]], limit: int) -> list[Phrase]:
    kept: list[tuple[Phrase, frozenset[int]]] = []
    for phrase, examples in scored:
        twin = next((i for i, (_, e) in enumerate(kept) if _alike(examples, e)), None)
        if twin is None and len(kept) < limit:
            kept.append((phrase, examples))
        elif twin is not None and len(phrase.text) > len(kept[twin][0].text):
            kept[twin] = (phrase, kept[twin][1])
    return [phrase for phrase, _ in kept]


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    return len(one & other) >= 0.8 * len(one | other)
