"""Delivery as a sequence of steps, without doing any of them: one logic for threads and asyncio.

In: a queue of events, and what came of the step before. Out: what to do next: post a batch, pause,
or wait for events. An event leaves the queue only when the service acknowledged it or said that
it will never take it.
"""

import gzip
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import count
from typing import NamedTuple

import httpx

from collector.sdk.answers import Rejection, Verdict, judge
from collector.sdk.letters import Letter, LetterQueue
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

PATH = "/v1/feedback"
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0
IDLE_S = 10.0
TELL_EVERY_S = 60.0
MAX_REJECTED = 1_000
COMPRESS_ABOVE_BYTES = 4 * 1024


class Post(NamedTuple):
    """Send ``content`` to :data:`PATH`; the answer is the response or the error of the network."""

    content: bytes
    headers: dict[str, str]


class Pause(NamedTuple):
    """Wait, whatever comes in meanwhile."""

    seconds: float


class Idle(NamedTuple):
    """Wait until an event comes in, or for ``seconds``."""

    seconds: float


Step = Post | Pause | Idle
Answer = httpx.Response | Exception | None
Steps = Generator[Step, Answer, None]
OnRejected = Callable[[Rejection, bytes], None]
"""Gets the rejection and the event as it was sent, as JSON."""


class BatchLimits(NamedTuple):
    """How much goes into one request."""

    max_events: int = 200
    max_bytes: int = 1024 * 1024


class Courier:
    """Empties one queue."""

    def __init__(
        self,
        queue: LetterQueue,
        limits: BatchLimits,
        *,
        compress: bool = False,
        on_rejected: OnRejected | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rejected: deque[Rejection] = deque(maxlen=MAX_REJECTED)
        self.num_rejected = 0
        self.last_error = ""
        self._unreported: deque[Rejection] = deque(maxlen=MAX_REJECTED)
        self._queue = queue
        self._limits = limits
        self._compress = compress
        self._on_rejected = on_rejected
        self._clock = clock
        self._tell_at = 0.0

    def report_rejected(self) -> list[Rejection]:
        """Those rejected since the last call, oldest first; of more than 1,000 the last."""
        return [self._unreported.popleft() for _ in range(len(self._unreported))]

    def steps(self) -> Steps:
        """What to do, one step after the other and without end; send in what came of each."""
        while True:
            try:
                batch = self._queue.head(
                    max_events=self._limits.max_events, max_bytes=self._limits.max_bytes
                )
            except UnavailableError as error:
                self._tell(logging.ERROR, str(error))
                yield Pause(LONGEST_DELAY_S)
                continue
            if batch:
                yield from self._deliver(batch)
            else:
                yield Idle(IDLE_S)

    def _deliver(self, batch: Sequence[Letter]) -> Steps:
        for attempt in count():
            post = self._post(batch)
            verdict = self._judge(batch, post, (yield post))
            if verdict.action == "settle":
                self._settle(batch, verdict)
                return
            if verdict.action == "halve":
                middle = len(batch) // 2
                yield from self._deliver(batch[:middle])
                yield from self._deliver(batch[middle:])
                return
            if verdict.action == "send_plain":
                logger.warning("the service takes no gzip, so batches go as they are")
                self._compress = False
                continue
            self._tell(
                logging.ERROR if verdict.action == "hold" else logging.WARNING, verdict.error
            )
            yield Pause(verdict.wait_s + _delay_s(attempt))

    def _judge(self, batch: Sequence[Letter], post: Post, answer: Answer) -> Verdict:
        if not isinstance(answer, httpx.Response):
            return Verdict("retry", error=f"{type(answer).__name__}: {answer}")
        compressed = "Content-Encoding" in post.headers
        return judge(batch, answer, compressed=compressed, persistent=self._queue.persistent)

    def _post(self, batch: Sequence[Letter]) -> Post:
        content = b"\n".join(letter.body for letter in batch)
        headers = {"Content-Type": "application/x-ndjson"}
        if self._compress and len(content) > COMPRESS_ABOVE_BYTES:
            headers["Content-Encoding"] = "gzip"
            content = gzip.compress(content, compresslevel=5, mtime=0)
        return Post(content, headers)

    def _settle(self, batch: Sequence[Letter], verdict: Verdict) -> None:
        for letter, rejection in verdict.rejected:
            self.rejected.append(rejection)
            self.num_rejected += 1
            self._unreported.append(rejection)
            if self._on_rejected is None:
                logger.error("event %s is %s: %s", *rejection)
            else:
                self._call_back(rejection, letter.body)
        self._queue.remove(len(batch))

    def _call_back(self, rejection: Rejection, body: bytes) -> None:
        assert self._on_rejected is not None
        try:
            self._on_rejected(rejection, body)
        except Exception:  # the product's code, which must not end the delivery of its events
            logger.exception("on_rejected failed for event %s", rejection.event_id)

    def _tell(self, level: int, error: str) -> None:
        self.last_error = error
        if self._clock() >= self._tell_at:
            self._tell_at = self._clock() + TELL_EVERY_S
            num_waiting = self._queue.num_offered - self._queue.num_removed
            logger.log(level, "%d events wait in the %s: %s", num_waiting, self._queue, error)


def _delay_s(attempt: int) -> float:
    # Full jitter, so that many products do not come back in step:
    # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    return random.uniform(0, min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt, 16)))
