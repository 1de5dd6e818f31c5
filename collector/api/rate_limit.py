"""Rate limits: how many events a second a key may send.

A generic cell rate algorithm (ITU-T I.371) with one number a key. The ``limits`` library refuses a
batch larger than its limit for ever; here a key that is not in debt may send any batch, and then
waits until what it sent fits its rate.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_EPSILON_S = 1e-9


class RateLimiter:
    """Counts in memory, for at most ``max_keys`` keys; safe to share between threads.

    The key that was longest silent is forgotten first, and a forgotten key begins with its whole
    burst.
    """

    def __init__(
        self,
        *,
        burst_s: float,
        max_keys: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``burst_s``: seconds' worth of events that a silent key may send at once."""
        self._burst_s = burst_s
        self._max_keys = max_keys
        self._clock = clock
        self._paid_until: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, num_events: int, *, rate_per_s: float) -> float:
        """0 if ``key`` may send ``num_events`` now; else how many seconds until it may.

        What was refused is not counted.
        """
        event_s = 1 / rate_per_s
        # A burst below one event would never let anything pass.
        allowed_debt_s = max(self._burst_s, event_s) - event_s
        with self._lock:
            now = self._clock()
            paid_until = max(self._paid_until.get(key, now), now)
            wait_s = paid_until - now - allowed_debt_s
            if wait_s > _EPSILON_S:
                return wait_s
            self._paid_until[key] = paid_until + num_events * event_s
            self._paid_until.move_to_end(key)
            if len(self._paid_until) > self._max_keys:
                self._paid_until.popitem(last=False)
        return 0.0
