"""A policy whose methods run elsewhere."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evaluator.questions import Prompt, Scored
from tacit.inference.outputs import ChoiceScores, Completion

Ask = Callable[..., Any]
"""Calls a method of the policy, by its dotted name, with the arguments behind it."""


class RemotePolicy:
    """A :class:`evaluator.questions.Generator` in the workers; bears several threads."""

    def __init__(self, ask: Ask, *, num_at_once: int) -> None:
        self._ask = ask
        self.num_at_once = num_at_once
        self.texts = RemoteTexts(ask, num_at_once=num_at_once)

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int
    ) -> list[Completion]:
        """Greedy completions, in the order of ``prompts``, all by one worker."""
        found: list[Completion] = self._ask(
            "generate",
            list(prompts),
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        return found

    def choose(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]], *, batch_size: int
    ) -> list[ChoiceScores]:
        """How probable each of a prompt's choices is, all by one worker."""
        found: list[ChoiceScores] = self._ask(
            "choose", list(prompts), list(choices), batch_size=batch_size
        )
        return found


class RemoteTexts:
    """A :class:`evaluator.questions.TextModel` in the workers; they share what is asked."""

    def __init__(self, ask: Ask, *, num_at_once: int) -> None:
        self._ask = ask
        self._num_at_once = num_at_once

    def complete(
        self, prompts: Sequence[str], *, until: Sequence[str], max_new_tokens: int, batch_size: int
    ) -> list[str]:
        """What follows each prompt greedily."""
        found: list[str] = self._share(
            "texts.complete",
            prompts,
            until=list(until),
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        return found

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, batch_size: int) -> list[Scored]:
        """Scores of (context, continuation) pairs."""
        found: list[Scored] = self._share("texts.score_pairs", pairs, batch_size=batch_size)
        return found

    def score_texts(self, texts: Sequence[str], *, batch_size: int) -> list[float]:
        """Natural-log probability of each text."""
        found: list[float] = self._share("texts.score_texts", texts, batch_size=batch_size)
        return found

    def chat_text(self, messages: Sequence[dict[str, str]], *, ask: bool) -> str:
        """A conversation as text."""
        found: str = self._ask("texts.chat_text", list(messages), ask=ask)
        return found

    def _share(self, method: str, asked: Sequence[Any], *, batch_size: int, **options: Any) -> Any:
        """Answers in the order of ``asked``, neighbours of which are often alike: parts of it."""
        size = 4 * batch_size
        parts = [list(asked[start : start + size]) for start in range(0, len(asked), size)]

        def ask(part: list[Any]) -> list[Any]:
            found: list[Any] = self._ask(method, part, batch_size=batch_size, **options)
            return found

        with ThreadPoolExecutor(self._num_at_once) as threads:
            return [answer for part in threads.map(ask, parts) for answer in part]
