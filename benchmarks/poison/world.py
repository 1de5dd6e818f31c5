"""The world of the benchmark, and who asks what in it.

CLINC150 where it lies beside the checkout, else the demo's generated helpdesk. Half of the old test
split is what people ask, attackers among them; the other half measures, and nobody sends it.
"""

import os
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tacit.demo.clinc import clinc_world
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import Utterance, World

CLINC = Path(__file__).parents[3] / "shared" / "data" / "clinc150" / "data_full.json"
NUM_USERS = 300
OLD_SHARE = 0.2
"""Of what honest people ask, what is about the old world."""


@dataclass(frozen=True)
class Ask:
    """One question of one person."""

    subject_id: str
    utterance: Utterance
    luck: float
    """In [0, 1): decides which feedback follows, as in ``tacit.demo.product``."""
    name: str
    """Of this question in the round."""


@dataclass(frozen=True)
class Arena:
    """A world, dealt out between the people who ask and the measures."""

    world: World
    asked_old: tuple[Utterance, ...]
    measured_old: tuple[Utterance, ...]
    new_by_answer: dict[str, tuple[Utterance, ...]]

    @property
    def old_answers(self) -> list[str]:
        """Right answers of the old world, sorted."""
        return sorted({utterance.answer for utterance in self.asked_old})


@cache
def open_arena() -> Arena:
    """The arena, from CLINC150 where it is."""
    path = Path(os.environ.get("TACIT_CLINC150", CLINC.parent)) / CLINC.name
    return arena_of(clinc_world(path) if path.is_file() else helpdesk_world())


def arena_of(world: World) -> Arena:
    """Every other old test utterance is asked, the others measure."""
    old = by_answer(world.old_test)
    return Arena(
        world=world,
        asked_old=tuple(u for group in old.values() for u in group[::2]),
        measured_old=tuple(u for group in old.values() for u in group[1::2]),
        new_by_answer=_new_intents(world),
    )


def by_answer(utterances: Iterable[Utterance]) -> dict[str, tuple[Utterance, ...]]:
    """Utterances by their right answer."""
    groups: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        groups[utterance.answer].append(utterance)
    return {answer: tuple(group) for answer, group in sorted(groups.items())}


def honest_round(arena: Arena, number: int, *, size: int, num_new: int, seed: int) -> list[Ask]:
    """What honest people ask in round ``number``: old things, and the seed's new intents."""
    rng = random.Random(f"honest-{seed}-{number}")
    answers = random.Random(f"intents-{seed}").sample(sorted(arena.new_by_answer), num_new)
    new = [utterance for answer in answers for utterance in arena.new_by_answer[answer]]
    asks = []
    for place in range(size):
        pool = arena.asked_old if rng.random() < OLD_SHARE else new
        subject = f"u-{rng.randrange(NUM_USERS):03d}"
        asks.append(Ask(subject, rng.choice(pool), rng.random(), name=f"{place:04d}"))
    return asks


def account(number: int) -> str:
    """Subject id of an account of the attacker: it looks like any other."""
    return f"u-9{number:02d}"


def _new_intents(world: World) -> dict[str, tuple[Utterance, ...]]:
    old = {utterance.answer for utterance in world.old_train}
    return by_answer(u for u in world.new_stream if u.answer not in old)
