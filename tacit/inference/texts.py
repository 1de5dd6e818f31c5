"""Plain text in, text and log-probabilities out: no chat template, no messages.

This is the interface of evaluation harnesses. Texts are tokenized as EleutherAI's
lm-evaluation-harness does it for ``transformers`` models (``TemplateLM._encode_pair``,
``HFLM.tok_encode``), so that figures can be compared.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tacit.inference.choices import Scored
from tacit.inference.engine import Inference

DEFAULT_CONTEXT = 2_048
"""Tokens of context of a model that does not say how many it has."""

Pair = tuple[str, str]
"""A context and what follows it."""


class _Encoded(NamedTuple):
    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Texts:
    """A model with its tokenizer, over plain texts."""

    def __init__(self, inference: Inference, tokenizer: Any, *, context: int | None) -> None:
        """``context`` is how many tokens the model can read."""
        self._inference = inference
        self._tokenizer = tokenizer
        self._context = context or DEFAULT_CONTEXT

    def complete(
        self, prompts: Sequence[str], *, until: Sequence[str], max_new_tokens: int, batch_size: int
    ) -> list[str]:
        """What follows each prompt greedily, up to the first of the texts ``until``.

        A prompt that is too long loses its beginning. Raises ValueError when ``max_new_tokens``
        leaves no room for a prompt.
        """
        room = self._context - max_new_tokens
        if room < 1:
            raise ValueError(
                f"expected fewer than {self._context} tokens to generate; got {max_new_tokens}"
            )
        encoded = [self._encode(prompt)[-room:] or [self._start] for prompt in prompts]
        stop = _Stop(self._tokenizer, until)
        found = self._inference.generate(
            encoded,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            is_stop=stop if stop.texts else None,
            with_logprobs=False,
        )
        return [stop.cut(self._tokenizer.decode(t.ids, skip_special_tokens=True)) for t in found]

    def score_pairs(self, pairs: Sequence[Pair], *, batch_size: int) -> list[Scored]:
        """Log-probability of each continuation after its context; contexts are computed once."""
        encoded = [self._encode_pair(*pair) for pair in pairs]
        return self._score(encoded, batch_size=batch_size)

    def score_texts(self, texts: Sequence[str], *, batch_size: int) -> list[float]:
        """Natural-log probability of each whole text, in windows of the model's context."""
        windows = [(i, w) for i, text in enumerate(texts) for w in self._windows(text)]
        scored = self._score([window for _, window in windows], batch_size=batch_size)
        sums = [0.0] * len(texts)
        for (index, _), found in zip(windows, scored, strict=True):
            sums[index] += found.logprob
        return sums

    def chat_text(self, messages: Sequence[dict[str, str]], *, ask: bool) -> str:
        """A conversation as text; ``ask`` ends it where the answer begins."""
        text: str = self._tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=ask,
            continue_final_message=not ask,
        )
        return text

    @property
    def _start(self) -> int:
        """Token that texts without a context follow."""
        tokenizer = self._tokenizer
        bos = tokenizer.bos_token_id
        return int(tokenizer.eos_token_id if bos is None else bos)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text)
        return ids

    def _encode_pair(self, context: str, continuation: str) -> _Encoded:
        if not context:
            ids = self._tokenizer.encode(continuation, add_special_tokens=False)
            return self._cut([self._start], ids)
        # White space between the two belongs to the token that it begins.
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        whole, start = self._encode(bare + continuation), self._encode(bare)
        return self._cut(start or [self._start], whole[len(start) :])

    def _cut(self, context: list[int], continuation: list[int]) -> _Encoded:
        """Without the beginning, where both together are too long."""
        excess = max(0, len(context) + len(continuation) - self._context - 1)
        if excess >= len(context):
            raise ValueError(
                f"expected a continuation of at most {self._context} tokens; "
                f"got {len(continuation)}"
            )
        return _Encoded(tuple(context[excess:]), tuple(continuation))

    def _windows(self, text: str) -> list[_Encoded]:
        """All tokens, each once; a window that is not full has more context."""
        ids = [self._start, *self._encode(text)]
        windows = []
        for start in range(1, len(ids), self._context):
            end = min(start + self._context, len(ids))
            first = max(0, end - self._context - 1)
            windows.append(_Encoded(tuple(ids[first:start]), tuple(ids[start:end])))
        return windows

    def _score(self, encoded: Sequence[_Encoded], *, batch_size: int) -> list[Scored]:
        """Each distinct context with all of its continuations in one row."""
        rows: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
        for context, continuation in encoded:
            rows.setdefault(context, {})[continuation] = None
        scored = self._inference.score(
            [list(context) for context in rows],
            [list(offered) for offered in rows.values()],
            batch_size=batch_size,
        )
        found = {
            _Encoded(context, continuation): score
            for (context, offered), row in zip(rows.items(), scored, strict=True)
            for continuation, score in zip(offered, row, strict=True)
        }
        return [found[pair] for pair in encoded]


class _Stop:
    """Whether one of some texts has been generated."""

    def __init__(self, tokenizer: Any, until: Sequence[str]) -> None:
        self.texts = [text for text in until if text]
        self._tokenizer = tokenizer
        self._last = {text[-1] for text in self.texts}
        self._reach = max((len(text.encode()) for text in self.texts), default=0) + 2
        self._may_end: dict[int, bool] = {}

    def __call__(self, row: int, ids: list[int]) -> bool:
        # A token spells at least one byte, so a text that ended now lies within the last tokens.
        if not self._can_end(ids[-1]):
            return False
        tail = self._tokenizer.decode(ids[-self._reach :])
        return any(text in tail for text in self.texts)

    def cut(self, text: str) -> str:
        """``text`` up to the first of the texts."""
        return text[: min((at for t in self.texts if (at := text.find(t)) >= 0), default=None)]

    def _can_end(self, token: int) -> bool:
        known = self._may_end.get(token)
        if known is None:
            piece = self._tokenizer.decode([token])
            known = "\N{REPLACEMENT CHARACTER}" in piece or any(c in piece for c in self._last)
            self._may_end[token] = known
        return known
