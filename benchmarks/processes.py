"""Processes that others take the place of now and then, for what leaves something behind.

``ProcessPoolExecutor(max_tasks_per_child=n)`` would do, but with n above 1 it stops for good where
a process has run its n tasks while others wait (python/cpython#115634, in Python 3.11 to 3.14).
"""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class RecycledProcesses:
    """A pool of processes that each run so many tasks.

    A context manager, which waits for all tasks; left by an exception, Ctrl-C among them, for those
    under way. Where this process is killed its processes end too, whatever they are at.
    """

    def __init__(
        self, jobs: int, *, tasks_each: int, initializer: Callable[[], None] | None = None
    ) -> None:
        """``jobs`` at a time; ``initializer`` runs first in each process."""
        self._tasks_each = tasks_each
        self._initializer = initializer
        self._threads = ThreadPoolExecutor(jobs)
        self._own = threading.local()
        self._opened: list[ProcessPoolExecutor] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._threads.shutdown(cancel_futures=kind is not None)
        for process in self._opened:
            process.shutdown()

    def submit(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The future of ``task``. A process that dies fails the one task that it ran, with
        BrokenProcessPool."""

        def run() -> T:
            process = self._process()
            try:
                return process.submit(task, *args, **kwargs).result()
            except BrokenProcessPool:
                self._own.left = 0
                raise

        return self._threads.submit(run)

    def _process(self) -> ProcessPoolExecutor:
        """That of this thread."""
        own = self._own
        if getattr(own, "left", 0) == 0:
            if hasattr(own, "process"):
                own.process.shutdown()
            own.process = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), partial(_begin, self._initializer)
            )
            own.left = self._tasks_each
            self._opened.append(own.process)
        own.left -= 1
        process: ProcessPoolExecutor = own.process
        return process


def _begin(initializer: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with_parent() -> None:
    """A pool notices only between two tasks that nobody waits any more; a task may take hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
