"""Delivery of events by a thread in the background.

In: events from any thread. Out: what :mod:`collector.sdk.courier` says, done with httpx.
"""

import encodings.idna  # noqa: F401  the first look-up of a host imports it: see Outbox
import logging
import threading
import time
from collections.abc import Callable, Sequence

import httpx

from collector.sdk.courier import PATH, Answer, Courier, Idle, Pause, Post, Step
from collector.sdk.forks import guard_forks
from collector.sdk.letters import Letter, LetterQueue

logger = logging.getLogger(__name__)

RETRY_S = 1.0


class Outbox:
    """A queue and the thread that empties it.

    A forked child gets a queue and a connection of its own: the events that wait are its
    parent's, who sends them, and a connection that two processes write to is of use to neither.
    Nothing may be imported by the thread itself: a fork in that moment leaves the import locked in
    the child for ever.
    """

    def __init__(
        self,
        open_queue: Callable[[], LetterQueue],
        make_courier: Callable[[LetterQueue], Courier],
        connect: Callable[[], httpx.Client],
    ) -> None:
        self._parts = (open_queue, make_courier, connect)
        self._changed = threading.Condition()
        self._open()
        guard_forks(self)

    def _open(self) -> None:
        open_queue, make_courier, connect = self._parts
        self.queue = open_queue()
        self.courier = make_courier(self.queue)
        self.http = connect()
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self._forked = False

    def put(self, letters: Sequence[Letter], *, timeout_s: float) -> bool:
        """Queue ``letters``, waiting for room; whether all of them found it.

        Raises UnavailableError if the disk refuses.
        """
        deadline = time.monotonic() + timeout_s
        self.start()
        while letters := letters[self.queue.offer(letters) :]:
            if not self._wait_for_room(letters[0], deadline - time.monotonic()):
                return False
        with self._changed:
            self._changed.notify_all()
        return True

    def _wait_for_room(self, letter: Letter, timeout_s: float) -> bool:
        with self._changed:
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self.queue.has_room(letter), max(0.0, timeout_s))

    def wait_until_settled(self, *, timeout_s: float) -> int:
        """Wait until all that was queued before is settled; how many events are still not."""
        self.start()
        target = self.queue.num_offered
        with self._changed:
            self._changed.wait_for(lambda: self.queue.num_removed >= target, timeout_s)
            return max(0, target - self.queue.num_removed)

    def start(self) -> None:
        """Start what is not running: nothing runs before the first event, nor in a child."""
        with self._changed:
            if self._forked:
                self._open()
            if self._stopping.is_set() or (self._worker and self._worker.is_alive()):
                return
            self._worker = threading.Thread(target=self._run, name="tacit-outbox", daemon=True)
            self._worker.start()

    def stop(self, *, timeout_s: float) -> None:
        """End the thread after the request it is in; what is queued stays unsent."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join(timeout_s)
        self.http.close()
        self.queue.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._send()
            except Exception:
                # The edge of a thread: were it to end, what waits would wait for the next call.
                logger.exception("sending failed; it tries again")
                self._stopping.wait(RETRY_S)

    def _send(self) -> None:
        steps = self.courier.steps()
        answer: Answer = None
        while not self._stopping.is_set():
            step = steps.send(answer)
            with self._changed:
                self._changed.notify_all()
            answer = self._take(step)

    def _take(self, step: Step) -> Answer:
        match step:
            case Post(content, headers):
                try:
                    return self.http.post(PATH, content=content, headers=headers)
                except httpx.HTTPError as error:
                    return error
            case Pause(seconds):
                self._stopping.wait(seconds)
            case Idle(seconds):
                with self._changed:
                    self._changed.wait_for(self._has_work, seconds)
        return None

    def _has_work(self) -> bool:
        return self._stopping.is_set() or self.queue.num_offered > self.queue.num_removed

    def hold(self) -> None:
        """Keep all other threads out until :meth:`let_go`, as the process forks."""
        self._changed.acquire()
        self.queue.lock.acquire()

    def let_go(self) -> None:
        """Let other threads in again."""
        self.queue.lock.release()
        self._changed.release()

    def let_go_in_child(self) -> None:
        """Begin anew at the next call; the old queue is left as it is, for it is the parent's."""
        self.let_go()
        self._forked = True
