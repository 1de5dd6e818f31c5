"""A load generator on raw sockets: one thread, some keep-alive connections, HTTP/1.1.

It costs a tenth of what a client library costs, so that on a small machine the service under test
gets the cores. Closed loop: each connection sends its next request when it has its answer. Paced:
requests are due at fixed moments, and latency counts from when one was due, so that a service that
stalls cannot hide it (Tene, "How NOT to measure latency", 2013).
"""

import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
OnAnswer = Callable[[int, bytes, float, float], None]
"""Gets status and body of an answer, and when its request was sent and it came, both in seconds of
``time.perf_counter``."""


@dataclass
class Tally:
    """What a run saw."""

    num_answers: int = 0
    elapsed_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.num_answers / self.elapsed_s

    def latency_ms(self, share: float) -> float:
        """The latency that ``share`` of the requests stay under, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1_000


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.body = b""
        self.due_s = 0.0

    def send(self, request: bytes, due_s: float) -> None:
        self.due_s = due_s
        self.unsent = memoryview(request)
        self.received.clear()
        self.push()

    def push(self) -> None:
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass

    def pull(self) -> int | None:
        """Status of the answer once all of it has come."""
        try:
            chunk = self.socket.recv(262_144)
        except BlockingIOError:
            return None
        if not chunk:
            raise ConnectionError("expected an answer; the service closed the connection")
        self.received += chunk
        end = self.received.find(_HEAD_END)
        if end < 0:
            return None
        head = bytes(self.received[:end]).lower()
        start = head.index(_LENGTH) + len(_LENGTH)
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(self.received) < end + len(_HEAD_END) + length:
            return None
        self.body = bytes(self.received[end + len(_HEAD_END) :])
        return int(head[9:12])


def closed_loop(
    address: tuple[str, int],
    requests: Iterator[bytes],
    *,
    connections: int,
    duration_s: float,
    on_answer: OnAnswer | None = None,
) -> Tally:
    """Send ``requests`` over ``connections`` as fast as they are answered, for ``duration_s``."""
    tally = Tally()
    opened = [_Connection(address) for _ in range(connections)]
    selector = _register(opened)
    started = time.perf_counter()
    busy = 0
    for connection, request in zip(opened, requests, strict=False):
        connection.send(request, time.perf_counter())
        busy += 1
    while busy:
        for connection, status in _answers(selector, timeout_s=10.0):
            now = time.perf_counter()
            _note(tally, status, now - connection.due_s)
            if on_answer is not None:
                on_answer(status, connection.body, connection.due_s, now)
            request = next(requests, None) if now - started < duration_s else None
            if request is None:
                busy -= 1
                # A service may close what is idle while others still wait.
                selector.unregister(connection.socket)
            else:
                connection.send(request, now)
    tally.elapsed_s = time.perf_counter() - started
    _close(selector, opened)
    return tally


def paced(
    address: tuple[str, int],
    requests: Iterator[bytes],
    *,
    connections: int,
    duration_s: float,
    per_s: float,
) -> Tally:
    """Send ``per_s`` requests a second at even intervals, over at most ``connections`` at once."""
    tally = Tally()
    opened = [_Connection(address) for _ in range(connections)]
    selector, idle = _register(opened), deque(opened)
    started = time.perf_counter()
    num_sent, num_due = 0, int(per_s * duration_s)
    while tally.num_answers < num_due:
        now = time.perf_counter()
        while idle and num_sent < num_due and started + num_sent / per_s <= now:
            idle.popleft().send(next(requests), started + num_sent / per_s)
            num_sent += 1
        wait_s = max(started + num_sent / per_s - now, 0.0) if num_sent < num_due else 1.0
        for connection, status in _answers(selector, timeout_s=wait_s if idle else 1.0):
            _note(tally, status, time.perf_counter() - connection.due_s)
            idle.append(connection)
    tally.elapsed_s = time.perf_counter() - started
    _close(selector, opened)
    return tally


def _register(opened: list[_Connection]) -> selectors.BaseSelector:
    selector = selectors.DefaultSelector()
    for connection in opened:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    return selector


def _answers(
    selector: selectors.BaseSelector, *, timeout_s: float
) -> Iterator[tuple[_Connection, int]]:
    for key, _ in selector.select(timeout_s):
        connection: _Connection = key.data
        status = connection.pull()
        if status is not None:
            yield connection, status
    for key in selector.get_map().values():
        if key.data.unsent:
            key.data.push()


def _note(tally: Tally, status: int, latency_s: float) -> None:
    tally.num_answers += 1
    tally.statuses[status] += 1
    tally.latencies_s.append(latency_s)


def _close(selector: selectors.BaseSelector, opened: list[_Connection]) -> None:
    selector.close()
    for connection in opened:
        connection.socket.close()
