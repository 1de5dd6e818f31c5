"""Admission: what opens the feedback API, how long an answer is remembered, and rate limits."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from collector.api.admission import Admission
from collector.api.rate_limit import RateLimiter
from collector.api.tokens import FeedbackTokens, Grant
from tacit.config import CollectorSettings
from tacit.database import Database
from tacit.errors import (
    NotAllowedError,
    NotAuthenticatedError,
    RateLimitedError,
    UnavailableError,
)
from tacit.http import install_error_handlers
from tacit.keys import KeyStore
from tacit.principal import Principal, Scope
from tacit.secrets_file import MasterSecret

MASTER = MasterSecret("m" * 43)


class Monotonic:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class CountingKeys(KeyStore):
    """A key store that counts how often it is asked."""

    num_asked = 0

    def authenticate(self, key: str | None) -> Principal:
        self.num_asked += 1
        return super().authenticate(key)


class Gate:
    """An admission with its clock and key store."""

    def __init__(self, database: Database, **collector: Any) -> None:
        self.clock = Monotonic()
        self.keys = CountingKeys(database, master=MASTER)
        self.admission = Admission(
            self.keys,
            FeedbackTokens(MASTER, self.keys),
            CollectorSettings(**collector),
            clock=self.clock,
        )

    def enter(self, authorization: str | None) -> Principal:
        return asyncio.run(self.admission.sender(request_with(authorization)))

    def key(self, name: str = "shop", **fields: Any) -> str:
        return "Bearer " + self.keys.create(name, **{"scopes": {Scope.SEND}, **fields})


def request_with(authorization: str | None) -> Request:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


@pytest.fixture
def gate(sqlite_database: Database) -> Gate:
    return Gate(sqlite_database)


def test_key_with_scope_send_is_let_in(database: Database) -> None:
    gate = Gate(database)
    principal = gate.enter(gate.key(source="helpdesk", rate_limit_per_s=3))
    assert (principal.source, principal.rate_limit_per_s) == ("helpdesk", 3)
    assert gate.enter(gate.key("boss", scopes={Scope.ADMIN})).name == "boss"
    reader = gate.key("reader", scopes={Scope.READ, Scope.REVIEW})
    for _ in range(2):
        with pytest.raises(NotAllowedError):
            gate.enter(reader)


def test_cached_key_costs_no_query_and_a_revoked_one_is_out_within_a_second(gate: Gate) -> None:
    key = gate.key()
    for step_s in (0.0, 0.5, 0.499):
        gate.clock.now += step_s
        gate.enter(key)
    assert gate.keys.num_asked == 1
    gate.keys.revoke("shop")
    gate.enter(key)  # still remembered: this is what the second is for
    gate.clock.now += 0.001
    with pytest.raises(NotAuthenticatedError, match="revoked"):
        gate.enter(key)


def test_busy_sender_does_not_prolong_what_is_remembered(gate: Gate) -> None:
    key = gate.key()
    for _ in range(30):
        gate.clock.now += 0.1
        gate.enter(key)
    assert 3 <= gate.keys.num_asked <= 4


def test_slow_lookup_counts_from_when_it_was_asked(gate: Gate) -> None:
    key = gate.key()
    look_up = gate.keys.authenticate

    def slow(text: str | None) -> Principal:
        found = look_up(text)
        gate.clock.now += 5.0
        return found

    gate.keys.authenticate = slow  # type: ignore[method-assign]
    gate.enter(key)
    gate.keys.revoke("shop")
    with pytest.raises(NotAuthenticatedError):
        gate.enter(key)


def test_token_that_was_let_in_is_out_a_second_after_its_key(gate: Gate) -> None:
    key_id = gate.key().split(".")[1]
    grant = Grant(key_id=key_id, source="s", policy="default", interaction_id="i", subject_id="u")
    token = f"Bearer {FeedbackTokens(MASTER, gate.keys).issue(grant, ttl_s=60).text}"
    assert gate.enter(token).interaction_id == "i"
    gate.keys.revoke("shop")
    gate.clock.now += 0.999
    gate.enter(token)
    gate.clock.now += 0.001
    with pytest.raises(NotAuthenticatedError, match="no longer in force"):
        gate.enter(token)


def test_failures_are_not_cached(gate: Gate) -> None:
    for _ in range(3):
        with pytest.raises(NotAuthenticatedError):
            gate.enter(f"Bearer tacit.{'0' * 12}.{'x' * 43}")
    assert gate.keys.num_asked == 3


def test_database_that_is_away_lets_nobody_new_in(gate: Gate) -> None:
    def away(_: str | None) -> Principal:
        raise UnavailableError("a database that answers")

    key = gate.key()
    gate.keys.authenticate = away  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        gate.enter(key)


def test_memory_of_keys_is_bounded_and_holds_no_key(gate: Gate) -> None:
    known = gate.admission._senders._known
    for number in range(20_000):
        known.put(str(number).encode(), Principal("k", "n", frozenset(), None, None), 1_000.0)
    assert len(known._entries) <= 4_096
    assert known.get(b"19999") is not None
    key = gate.key()
    gate.enter(key)
    assert key.removeprefix("Bearer ").encode() not in known._entries


@pytest.mark.parametrize(
    "header",
    [None, "", " ", "Bearer", "Bearer ", "Bearer \t", "Basic x", "Bearer é", "Bearer x" * 1_000,
     "Bearer " + "x" * 4_097, "Bearer ..", "Bearer a.b.c", "Bearer tacit..", "Bearer tacit.a.b"],
)  # fmt: skip
def test_what_is_no_key_is_401(gate: Gate, header: str | None) -> None:
    with pytest.raises(NotAuthenticatedError):
        gate.enter(header)


_BASE64 = "ABCXYZabcxyz0189-_="
_DEEP = "Bearer " + "W1tb" * 900 + ".e30.x"
"""A JWT whose header is 2,700 arrays, one in another."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.binary(max_size=200)
    | st.from_regex(rb"(?i)bearer +[A-Za-z0-9_.=-]{0,80}", fullmatch=True)
    | st.builds(
        lambda parts: b"Bearer " + ".".join(parts).encode(),
        st.lists(st.text(_BASE64, max_size=60), min_size=3, max_size=3),
    )
)
@example(header=_DEEP.encode())
@example(header=b"Bearer eyJhbGciOiJub25lIn0.e30.")
@example(header=b"Bearer e30.e30.e30")
@example(header=b"Bearer bnVsbA.e30.e30")
def test_arbitrary_header_is_neither_a_way_in_nor_a_crash(
    sqlite_database: Database, header: bytes
) -> None:
    gate, app = Gate(sqlite_database), FastAPI()
    install_error_handlers(app)

    @app.post("/v1/feedback")
    async def send(request: Request) -> str:
        return (await gate.admission.sender(request)).name

    http = TestClient(app, raise_server_exceptions=False)
    answer = http.post("/v1/feedback", headers=[(b"authorization", header)])
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def _sender(**fields: Any) -> Principal:
    bound: dict[str, Any] = {"key_id": "k", "name": "shop", "source": None, "policy": None}
    return Principal(**{**bound, "scopes": frozenset({Scope.SEND}), **fields})


def test_without_a_limit_everything_passes(gate: Gate) -> None:
    for _ in range(1_000):
        gate.admission.take(_sender(), 1_000)


def test_default_limit_and_the_keys_own(sqlite_database: Database) -> None:
    gate = Gate(sqlite_database, rate_limit_per_s=1.0, rate_limit_burst_s=1.0)
    gate.admission.take(_sender(), 1)
    with pytest.raises(RateLimitedError, match="at most 1 events a second") as caught:
        gate.admission.take(_sender(), 1)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    quick = _sender(key_id="quick", rate_limit_per_s=100.0)
    for _ in range(100):
        gate.admission.take(quick, 1)
    with pytest.raises(RateLimitedError):
        gate.admission.take(quick, 1)


def test_token_has_a_limit_of_its_own_within_that_of_its_key(sqlite_database: Database) -> None:
    gate = Gate(sqlite_database, rate_limit_per_s=1.5, rate_limit_burst_s=10.0)
    first, second = (_sender(token_id=t, interaction_id="i", subject_id="u") for t in "ab")
    for _ in range(10):
        gate.admission.take(first, 1)
    with pytest.raises(RateLimitedError, match="this token"):
        gate.admission.take(first, 1)
    for _ in range(5):
        gate.admission.take(second, 1)
    with pytest.raises(RateLimitedError, match="this key"):
        gate.admission.take(second, 1)


def limiter(burst_s: float = 10.0, **fields: Any) -> tuple[RateLimiter, Monotonic]:
    clock = Monotonic()
    return RateLimiter(burst_s=burst_s, clock=clock, **fields), clock


def test_burst_then_rate() -> None:
    limit, clock = limiter(burst_s=2.0)
    assert [limit.take("k", 1, rate_per_s=5) for _ in range(10)] == [0.0] * 10
    assert limit.take("k", 1, rate_per_s=5) == pytest.approx(0.2)
    clock.now += 0.2
    assert limit.take("k", 1, rate_per_s=5) == 0.0
    assert limit.take("k", 1, rate_per_s=5) > 0.0


def test_batch_beyond_the_burst_passes_and_is_paid_for() -> None:
    limit, clock = limiter(burst_s=2.0)
    assert limit.take("k", 1_000, rate_per_s=5) == 0.0
    wait_s = limit.take("k", 1, rate_per_s=5)
    assert wait_s == pytest.approx(1_000 / 5 - 2.0 + 1 / 5)
    clock.now += wait_s
    assert limit.take("k", 1_000, rate_per_s=5) == 0.0


@given(
    rate=st.floats(0.01, 1e4),
    burst_s=st.floats(0.01, 100),
    sends=st.lists(st.tuples(st.integers(1, 1_000), st.floats(0, 50)), min_size=1, max_size=40),
)
def test_waiting_as_told_is_enough_and_the_rate_is_kept(
    rate: float, burst_s: float, sends: list[tuple[int, float]]
) -> None:
    limit, clock = limiter(burst_s=burst_s)
    begin, sent = clock.now, 0
    for num_events, pause_s in sends:
        clock.now += pause_s
        wait_s = limit.take("k", num_events, rate_per_s=rate)
        if wait_s > 0:
            clock.now += wait_s
            assert limit.take("k", num_events, rate_per_s=rate) == 0.0
        # What was sent before this batch never exceeds what the time and the burst allow.
        assert sent <= (clock.now - begin + max(burst_s, 1 / rate)) * rate * (1 + 1e-6) + 1e-6
        sent += num_events


def test_keys_do_not_share_and_the_longest_silent_is_forgotten() -> None:
    limit, _ = limiter(burst_s=1.0, max_keys=2)
    for key in "ab":
        assert limit.take(key, 1, rate_per_s=1) == 0.0
        assert limit.take(key, 1, rate_per_s=1) > 0.0
    assert limit.take("c", 1, rate_per_s=1) == 0.0
    assert limit.take("b", 1, rate_per_s=1) > 0.0
    assert limit.take("a", 1, rate_per_s=1) == 0.0


def test_rivals_share_one_limit() -> None:
    limit, _ = limiter(burst_s=100.0)
    passed: list[float] = []

    def rival() -> None:
        passed.extend(limit.take("k", 1, rate_per_s=1) for _ in range(100))

    threads = [threading.Thread(target=rival) for _ in range(8)]
    run_all(threads)
    assert sum(wait_s == 0.0 for wait_s in passed) == 100


def run_all(threads: list[threading.Thread]) -> None:
    act: Callable[[threading.Thread], None]
    for act in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            act(thread)


def test_many_requests_ask_the_database_once(sqlite_database: Database) -> None:
    gate = Gate(sqlite_database)
    authorization = gate.key()

    async def enter(times: int) -> list[Principal]:
        asked = (gate.admission.sender(request_with(authorization)) for _ in range(times))
        return list(await asyncio.gather(*asked))

    assert len({principal.key_id for principal in asyncio.run(enter(50))}) == 1
    assert gate.keys.num_asked == 1


def test_answer_is_renewed_before_it_ends_and_nobody_waits(sqlite_database: Database) -> None:
    gate = Gate(sqlite_database)
    authorization = gate.key()

    async def use() -> None:
        await gate.admission.sender(request_with(authorization))
        gate.clock.now += 0.6
        await gate.admission.sender(request_with(authorization))
        await asyncio.gather(*gate.admission._senders._asked.values())
        gate.clock.now += 0.6
        await gate.admission.sender(request_with(authorization))
        assert gate.keys.num_asked == 2
        gate.keys.revoke("shop")
        gate.clock.now += 0.3
        await gate.admission.sender(request_with(authorization))
        await asyncio.gather(*gate.admission._senders._asked.values(), return_exceptions=True)
        with pytest.raises(NotAuthenticatedError):
            await gate.admission.sender(request_with(authorization))

    asyncio.run(use())
