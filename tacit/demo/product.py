"""A simulated product: asks the policy as its users do and sends what came of the answers.

Asks over HTTP through the official ``openai`` client and sends feedback over HTTP through Tacit's
SDK, as any product would. What is sent depends on the seed, the place in the stream and whether
the answer was right, never on which thread was faster.
"""

import itertools
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from openai import OpenAI, OpenAIError

from collector.client import TacitClient
from tacit.demo.world import Utterance

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the number of utterances done and the number of all."""

Reaction = Literal["correction", "outcome", "rating"]
"""Types of feedback that users send."""

MAX_ANSWER_TOKENS = 24
REQUEST_TIMEOUT_S = 30.0
FLUSH_TIMEOUT_S = 120.0


class Answer(NamedTuple):
    """What the policy said, and under which id and version."""

    interaction_id: str
    text: str
    policy_version: str
    """``policy@digest12``."""


@dataclass
class ProductTally:
    """What a product did."""

    num_asked: int = 0
    num_right: int = 0
    num_failed: int = 0
    """Requests that got no answer."""
    sent: Counter[str] = field(default_factory=Counter)
    """Events by type of feedback."""

    @property
    def num_sent(self) -> int:
        """Events of all types."""
        return self.sent.total()

    @property
    def accuracy(self) -> float:
        """Share of answers that were right."""
        return self.num_right / max(1, self.num_asked - self.num_failed)


class Product:
    """One product with many users; safe to share between threads."""

    def __init__(
        self,
        serving_url: str,
        collector_url: str,
        api_key: str,
        *,
        policy: str = "default",
        source: str = "product",
        concurrency: int = 12,
        num_subjects: int | None = None,
        seed: int = 0,
    ) -> None:
        """``serving_url`` ends in ``/v1``, ``collector_url`` does not.

        ``num_subjects`` is by default a quarter of the utterances served, and at least 400.
        """
        self._openai = OpenAI(
            base_url=serving_url, api_key=api_key, max_retries=5, timeout=REQUEST_TIMEOUT_S
        )
        self._collector_url = collector_url
        self._api_key = api_key
        self._policy = policy
        self._source = source
        self._concurrency = concurrency
        self._num_subjects = num_subjects
        self._seed = seed

    def ask(self, text: str, *, subject_id: str = "visitor", retry: bool = True) -> Answer:
        """One chat completion, greedy. Raises OpenAIError."""
        client = self._openai if retry else self._openai.with_options(max_retries=0)
        response = client.chat.completions.create(
            model=self._policy,
            messages=[{"role": "user", "content": text}],
            max_tokens=MAX_ANSWER_TOKENS,
            temperature=0.0,
            user=subject_id,
        )
        said = response.choices[0].message.content or ""
        return Answer(response.id, text=said.strip(), policy_version=response.model)

    def serve(
        self, utterances: Sequence[Utterance], *, on_progress: OnProgress | None = None
    ) -> ProductTally:
        """Ask every utterance and send feedback; returns when all of it is acknowledged.

        A request without an answer is counted and sends nothing. Raises UnavailableError if the
        collector does not take the feedback, InvalidInputError if it turns some away.
        """
        tally = ProductTally(num_asked=len(utterances))
        num_subjects = self._num_subjects or max(400, len(utterances) // 4)
        with self.feedback() as feedback, ThreadPoolExecutor(self._concurrency) as pool:
            futures = [
                pool.submit(self._serve_one, feedback, number, utterance, num_subjects)
                for number, utterance in enumerate(utterances)
            ]
            for done, future in enumerate(as_completed(futures), start=1):
                _count(tally, *future.result())
                if on_progress is not None:
                    on_progress(done, len(utterances))
            feedback.flush(FLUSH_TIMEOUT_S)
        return tally

    def feedback(self) -> TacitClient:
        """A new SDK client that sends as this product."""
        return TacitClient(
            self._collector_url, api_key=self._api_key, source=self._source, policy=self._policy
        )

    def close(self) -> None:
        """Close the connections to serving."""
        self._openai.close()

    def _serve_one(
        self, feedback: TacitClient, number: int, utterance: Utterance, num_subjects: int
    ) -> tuple[bool | None, str | None]:
        """Whether the answer was right (None: no answer) and the type of feedback sent."""
        rng = random.Random(f"{self._seed}-{number}")
        subject_id = f"u-{rng.randrange(num_subjects):05d}"
        try:
            answer = self.ask(utterance.text, subject_id=subject_id)
        except OpenAIError as error:
            logger.warning("no answer to utterance %d: %s", number, error)
            return None, None
        right = answer.text == utterance.answer
        return right, _react(feedback, answer, utterance, subject_id, rng.random())


def reaction(*, right: bool, luck: float) -> Reaction | None:
    """What a user sends about an answer; ``luck`` is uniform in [0, 1), None is silence."""
    if not right and luck < 0.85:
        return "correction"
    if luck < (0.3 if right else 0.93):
        return "outcome"
    return "rating" if luck < (0.5 if right else 1.0) else None


def _react(
    feedback: TacitClient, answer: Answer, utterance: Utterance, subject_id: str, luck: float
) -> str | None:
    """Send what this user would say; returns the type of feedback, None for silence."""
    about: dict[str, Any] = {"subject_id": subject_id}
    right = answer.text == utterance.answer
    said = reaction(right=right, luck=luck)
    if said == "correction":
        feedback.correct(answer.interaction_id, utterance.answer, **about)
    elif said == "outcome":
        feedback.outcome(answer.interaction_id, right, metric="resolved", **about)
    elif said == "rating":
        feedback.rate(answer.interaction_id, 1.0 if right else 0.0, **about)
    return said


def _count(tally: ProductTally, right: bool | None, sent: str | None) -> None:
    if right is None:
        tally.num_failed += 1
    elif right:
        tally.num_right += 1
    if sent is not None:
        tally.sent[sent] += 1


@dataclass
class LoadTally:
    """What was asked in the background, up to now."""

    num_requests: int = 0
    num_failed: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    """Answers by the version that gave them, in the order they were first seen."""
    errors: list[str] = field(default_factory=list)


@contextmanager
def background_load(
    product: Product, utterances: Sequence[Utterance], *, concurrency: int = 2
) -> Iterator[LoadTally]:
    """Keep asking from ``concurrency`` threads until left; the tally grows meanwhile."""
    tally, lock, stop = LoadTally(), threading.Lock(), threading.Event()

    def keep_asking(first: int) -> None:
        for utterance in itertools.islice(itertools.cycle(utterances), first, None):
            if stop.is_set():
                return
            _ask_and_count(product, utterance, tally, lock)

    threads = [
        threading.Thread(target=keep_asking, args=(first,), name=f"load-{first}", daemon=True)
        for first in range(concurrency)
    ]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask_and_count(
    product: Product, utterance: Utterance, tally: LoadTally, lock: threading.Lock
) -> None:
    version, error = None, None
    try:
        # No retry: a request that had to be sent twice is a request that failed.
        version = product.ask(utterance.text, subject_id="load", retry=False).policy_version
    except OpenAIError as failure:
        error = f"{type(failure).__name__}: {failure}"
    with lock:
        tally.num_requests += 1
        if version is not None:
            tally.versions[version] += 1
        if error is not None:
            tally.num_failed += 1
            tally.errors.append(error)
