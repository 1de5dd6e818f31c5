"""What an update rehearses against forgetting: where it comes from, and the policy's own answers.

In: anchor prompts, what promoted batches taught, the champion. Out: a Rehearsal, from which the
batch under way draws its replay once it is known how many events it has.

The champion answers in this process, before the batch is sealed, as it does for the evaluator:
serving is another process and goes on, the workers stay as they are, and nothing is written, so
that a crash in between costs no more than asking again. Answers are greedy, hence the same each
time. What is drawn stands in the sealed manifest; training never asks again.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from evaluator.checkers import build_checker, normalise
from evaluator.suites import load_suites
from tacit.config import ReplaySettings
from tacit.contracts import CheckerSpec, Digest, Message, ReplayExample
from tacit.errors import EvaluationError
from tacit.policies import completion_ids, load_policy
from tacit.stages import MAX_HOLDOUT_EVENTS, Stages
from trainer.replay import (
    Accepts,
    Rollouts,
    accepted_examples,
    accepted_rollouts,
    draw,
    load_anchor,
    on_policy_prompts,
    with_rollouts,
)

logger = logging.getLogger(__name__)

MAX_REHEARSED_EVENTS = 2_000
ROOM = 2
"""An answer may be so many times as long as the longest text known to be good."""


@dataclass(frozen=True)
class Rehearsal:
    """A pool to draw replay from, and what the champion answered to part of it."""

    pool: Sequence[ReplayExample]
    rollouts: Rollouts
    on_policy_share: float
    seed: int

    def draw(self, number: int) -> list[ReplayExample]:
        """``number`` examples, the same for the same number; none from an empty pool."""
        sample = draw(self.pool, number, seed=self.seed)
        return with_rollouts(sample, self.rollouts, self.on_policy_share)


def rehearse(stages: Stages, champion: Digest, *, number: int, seed: int) -> Rehearsal:
    """The rehearsal of an update of ``champion`` that will draw about ``number`` examples.

    Raises ConfigError for the anchor file, IntegrityError for the champion's files.
    """
    settings = stages.settings.trainer.replay
    pool = _pool(stages, champion)
    asked = on_policy_prompts(draw(pool, number, seed=seed), settings.on_policy_share)
    rollouts: Rollouts = {}
    if asked:
        started = time.monotonic()
        answers = _answers(stages, champion, asked)
        rollouts = accepted_rollouts(asked, answers, checker(settings))
        logger.info(
            "the policy's own answers: %d of %d accepted for replay in %.1f s",
            len(rollouts),
            len(asked),
            time.monotonic() - started,
        )
    return Rehearsal(pool, rollouts, settings.on_policy_share, seed)


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


def _pool(stages: Stages, champion: Digest) -> list[ReplayExample]:
    """Anchor prompts and what earlier promoted batches taught, but nothing that is measured."""
    path = stages.settings.anchor_path
    anchor = load_anchor(path) if path.exists() else []
    batches = [made.batch_id for made in stages.candidates.lineage(champion)]
    learned = stages.events.learned(stages.policy, limit=MAX_REHEARSED_EVENTS, batch_ids=batches)
    pool = [*anchor, *accepted_examples(learned)]
    measured = _measured(stages)
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


def _answers(stages: Stages, champion: Digest, asked: Sequence[ReplayExample]) -> list[str | None]:
    stages.checkpoints.verify(champion)
    policy = load_policy(stages.checkpoints, champion)
    good = max(len(completion_ids(policy.tokenizer, example.completion)) for example in asked)
    answers = policy.generate(
        [example.prompt for example in asked],
        max_new_tokens=min(ROOM * good, stages.settings.trainer.max_length),
        batch_size=stages.settings.evaluator.batch_size,
    )
    # What was cut off would be rehearsed as if it ended there.
    return [answer.text if answer.finish_reason == "stop" else None for answer in answers]
