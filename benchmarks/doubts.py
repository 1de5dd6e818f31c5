"""How much contradicted feedback is found, and how much good feedback is doubted for it.

    python -m benchmarks.doubts

The stream of ``benchmarks.learning`` on CLINC150: fifty intents arrive over ten rounds. In some
variants five of them are overturned in the sixth, in some users are mistaken three times in ten.
In ``unlearned`` the policy has not learned the answers by then that are overturned, so that nobody
turns these down.
The policy is a made-up one: right on ``RIGHT`` of what it was asked about before, else it gives the
answer of one of the most similar questions, as classifiers do. After the last round
``trainer.doubts`` sees all feedback and the anchor, which is what was known at first, and what it
doubts is compared with the truth, as is what ``trainer.inferred`` answers where feedback left no
answer: for how many of these it has one, and for how many of those it is right. In ``flipped``
attackers correct what was known, too: ``NUM_ATTACKS`` times 25 accounts teach the answer of one old
intent for questions of another. In ``triggered`` they teach as often that two words in any question
mean one answer of theirs. In ``complaints`` 300 say no more than that an answer to what was known
is not good, half of them wrongly; who infers from feedback alone what is right there is mistaken.
Without the data the questions are the demo's generated ones. Some minutes; shares are means over
seeds.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.learning.feedback import POLICY, START, Users
from benchmarks.learning.traffic import Traffic, make_traffic
from benchmarks.learning.variants import Variant
from benchmarks.learning.world import REFUSAL, learning_world
from benchmarks.poison.attacks import Kind, plan
from benchmarks.poison.world import arena_of
from benchmarks.results import report
from collector.screening.clusters import cluster_of
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
from trainer.claims import claims_of
from trainer.doubts import Doubts, doubts_of
from trainer.inferred import inferred_lessons

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
UNLEARNED = "unlearned"
KINDS = ("complaint", "lie", "right", "stale", "wrong")
COMPLAINTS, NUM_COMPLAINTS = "complaints", 300
VARIANTS = {
    "plain": Variant(),
    "noisy": Variant(noise=0.3),
    "overturned": Variant(overturned=5),
    UNLEARNED: Variant(overturned=5),
    "noisy_overturned": Variant(noise=0.3, overturned=5),
}


def main() -> None:
    """Simulate, compare, print, keep."""
    figures: dict[str, float] = {}
    plain = dict.fromkeys((*ATTACKS, COMPLAINTS), Variant())
    for name, variant in {**VARIANTS, **plain}.items():
        found: Counter[str] = Counter()
        for seed in SEEDS:
            found += _tally(name, variant, seed=seed)
        shares = {
            f"{kind}_doubted": found[f"{kind}_doubted"] / found[kind]
            for kind in KINDS
            if found[kind]
        }
        shares["inferred"] = found["inferred"] / found["asked"]
        shares["inferred_right"] = found["inferred_right"] / found["inferred"]
        if name == COMPLAINTS:
            shares["known_inferred"] = found["known_inferred"] / found["known_asked"]
        figures |= {f"{name}_{figure}": share for figure, share in shares.items()}
    report("doubts", {name: round(share, 4) for name, share in figures.items()})


class _Told(NamedTuple):
    """An event, what it is at the end, and what is the right answer then, unless it is a lie."""

    event: FeedbackEvent
    kind: str
    right: str | None = None


def _tally(name: str, variant: Variant, *, seed: int) -> Counter[str]:
    """Events of each kind, those that are doubted, and questions that get an answer."""
    world = learning_world(seed)
    sent = list(_feedback(world, variant, seed=seed, learns_first=name != UNLEARNED))
    if name in ATTACKS:
        sent += _lies(world, ATTACKS[name], seed=seed)
    if name == COMPLAINTS:
        sent += _complaints(world, seed=seed)
    anchor = [
        ReplayExample(prompt=prompt(u), completion=u.answer, origin="anchor")
        for u in world.old_train
    ]
    events = [_screened(told.event) for told in sent]
    against, confirmed = judged(events, anchor)
    others = [event for event in events if event.event_key not in against]
    doubts = doubts_of(others)
    stale = {key: named for key, named in doubts.overtaken.items() if key not in confirmed}
    doubts = Doubts(stale, doubts.outvoted - confirmed)
    found = Counter(told.kind for told in sent)
    gone = against.keys() | doubts.keys
    found.update(f"{told.kind}_doubted" for told in sent if told.event.event_key in gone)
    lessons = {
        example.prompt[-1].content: example.completion
        for example in inferred_lessons(others, doubts, anchor)
    }
    return found + _inferred(sent, others, doubts.keys, lessons)


def _inferred(
    sent: Sequence[_Told],
    events: Sequence[ScreenedEvent],
    doubted: Collection[str],
    lessons: Mapping[str, str],
) -> Counter[str]:
    """Questions that are left without an answer, that get one, and that get the right one."""
    about = {_text(told.event): told for told in sent if told.right is not None}
    claims = claims_of(events)
    answered = {c.event for c in claims if c.good and events[c.event].event_key not in doubted}
    found: Counter[str] = Counter()
    for text in {_text(events[c.event].event) for c in claims if c.event not in answered}:
        if told := about.get(text):
            known = "known_" if told.kind == "complaint" else ""
            found[f"{known}asked"] += 1
            found[f"{known}inferred"] += text in lessons
            found[f"{known}inferred_right"] += lessons.get(text) == told.right
    return found


def _feedback(world: World, variant: Variant, *, seed: int, learns_first: bool) -> Iterator[_Told]:
    """Every event: right at the end, wrong from the start, or stale."""
    traffic = make_traffic(
        world, num_rounds=10, per_round=PER_ROUND, num_overturned=variant.overturned, seed=seed
    )
    answers = sorted({u.answer for u in (*world.old_train, *world.new_stream)})
    users = Users(variant, answers, seed=seed)
    policy = _Policy(world, traffic, seed=seed, learns_first=learns_first)
    for number, asked in enumerate(traffic.rounds, start=1):
        said = policy.answers(asked)
        of_text = {u.text: u.answer for u in asked}
        for event in users.react(asked, said, version=f"{POLICY}@0"):
            assert event.interaction is not None
            right = of_text[_text(event)]
            stale = number < traffic.turn and right in traffic.overturned
            at_the_end = traffic.overturned[right] if stale else right
            if _says(event) != _truth(event, right):
                yield _Told(event, "wrong", at_the_end)
            elif stale and _praises(event, right):
                yield _Told(event, "stale", at_the_end)
            else:
                yield _Told(event, "right", at_the_end)


def _lies(world: World, kind: Kind, *, seed: int) -> Iterator[_Told]:
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
            yield _Told(
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


def _complaints(world: World, *, seed: int) -> Iterator[_Told]:
    """Of subjects who are right or wrong to say that an answer to what was known is not good."""
    rng = random.Random(f"complaints-{seed}")
    answers = sorted({u.answer for u in world.old_train})
    asked = rng.sample(world.old_validation, NUM_COMPLAINTS)
    for number, utterance in enumerate(asked):
        said = rng.choice((utterance.answer, rng.choice(answers)))
        yield _Told(
            FeedbackEvent(
                event_id=f"complaint-{number}",
                policy=POLICY,
                source="helpdesk",
                subject_id=f"complaint-{number}",
                occurred_at=START,
                interaction=InlineInteraction(prompt=prompt(utterance), completion=said),
                feedback=Outcome(metric="resolved", value=False),
            ),
            "complaint",
            utterance.answer,
        )


class _Policy:
    """Answers as one that learns from round to round might."""

    def __init__(self, world: World, traffic: Traffic, *, seed: int, learns_first: bool) -> None:
        """``learns_first``: also the answers that are overturned later."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._known = list(world.old_train[::4])
        first = traffic.overturned
        self._first = {later: answer for answer, later in first.items()} if learns_first else {}
        self._never = frozenset() if learns_first else first.keys()
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
        self._known += [u for u in asked if u.answer not in self._never]
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


def _text(event: FeedbackEvent) -> str:
    """What was asked."""
    assert event.interaction is not None
    return event.interaction.prompt[-1].content


def _screened(event: FeedbackEvent) -> ScreenedEvent:
    assert event.interaction is not None
    return ScreenedEvent(
        event_key=event.event_key,
        policy=POLICY,
        event=event,
        interaction=event.interaction,
        cluster=cluster_of(_text(event)),
    )


if __name__ == "__main__":
    main()
