"""Answers of policies to suites: generated in batches, cached, one policy in memory.

Input: the digest of a policy and a suite, or the items of it that are wanted now. Output: an Answer
an item. Checkers are not part of that: they run on each evaluation.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

from evaluator.answer_cache import AnswerCache
from evaluator.harness.suite import (
    ask_harness,
    harness_question,
    harness_tasks,
    is_harness_suite,
)
from evaluator.questions import Answer, Generator, Prompt, Question, chosen, question_of
from tacit.contracts import Digest, HarnessTask, Suite, SuiteItem
from tacit.database import Database
from tacit.errors import EvaluationError
from tacit.inference.outputs import ChoiceScores

__all__ = ["Answer", "AnswerBook", "Generator", "OnBatch", "Prompt"]

OnBatch = Callable[[int], None]
"""Gets the number of items just done, in the thread that asked."""


class AnswerBook:
    """Asks policies, one in memory at a time, and remembers what they answered to suites."""

    def __init__(
        self,
        db: Database,
        open_policy: Callable[[Digest], Generator],
        *,
        batch_size: int,
    ) -> None:
        self._cache = AnswerCache(db)
        self._open_policy = open_policy
        self._batch_size = batch_size
        self._held: tuple[Digest, Generator] | None = None

    def answer_suite(self, weights: Digest, suite: Suite, *, on_batch: OnBatch) -> list[Answer]:
        """Answers to all items of ``suite``, in order; see :meth:`answer_items`."""
        return self.answer_items(weights, suite, range(len(suite.items)), on_batch=on_batch)

    def answer_items(
        self, weights: Digest, suite: Suite, indices: Sequence[int], *, on_batch: OnBatch
    ) -> list[Answer]:
        """Answers to the items of ``suite`` at ``indices``, in that order; cached ones first.

        What was answered is kept batch by batch, so that after a crash only the rest is asked.
        Raises what loading and generating raise, and UnavailableError.
        """
        items = [suite.items[index] for index in indices]
        if is_harness_suite(suite):
            return self._answer_harness(weights, suite, items, on_batch)
        questions = [question_of(suite, item) for item in items]
        answers = self._remembered(weights, questions, on_batch)
        return [_settled(suite, item, one) for item, one in zip(items, answers, strict=True)]

    def score(
        self,
        weights: Digest,
        prompts: Sequence[Prompt],
        choices: Sequence[Sequence[str]],
        *,
        on_batch: OnBatch,
    ) -> list[ChoiceScores]:
        """How probable the choices of each of ``prompts`` are, in order; cached as answers are."""
        pairs = zip(prompts, choices, strict=True)
        questions = [Question(prompt, tuple(offered), 1) for prompt, offered in pairs]
        answers = self._remembered(weights, questions, on_batch)
        return [answer.choices for answer in answers if answer.choices is not None]

    def _remembered(
        self, weights: Digest, questions: Sequence[Question], on_batch: OnBatch
    ) -> list[Answer]:
        digests = [question.digest() for question in questions]
        wanted = Counter(digests)
        known = self._cache.find(weights, wanted.keys())
        if known:
            on_batch(sum(wanted[digest] for digest in known))
        pairs = zip(digests, questions, strict=True)
        missing = {digest: question for digest, question in pairs if digest not in known}
        asked = list(missing)
        for places, answers in self._ask(weights, list(missing.values())):
            batch = {asked[place]: answer for place, answer in zip(places, answers, strict=True)}
            self._cache.add(weights, batch)
            known.update(batch)
            on_batch(sum(wanted[digest] for digest in batch))
        return [known[digest] for digest in digests]

    def harness_tasks(self, weights: Digest, suite: Suite) -> tuple[HarnessTask, ...]:
        """What lm-evaluation-harness said of a policy that has answered ``suite``."""
        return harness_tasks(self._cache, weights, suite) if is_harness_suite(suite) else ()

    def _answer_harness(
        self, weights: Digest, suite: Suite, items: Sequence[SuiteItem], on_batch: OnBatch
    ) -> list[Answer]:
        """The harness answers a suite as a whole, however few items are wanted of it."""
        digests = [harness_question(suite, item.item_id) for item in items]
        known = self._cache.find(weights, digests)
        if len(known) < len(set(digests)):
            known = ask_harness(self._policy(weights), suite, batch_size=self._batch_size)
            self._cache.add(weights, known)
        on_batch(len(items))
        return [known[digest] for digest in digests]

    def ask(
        self,
        weights: Digest,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        on_batch: OnBatch,
    ) -> list[Answer]:
        """Answers to ``prompts`` in order; cached as those to suites are."""
        questions = [Question(prompt, (), max_new_tokens) for prompt in prompts]
        return self._remembered(weights, questions, on_batch)

    def close(self) -> None:
        """Let go of the policy in memory."""
        if self._held is not None:
            self._held = None
            gc.collect()  # the parts of a model refer to each other

    def _ask(
        self, weights: Digest, questions: Sequence[Question]
    ) -> Iterator[tuple[list[int], list[Answer]]]:
        """Places in ``questions`` and the answers to them, batch by batch as they are done."""
        if not questions:
            return
        batches = list(self._batches(questions))
        policy = self._policy(weights)
        ask = partial(_ask_batch, policy)
        num_at_once = getattr(policy, "num_at_once", 1)
        if num_at_once == 1 or len(batches) == 1:
            for places in batches:
                yield places, ask([questions[place] for place in places])
            return
        with ThreadPoolExecutor(num_at_once) as threads:
            running = {
                threads.submit(ask, [questions[place] for place in places]): places
                for places in batches
            }
            try:
                for done in as_completed(running):
                    yield running[done], done.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[int]]:
        """Places of prompts of like length, so that little is spent on padding."""
        lengths = [sum(len(message.content) for message in q.prompt) for q in questions]
        order = sorted(range(len(questions)), key=lengths.__getitem__)
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _policy(self, weights: Digest) -> Generator:
        if self._held is None or self._held[0] != weights:
            self.close()
            self._held = (weights, self._open_policy(weights))
        return self._held[1]


def _ask_batch(policy: Generator, batch: Sequence[Question]) -> list[Answer]:
    prompts = [question.prompt for question in batch]
    if batch[0].choices:
        choices = [question.choices for question in batch]
        scores = policy.choose(prompts, choices, batch_size=len(batch))
        answers = [Answer("", "stop", found) for found in scores]
    else:
        generated = policy.generate(
            prompts, max_new_tokens=batch[0].max_new_tokens, batch_size=len(batch)
        )
        answers = [Answer(g.text, g.finish_reason) for g in generated]
    if len(answers) != len(batch):
        raise EvaluationError(f"{len(batch)} answers", got=str(len(answers)))
    return answers


def _settled(suite: Suite, item: SuiteItem, answer: Answer) -> Answer:
    """``answer`` with the text of the choice it comes down to."""
    if answer.choices is None:
        return answer
    return answer._replace(text=chosen(item.choices, answer.choices, suite.checker.options))
