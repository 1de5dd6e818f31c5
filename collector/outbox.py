"""Delivery of events in the background: bounded queue, batches, retries with jittered backoff.

In: events as JSON, from any thread. Out: ``POST /v1/feedback`` as NDJSON. An event leaves the
queue only when the service acknowledged it or said that it will never take it.
"""

import json
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx

from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0
_PATH = "/v1/feedback"
_TRY_AGAIN = frozenset({408, 425, 429})
_TOO_LARGE = 413


class Letter(NamedTuple):
    """One event on its way."""

    event_id: str
    body: bytes


class Rejection(NamedTuple):
    """An event the service will never take, and why."""

    event_id: str
    status: str
    """``rejected``, ``conflict``, or the HTTP status of the whole request."""
    error: dict[str, Any]
    """``type``, ``expected``, ``got``, ``mend``."""


class Outbox:
    """A bounded queue and the thread that empties it."""

    def __init__(
        self, http: httpx.Client, *, max_queue: int, max_batch_events: int, max_batch_bytes: int
    ) -> None:
        self._http = http
        self._max_queue = max_queue
        self._max_batch_events = max_batch_events
        self._max_batch_bytes = max_batch_bytes
        self._waiting: deque[Letter] = deque()
        self._in_flight: list[Letter] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self.rejected: list[Rejection] = []
        self.last_error = ""

    def put(self, letters: Sequence[Letter], *, timeout_s: float) -> None:
        """Queue ``letters``, waiting for room. Raises UnavailableError if none comes free."""
        deadline = time.monotonic() + timeout_s
        for letter in letters:
            with self._changed:
                self._start_worker()
                while len(self._waiting) >= self._max_queue:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        raise self._full()
                self._waiting.append(letter)
                self._changed.notify_all()

    def wait_until_empty(self, *, timeout_s: float) -> int:
        """Wait for the queue to empty; how many events are still not acknowledged."""
        with self._changed:
            self._start_worker()
            self._changed.wait_for(lambda: not self._num_left(), timeout_s)
            return self._num_left()

    def stop(self) -> None:
        """End the thread after the request it is in; what is queued stays unsent."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join()

    def _num_left(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def _full(self) -> UnavailableError:
        return UnavailableError(
            f"room in the queue of {self._max_queue} events",
            got=self.last_error or "a service slower than the product",
            mend="Check that the service is up, or send less.",
        )

    def _start_worker(self) -> None:
        # Started late and looked at each time: a forked child has the queue but not the thread.
        if self._stopping.is_set() or (self._worker and self._worker.is_alive()):
            return
        self._worker = threading.Thread(target=self._run, name="tacit-outbox", daemon=True)
        self._worker.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            batch = self._take()
            if batch:
                self._deliver(batch)

    def _take(self) -> list[Letter]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._in_flight or self._stopping.is_set()
            )
            num_bytes = 0
            while self._waiting and len(self._in_flight) < self._max_batch_events:
                num_bytes += len(self._waiting[0].body) + 1
                if self._in_flight and num_bytes > self._max_batch_bytes:
                    break
                self._in_flight.append(self._waiting.popleft())
            self._changed.notify_all()
            return list(self._in_flight)

    def _deliver(self, batch: Sequence[Letter]) -> None:
        attempt = 0
        while not self._stopping.is_set():
            response = self._post(batch)
            if response is not None and response.status_code == _TOO_LARGE and len(batch) > 1:
                middle = len(batch) // 2
                self._deliver(batch[:middle])
                self._deliver(batch[middle:])
                return
            if response is not None and self._settle(batch, response):
                return
            self._stopping.wait(_delay_s(attempt, response))
            attempt += 1

    def _post(self, batch: Sequence[Letter]) -> httpx.Response | None:
        try:
            return self._http.post(
                _PATH,
                content=b"\n".join(letter.body for letter in batch),
                headers={"Content-Type": "application/x-ndjson"},
            )
        except httpx.HTTPError as error:
            self.last_error = f"{type(error).__name__}: {error}"
            return None

    def _settle(self, batch: Sequence[Letter], response: httpx.Response) -> bool:
        """Whether ``response`` says of every letter what became of it."""
        status = response.status_code
        if response.is_success:
            rejections = _item_rejections(batch, response)
        elif response.is_client_error and status not in _TRY_AGAIN:
            error = _error_of(response)
            rejections = [Rejection(letter.event_id, str(status), error) for letter in batch]
        else:
            rejections = None
        if rejections is None:
            self.last_error = f"HTTP {status}: {response.text[:200]}"
            return False
        self._finish(batch, rejections)
        return True

    def _finish(self, batch: Sequence[Letter], rejections: list[Rejection]) -> None:
        for rejection in rejections:
            logger.error("event %s is %s: %s", *rejection)
        with self._changed:
            self.rejected.extend(rejections)
            del self._in_flight[: len(batch)]
            self._changed.notify_all()


def _delay_s(attempt: int, response: httpx.Response | None) -> float:
    # Full jitter, so that many products do not come back in step:
    # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    ceiling = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt, 16))
    asked = response.headers.get("retry-after", "") if response is not None else ""
    floor = min(float(asked), LONGEST_DELAY_S) if asked.isdecimal() else 0.0
    return floor + random.uniform(0, ceiling)


def _item_rejections(batch: Sequence[Letter], response: httpx.Response) -> list[Rejection] | None:
    """Rejected items of a 2xx answer; None if it is not an answer to this batch at all."""
    try:
        results = response.json()["results"]
        if len(results) != len(batch):
            return None
        return [
            Rejection(letter.event_id, result["status"], result.get("error") or {})
            for letter, result in zip(batch, results, strict=True)
            if result["status"] != "queued"
        ]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def _error_of(response: httpx.Response) -> dict[str, Any]:
    try:
        error = response.json()["error"]
    except (json.JSONDecodeError, KeyError, TypeError):
        error = None
    return error if isinstance(error, dict) else {"got": response.text[:200]}
