"""What feedback says of answers, and how similar the questions are that it is about.

In: screened events. Out: one claim for each answer that an event calls good or bad. Answers agree
only if they are the same text but for case and spaces, questions by their character n-grams.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.contracts import Correction, Message, Outcome, Preference, Rating, ScreenedEvent
from trainer.rewards import signal

MIN_SIMILARITY = 0.05
"""Cosine below which questions have nothing in common."""
QUESTION_CHARS = 500
"""Of a conversation's end, which says what is asked now; it also bounds the time."""
_CHUNK = 256

Similarities = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Claim:
    """What one event says of one answer."""

    event: int
    """Place of the event."""
    answer: str
    good: bool
    instead: str | None = None
    """What was said to be right in place of an answer that is not."""
    compared: bool = False
    """Whether the two were only compared: the better one need not be right."""


class Questions:
    """How similar questions are to each other."""

    def __init__(self, asked: Sequence[str], *, by_words: bool = False) -> None:
        """``by_words``: by single words and pairs too, which tell topics apart that share many."""
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer

        def rows(**chosen: Any) -> Any:
            vectorizer = TfidfVectorizer(sublinear_tf=True, **chosen)
            # One text that has n-grams in any case: without any there is no vocabulary.
            return vectorizer.fit([*asked, "text"]).transform(asked)

        found = [rows(analyzer="char_wb", ngram_range=(3, 5))]
        if by_words:
            found.append(rows(ngram_range=(1, 2), token_pattern=r"\w+"))
        # Each part has unit length, and so has the whole.
        self._rows: Any = hstack(found, format="csr") / len(found) ** 0.5

    def similarities(self, these: Places, others: Places) -> Iterator[Similarities]:
        """Cosines of each of ``these`` with all ``others``: a row of len(others) each."""
        columns = self._rows[others].T.tocsr()
        for start in range(0, len(these), _CHUNK):
            yield from (self._rows[these[start : start + _CHUNK]] @ columns).toarray()


def claims_of(events: Iterable[ScreenedEvent]) -> list[Claim]:
    """Of all ``events``, in their order."""
    return [claim for number, event in enumerate(events) for claim in _claims(number, event)]


def nearest(similarity: Similarities, number: int, *, least: float = MIN_SIMILARITY) -> list[int]:
    """Places of the largest values over ``least``, largest first, the earlier of equals first."""
    near = np.flatnonzero(similarity > least)
    if len(near) > number:  # what cannot be among them is not sorted
        last = np.partition(similarity[near], -number)[-number]
        near = near[similarity[near] >= last]
    order = np.argsort(-similarity[near], kind="stable")[:number]
    return [int(place) for place in near[order]]


def question(prompt: Sequence[Message]) -> str:
    """The conversation's end, without system messages, which are the same for everyone."""
    return _conversation(prompt)[-QUESTION_CHARS:]


def is_whole(prompt: Sequence[Message]) -> bool:
    """Whether ``question`` is all of the conversation."""
    return len(_conversation(prompt)) <= QUESTION_CHARS


def same_text(answer: str) -> str:
    """What two answers have in common that agree."""
    return " ".join(answer.casefold().split())


def _conversation(prompt: Sequence[Message]) -> str:
    said = [message for message in prompt if message.role != "system"] or prompt
    return "\n".join(message.content for message in said)


def _claims(number: int, event: ScreenedEvent) -> Iterator[Claim]:
    said = same_text(event.interaction.completion)
    match event.event.feedback:
        case Correction(completion=completion):
            right = same_text(completion)
            yield Claim(number, right, good=True)
            if right != said:
                yield Claim(number, said, good=False, instead=right)
        case Preference(chosen=chosen, rejected=rejected):
            better, worse = same_text(chosen), same_text(rejected)
            yield Claim(number, better, good=True, compared=True)
            if worse != better:
                yield Claim(number, worse, good=False, instead=better, compared=True)
        case Outcome() | Rating() as judged:
            reward = signal(judged) if event.reward is None else event.reward
            if reward:
                yield Claim(number, said, good=reward > 0)
