"""The shadow stage: what users ask is put to both releases once more, and nobody sees the answers.

In: requests that the champion answers. Out: counts of how the two releases compare, in
``shadow_counts``. Both answer greedily, so that a difference is one of the weights and not of
chance, and both at the same time, so that their times compare. Nothing is recorded as an
interaction. Comparisons wait in a short queue for a moment in which no user waits, and are dropped
rather than delay one.
"""

import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import update

from deploy.arms import Arms
from deploy.engines.base import Generation, GenerationRequest, Ticket
from deploy.tables import ShadowRow
from deploy.traffic import Traffic
from tacit.database import Database, insert_missing
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

MAX_QUEUED = 16
_TIMEOUT_S = 120.0
_POLL_S = 0.5
COUNTS = tuple(c.name for c in ShadowRow.__table__.columns if c.name != "release_id")
"""Names of what is counted."""


@dataclass(frozen=True)
class _Pair:
    request: GenerationRequest
    arms: Arms


class Shadow:
    """Compares the two releases of a rollout on a thread of its own."""

    def __init__(
        self,
        traffic: Traffic,
        db: Database,
        *,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``draw`` gives numbers in [0, 1): which requests are compared."""
        self._traffic = traffic
        self._database = db
        self._draw = draw
        self._clock = clock
        self._pairs: queue.Queue[_Pair] = queue.Queue(MAX_QUEUED)
        self._num_dropped: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to compare."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what waits is not compared."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def consider(
        self, arms: Arms | None, requests: Callable[[], Sequence[GenerationRequest]]
    ) -> None:
        """Draw whether what the champion is asked is compared. Returns at once."""
        if arms is None or arms.canary is None or self._draw() >= arms.shadow_share:
            return
        for request in requests():
            sampling = request.sampling.model_copy(update={"temperature": 0.0, "seed": None})
            greedy = replace(
                request,
                sampling=sampling,
                on_delta=None,
                with_pieces=False,
                top_logprobs=0,
                background=True,
            )
            try:
                self._pairs.put_nowait(_Pair(greedy, arms))
            except queue.Full:
                self._drop(arms)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pair = self._pairs.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            try:
                self._compare(pair)
            except Exception as error:  # the edge of a thread that nobody may be hurt by
                logger.warning("two releases could not be compared: %s", error)
                self._drop(pair.arms)

    def _compare(self, pair: _Pair) -> None:
        champion, canary = pair.arms.releases
        while not self._traffic.wait_idle(_POLL_S):
            if self._stop.is_set():
                return
        tickets = self._traffic.submit_idle(
            (pair.request, champion.weights), (pair.request, canary.weights)
        )
        if tickets is None:
            self._drop(pair.arms)
            return
        took_s = self._wait(tickets)
        if any(ticket.abandoned.is_set() for ticket in tickets):
            self._drop(pair.arms)
        else:
            found = [_outcome(ticket) for ticket in tickets]
            self._count(canary.release_id, _counts(found, took_s))

    def _wait(self, tickets: Sequence[Ticket]) -> list[float]:
        """Seconds that each took; what hangs is abandoned."""
        asked_at = self._clock()
        done: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        for place, ticket in enumerate(tickets):
            # A future wakes who waits for it before it calls back, so the callbacks are waited for.
            ticket.future.add_done_callback(partial(self._stamp, done, place))
        took_s = [0.0] * len(tickets)
        try:
            for _ in tickets:
                place, at = done.get(timeout=_TIMEOUT_S)
                took_s[place] = at - asked_at
        except queue.Empty:
            for ticket in tickets:
                ticket.abandon()
        return took_s

    def _stamp(
        self, done: "queue.SimpleQueue[tuple[int, float]]", place: int, _future: object
    ) -> None:
        done.put((place, self._clock()))

    def _drop(self, arms: Arms) -> None:
        # Written with the next comparison: this may be the event loop's thread.
        with self._lock:
            self._num_dropped[arms.releases[-1].release_id] += 1

    def _count(self, release_id: str, counts: dict[str, float]) -> None:
        with self._lock:
            counts["num_dropped"] = self._num_dropped.pop(release_id, 0)
        sums = {name: getattr(ShadowRow, name) + value for name, value in counts.items()}
        try:
            with self._database.session() as session:
                nothing = {"release_id": release_id, **dict.fromkeys(COUNTS, 0)}
                insert_missing(session, ShadowRow, [nothing])
                here = ShadowRow.release_id == release_id
                session.execute(update(ShadowRow).where(here).values(**sums))
        except UnavailableError as error:
            logger.warning("a comparison is not counted: %s", error)


def _outcome(ticket: Ticket) -> Generation | None:
    """The answer; None if it failed or was broken off."""
    try:
        return ticket.future.result(timeout=0)
    except (Exception, CancelledError):  # whatever it was, the other one may have answered
        return None


def _counts(found: Sequence[Generation | None], took_s: Sequence[float]) -> dict[str, Any]:
    champion, canary = found
    counts: dict[str, Any] = {
        "champion_errors": int(champion is None),
        "canary_errors": int(canary is None),
    }
    if champion is None or canary is None:
        return counts
    return counts | {
        "num_compared": 1,
        "num_agreed": int(champion.text == canary.text),
        "champion_tokens": len(champion.token_ids),
        "canary_tokens": len(canary.token_ids),
        "champion_s": took_s[0],
        "canary_s": took_s[1],
    }
