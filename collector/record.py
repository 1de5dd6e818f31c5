"""InteractionRecorder: serving's answers on their way into the stream, off the request's path.

In: an Interaction a request. Out: records of ``<prefix>.interactions``, in batches. What was handed
in waits in a queue; with a :class:`collector.sdk.spool.Spool` it waits on disk, so that it outlives
the process however that ends, and the next one appends it. An interaction may so be appended twice,
and its reader drops the second. When the stream is away for longer than the queue is large, new
interactions are dropped, and the feedback on them is held until it expires.
"""

import logging
import threading
from collections.abc import Sequence

from collector.sdk.letters import Letter, LetterQueue
from collector.streams import Stream
from tacit.contracts import Interaction
from tacit.errors import TacitError, UnavailableError

logger = logging.getLogger(__name__)

_MAX_BATCH = 256
_MAX_BATCH_BYTES = 4 * 1024 * 1024
_RETRY_S = 0.5
_LINGER_S = 0.1
"""How long a batch waits for more: an append costs the same for one and for many."""
_LOOK_S = 10.0
"""How often an idle recorder looks for what a process that died has left."""


class InteractionRecorder:
    """A queue and the thread that appends what is in it."""

    def __init__(self, stream: Stream, queue: LetterQueue, *, topic: str) -> None:
        self._stream = stream
        self._queue = queue
        self._topic = topic
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self.num_dropped = 0
        self._worker = threading.Thread(target=self._run, name="tacit-recorder", daemon=True)
        self._worker.start()

    def record(self, interaction: Interaction) -> None:
        """Put ``interaction`` into the queue; waits for nothing but the disk.

        Raises UnavailableError if the disk refuses.
        """
        # Keyed like feedback, so that an interaction is near the feedback on it.
        key = f"{interaction.source}/{interaction.subject_id or interaction.interaction_id}"
        if not self._queue.offer([Letter(key, interaction.model_dump_json().encode())]):
            self._drop(1, f"the {self._queue} is full")
        with self._changed:
            self._changed.notify_all()

    def flush(self, *, timeout_s: float = 30.0) -> None:
        """Wait until all is in the stream. Raises UnavailableError after ``timeout_s``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._num_waiting == 0, timeout_s):
                raise UnavailableError(
                    f"all interactions in the stream within {timeout_s:g} s",
                    got=f"{self._num_waiting} waiting",
                    mend="Check that the stream is up.",
                )

    def close(self, *, timeout_s: float = 30.0) -> None:
        """Flush and stop; raises what ``flush`` raises. A queue on disk keeps what is left."""
        try:
            self.flush(timeout_s=timeout_s)
        finally:
            self._closing.set()
            with self._changed:
                self._changed.notify_all()
            self._worker.join()
            if self._num_waiting and not self._queue.persistent:
                self._drop(self._num_waiting, "the recorder was closed")
            self._queue.close()

    @property
    def _num_waiting(self) -> int:
        return self._queue.num_offered - self._queue.num_removed

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._append_head()
            except UnavailableError as error:
                logger.warning("interactions wait: %s", error)
                self._closing.wait(_RETRY_S)
            except Exception:
                # The edge of a thread: were it to end, nothing would be recorded any more.
                logger.exception("recording failed; it is tried again")
                self._closing.wait(_RETRY_S)

    def _append_head(self) -> None:
        letters = self._queue.head(max_events=_MAX_BATCH, max_bytes=_MAX_BATCH_BYTES)
        if letters:
            self._append(letters)
            self._queue.remove(len(letters))
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._num_waiting or self._closing.is_set(), _LOOK_S)
        if self._num_waiting < _MAX_BATCH:
            self._closing.wait(_LINGER_S)

    def _append(self, letters: Sequence[Letter]) -> None:
        """Append all but those that the stream will never take. Raises UnavailableError."""
        try:
            self._stream.append(self._topic, [(key, body) for key, body in letters])
        except UnavailableError:
            raise
        except TacitError as error:
            if len(letters) == 1:
                self._drop(1, str(error))
                return
            for letter in letters:
                self._append([letter])

    def _drop(self, num_dropped: int, reason: str) -> None:
        self.num_dropped += num_dropped
        logger.error("%s interactions dropped: %s", num_dropped, reason)
