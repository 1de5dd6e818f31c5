"""Delivery of events by one task in the background.

In: events from coroutines of one event loop. Out: what :mod:`collector.sdk.courier` says, done with
httpx. The courier and the spool may touch the disk, so they run in a thread.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import httpx

from collector.sdk.courier import PATH, Answer, Courier, Idle, Pause, Post, Step
from collector.sdk.forks import guard_forks
from collector.sdk.letters import Letter, LetterQueue
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

RETRY_S = 1.0
T = TypeVar("T")


class AsyncOutbox:
    """A queue and the task that empties it."""

    def __init__(self, queue: LetterQueue, courier: Courier, http: httpx.AsyncClient) -> None:
        self.queue = queue
        self.courier = courier
        self.http = http
        self._changed = asyncio.Condition()
        self._worker: asyncio.Task[None] | None = None
        self._stopped = False
        self._is_parents = False
        guard_forks(self)

    async def put(self, letters: Sequence[Letter], *, timeout_s: float) -> bool:
        """Queue ``letters``, waiting for room; whether all of them found it.

        Raises UnavailableError if the disk refuses, and in a forked child. Cancelled, the first few
        may be queued.
        """
        if self._is_parents:
            raise UnavailableError("a client of this process", got="that of the one it forked from")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self.start()
        while letters := letters[await self._offer(letters) :]:
            if not await self._wait_for_room(letters[0], deadline - loop.time()):
                return False
        async with self._changed:
            self._changed.notify_all()
        return True

    async def _wait_for_room(self, letter: Letter, timeout_s: float) -> bool:
        async with self._changed:
            self._changed.notify_all()
            return await self._wait_for(lambda: self.queue.has_room(letter), max(0.0, timeout_s))

    async def _offer(self, letters: Sequence[Letter]) -> int:
        if self.queue.persistent:
            return await _finish(self.queue.offer, letters)
        return self.queue.offer(letters)

    async def wait_until_settled(self, *, timeout_s: float) -> int:
        """Wait until all that was queued before is settled; how many events are still not."""
        if self._is_parents:
            return 0
        self.start()
        target = self.queue.num_offered
        async with self._changed:
            await self._wait_for(lambda: self.queue.num_removed >= target, timeout_s)
        return max(0, target - self.queue.num_removed)

    async def _wait_for(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Whether ``is_so()`` within ``timeout_s``; the caller holds ``_changed``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait_for(is_so)
        except TimeoutError:
            return is_so()
        return True

    def start(self) -> None:
        """Start the task, if it does not run: there is no loop yet when the client is made."""
        if not self._stopped and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._run(), name="tacit-outbox")

    async def stop(self) -> None:
        """End the task, in the middle of a request if need be; what is queued stays unsent."""
        self._stopped = True
        if self._is_parents:
            return
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        await self.http.aclose()
        await _finish(self.queue.close)

    def stop_without_loop(self) -> int:
        """Let go of files, where it is too late to wait; how many events were not sent."""
        if self._is_parents:
            return 0
        self.queue.close()
        return self.queue.num_offered - self.queue.num_removed

    async def _run(self) -> None:
        while True:
            try:
                await self._send()
            except Exception:
                # The edge of a task: were it to end, what waits would wait for the next call.
                logger.exception("sending failed; it tries again")
                await asyncio.sleep(RETRY_S)

    async def _send(self) -> None:
        steps = self.courier.steps()
        answer: Answer = None
        while True:
            step = await _finish(steps.send, answer)
            async with self._changed:
                self._changed.notify_all()
            answer = await self._take(step)

    async def _take(self, step: Step) -> Answer:
        match step:
            case Post(content, headers):
                try:
                    return await self.http.post(PATH, content=content, headers=headers)
                except httpx.HTTPError as error:
                    return error
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Idle(seconds):
                async with self._changed:
                    await self._wait_for(self._has_work, seconds)
        return None

    def _has_work(self) -> bool:
        return self.queue.num_offered > self.queue.num_removed

    def hold(self) -> None:
        """Keep threads out of the queue until :meth:`let_go`, as the process forks."""
        self.queue.lock.acquire()

    def let_go(self) -> None:
        """Let them in again."""
        self.queue.lock.release()

    def let_go_in_child(self) -> None:
        """No event loop survives a fork: the child makes a client of its own."""
        self.let_go()
        self._stopped = self._is_parents = True


async def _finish(call: Callable[..., T], *arguments: object) -> T:
    """``call(*arguments)`` in a thread; cancelled, it waits for the thread before it gives up."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
