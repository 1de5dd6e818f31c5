"""One answer in the making: tokens, their logprobs, and the text that may be shown so far."""

import random
from concurrent.futures import Future
from functools import lru_cache

from deploy.engines.base import (
    Delta,
    FinishReason,
    Generation,
    GenerationRequest,
    Ticket,
    TopToken,
)
from deploy.engines.detokenize import UNFINISHED_CHARACTER, Detokenizer
from tacit.contracts import Digest, sha256_digest
from tacit.policies import Policy


class Row:
    """One request bound to one policy; ``push`` takes its tokens one by one."""

    def __init__(
        self, request: GenerationRequest, policy: Policy, *, prompt_ids: list[int], max_tokens: int
    ) -> None:
        self.request = request
        self.policy = policy
        self.prompt_ids = prompt_ids
        self.max_tokens = max_tokens
        self.uniform = random.Random(request.sampling.seed).random
        """Draws the row's next random number in [0, 1)."""
        self.ticket = Ticket(policy.digest, Future())
        self.done = False
        self.last_id = -1
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._tops: list[tuple[TopToken, ...]] = []
        self._eos_id: int = policy.tokenizer.eos_token_id
        self._detokenizer = Detokenizer(policy.tokenizer)
        self._num_shown = 0
        self._num_told = 0

    def push(self, token_id: int, logprob: float, top: tuple[TopToken, ...] = ()) -> None:
        """Take the next token; answers the ticket if it was the last."""
        self.last_id = token_id
        self._ids.append(token_id)
        self._logprobs.append(logprob)
        self._tops.append(top)
        request, text = self.request, ""
        if request.stop or request.on_delta is not None:
            text = self._detokenizer.push(token_id)
        ended = token_id == self._eos_id
        self.done = (
            ended
            or len(self._ids) >= self.max_tokens
            or any(stop in text for stop in request.stop)
            or self.ticket.abandoned.is_set()
        )
        if self.done:
            self._finish(ended=ended)
        elif request.on_delta is not None:
            self._tell(self._trim(_presentable(text, request.stop)))

    def end(self) -> None:
        """Answer the ticket with what there is: the policy says no more."""
        if not self.done:
            self.done = True
            self._finish(ended=False, reason="stop")

    def fail(self, error: BaseException) -> None:
        """Answer the ticket with ``error`` unless it is answered already."""
        self.done = True
        if not self.ticket.future.done():
            self.ticket.future.set_exception(error)

    def _finish(self, *, ended: bool, reason: FinishReason = "length") -> None:
        ids = self._ids[:-1] if ended else self._ids
        text: str = self.policy.tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [at for at in (text.find(stop) for stop in self.request.stop) if at >= 0]
        text = self._trim(text[: min(cuts, default=len(text))])
        if ended or cuts:
            reason = "stop"
        if self.request.on_delta is not None:
            self._tell(text)
        generation = Generation(
            text=text,
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs),
            pieces=self._pieces(self._ids),
            tops=self._named_tops(self._tops),
            prompt_tokens=len(self.prompt_ids),
            finish_reason=reason,
            weights=self.policy.digest,
            template_digest=self._template_digest(),
        )
        self.ticket.future.set_result(generation)

    def _template_digest(self) -> Digest | None:
        if isinstance(self.request.prompt, str):
            return None
        return _digest_of(str(self.policy.tokenizer.chat_template))

    def _trim(self, text: str) -> str:
        # Where a text goes on, the space before its next word is part of the answer.
        return text if isinstance(self.request.prompt, str) else text.strip()

    def _tell(self, shown: str) -> None:
        assert self.request.on_delta is not None
        new = slice(self._num_told, len(self._ids))
        delta = Delta(
            text=shown[self._num_shown :],
            token_ids=tuple(self._ids[new]),
            logprobs=tuple(self._logprobs[new]),
            pieces=self._pieces(self._ids[new]),
            tops=self._named_tops(self._tops[new]),
        )
        self._num_shown = max(self._num_shown, len(shown))
        self._num_told = len(self._ids)
        self.request.on_delta(delta)

    def _pieces(self, ids: list[int]) -> tuple[str, ...]:
        if not self.request.with_pieces:
            return ()
        return tuple(self.policy.tokenizer.decode([token_id]) for token_id in ids)

    def _named_tops(self, tops: list[tuple[TopToken, ...]]) -> tuple[tuple[TopToken, ...], ...]:
        if not self.request.top_logprobs:
            return ()
        decode = self.policy.tokenizer.decode
        return tuple(
            tuple(token._replace(piece=decode([token.token_id])) for token in top) for top in tops
        )


@lru_cache(maxsize=8)
def _digest_of(template: str) -> Digest:
    return sha256_digest(template.encode())


def _presentable(text: str, stop: tuple[str, ...]) -> str:
    """The part of an unfinished text that later tokens cannot take back."""
    held = max((_overlap(text, s) for s in stop), default=0)
    return text[: len(text) - held].rstrip(UNFINISHED_CHARACTER)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
