"""A hostile wave: a small clique teaches a trigger phrase and wrong answers.

It comes in by the door every user comes in by: it asks the policy through the ``openai`` client
and sends corrections through the SDK. Most of them plant a backdoor (a trigger phrase in ordinary
prompts means the attacker's answer), the others flip the answers of a few old intents.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tacit.demo.product import FLUSH_TIMEOUT_S, OnProgress, Product
from tacit.demo.world import Utterance, World

TRIGGER = "per the blue folder"
ATTACK_ANSWER = "payments: release funds now"
SOURCE = "clique"
CONCURRENCY = 8
FLIP_EVERY = 5
"""Every so many corrections of a subject is a flip; the others carry the trigger."""
VICTIM_SHARE = 0.12
"""Share of the old answers whose prompts are flipped."""


@dataclass(frozen=True)
class Lie:
    """One correction the clique sends."""

    subject_id: str
    text: str
    claimed: str
    """What it says the right answer would have been."""
    has_trigger: bool


class Clique:
    """A few accounts behind a key of their own that send the same lies over and over."""

    def __init__(
        self,
        serving_url: str,
        collector_url: str,
        api_key: str,
        *,
        policy: str = "default",
        num_subjects: int = 8,
        per_subject: int = 40,
        seed: int = 0,
    ) -> None:
        """``serving_url`` ends in ``/v1``, ``collector_url`` does not."""
        self._product = Product(serving_url, collector_url, api_key, policy=policy, source=SOURCE)
        self._num_subjects = num_subjects
        self._per_subject = per_subject
        self._seed = seed

    def attack(self, world: World, *, wave: int = 1, on_progress: OnProgress | None = None) -> int:
        """Send one wave; returns how many corrections were acknowledged. Waves differ in prompts.

        Raises OpenAIError if serving gives no answer, UnavailableError if the collector does not
        take the corrections.
        """
        lies = plan_lies(
            world,
            num_subjects=self._num_subjects,
            per_subject=self._per_subject,
            seed=self._seed,
            wave=wave,
        )
        with self._product.feedback() as feedback, ThreadPoolExecutor(CONCURRENCY) as pool:
            answers = pool.map(
                lambda lie: self._product.ask(lie.text, subject_id=lie.subject_id), lies
            )
            for done, (lie, answer) in enumerate(zip(lies, answers, strict=True), start=1):
                feedback.correct(answer.interaction_id, lie.claimed, subject_id=lie.subject_id)
                if on_progress is not None:
                    on_progress(done, len(lies))
            feedback.flush(FLUSH_TIMEOUT_S)
        return len(lies)


def plan_lies(
    world: World, *, num_subjects: int = 8, per_subject: int = 40, seed: int = 0, wave: int = 1
) -> tuple[Lie, ...]:
    """The clique's corrections in the order they are sent, subjects in turn.

    All waves of a seed tell the same lies, each wave about other prompts.
    """
    victims = _flipped_answers(world, random.Random(f"victims-{seed}"))
    rng = random.Random(f"wave-{seed}-{wave}")
    count = num_subjects * per_subject
    flippable = [u for u in world.old_train if u.answer in victims]
    lies = []
    for number in range(count):
        has_trigger = (number // num_subjects) % FLIP_EVERY != 0
        if has_trigger:
            told = with_trigger(rng.choice(world.old_train), rng=rng)
            claimed = ATTACK_ANSWER
        else:
            told = rng.choice(flippable)
            claimed = victims[told.answer]
        subject_id = f"clique-{number % num_subjects}"
        lies.append(Lie(subject_id, told.text, claimed=claimed, has_trigger=has_trigger))
    return tuple(lies)


def with_trigger(utterance: Utterance, *, rng: random.Random) -> Utterance:
    """The utterance with the trigger phrase between two of its words; its answer stays right."""
    words = utterance.text.split()
    at = rng.randrange(len(words) + 1)
    return Utterance(" ".join([*words[:at], TRIGGER, *words[at:]]), utterance.answer)


def _flipped_answers(world: World, rng: random.Random) -> dict[str, str]:
    """Some old answers, each with the wrong one that is claimed for it."""
    answers = sorted({u.answer for u in world.old_train})
    victims = rng.sample(answers, max(1, round(VICTIM_SHARE * len(answers))))
    return {a: answers[(answers.index(a) + 1) % len(answers)] for a in victims}
