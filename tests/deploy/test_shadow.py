"""The shadow compares two releases, and nobody sees it, waits for it or is recorded by it."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.arms import Arms, Assignment
from deploy.engines.base import GenerationRequest, NotLoadedError, Ticket
from deploy.engines.transformers import TransformersEngine
from deploy.shadow import MAX_QUEUED, Shadow
from deploy.tables import ShadowRow
from deploy.traffic import Traffic
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, SamplingParameters
from tacit.database import Database
from tests.builders import digest, user
from tests.deploy.scenes import until
from tests.deploy.serving import greedy, serving, version
from tests.deploy.test_arms import release
from tests.deploy.test_canary import begin

CHAMPION, CANARY = release(0).weights, release(1).weights
SHADOWED = Arms(release(0), release(1), shadow_share=1.0)
ASKED = GenerationRequest(user("where is my order"), SamplingParameters(temperature=0.7))


class HeldEngine:
    """An engine whose answers come when the test says so."""

    weights: Digest | None = CHAMPION
    beside: Digest | None = CANARY

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.asked: list[GenerationRequest] = []
        self.submitting = threading.Semaphore(1_000)

    def start(self) -> None: ...

    def load(self, weights: Digest) -> None: ...

    def load_beside(self, weights: Digest | None) -> None: ...

    def close(self) -> None: ...

    def submit(
        self, requests: Sequence[GenerationRequest], *, weights: Digest | None = None
    ) -> list[Ticket]:
        if weights not in (None, self.weights, self.beside):
            raise NotLoadedError("loaded weights", got=str(weights))
        from concurrent.futures import Future

        made = [Ticket(weights or CHAMPION, Future()) for _ in requests]
        self.tickets += made
        self.asked += requests
        return made


def champion_alone(_arms: Arms) -> Assignment:
    return Assignment("champion", 1.0, None)


def counted(database: Database, release_id: str = "r-default-1") -> ShadowRow | None:
    with database.reader() as session:
        return session.get(ShadowRow, release_id)


def num_compared(database: Database) -> int:
    found = counted(database)
    return 0 if found is None else found.num_compared


def test_both_answer_greedily_and_only_counts_remain(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(database, store, tmp_path) as server:
        old = server.line.desk.current("default")
        assert old is not None
        new = begin(server, shadow_share=1.0)
        answers = []
        for number in range(5):  # one after another: a request breaks off what is compared
            answers.append(server.ask(temperature=1.0, seed=number, user=f"u-{number}"))
            until(lambda n=number: num_compared(database) == n + 1)  # type: ignore[misc]
        found = counted(database, new.release_id)
    assert found is not None
    assert {answer.model for answer in answers} == {version(old.weights)}
    assert {(i.arm, i.arm_probability, i.policy_version) for i in server.recorded} == {
        ("champion", 1.0, version(old.weights))
    }
    assert len(server.recorded) == 5
    one, other = (greedy(store, r.weights) for r in (old, new))
    assert found.num_agreed == (5 if one.text == other.text else 0)
    assert found.champion_tokens == 5 * len(one.token_ids)
    assert found.canary_tokens == 5 * len(other.token_ids)
    assert found.champion_s > 0
    assert found.canary_s > 0
    assert (found.champion_errors, found.canary_errors) == (0, 0)


def test_only_the_share_that_is_said_is_compared(sqlite_database: Database) -> None:
    engine = HeldEngine()
    traffic = Traffic(engine, lambda: SHADOWED)
    drawn = iter([0.29, 0.31, 0.0])
    shadow = Shadow(traffic, sqlite_database, draw=lambda: next(drawn))
    few = Arms(release(0), release(1), shadow_share=0.3)
    for arms in (few, few, Arms(release(0)), None):
        shadow.consider(arms, lambda: [ASKED])
    assert shadow._pairs.qsize() == 1
    assert list(drawn) == [0.0], "without a shadow nothing is drawn"


def test_a_users_request_breaks_off_the_comparison(sqlite_database: Database) -> None:
    engine = HeldEngine()
    traffic = Traffic(engine, lambda: SHADOWED)
    shadow = Shadow(traffic, sqlite_database, draw=lambda: 0.0)
    shadow.start()
    try:
        shadow.consider(SHADOWED, lambda: [ASKED])
        until(lambda: len(engine.tickets) == 2)
        assert [t.weights for t in engine.tickets] == [CHAMPION, CANARY]
        assert [a.sampling.temperature for a in engine.asked] == [0.0, 0.0]
        _, (mine,) = traffic.submit([ASKED], champion_alone)
        assert all(ticket.abandoned.is_set() for ticket in engine.tickets[:2])
        assert not mine.abandoned.is_set()
        shadow.consider(SHADOWED, lambda: [ASKED])
        time.sleep(0.05)
        assert len(engine.tickets) == 3, "nothing is compared while a user waits"
        mine.future.set_result(None)  # type: ignore[arg-type]
        until(lambda: len(engine.tickets) == 5)
    finally:
        for ticket in engine.tickets:
            ticket.abandon()
        shadow.close()


def test_what_hangs_or_floods_does_not_stop_users(sqlite_database: Database) -> None:
    engine = HeldEngine()
    traffic = Traffic(engine, lambda: SHADOWED)
    shadow = Shadow(traffic, sqlite_database, draw=lambda: 0.0)
    for _ in range(MAX_QUEUED + 9):
        shadow.consider(SHADOWED, lambda: [ASKED])
    assert shadow._pairs.qsize() == MAX_QUEUED
    shadow.start()
    until(lambda: len(engine.tickets) == 2)
    engine.tickets[0].future.set_exception(RuntimeError("no"))
    engine.tickets[1].future.set_exception(RuntimeError("no"))
    until(lambda: (row := counted(sqlite_database)) is not None and row.num_dropped == 9)
    row = counted(sqlite_database)
    assert row is not None
    assert (row.num_compared, row.champion_errors, row.canary_errors) == (0, 1, 1)
    for ticket in engine.tickets:
        ticket.abandon()
    shadow._stop.set()
    traffic.submit([ASKED], champion_alone)
    shadow.close()


def test_a_request_finds_its_policy_when_the_arms_change_under_it() -> None:
    engine = HeldEngine()
    traffic = Traffic(engine, lambda: SHADOWED)
    drawn = iter([digest("gone"), CHAMPION])
    assignment, (ticket,) = traffic.submit(
        [ASKED], lambda _arms: Assignment("champion", 1.0, next(drawn))
    )
    assert assignment.weights == ticket.weights == CHAMPION
    with pytest.raises(NotLoadedError):
        traffic.submit([ASKED], lambda _arms: Assignment("champion", 1.0, digest("gone")))
    ticket.future.set_result(None)  # type: ignore[arg-type]
    assert traffic.wait_idle(0), "what could not be queued does not count as waiting"


def test_users_are_answered_while_the_shadow_is_busy(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    engine = TransformersEngine(store, max_batch_size=4, max_queue=8, device="cpu")
    with serving(sqlite_database, store, tmp_path, engine=engine) as server:
        begin(server, shadow_share=1.0)
        for number in range(30):
            assert server.ask(max_tokens=32, user=f"u-{number}").choices[0].message.content
        # A queue of 8 would refuse if shadows held places in it while users ask for all of it.
        assert len(server.ask(n=8).choices) == 8
    assert len(server.recorded) == 38
