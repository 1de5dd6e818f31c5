"""Requests on their way into the engine: each is drawn to an arm, and users go before shadows.

``Traffic`` stands between the server and the engine. It counts the requests that users wait for;
what compares two releases unseen (``deploy/shadow.py``) works only while there are none and is
broken off as soon as one comes.
"""

import threading
from collections.abc import Callable, Sequence

from deploy.arms import Arms, Assignment
from deploy.engines.base import Engine, GenerationRequest, NotLoadedError, Ticket
from tacit.errors import UnavailableError

_TRIES = 3
"""Of finding a policy that is loaded, where the arms change between looking and queueing."""


class Traffic:
    """The requests that users wait for. Safe to share between threads."""

    def __init__(self, engine: Engine, arms: Callable[[], Arms | None]) -> None:
        """``arms`` says what answers now."""
        self._engine = engine
        self._arms = arms
        self._num_waiting = 0
        self._changed = threading.Condition()
        self._background: list[Ticket] = []

    def submit(
        self, requests: Sequence[GenerationRequest], draw: Callable[[Arms], Assignment]
    ) -> tuple[Assignment, list[Ticket]]:
        """Queue requests with the policy that ``draw`` assigns.

        Raises UnavailableError while nothing answers, and what the engine raises.
        """
        self._make_way(len(requests))
        try:
            assignment, tickets = self._queue(requests, draw)
        except BaseException:
            self._answered(len(requests))
            raise
        for ticket in tickets:
            ticket.future.add_done_callback(lambda _future: self._answered(1))
        return assignment, tickets

    def submit_idle(self, *requests: tuple[GenerationRequest, str]) -> list[Ticket] | None:
        """Queue requests, each with the weights it goes to, that any user's request breaks off.

        None if users wait. Raises what the engine raises.
        """
        if self._num_waiting:
            return None
        made: list[Ticket] = []
        try:
            for asked, weights in requests:
                made += self._engine.submit([asked], weights=weights)
        finally:
            with self._changed:
                overtaken = self._num_waiting or len(made) < len(requests)
                self._background = [] if overtaken else made
            if overtaken:
                _abandon(made)
        return made

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no user waits, for ``timeout_s`` seconds at the most; whether none does."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._num_waiting, timeout=timeout_s)

    def _queue(
        self, requests: Sequence[GenerationRequest], draw: Callable[[Arms], Assignment]
    ) -> tuple[Assignment, list[Ticket]]:
        for left in reversed(range(_TRIES)):
            arms = self._arms()
            if arms is None:  # whatever the engine has loaded already
                raise UnavailableError(
                    "a release to answer with",
                    got="none loaded yet",
                    mend="GET /readyz says why; `tacit status` shows the releases.",
                )
            assignment = draw(arms)
            try:
                return assignment, self._engine.submit(requests, weights=assignment.weights)
            except NotLoadedError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _make_way(self, num_requests: int) -> None:
        with self._changed:
            self._num_waiting += num_requests
            broken_off, self._background = self._background, []
        _abandon(broken_off)

    def _answered(self, num_requests: int) -> None:
        with self._changed:
            self._num_waiting -= num_requests
            if not self._num_waiting:
                self._changed.notify_all()


def _abandon(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.abandon()
