"""Keeps what threads share whole when the process forks.

A fork copies memory as it stands and only the thread that forks: a lock another thread held would
stay locked in the child for ever, and a write it was in the middle of would be cut short. So all
that is registered here is held still for the moment of the fork.
"""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol


class Forkable(Protocol):
    """Something that can be held still."""

    def hold(self) -> None:
        """Keep all other threads out."""
        ...

    def let_go(self) -> None:
        """Let them in again, in the parent."""
        ...

    def let_go_in_child(self) -> None:
        """Let them in again, in the child, which shall leave alone what is its parent's."""
        ...


_guarded: weakref.WeakSet[Forkable] = weakref.WeakSet()
_held: list[Forkable] = []
_one_at_a_time = threading.Lock()
"""Held from before a fork to after it: what another thread holds is not this one's to let go."""


def guard_forks(forkable: Forkable) -> None:
    """Hold ``forkable`` still at each fork, as long as it lives."""
    with _one_at_a_time:
        _guarded.add(forkable)


def _before() -> None:
    _one_at_a_time.acquire()
    _held[:] = list(_guarded)
    for forkable in _held:
        forkable.hold()


def _after(act: Callable[[Forkable], None]) -> None:
    for forkable in _held:
        act(forkable)
    _held.clear()
    _one_at_a_time.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(lambda forkable: forkable.let_go()),
        after_in_child=lambda: _after(lambda forkable: forkable.let_go_in_child()),
    )
