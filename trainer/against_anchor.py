"""Feedback that contradicts the anchor prompts: one answer that they know in place of another.

One such event may mend what the policy is wrong about. Where three or more teach the same answer in
place of the same other one, and the anchor prompts nearest to their questions have that other one
nearly as often as those nearest to its own prompts do, they are doubted: the edited nearest
neighbour rule (Wilson 1972, IEEE Trans. SMC 2:408-421) with a vote that only the anchor has, and
taken over all events of a kind.

An answer that no anchor prompt has is never doubted here, for a new topic may be much like an old
one. Only answers with ``MIN_PROMPTS`` prompts are known, so where every text of the anchor is
another one, none is.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from tacit.contracts import ReplayExample, ScreenedEvent
from trainer.claims import Claim, Questions, Similarities, nearest, question, same_text

MIN_PROMPTS = 10
"""Anchor prompts of an answer that show what is usual for it."""
MIN_CLAIMS = 3
NEIGHBOURS = 10
"""Anchor prompts that vote on which answer a question has."""
MIN_VOTES = 4
"""Of the neighbours, for an answer to be the one that a question is about."""
MIN_AGREEMENT = 0.65
"""Of the votes that an answer gets from the neighbours of its own prompts. Chosen on CLINC150
(docs/adr/0023)."""
MAX_PROMPTS = 20_000
"""Of the anchor that are compared; time grows with their number."""


def against_anchor(
    claims: Sequence[Claim], events: Sequence[ScreenedEvent], anchor: Sequence[ReplayExample]
) -> set[int]:
    """Places of the ``events`` behind those ``claims`` that contradict ``anchor``.

    The same for the same arguments.
    """
    compared = sorted(anchor, key=lambda example: example.digest())[:MAX_PROMPTS]
    prompts = Counter(same_text(example.completion) for example in compared)
    known = {answer for answer, number in prompts.items() if number >= MIN_PROMPTS}
    taught = [claim for claim in claims if claim.good and claim.answer in known]
    if len(taught) < MIN_CLAIMS:
        return set()
    voters = _Voters(compared, [question(events[c.event].interaction.prompt) for c in taught])
    votes: defaultdict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for claim, counts in zip(taught, voters.votes(), strict=True):
        said = same_text(events[claim.event].interaction.completion)
        about = {said} | {answer for answer, n in counts.most_common(1) if n >= MIN_VOTES}
        for answer in (about & known) - {claim.answer}:
            votes[answer, claim.answer][claim.event] = counts[answer]
    found: set[int] = set()
    for (answer, _), of_event in votes.items():
        if len(of_event) >= MIN_CLAIMS:
            mean = float(np.mean(list(of_event.values())))
            if mean >= MIN_AGREEMENT * voters.usual(answer):
                found |= of_event.keys()
    return found


class _Voters:
    """Anchor prompts, which vote on questions."""

    def __init__(self, anchor: Sequence[ReplayExample], asked: Sequence[str]) -> None:
        self._answers = [same_text(example.completion) for example in anchor]
        self._space = Questions([*(question(example.prompt) for example in anchor), *asked])
        self._prompts = np.arange(len(anchor))
        self._asked = np.arange(len(anchor), len(anchor) + len(asked))

    def votes(self) -> list[Counter[str]]:
        """On each question that was asked."""
        rows = self._space.similarities(self._asked, self._prompts)
        return [self._count(similarity) for similarity in rows]

    def usual(self, answer: str) -> float:
        """Votes for ``answer`` from the neighbours of its own prompts, as a mean."""
        own = np.flatnonzero([each == answer for each in self._answers])
        number = 0
        for place, similarity in zip(
            own, self._space.similarities(own, self._prompts), strict=True
        ):
            similarity[place] = -1.0
            number += self._count(similarity)[answer]
        return number / len(own)

    def _count(self, similarity: Similarities) -> Counter[str]:
        return Counter(self._answers[place] for place in nearest(similarity, NEIGHBOURS))
