"""Answers in OpenAI's form: chat completions and text completions, whole or as events."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from deploy.engines.base import Delta, Generation, TopToken

Head = dict[str, object]
"""What an answer and each of its events have in common."""
_LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has no word for, as in OpenAI's API."""


class Form(ABC):
    """How one kind of answer is written."""

    id_prefix: ClassVar[str]
    whole_object: ClassVar[str]
    event_object: ClassVar[str]

    def __init__(self, *, with_logprobs: bool, choices_per_prompt: int) -> None:
        self.with_logprobs = with_logprobs
        self._choices_per_prompt = choices_per_prompt

    def whole(self, head: Head, generations: Sequence[Generation]) -> dict[str, Any]:
        """The body of a whole answer."""
        choices = [
            {
                "index": index,
                "logprobs": self._logprobs(generation) if self.with_logprobs else None,
                "finish_reason": generation.finish_reason,
                **self._content(generation.text),
            }
            for index, generation in enumerate(generations)
        ]
        kind = {"object": self.whole_object}
        return {**head, **kind, "choices": choices, "usage": self._usage(generations)}

    def delta(self, head: Head, index: int, delta: Delta) -> dict[str, Any]:
        """The event of what a step added to a choice."""
        logprobs = self._logprobs(delta) if self.with_logprobs else None
        return self._event(head, index, self._piece(delta.text), logprobs=logprobs)

    def end(self, head: Head, index: int, finish_reason: str) -> dict[str, Any]:
        """The last event of a choice."""
        return self._event(head, index, self._piece(None), finish_reason=finish_reason)

    def usage(self, head: Head, generations: Sequence[Generation]) -> dict[str, Any]:
        """The last event of a streamed answer whose usage was asked for."""
        kind = {"object": self.event_object}
        return {**head, **kind, "choices": [], "usage": self._usage(generations)}

    def _event(
        self,
        head: Head,
        index: int,
        content: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "logprobs": logprobs, "finish_reason": finish_reason, **content}
        return {**head, "object": self.event_object, "choices": [choice]}

    def _usage(self, generations: Sequence[Generation]) -> dict[str, int]:
        """Tokens of each prompt, counted once, and of all choices."""
        prompt = sum(g.prompt_tokens for g in generations[:: self._choices_per_prompt])
        completion = sum(len(generation.token_ids) for generation in generations)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    @abstractmethod
    def begin(self, head: Head, num_choices: int) -> Iterator[dict[str, Any]]:
        """Events before the first text."""

    @abstractmethod
    def _content(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _piece(self, text: str | None) -> dict[str, Any]: ...

    @abstractmethod
    def _logprobs(self, tokens: Generation | Delta) -> dict[str, Any]: ...


class ChatForm(Form):
    """``chat.completion``."""

    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    event_object = "chat.completion.chunk"

    def begin(self, head: Head, num_choices: int) -> Iterator[dict[str, Any]]:
        """Who speaks."""
        for index in range(num_choices):
            yield self._event(head, index, {"delta": {"role": "assistant", "content": ""}})

    def _content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _piece(self, text: str | None) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}}

    def _logprobs(self, tokens: Generation | Delta) -> dict[str, Any]:
        tops = tokens.tops or ((),) * len(tokens.pieces)
        content = [
            {**_token(piece, logprob), "top_logprobs": [_token(t.piece, t.logprob) for t in top]}
            for piece, logprob, top in zip(tokens.pieces, tokens.logprobs, tops, strict=True)
        ]
        return {"content": content, "refusal": None}


class TextForm(Form):
    """``text_completion``."""

    id_prefix = "cmpl-"
    whole_object = event_object = "text_completion"

    def begin(self, head: Head, num_choices: int) -> Iterator[dict[str, Any]]:
        """Nothing."""
        return iter(())

    def _content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _piece(self, text: str | None) -> dict[str, Any]:
        return {"text": text or ""}

    def _logprobs(self, tokens: Generation | Delta) -> dict[str, Any]:
        return {
            "tokens": list(tokens.pieces),
            "token_logprobs": list(tokens.logprobs),
            "top_logprobs": [_by_piece(top) for top in tokens.tops] or None,
            "text_offset": None,
        }


def _token(piece: str, logprob: float) -> dict[str, Any]:
    return {"token": piece, "bytes": _bytes(piece), "logprob": max(logprob, _LEAST_LOGPROB)}


def _by_piece(top: Sequence[TopToken]) -> dict[str, float]:
    # The likelier of two tokens with the same text comes first and stands.
    return {token.piece: max(token.logprob, _LEAST_LOGPROB) for token in reversed(top)}


def _bytes(piece: str) -> list[int] | None:
    # A token that holds half a character has no text of its own to take bytes from.
    return None if "\N{REPLACEMENT CHARACTER}" in piece else list(piece.encode())
