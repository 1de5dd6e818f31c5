"""Questions with a time limit: the thing asked may hang, the one who asks never does."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from tacit.errors import UnavailableError

T = TypeVar("T")


class Probe(Generic[T]):
    """Asks ``question`` in a daemon thread, at most one at a time.

    A question that hangs keeps its one thread; those who ask meanwhile wait for the same answer,
    each with a limit of its own, so that nothing piles up. No pool is used: a probe must answer
    while all threads of a pool wait for the very database it asks about.
    """

    def __init__(self, name: str, question: Callable[[], T]) -> None:
        self.name = name
        self._question = question
        self._lock = threading.Lock()
        self._running: Future[T] | None = None

    async def ask(self, *, timeout_s: float) -> T:
        """The answer, or what the question raised; UnavailableError after ``timeout_s``."""
        answer = asyncio.wrap_future(self._begin())
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise UnavailableError(
                f"an answer of the {self.name} within {timeout_s:g} s", got="none yet"
            ) from None

    def _begin(self) -> "Future[T]":
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                # Running: then a caller whose time is up cannot cancel it for the others.
                self._running.set_running_or_notify_cancel()
                threading.Thread(
                    target=self._run,
                    args=(self._running,),
                    name=f"tacit-probe-{self.name}",
                    daemon=True,
                ).start()
            return self._running

    def _run(self, future: "Future[T]") -> None:
        try:
            future.set_result(self._question())
        except BaseException as error:
            future.set_exception(error)
