"""What others said of similar questions, and the answer that it predicts.

The prediction is kernel ridge regression on who said which answer is right, fitted anew around each
question without what its own subject said (Saunders et al. 1998, ICML; local learning: Bottou &
Vapnik 1992, Neural Comput. 4:888-900). A subject has one voice.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.contracts import ReplayExample, ScreenedEvent
from trainer.claims import Claim, Places, Questions, Similarities, nearest, question

VOICES = 50
"""Similar questions, of others, from which the answer is predicted."""
MIN_VOTES = 3
"""Subjects without whom nothing is decided."""
RIDGE = 2.0
"""Noise of a voice over the similarity of a question with itself, as variances."""
COMPLAINT = -0.5
"""What turning an answer down says of it, where confirming it says 1."""


class Asked(Questions):
    """The questions of events and of ``anchor`` prompts after them, and who asks each."""

    def __init__(
        self, events: Sequence[ScreenedEvent], anchor: Sequence[ReplayExample] = ()
    ) -> None:
        prompts = [event.interaction.prompt for event in events] + [e.prompt for e in anchor]
        super().__init__([question(prompt) for prompt in prompts], by_words=True)
        names = [(event.event.source, event.event.subject_id) for event in events]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        whose = [numbers[name] for name in names]
        whose += range(len(numbers), len(numbers) + len(anchor))
        self.subjects: NDArray[np.int64] = np.asarray(whose, np.int64)
        """[events + anchor] Each one's subject; every anchor prompt has one of its own."""


@dataclass(frozen=True)
class Near:
    """Claims of others about the questions most similar to one, nearest first."""

    voices: Sequence[Claim]
    similarity: Similarities
    """[n]"""
    space: Asked

    def predicted(self) -> dict[str, float]:
        """How right each answer of the voices is here.

        1 is what somebody says who confirms it of this very question, were there no noise.
        """
        places = places_of(self.voices)
        kernel = np.stack([*self.space.similarities(places, places)])
        speaks = [(self.space.subjects[v.event], v.answer, v.good) for v in self.voices]
        times = Counter(speaks)  # who says the same of n similar questions has one voice, not n
        kernel[np.diag_indices(len(places))] += [RIDGE * times[spoken] for spoken in speaks]
        scores: defaultdict[str, float] = defaultdict(float)
        for voice, share in zip(self.voices, np.linalg.solve(kernel, self.similarity), strict=True):
            scores[voice.answer] += float(share) * (1.0 if voice.good else COMPLAINT)
        return scores


def speaking(claims: Sequence[Claim]) -> list[Claim]:
    """``claims`` but for what corrections take away: they say more by what they put in place."""
    replaced = {claim.event for claim in claims if claim.good}
    return [claim for claim in claims if claim.good or claim.event not in replaced]


def heard_nearby(asked: Sequence[int], voices: Sequence[Claim], space: Asked) -> Iterator[Near]:
    """For each of the events ``asked`` what other subjects say of the most similar questions."""
    places = places_of(voices)
    subjects = space.subjects[places]
    rows = space.similarities(np.asarray(asked, np.int64), places)
    for event, similarity in zip(asked, rows, strict=True):
        similarity[subjects == space.subjects[event]] = -1.0
        near = nearest(similarity, VOICES)
        yield Near([voices[place] for place in near], similarity[near], space)


def places_of(claims: Sequence[Claim]) -> Places:
    """Places of the events that say them."""
    return np.asarray([claim.event for claim in claims], np.int64)
