"""What an engine is: it holds a policy, answers requests and swaps without a pause.

During a rollout it holds a second one beside the first. Engines are blocking and thread-safe; the
server calls them from threads and waits on futures. A request is bound to one policy when it is
submitted and never sees another.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from tacit.contracts import Digest, Message, SamplingParameters
from tacit.errors import InvalidInputError, UnavailableError

FinishReason = Literal["stop", "length"]


class QueueFullError(UnavailableError):
    """As many requests wait as may; trying again in a moment is right."""

    status = 429


class NotLoadedError(UnavailableError):
    """The checkpoint asked for is not, or no longer, one that the engine holds."""


class ContextLengthError(InvalidInputError):
    """Prompt and completion together are longer than the policy can read."""


class TopToken(NamedTuple):
    """One of the likeliest tokens at a place of an answer."""

    token_id: int
    logprob: float
    piece: str = ""


class Delta(NamedTuple):
    """What one step added to an answer. ``text`` may be empty while it is held back."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    pieces: tuple[str, ...]
    """Text of each token, empty unless asked for."""
    tops: tuple[tuple[TopToken, ...], ...] = ()
    """The likeliest tokens at the place of each, empty unless asked for."""


@dataclass(frozen=True)
class GenerationRequest:
    """One completion to sample."""

    prompt: tuple[Message, ...] | str
    """A chat, put through the policy's template; or text, which goes on as it is."""
    sampling: SamplingParameters
    """Temperature 0 is greedy."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these strings."""
    fit_context: bool = False
    """Shorten ``max_tokens`` to what the context leaves, rather than refuse."""
    with_pieces: bool = False
    """Whether the text of each single token is wanted."""
    top_logprobs: int = 0
    """How many of the likeliest tokens at each place are wanted."""
    on_delta: Callable[[Delta], None] | None = None
    """Called on the engine's thread after each step; must return at once."""
    background: bool = False
    """Nobody waits for the answer, so that it takes no user's place in the queue."""


def num_users(requests: Iterable[GenerationRequest]) -> int:
    """How many of them somebody waits for."""
    return sum(not request.background for request in requests)


@dataclass(frozen=True)
class Generation:
    """A finished answer."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural-log probability of each token under the distribution it was drawn from: after
    temperature and top-p, or for a greedy answer that of the untempered policy."""
    pieces: tuple[str, ...]
    prompt_tokens: int
    finish_reason: FinishReason
    weights: Digest
    tops: tuple[tuple[TopToken, ...], ...] = ()
    template_digest: Digest | None = None
    """Of the chat template that the prompt went through; None for text."""


@dataclass(frozen=True)
class Ticket:
    """A submitted request."""

    weights: Digest
    """Checkpoint that answers it, whatever is swapped in meanwhile."""
    future: "Future[Generation]"
    abandoned: threading.Event = field(default_factory=threading.Event)

    def abandon(self) -> None:
        """Nobody waits any more: stop generating at the next token."""
        self.abandoned.set()
        self.future.cancel()


class Engine(Protocol):
    """Generates with one policy or two and swaps them while requests are in flight."""

    @property
    def weights(self) -> Digest | None:
        """Checkpoint that requests are bound to by default; None before the first load."""

    @property
    def beside(self) -> Digest | None:
        """Checkpoint that only requests which name it are bound to."""

    def start(self) -> None:
        """Begin to answer."""

    def load(self, weights: Digest) -> None:
        """Load a checkpoint, warm it up and bind new requests to it. Blocks; call from a thread.

        What stands beside already is bound to at once, and nothing stands beside it then. Requests
        submitted before keep the policy they have. The caller has verified the weights.
        """

    def load_beside(self, weights: Digest | None) -> None:
        """Load and warm up a second checkpoint, in place of the one that stood beside.

        None takes that away. Requests that name it and were submitted before are still answered.
        """

    def submit(
        self, requests: Sequence[GenerationRequest], *, weights: Digest | None = None
    ) -> list[Ticket]:
        """Queue requests, all bound to one policy: the one with ``weights``, if they are named.

        Tokenizes, so call it from a thread. Raises UnavailableError without a policy,
        NotLoadedError without that one, QueueFullError, ContextLengthError.
        """

    def close(self) -> None:
        """Stop; what still waits fails with UnavailableError."""
