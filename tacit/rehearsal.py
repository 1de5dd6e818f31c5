"""What an update rehearses against forgetting: where it comes from, and the policy's own answers.

In: anchor prompts, what promoted batches taught, what waits to be learned, the champion. Out: a
Rehearsal, from which the batch under way draws its replay once it is known how many events it has,
and what of all the feedback is contradicted.

The champion answers in this process, before the batch is sealed, as it does for the evaluator:
serving is another process and goes on, the workers stay as they are, and nothing is written, so
that a crash in between costs no more than asking again. Answers are greedy, hence the same each
time. What is drawn stands in the sealed manifest; training never asks again.
"""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from evaluator.checkers import build_checker, normalise
from evaluator.suites import load_suites
from tacit.checkpoints import CheckpointStore
from tacit.config import ReplaySettings, Settings
from tacit.contracts import CheckerSpec, Digest, Message, ReplayExample
from tacit.errors import EvaluationError
from tacit.policies import completion_ids, load_policy
from tacit.stages import MAX_HOLDOUT_EVENTS, Stages
from tacit.testimony import (
    MAX_HELD_OUT_EVENTS,
    Contradictions,
    Heard,
    contradictions,
    hear,
    lessons_of,
)
from trainer.replay import (
    Accepts,
    Rollouts,
    accepted_rollouts,
    draw,
    load_anchor,
    on_policy_prompts,
    with_rollouts,
)

logger = logging.getLogger(__name__)

ROOM = 2
"""An answer may be so many times as long as the longest text known to be good."""


@dataclass(frozen=True)
class Rehearsal:
    """A pool to draw replay from, and what the champion answered to part of it."""

    pool: Sequence[ReplayExample]
    rollouts: Rollouts
    on_policy_share: float
    seed: int
    contradicted: Contradictions
    """Feedback, learned or waiting, that the rest or the anchor contradicts; not in the pool."""
    waiting: frozenset[str]
    """Keys of the feedback that waits and was looked at."""

    def whole(self, limit: int) -> int:
        """How many examples are all of the pool, or ``limit`` if that is fewer."""
        return min(len(self.pool), limit)

    def draw(self, number: int) -> list[ReplayExample]:
        """``number`` examples, the same for the same number; none from an empty pool."""
        sample = draw(self.pool, number, seed=self.seed)
        return with_rollouts(sample, self.rollouts, self.on_policy_share)


def rehearse(
    stages: Stages,
    champion: Digest,
    *,
    number: int,
    seed: int,
    num_waiting: int = 0,
) -> Rehearsal:
    """The rehearsal of an update of ``champion`` that will draw about ``number`` examples.

    With 0 the champion answers nothing itself. The update learns from the ``num_waiting`` oldest
    events that wait, of which Rehearsal says what is contradicted.
    Raises ConfigError for the anchor file, IntegrityError for the champion's files.
    """
    batches = [made.batch_id for made in stages.candidates.lineage(champion)]
    heard = hear(
        stages.events,
        stages.policy,
        num_waiting=num_waiting,
        num_held_out=MAX_HELD_OUT_EVENTS if num_waiting else 0,
        seed=seed,
        batch_ids=batches,
    )
    return rehearsal_of(
        _anchor(stages),
        heard,
        stages.checkpoints,
        champion,
        settings=stages.settings,
        number=number,
        seed=seed,
        measured=_measured(stages),
    )


def rehearsal_of(
    anchor: Sequence[ReplayExample],
    heard: Heard,
    store: CheckpointStore,
    champion: Digest,
    *,
    settings: Settings,
    number: int,
    seed: int,
    measured: Collection[str] = (),
) -> Rehearsal:
    """As ``rehearse``, from an anchor and what feedback says.

    Nothing with a prompt in ``measured`` is rehearsed. Raises IntegrityError.
    """
    chosen = settings.trainer.replay
    contradicted = contradictions(heard, anchor, settings.trainer)
    lessons = lessons_of(heard, contradicted, anchor, settings)
    pool = _unmeasured([*anchor, *lessons], measured)
    asked = on_policy_prompts(draw(pool, number, seed=seed), chosen.on_policy_share)
    rollouts: Rollouts = {}
    if asked:
        started = time.monotonic()
        answers = _answers(store, champion, asked, settings)
        rollouts = accepted_rollouts(asked, answers, checker(chosen))
        logger.info(
            "the policy's own answers: %d of %d accepted for replay in %.1f s",
            len(rollouts),
            len(asked),
            time.monotonic() - started,
        )
    waiting = frozenset(event.event_key for event in heard.waiting)
    return Rehearsal(pool, rollouts, chosen.on_policy_share, seed, contradicted, waiting)


def checker(settings: ReplaySettings) -> Accepts:
    """Whether an answer says what the text known to be good says; a doubt is a no."""
    check = build_checker(CheckerSpec(type=settings.checker))

    def accepts(answer: str, good: str) -> bool:
        try:
            return check(answer, good) == 1
        except EvaluationError as error:  # nothing to compare with, as where no number stands
            logger.debug("a rollout is left out: %s", error)
            return False

    return accepts


def _anchor(stages: Stages) -> list[ReplayExample]:
    path = stages.settings.anchor_path
    return load_anchor(path) if path.exists() else []


def _unmeasured(pool: list[ReplayExample], measured: Collection[str]) -> list[ReplayExample]:
    kept = [example for example in pool if _said(example.prompt) not in measured]
    if len(kept) < len(pool):
        logger.warning(
            "%d of %d examples are not rehearsed: their prompts stand in a suite or are held out",
            len(pool) - len(kept),
            len(pool),
        )
    return kept


def _measured(stages: Stages) -> set[str]:
    """Prompts of suites and of the hold-out: always measured, never trained on."""
    held_out = stages.events.holdout(stages.policy, limit=MAX_HOLDOUT_EVENTS)
    suites = load_suites(stages.settings.suites_path)
    prompts = [event.interaction.prompt for event in held_out]
    prompts += [item.prompt for suite in suites for item in suite.items]
    return {_said(prompt) for prompt in prompts}


def _said(prompt: Sequence[Message]) -> str:
    """The conversation, normalised; without system messages, which are the same for everyone."""
    said = [message for message in prompt if message.role != "system"] or prompt
    return "\n".join(normalise(message.content) for message in said)


def _answers(
    store: CheckpointStore, champion: Digest, asked: Sequence[ReplayExample], settings: Settings
) -> list[str | None]:
    store.verify(champion)
    policy = load_policy(store, champion)
    good = max(len(completion_ids(policy.tokenizer, example.completion)) for example in asked)
    answers = policy.generate(
        [example.prompt for example in asked],
        max_new_tokens=min(ROOM * good, settings.trainer.max_length),
        batch_size=settings.evaluator.batch_size,
    )
    # What was cut off would be rehearsed as if it ended there.
    return [answer.text if answer.finish_reason == "stop" else None for answer in answers]
