"""Requests that wait at one moment are answered together, by one thread.

The more of them wait, the larger the next group: what a group costs, such as a sync to disk, is
shared by all (DeWitt et al. 1984, "Implementation techniques for main memory database systems").
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from tacit.errors import UnavailableError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_MAX_GROUP = 4_000
"""Items that go through together; more would make the first of them wait for the last."""


class _Asked(NamedTuple, Generic[Item, Answer]):
    items: Sequence[Item]
    answer: Callable[[Sequence[Answer] | BaseException], None]


class Grouping(Generic[Item, Answer]):
    """Hands the items of all who wait to ``work``, and its answers, one for each item, back.

    Safe to share between threads. Where ``work`` raises UnavailableError, all of the group get it;
    after any other error each request is worked on by itself and gets its own.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Answer]], *, name: str) -> None:
        """``name`` is that of the thread, which begins with the first request."""
        self._work = work
        self._name = name
        self._waiting: list[_Asked[Item, Answer]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._worker: threading.Thread | None = None

    @property
    def num_waiting(self) -> int:
        """Requests that no group has taken up yet."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether requests are refused."""
        return self._closed

    def ask(self, items: Sequence[Item]) -> Sequence[Answer]:
        """One answer for each of ``items``, in order.

        Raises what the work raises, and UnavailableError once this was closed.
        """
        done: Future[Sequence[Answer]] = Future()
        self._add(_Asked(items, lambda answers: _settle(done, answers)))
        return done.result()

    async def ask_async(self, items: Sequence[Item]) -> Sequence[Answer]:
        """As ``ask``, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Sequence[Answer]] = loop.create_future()

        def answer(answers: Sequence[Answer] | BaseException) -> None:
            # A loop that has ended has nobody left to tell, and must not end this thread with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle_unless_cancelled, done, answers)

        self._add(_Asked(items, answer))
        return await done

    def close(self) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._worker is not None:
            self._worker.join()

    def _add(self, asked: _Asked[Item, Answer]) -> None:
        with self._changed:
            if self._closed:
                raise UnavailableError("a service that is up", got="one that is stopping")
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._worker.start()
            self._waiting.append(asked)
            self._changed.notify()

    def _run(self) -> None:
        while group := self._take():
            try:
                answers = self._work([item for asked in group for item in asked.items])
            except UnavailableError as error:
                _answer_all(group, error)
            except Exception as error:
                # The edge of a thread: were it to end, every later request would wait for ever.
                self._work_one_by_one(group, error)
            else:
                _hand_out(group, answers)

    def _work_one_by_one(self, group: Sequence[_Asked[Item, Answer]], error: Exception) -> None:
        # What is wrong with one request must not be the answer to its neighbours.
        for asked in group:
            try:
                if len(group) == 1:
                    raise error
                asked.answer(self._work(asked.items))
            except Exception as own:
                asked.answer(own)

    def _take(self) -> list[_Asked[Item, Answer]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            taken, num_items = 0, 0
            for asked in self._waiting:
                num_items += len(asked.items)
                if taken and num_items > _MAX_GROUP:
                    break
                taken += 1
            group, self._waiting = self._waiting[:taken], self._waiting[taken:]
            return group


def _hand_out(group: Sequence[_Asked[Item, Answer]], answers: Sequence[Answer]) -> None:
    start = 0
    for asked in group:
        end = start + len(asked.items)
        asked.answer(answers[start:end])
        start = end


def _answer_all(group: Sequence[_Asked[Item, Answer]], error: BaseException) -> None:
    for asked in group:
        asked.answer(error)


def _settle(
    done: Future[Sequence[Answer]] | asyncio.Future[Sequence[Answer]],
    answers: Sequence[Answer] | BaseException,
) -> None:
    if isinstance(answers, BaseException):
        done.set_exception(answers)
    else:
        done.set_result(answers)


def _settle_unless_cancelled(
    done: asyncio.Future[Sequence[Answer]], answers: Sequence[Answer] | BaseException
) -> None:
    # Who asked may have gone away; the work is done all the same.
    if not done.done():
        _settle(done, answers)
