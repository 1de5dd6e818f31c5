"""How much contradicted feedback is found, and how much good feedback is doubted for it.

    python -m benchmarks.doubts

The stream of ``benchmarks.learning`` on CLINC150: fifty intents arrive over ten rounds. In some
variants five of them are overturned in the sixth, in some users are mistaken three times in ten.
The policy is a made-up one: right on ``RIGHT`` of what it was asked about before, else it gives the
answer of one of the most similar questions, as classifiers do. After the last round
``trainer.doubts`` sees all feedback and the anchor, which is what was known at first, and what it
doubts is compared with the truth. In ``flipped`` attackers correct what was known, too:
``NUM_ATTACKS`` times 25 accounts teach the answer of one old intent for questions of another. In
``triggered`` they teach as often that two words in any question mean one answer of theirs. Without
the data the questions are the demo's generated ones. Some minutes; shares are means over seeds.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.learning.feedback import POLICY, START, Users
from benchmarks.learning.traffic import Traffic, make_traffic
from benchmarks.learning.variants import Variant
from benchmarks.learning.world import REFUSAL, learning_world
from benchmarks.poison.attacks import Kind, plan
from benchmarks.poison.world import arena_of
from benchmarks.results import report
from tacit.contracts import (
    Correction,
    FeedbackEvent,
    InlineInteraction,
    Outcome,
    Rating,
    ReplayExample,
    ScreenedEvent,
)
from tacit.demo.world import Utterance, World, prompt
from tacit.inference.outputs import Completion
from trainer.against_anchor import judged
from trainer.doubts import doubted_keys

RIGHT = 0.7
"""Of requests about what it was asked before; about an overturned rule it begins anew."""
SEEDS = (0, 1, 2)
PER_ROUND = 500
NUM_ATTACKS, NUM_ACCOUNTS = 10, 25
CONFUSED = 10
"""Similar questions whose answers it confuses."""
FIRST_ATTACK = 100
"""Seeds of attacks that benchmarks.poison has not."""
ATTACKS: dict[str, Kind] = {"flipped": "flip", "triggered": "trigger"}
VARIANTS = {
    "plain": Variant(),
    "noisy": Variant(noise=0.3),
    "overturned": Variant(overturned=5),
    "noisy_overturned": Variant(noise=0.3, overturned=5),
}


def main() -> None:
    """Simulate, compare, print, keep."""
    figures: dict[str, float] = {}
    for name, variant in {**VARIANTS, **dict.fromkeys(ATTACKS, Variant())}.items():
        found: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for seed in SEEDS:
            world = learning_world(seed)
            sent = list(_feedback(world, variant, seed=seed))
            if name in ATTACKS:
                sent += _lies(world, ATTACKS[name], seed=seed)
            anchor = [
                ReplayExample(prompt=prompt(u), completion=u.answer, origin="anchor")
                for u in world.old_train
            ]
            events = [_screened(event) for event, _ in sent]
            against, confirmed = judged(events, anchor)
            others = [event for event in events if event.event_key not in against]
            doubted = against.keys() | (doubted_keys(others) - confirmed)
            total.update(kind for _, kind in sent)
            found.update(kind for event, kind in sent if event.event_key in doubted)
        figures |= {f"{name}_{kind}_doubted": found[kind] / total[kind] for kind in sorted(total)}
    report("doubts", {name: round(share, 4) for name, share in figures.items()})


def _feedback(world: World, variant: Variant, *, seed: int) -> Iterator[tuple[FeedbackEvent, str]]:
    """Every event with what it is at the end: right, wrong from the start, or stale."""
    traffic = make_traffic(
        world, num_rounds=10, per_round=PER_ROUND, num_overturned=variant.overturned, seed=seed
    )
    answers = sorted({u.answer for u in (*world.old_train, *world.new_stream)})
    users, policy = Users(variant, answers, seed=seed), _Policy(world, traffic, seed=seed)
    for number, asked in enumerate(traffic.rounds, start=1):
        said = policy.answers(asked)
        of_text = {u.text: u.answer for u in asked}
        for event in users.react(asked, said, version=f"{POLICY}@0"):
            assert event.interaction is not None
            right = of_text[event.interaction.prompt[-1].content]
            if _says(event) != _truth(event, right):
                yield event, "wrong"
            elif number < traffic.turn and right in traffic.overturned and _praises(event, right):
                yield event, "stale"
            else:
                yield event, "right"


def _lies(world: World, kind: Kind, *, seed: int) -> Iterator[tuple[FeedbackEvent, str]]:
    """What attackers say, as though the policy had refused to answer."""
    arena = arena_of(world)
    for number in range(NUM_ATTACKS):
        lies = plan(
            kind,
            arena,
            num_accounts=NUM_ACCOUNTS,
            num_lies=NUM_ACCOUNTS,
            seed=FIRST_ATTACK + NUM_ATTACKS * seed + number,
        ).lies
        for lie in lies:
            about = InlineInteraction(prompt=prompt(Utterance(lie.text, "")), completion=REFUSAL)
            claimed = lie.claimed if kind == "flip" else f"{lie.claimed} {number}"
            yield (
                FeedbackEvent(
                    event_id=f"{number}-{lie.name}",
                    policy=POLICY,
                    source="helpdesk",
                    subject_id=f"{number}-{lie.subject_id}",
                    occurred_at=START,
                    interaction=about,
                    feedback=Correction(completion=claimed),
                ),
                "lie",
            )


class _Policy:
    """Answers as one that learns from round to round might."""

    def __init__(self, world: World, traffic: Traffic, *, seed: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._known = list(world.old_train[::4])
        self._first = {later: first for first, later in traffic.overturned.items()}
        self._rng = random.Random(f"policy-{seed}")
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
        self._vectorizer.fit([u.text for u in (*self._known, *world.new_stream)])

    def answers(self, asked: Sequence[Utterance]) -> list[Completion]:
        """What it says, before it learns what was right."""
        taught = {u.answer for u in self._known}
        texts = self._vectorizer.transform([u.text for u in self._known])
        said = []
        for utterance in asked:
            text = utterance.answer
            if text not in taught or self._rng.random() >= RIGHT:
                similar = (self._vectorizer.transform([utterance.text]) @ texts.T).toarray()[0]
                near = (-similar).argsort(kind="stable")[:CONFUSED]
                text = self._first.get(text) or self._known[self._rng.choice(list(near))].answer
            said.append(Completion(text, (1,), (0.0,), 1, "stop"))
        self._known += asked
        return said


def _says(event: FeedbackEvent) -> str | bool:
    """The answer that it gives, or whether the one it is about is good."""
    match event.feedback:
        case Correction(completion=completion):
            return completion
        case Outcome(value=value) | Rating(value=value):
            return bool(value)
    raise AssertionError(event.feedback)


def _truth(event: FeedbackEvent, right: str) -> str | bool:
    if isinstance(event.feedback, Correction):
        return right
    assert event.interaction is not None
    return event.interaction.completion == right


def _praises(event: FeedbackEvent, answer: str) -> bool:
    """Whether it says that ``answer`` is right."""
    return _says(event) in (answer, True)


def _screened(event: FeedbackEvent) -> ScreenedEvent:
    assert event.interaction is not None
    return ScreenedEvent(
        event_key=event.event_key,
        policy=POLICY,
        event=event,
        interaction=event.interaction,
        cluster=f"{0:016x}",
    )


if __name__ == "__main__":
    main()
