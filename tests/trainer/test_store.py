from datetime import timedelta

import pytest

from tacit.errors import IntegrityError, NotFoundError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal
from trainer.store import BatchStore, CandidateStore


def test_a_batch_comes_back_with_its_replay(database):
    store, replay = BatchStore(database), replay_examples(3)
    batch = seal(build.digest("parent"), mixed_events(), replay)
    for _ in range(2):  # adding again changes nothing
        with database.session() as session:
            store.add(session, batch, replay)
    assert store.get(batch.batch_id) == (batch, replay)


def test_a_batch_does_not_go_in_with_other_replay(database):
    batch = seal(build.digest("parent"), mixed_events(), replay_examples(3))
    with pytest.raises(IntegrityError), database.session() as session:
        BatchStore(database).add(session, batch, replay_examples(2))
    with pytest.raises(NotFoundError):
        BatchStore(database).get(batch.batch_id)


def test_a_batch_that_is_rolled_back_is_not_there(sqlite_database):
    batch = seal(build.digest("parent"), mixed_events())

    def add_and_fail() -> None:
        with sqlite_database.session() as session:
            BatchStore(sqlite_database).add(session, batch, [])
            raise RuntimeError("later")

    with pytest.raises(RuntimeError, match="later"):
        add_and_fail()
    with pytest.raises(NotFoundError):
        BatchStore(sqlite_database).get(batch.batch_id)


def test_candidates_come_newest_first(database):
    store = CandidateStore(database)
    older = build.candidate()
    newer = build.candidate(created_at=build.MOMENT + timedelta(seconds=1))
    other = build.candidate(policy="other")
    with database.session() as session:
        for candidate in (older, newer, other, older):
            store.add(session, candidate)
    assert store.all("default") == [newer, older]
    assert store.get(older.candidate_id) == older


def test_an_unknown_candidate_is_not_found(sqlite_database):
    with pytest.raises(NotFoundError, match="c-0"):
        CandidateStore(sqlite_database).get("c-0")
