"""InteractionRecorder: serving's answers on their way into the stream, off the request's path.

In: an Interaction a request. Out: records of ``<prefix>.interactions``, in batches. It never blocks
or fails a request: when the stream is away for longer than the queue is deep, the oldest go, and
the feedback on them is held until it expires.
"""

import logging
import threading
from collections import deque

from collector.streams import Stream
from tacit.contracts import Interaction
from tacit.errors import TacitError, UnavailableError

logger = logging.getLogger(__name__)

_MAX_BATCH = 256
_RETRY_S = 0.5


class InteractionRecorder:
    """A bounded queue and the thread that appends what is in it."""

    def __init__(self, stream: Stream, *, topic: str, max_queue: int = 20_000) -> None:
        self._stream = stream
        self._topic = topic
        self._waiting: deque[Interaction] = deque(maxlen=max_queue)
        self._busy = False
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self.num_dropped = 0
        self._worker = threading.Thread(target=self._run, name="tacit-recorder", daemon=True)
        self._worker.start()

    def record(self, interaction: Interaction) -> None:
        """Queue ``interaction``; returns at once."""
        with self._changed:
            if len(self._waiting) == self._waiting.maxlen:
                self._drop(1, "the queue is full")
            self._waiting.append(interaction)
            self._changed.notify_all()

    def flush(self, *, timeout_s: float = 30.0) -> None:
        """Wait until all is in the stream. Raises UnavailableError after ``timeout_s``."""
        with self._changed:
            if not self._changed.wait_for(lambda: not (self._waiting or self._busy), timeout_s):
                raise UnavailableError(
                    f"all interactions in the stream within {timeout_s:g} s",
                    got=f"{len(self._waiting)} waiting",
                    mend="Check that the stream is up.",
                )

    def close(self, *, timeout_s: float = 30.0) -> None:
        """Flush and stop; raises what ``flush`` raises."""
        try:
            self.flush(timeout_s=timeout_s)
        finally:
            self._closing.set()
            with self._changed:
                self._changed.notify_all()
            self._worker.join()

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._append(batch)
            except Exception:
                # The edge of a thread: were it to end, nothing would be recorded any more.
                logger.exception("recording failed; it goes on with the next interactions")
                self._drop(len(batch), "recording failed")
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _take(self) -> list[Interaction]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            if self._closing.is_set():
                return []
            self._busy = True
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH))]

    def _append(self, batch: list[Interaction]) -> None:
        # Keyed like feedback, so that an interaction is near the feedback on it.
        records = [
            (f"{i.source}/{i.subject_id or i.interaction_id}", i.model_dump_json().encode())
            for i in batch
        ]
        while not self._closing.is_set():
            try:
                self._stream.append(self._topic, records)
                return
            except UnavailableError as error:
                logger.warning("interactions wait: %s", error)
                self._closing.wait(_RETRY_S)
            except TacitError as error:
                self._drop(len(batch), str(error))
                return
        self._drop(len(batch), "the recorder was closed")

    def _drop(self, num_dropped: int, reason: str) -> None:
        self.num_dropped += num_dropped
        logger.error("%s interactions dropped: %s", num_dropped, reason)
