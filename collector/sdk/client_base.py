"""What the sync and the async client share: their options, what they check, what they ask for.

Everything here is free of input and output; the two clients add how they wait.
"""

import atexit
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from collector.sdk.answers import Rejection
from collector.sdk.calls import FeedbackCalls
from collector.sdk.courier import BatchLimits, Courier, OnRejected
from collector.sdk.letters import Letter, LetterQueue, MemoryQueue
from collector.sdk.responses import interaction_id_of
from collector.sdk.spool import Spool
from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError, TooLargeError, UnavailableError

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")

CLOSE_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_WITH_SPOOL_S = 2.0
_CHUNK_EVENTS = 100
TOKENS_PATH = "/v1/feedback/tokens"


class ClientBase(FeedbackCalls[R], Generic[R, T]):
    """Options and checks; ``R`` is what a call gives, ``T`` the kind of transport."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        source: str,
        policy: str = "default",
        subject_id: str | None = None,
        timeout_s: float = 10.0,
        max_queue: int = 10_000,
        max_queue_bytes: int = 64 * 1024 * 1024,
        queue_timeout_s: float = 5.0,
        spool: str | Path | None = None,
        max_spool_bytes: int = 256 * 1024 * 1024,
        spool_fsync: bool = False,
        max_batch_events: int = 200,
        max_batch_bytes: int = 1024 * 1024,
        compress: bool = False,
        on_rejected: OnRejected | None = None,
        transport: T | None = None,
    ) -> None:
        """Does not connect yet; with ``spool`` it opens the folder, else raises UnavailableError.

        ``api_key`` is by default TACIT_API_KEY; ``subject_id`` is used where a call names none.

        Without ``spool``, up to ``max_queue`` events and ``max_queue_bytes`` wait in memory, and
        are gone if the process is killed. With it, each call writes to a file in that folder
        before it returns, up to ``max_spool_bytes`` a process: such an event survives
        ``kill -9``, and with ``spool_fsync`` a power cut. Either way a call that finds no room
        waits ``queue_timeout_s`` for it (0: not at all) and then raises UnavailableError.

        ``compress`` sends batches over 4 KiB as gzip. ``on_rejected`` gets each event the service
        will never take, with the reason; it runs in the thread that sends and should be quick.
        """
        super().__init__(source=source, policy=policy, subject_id=subject_id)
        self._queue_timeout_s = queue_timeout_s
        self._persistent = spool is not None
        self._limits = BatchLimits(max_batch_events, max_batch_bytes)
        self._compress = compress
        self._on_rejected = on_rejected
        self._http_options: dict[str, Any] = {
            "base_url": url,
            "headers": _credentials(api_key),
            "timeout": timeout_s,
            "transport": transport,
        }
        self._open_queue: Callable[[], LetterQueue]
        if spool is None:
            self._open_queue = lambda: MemoryQueue(max_events=max_queue, max_bytes=max_queue_bytes)
        else:
            folder = Path(spool)
            self._open_queue = lambda: Spool(folder, max_bytes=max_spool_bytes, fsync=spool_fsync)
        self._closed = False
        self._make_outbox()
        atexit.register(self._close_at_exit)

    @property
    def rejected(self) -> list[Rejection]:
        """The last 1,000 events the service will never take, oldest first, with the reasons."""
        return list(self._courier.rejected)

    @property
    def num_waiting(self) -> int:
        """Events not yet acknowledged."""
        return self._queue.num_offered - self._queue.num_removed

    @abstractmethod
    def _make_outbox(self) -> None: ...

    @property
    @abstractmethod
    def _queue(self) -> LetterQueue: ...

    @property
    @abstractmethod
    def _courier(self) -> Courier: ...

    @abstractmethod
    def _close_at_exit(self) -> None: ...

    def _make_courier(self, queue: LetterQueue) -> Courier:
        return Courier(queue, self._limits, compress=self._compress, on_rejected=self._on_rejected)

    def _close_timeout_s(self, asked: float | None) -> float:
        # What is in the spool is safe, so there is no reason to hold up the end of the process.
        default = CLOSE_TIMEOUT_WITH_SPOOL_S if self._persistent else CLOSE_TIMEOUT_S
        return default if asked is None else asked

    def _chunks(self, events: Iterable[FeedbackEvent]) -> Iterator[list[Letter]]:
        """A few letters at a time, so that a long iterable never stands in memory as a whole."""
        chunk: list[Letter] = []
        for event in events:
            letter = Letter(event.event_id, event.model_dump_json().encode())
            self._require_fit(letter)
            chunk.append(letter)
            if len(chunk) == _CHUNK_EVENTS:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _require_fit(self, letter: Letter) -> None:
        if self._closed:
            raise UnavailableError("an open client", got="one that was closed")
        if not self._queue.fits(letter):
            raise TooLargeError(
                f"an event that fits into the {self._queue}",
                got=f"{letter.size_bytes} bytes",
                mend="Raise max_queue_bytes or max_spool_bytes.",
            )

    def _no_room(self) -> UnavailableError:
        return UnavailableError(
            f"room in the {self._queue}",
            got=self._courier.last_error or "a service slower than the product",
            mend="Check that the service is up, or send less. What was queued stays queued.",
        )

    def _require_settled(self, num_left: int, timeout_s: float) -> None:
        """Raise what ``flush`` raises."""
        if num_left:
            raise UnavailableError(
                f"all events acknowledged within {timeout_s:g} s",
                got=f"{num_left} still waiting; last error: {self._courier.last_error or 'none'}",
                mend=f"Check that Tacit answers at {self._http_options['base_url']}; "
                "sending goes on.",
            )
        if fresh := self._courier.report_rejected():
            raise InvalidInputError(
                "all events accepted",
                got=f"{len(fresh)} turned away; the first, {fresh[0].event_id}, as "
                f"{fresh[0].status}: {fresh[0].error}",
                mend="`client.rejected` has each with its reason.",
            )

    def _require_closed(self, num_left: int, timeout_s: float) -> None:
        """Raise what ``close`` raises."""
        if num_left and self._persistent:
            logger.warning("%d events stay in the %s for the next process", num_left, self._queue)
            num_left = 0
        self._require_settled(num_left, timeout_s)

    def _away(self, error: Exception) -> UnavailableError:
        url = self._http_options["base_url"]
        return UnavailableError(
            f"a Tacit service at {url}", got=f"{type(error).__name__}: {error}", mend="Is it up?"
        )

    def _status_request(self, event_id: str) -> dict[str, Any]:
        url = f"/v1/feedback/{event_id}"
        return {"method": "GET", "url": url, "params": {"source": self.source}}

    def _token_request(
        self, response: Any, subject_id: str | None, expires_in_s: float | None
    ) -> dict[str, Any]:
        body = {
            "interaction_id": interaction_id_of(response),
            "subject_id": subject_id or self.subject_id,
            "source": self.source,
            "policy": self.policy,
            "expires_in_s": expires_in_s,
        }
        known = {name: value for name, value in body.items() if value is not None}
        return {"method": "POST", "url": TOKENS_PATH, "json": known}


def _credentials(api_key: str | None) -> dict[str, str]:
    """Headers with the key, or that of the environment; none without, and the service says so."""
    key = (os.environ.get("TACIT_API_KEY", "") if api_key is None else api_key).strip()
    if not (key.isascii() and key.isprintable()):
        raise InvalidInputError(
            "an API key of printable ASCII characters", got=f"{len(key)} characters, some others"
        )
    return {"Authorization": f"Bearer {key}"} if key else {}
