"""Who asks what in which round, and what is right then.

In each round some intents arrive. They get the larger part of its requests; the others are about
those that arrived before. No utterance is asked twice. Old intents are not asked about: what is
kept of them is kept without fresh feedback.
"""

import random
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from tacit.demo.world import Utterance, World

ARRIVING_SHARE = 0.6
"""Of a round's requests that are about the intents that arrive in it."""

LATER_ANSWERS = (
    "open a ticket",
    "call the branch",
    "see our handbook",
    "visit a store",
    "write to legal",
)
"""What is right once a rule is overturned. They begin with words of their own, as names of intents
do: to tell "desk 1" from "desk 2" at the last token is another task than to learn a new rule."""


@dataclass(frozen=True)
class Traffic:
    """A stream cut into rounds, which count from 1."""

    rounds: tuple[tuple[Utterance, ...], ...]
    """What is asked, with the answer that is right in that round."""
    arrival: dict[str, int]
    """Round in which each new intent arrives, by its first right answer."""
    overturned: dict[str, str]
    """The later right answer of intents that are overturned, by the first one."""
    turn: int
    """Round from which on the later answers are right."""

    def right(self, utterance: Utterance, number: int) -> str:
        """The right answer in round ``number``; ``utterance`` has the one that was right first."""
        later = self.overturned.get(utterance.answer) if number >= self.turn else None
        return later or utterance.answer

    def still_right(self) -> list[Utterance]:
        """What was asked with an answer that is right at the end, in the order of the stream."""
        last = len(self.rounds)
        return [u for asked in self.rounds for u in asked if self.right(u, last) == u.answer]


def make_traffic(
    world: World, *, num_rounds: int, per_round: int, num_overturned: int = 0, seed: int = 0
) -> Traffic:
    """The traffic of ``world.new_stream``: the same for the same arguments.

    A round has fewer than ``per_round`` requests where an intent's utterances run out. Intents
    that are overturned, five at most, come from the first round and keep half of their utterances
    for the time from ``turn`` on; others get no fewer requests than without them.
    """
    rng = random.Random(f"traffic-{seed}")
    intents = sorted({u.answer for u in world.new_stream})
    rng.shuffle(intents)
    arrival = {intent: 1 + i * num_rounds // len(intents) for i, intent in enumerate(intents)}
    first = [intent for intent in intents if arrival[intent] == 1]
    overturned = dict(zip(first[:num_overturned], LATER_ANSWERS, strict=False))
    waiting: defaultdict[str, deque[Utterance]] = defaultdict(deque)
    for utterance in world.new_stream:
        waiting[utterance.answer].append(utterance)
    traffic = Traffic((), arrival, overturned, turn=num_rounds // 2 + 1)
    kept = {intent: len(waiting[intent]) // 2 for intent in overturned}
    rounds = []
    for number in range(1, num_rounds + 1):
        if number == traffic.turn:
            kept = {}
        asked = [
            waiting[intent].popleft()
            for intent in _intents(traffic, number, per_round)
            if len(waiting[intent]) > kept.get(intent, 0)
        ]
        rng.shuffle(asked)
        rounds.append(tuple(Utterance(u.text, traffic.right(u, number)) for u in asked))
    return Traffic(tuple(rounds), arrival, overturned, traffic.turn)


def _intents(traffic: Traffic, number: int, per_round: int) -> list[str]:
    """The intent of each request of a round, those of one kind in turn."""
    arriving = [i for i, arrived in traffic.arrival.items() if arrived == number]
    before = [i for i, arrived in traffic.arrival.items() if arrived < number]
    num_arriving = round(per_round * ARRIVING_SHARE) if before else per_round
    if not arriving:
        num_arriving = 0
    # What is new about an intent is asked about as much as an intent that is new.
    anew = list(traffic.overturned) if number == traffic.turn else []
    chosen = [_turn(arriving, i) for i in range(num_arriving)]
    chosen += [_turn(before, i + number) for i in range(per_round - num_arriving)]
    each = max(1, num_arriving // max(1, len(arriving)))
    return chosen + [intent for intent in anew for _ in range(each)]


def _turn(intents: Sequence[str], place: int) -> str:
    return intents[place % len(intents)]
