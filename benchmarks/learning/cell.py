"""One cell: an arm learns in one variant of the feedback from one seed, measured every round."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.arms import ARMS, Arm
from benchmarks.learning.feedback import POLICY, SOURCE, START, Users
from benchmarks.learning.line import Learned, PolicyLine
from benchmarks.learning.measure import sample
from benchmarks.learning.probes import Probes, Row
from benchmarks.learning.scale import WHOLE, Scale, Sizes
from benchmarks.learning.traffic import LATER_ANSWERS, make_traffic
from benchmarks.learning.variants import VARIANTS, Variant
from benchmarks.learning.world import base_policy, base_recipe, learning_world
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, load_settings, suited
from tacit.config.profiles import profile_for
from tacit.contracts import (
    Correction,
    Digest,
    FeedbackEvent,
    InlineInteraction,
    ReplayExample,
    ScreenedEvent,
    SuiteKind,
    canonical_json,
    sha256_digest,
)
from tacit.demo.world import Utterance, World, measured, prompt

PROTOCOL = 4
"""Goes up when cells are no longer what they were, so that old ones are run again."""

NUM_WEIGHTS = 2_700_000
"""Of the base, at most: what decides on how it is trained."""


@dataclass(frozen=True)
class Cell:
    """Names of an arm and a variant, and a seed."""

    arm: str
    variant: str
    seed: int
    overrides: tuple[str, ...] = ()
    """Settings ``a.b=c`` on top of the arm's, to try what a default should be."""

    @classmethod
    def of(cls, row: Row) -> "Cell":
        """The cell that ``row`` is about. Raises KeyError or TypeError where it is about none."""
        return cls(**{**row["cell"], "overrides": tuple(row["cell"]["overrides"])})

    @property
    def settings(self) -> list[str]:
        """All overrides."""
        return [*ARMS[self.arm].overrides, *self.overrides]


def config_digest(cell: Cell, scale: Scale, world: World) -> Digest:
    """Digest of all that the cell's figures depend on, but for the code."""
    trainer = _settings(cell).trainer.model_dump(mode="json")
    if not trainer["replay"]["inferred"]:
        del trainer["replay"]["inferred"]  # cells of before it was a setting keep their digests
    if trainer["rebuild"]["interpolation_alphas"] is None:
        del trainer["rebuild"]["interpolation_alphas"]  # likewise
    key = {
        "protocol": PROTOCOL,
        "cell": asdict(cell),
        "sizes": asdict(scale.sizes),
        "variant": asdict(VARIANTS[cell.variant]),
        "trainer": trainer if ARMS[cell.arm].learns else None,
        "recipe": asdict(base_recipe(world, scale)),
        "world": world.digest,
    }
    if VARIANTS[cell.variant].overturned:
        key["later_answers"] = LATER_ANSWERS
    return sha256_digest(canonical_json(key))


def _settings(cell: Cell, **values: Any) -> Settings:
    settings = load_settings(overrides=cell.settings, **values)
    return suited(settings, NUM_WEIGHTS) if ARMS[cell.arm].suits else settings


def run_cell(cell: Cell, scale: Scale = WHOLE) -> Row:
    """Everything the cell measured, with one thread of this process and a folder for a while."""
    world = learning_world(cell.seed, scale.num_old, scale.num_new)
    cpu, wall = time.process_time(), time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="tacit-learning-"))
    try:
        store = CheckpointStore(folder / "checkpoints")
        base = base_policy(world, store, seed=cell.seed, scale=scale)
        with _open(cell, scale.sizes, world, store, base, folder) as line:
            figures = _Run(cell, scale.sizes, world, line).figures()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "cell": asdict(cell),
        "config_digest": config_digest(cell, scale, world),
        "world": world.name,
        **figures,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
    }


def _open(
    cell: Cell, sizes: Sizes, world: World, store: CheckpointStore, base: Digest, folder: Path
) -> PolicyLine:
    settings = _settings(cell, home=folder / "home")
    assert profile_for(store.num_weights(base)) == profile_for(NUM_WEIGHTS)
    anchor = [
        ReplayExample(prompt=prompt(u), completion=u.answer, origin="anchor")
        for u in world.old_train
    ]
    kept = sample({"old": world.old_validation}, {"old": sizes.num_suite_items})["old"]
    suite = measured("old-world", kept, kind=SuiteKind.REGRESSION)
    return PolicyLine(settings, store, base, anchor=anchor, suite=suite)


class _Run:
    """The rounds of one cell."""

    def __init__(self, cell: Cell, sizes: Sizes, world: World, line: PolicyLine) -> None:
        self._arm: Arm = ARMS[cell.arm]
        self._variant: Variant = VARIANTS[cell.variant]
        self._sizes = sizes
        self._world = world
        self._line = line
        self._traffic = make_traffic(
            world,
            num_rounds=sizes.num_rounds,
            per_round=sizes.per_round,
            num_overturned=self._variant.overturned,
            seed=cell.seed,
        )
        answers = {u.answer for u in (*world.old_train, *world.new_stream)}
        self._users = Users(self._variant, sorted(answers), seed=cell.seed)
        self._probes = Probes(
            world,
            self._traffic,
            line.policy(),
            sizes=sizes.probed,
            num_kl_items=sizes.num_kl_items,
        )
        self._num_events = 0
        self._new_before = 0.0

    def figures(self) -> Row:
        """Base, rounds and end."""
        policy = self._line.policy()
        first = self._probes.after(0, policy)
        self._new_before = first["new"]
        rounds = [first, *self._rounds()]
        last = rounds[-1]["round"]
        final = self._probes.whole(last, self._line.policy())
        return {
            "turn": self._traffic.turn,
            "rounds": rounds,
            "final": final,
            "num_events": self._num_events,
        }

    def _rounds(self) -> Iterator[Row]:
        if self._arm.joint:
            yield self._jointly()
        elif self._arm.learns:
            late: list[list[FeedbackEvent]] = [[] for _ in range(self._variant.delay)]
            for number in range(1, self._sizes.num_rounds + self._variant.delay + 1):
                late.append(self._product(number))
                self._line.send(late.pop(0))
                yield self._round(number, self._line.learn())

    def _product(self, number: int) -> list[FeedbackEvent]:
        """What users say in a round; nothing once the stream has ended."""
        if number > len(self._traffic.rounds):
            return []
        asked = self._traffic.rounds[number - 1]
        return self._users.react(asked, self._line.serve(asked), version=self._line.version)

    def _round(self, number: int, learned: Learned | None) -> Row:
        self._num_events += learned.num_events if learned else 0
        found = self._probes.after(number, self._line.policy())
        gain = found["new"] - self._new_before
        found["gain_per_100_events"] = 100 * gain / self._num_events if self._num_events else None
        return {**found, "update": asdict(learned) if learned else None}

    def _jointly(self) -> Row:
        started = time.perf_counter()
        streamed = self._traffic.still_right()
        replay = [
            ReplayExample(prompt=prompt(u), completion=u.answer, origin="anchor")
            for u in self._world.old_train
        ]
        self._line.train_on([_taught(n, u) for n, u in enumerate(streamed)], replay)
        seconds = time.perf_counter() - started
        found = self._probes.after(len(self._traffic.rounds), self._line.policy())
        return {**found, "update": {"seconds": seconds}}


def _taught(number: int, utterance: Utterance) -> ScreenedEvent:
    """The right answer, as though it had been given and confirmed: learned by likelihood alone."""
    event = FeedbackEvent(
        event_id=f"j-{number}",
        policy=POLICY,
        source=SOURCE,
        subject_id="all",
        occurred_at=START,
        interaction=InlineInteraction(prompt=prompt(utterance), completion=utterance.answer),
        feedback=Correction(completion=utterance.answer),
    )
    assert event.interaction is not None
    return ScreenedEvent(
        event_key=event.event_key,
        policy=POLICY,
        event=event,
        interaction=event.interaction,
        cluster=f"{number:016x}",
    )
