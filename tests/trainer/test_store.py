from datetime import timedelta

import pytest

from tacit.contracts import Fold, VariantChoice, VariantResult, short
from tacit.errors import IntegrityError, NotFoundError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal
from trainer.store import BatchStore, CandidateStore
from trainer.tables import BatchRow, CandidateRow


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


def trained_in_turn(database, *parts):
    """Batch ids of updates, each with a candidate but where ``trained`` is false."""
    store, sealed = BatchStore(database), seal(build.digest("parent"), mixed_events())
    ids = []
    with database.session() as session:
        for number, part in enumerate(parts):
            changes = {"sealed_at": build.MOMENT + timedelta(seconds=number), **part}
            trained = changes.pop("trained", True)
            batch = sealed.model_copy(update=changes)
            store.add(session, batch, [])
            if trained:
                made = build.candidate(batch_digest=batch.digest())
                CandidateStore(database).add(session, made)
            ids.append(batch.batch_id)
    return ids


REBUILD = {"start": build.digest("anchor")}
FOLDING = {"purpose": "consolidation", "entries": ()}


def test_updates_are_counted_from_the_last_rebuild_that_was_promoted(database):
    store = BatchStore(database)
    ids = trained_in_turn(database, {}, REBUILD, {}, FOLDING, {}, REBUILD, {}, {"policy": "other"})

    def counted(promoted, *, at_most=9):
        return store.num_updates_since_rebuild("default", promoted, at_most=at_most)

    assert counted(ids) == 1
    turned_away = ids[:5] + ids[6:]
    assert counted(turned_away) == 4
    assert counted(ids[:1]) == 6
    assert counted(ids[:1], at_most=3) == 3
    assert store.num_updates_since_rebuild("nobody", ids, at_most=9) == 0


def test_just_after_a_rebuild_another_is_not_the_next_update(database):
    ids = trained_in_turn(database, {}, {}, {"trained": False, **REBUILD}, FOLDING)
    store = BatchStore(database)
    assert store.num_updates_since_rebuild("default", ids[:2], at_most=9) == 0


def test_updates_that_were_never_trained_do_not_count(database):
    ids = trained_in_turn(database, {}, {"trained": False}, {"trained": False}, {})
    store = BatchStore(database)
    assert store.num_updates_since_rebuild("default", ids, at_most=9) == 2


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


def test_a_candidate_or_batch_that_was_altered_is_not_read(sqlite_database):
    batch, candidate = seal(build.digest("parent"), mixed_events()), build.candidate()
    with sqlite_database.session() as session:
        BatchStore(sqlite_database).add(session, batch, [])
        CandidateStore(sqlite_database).add(session, candidate)
    with sqlite_database.session() as session:
        for row in (
            session.get(BatchRow, batch.batch_id),
            session.get(CandidateRow, candidate.candidate_id),
        ):
            row.payload = row.payload.replace(build.digest("parent"), build.digest("other"))
            row.payload = row.payload.replace(build.digest("champion"), build.digest("other"))
    with pytest.raises(IntegrityError, match=batch.batch_id):
        BatchStore(sqlite_database).get(batch.batch_id)
    with pytest.raises(IntegrityError, match=candidate.candidate_id):
        CandidateStore(sqlite_database).get(candidate.candidate_id)


def test_a_candidate_without_a_choice_keeps_the_digest_it_always_had():
    plain = build.candidate()
    assert b"choice" not in plain.canonical_json()
    assert plain.candidate_id == "c-75fd1b868f19"
    assert (plain.alpha, plain.trained) == (1.0, plain.weights)


def test_a_candidate_comes_back_with_its_choice(database):
    result = VariantResult(
        alpha=0.5,
        weights=build.digest("weights"),
        stands=True,
        why="it keeps what it knew",
        versus_champion={"old-world": build.comparison()},
    )
    choice = VariantChoice(
        alpha=0.5, trained=build.digest("trained"), reason="it stands", variants=(result,)
    )
    store, candidate = CandidateStore(database), build.candidate(choice=choice)
    with database.session() as session:
        store.add(session, candidate)
    assert store.get(candidate.candidate_id) == candidate
    assert (candidate.alpha, candidate.trained) == (0.5, build.digest("trained"))
    assert candidate.digest() != build.candidate().digest()


def test_an_unknown_candidate_is_not_found(sqlite_database):
    with pytest.raises(NotFoundError, match="c-0"):
        CandidateStore(sqlite_database).get("c-0")


def test_a_consolidated_candidate_is_found_by_every_batch_it_folds(database):
    store = CandidateStore(database)
    batches = [build.digest(f"batch {i}") for i in range(3)]
    made = build.candidate(weights=build.digest("adapter"), batch_digest=batches[0])
    folds = tuple(
        Fold(weights=build.digest(f"adapter {i}"), batch_digest=batch)
        for i, batch in enumerate(batches[:2])
    )
    whole = build.candidate(
        weights=build.digest("whole"),
        batch_digest=build.digest("no events"),
        folds=folds,
        created_at=made.created_at + timedelta(hours=1),
    )
    for candidate in (made, whole, whole):  # adding again changes nothing
        with database.session() as session:
            store.add(session, candidate)
    found = [store.of_batch(f"b-{short(batch)}") for batch in batches]
    assert found == [[made, whole], [whole], []]
    assert store.get(whole.candidate_id).folds == folds
    assert "folds" not in made.model_dump()
