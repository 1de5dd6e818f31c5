"""One answer in the making: tokens, their logprobs, and the text that may be shown so far."""

from concurrent.futures import Future
from typing import Any

import torch

from deploy.engines.base import Delta, FinishReason, Generation, GenerationRequest, Ticket
from tacit.policies import Policy

_UNFINISHED_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class Row:
    """One request bound to one policy; ``push`` takes its tokens one by one."""

    def __init__(
        self, request: GenerationRequest, policy: Policy, *, prompt_ids: list[int], max_tokens: int
    ) -> None:
        self.request = request
        self.policy = policy
        self.prompt_ids = prompt_ids
        self.max_tokens = max_tokens
        self.generator = _generator(request.sampling.seed, policy.device)
        self.ticket = Ticket(policy.digest, Future())
        self.done = False
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._num_shown = 0
        self._num_told = 0

    def push(self, token_id: int, logprob: float) -> None:
        """Take the next token; answers the ticket if it was the last."""
        self._ids.append(token_id)
        self._logprobs.append(logprob)
        ended = token_id == self.policy.tokenizer.eos_token_id
        looked_at = bool(self.request.stop or self.request.on_delta)
        text, stopped = self._text(ended) if looked_at else ("", False)
        full = len(self._ids) >= self.max_tokens
        self.done = ended or stopped or full or self.ticket.abandoned.is_set()
        if self.request.on_delta is not None:
            self._tell(text.strip() if self.done else _presentable(text, self.request.stop))
        if self.done:
            self._finish("stop" if ended or stopped else "length", ended)

    def fail(self, error: BaseException) -> None:
        """Answer the ticket with ``error`` unless it is answered already."""
        self.done = True
        if not self.ticket.future.done():
            self.ticket.future.set_exception(error)

    def _text(self, ended: bool) -> tuple[str, bool]:
        ids = self._ids[:-1] if ended else self._ids
        text: str = self.policy.tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [at for at in (text.find(stop) for stop in self.request.stop) if at >= 0]
        return (text[: min(cuts)], True) if cuts else (text, False)

    def _tell(self, shown: str) -> None:
        assert self.request.on_delta is not None
        new = slice(self._num_told, len(self._ids))
        delta = Delta(
            text=shown[self._num_shown :],
            token_ids=tuple(self._ids[new]),
            logprobs=tuple(self._logprobs[new]),
            pieces=self._pieces(self._ids[new]),
        )
        self._num_shown = max(self._num_shown, len(shown))
        self._num_told = len(self._ids)
        self.request.on_delta(delta)

    def _pieces(self, ids: list[int]) -> tuple[str, ...]:
        if not self.request.with_pieces:
            return ()
        return tuple(self.policy.tokenizer.decode([token_id]) for token_id in ids)

    def _finish(self, reason: FinishReason, ended: bool) -> None:
        generation = Generation(
            text=self._text(ended)[0].strip(),
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs),
            pieces=self._pieces(self._ids),
            prompt_tokens=len(self.prompt_ids),
            finish_reason=reason,
            weights=self.policy.digest,
        )
        self.ticket.future.set_result(generation)


def _presentable(text: str, stop: tuple[str, ...]) -> str:
    """The part of an unfinished text that later tokens cannot take back."""
    held = max((_overlap(text, s) for s in stop), default=0)
    return text[: len(text) - held].rstrip(_UNFINISHED_CHARACTER).strip()


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _generator(seed: int | None, device: torch.device) -> Any:
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**63)
    return generator
