"""Completed tokens a second of each server, in rounds that take turns, and what recording costs."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psutil

from benchmarks.load import closed_loop
from benchmarks.serve.model import requests
from benchmarks.serve.servers import Server

CLIENTS = 16


class Round(NamedTuple):
    """One server under load for a while."""

    num_tokens: int
    wall_s: float
    cpu_s: float
    """Of the server's process."""

    @property
    def per_s(self) -> float:
        """Completed tokens a second."""
        return self.num_tokens / self.wall_s


Rounds = dict[tuple[str, int], list[Round]]
"""By server and number of clients."""


def take_turns(
    servers: Sequence[Server], texts: Sequence[str], *, num_rounds: int, duration_s: float
) -> Rounds:
    """Load each server in turn, with many clients and with one; the others sleep."""
    rounds: Rounds = defaultdict(list)
    for _ in range(num_rounds):
        for server in servers:
            for clients in (CLIENTS, 1):
                with server.awake():
                    rounds[server.name, clients].append(
                        load(server, texts, clients=clients, duration_s=duration_s)
                    )
    return rounds


def load(server: Server, texts: Sequence[str], *, clients: int, duration_s: float) -> Round:
    """Closed-loop load. Raises RuntimeError on an answer that is an error."""
    num_tokens = 0

    def count(status: int, body: bytes, _sent_s: float, _came_s: float) -> None:
        nonlocal num_tokens
        if status != 200:
            raise RuntimeError(f"expected 200 of {server.name}; got {status}: {body[:200]!r}")
        num_tokens += json.loads(body)["usage"]["completion_tokens"]

    process = psutil.Process(server.pid)
    before = process.cpu_times()
    tally = closed_loop(
        server.address,
        requests(texts, server.model, key=server.key),
        connections=clients,
        duration_s=duration_s,
        on_answer=count,
    )
    after = process.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    return Round(num_tokens, tally.elapsed_s, cpu_s)


def ratio(rounds: Rounds, name: str, peer: str, *, clients: int) -> float:
    """Tokens a second of ``name`` over those of ``peer``: the median of the rounds."""
    pairs = zip(rounds[name, clients], rounds[peer, clients], strict=True)
    return statistics.median(mine.per_s / theirs.per_s for mine, theirs in pairs)


def cpu_ratio(rounds: Rounds, name: str, peer: str, *, clients: int) -> float:
    """The same for tokens a second of CPU, which other work on the machine disturbs less."""
    pairs = zip(rounds[name, clients], rounds[peer, clients], strict=True)
    return statistics.median(
        (mine.num_tokens / mine.cpu_s) / (theirs.num_tokens / theirs.cpu_s)
        for mine, theirs in pairs
    )


def recording_cost(server: Server, texts: Sequence[str], *, duration_s: float) -> float:
    """p50 latency of requests that are recorded over that of requests that are not, in turns."""
    latencies: list[float] = []
    with server.awake():
        closed_loop(
            server.address,
            _in_turns(server, texts),
            connections=1,
            duration_s=duration_s,
            on_answer=lambda _status, _body, sent_s, came_s: latencies.append(came_s - sent_s),
        )
    return statistics.median(latencies[::2]) / statistics.median(latencies[1::2])


def _in_turns(server: Server, texts: Sequence[str]) -> Iterator[bytes]:
    recorded = requests(texts, server.model, key=server.key)
    unrecorded = requests(texts, server.model, key=server.key, recorded=False)
    for pair in zip(recorded, unrecorded, strict=True):
        yield from pair
