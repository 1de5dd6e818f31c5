"""The release desk promotes only what was approved, and always finds the way back."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.admit import insert_release
from tacit.checkpoints import CheckpointStore
from tacit.contracts import DecisionOutcome, Release
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, NotFoundError, TacitError
from tacit.signing import Signer
from tests import builders
from tests.deploy.scenes import Evidence, checkpoint, evidence, genesis, line


def test_promotion_follows_genesis_and_is_journaled(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(database, store, tmp_path)
    first = scene.first()
    shown = scene.evidence(1)
    second = scene.promote(shown)
    assert (first.sequence, first.previous) == (0, None)
    assert (second.sequence, second.previous) == (1, first.release_id)
    assert second.decision_digest == shown.decision.digest()
    assert scene.desk.current("default") == second
    assert scene.desk.anchor("default") == first.weights
    assert scene.desk.history("default") == [second, first]
    assert [(kind, subject) for kind, subject, _ in scene.journal] == [
        ("genesis", first.release_id),
        ("promotion", second.release_id),
    ]


def test_stored_bundle_opens_to_the_release_and_its_evidence(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(database, store, tmp_path)
    scene.first()
    shown = scene.evidence(1)
    release = scene.promote(shown)
    bundle = scene.bundle(release)
    assert Release.model_validate(scene.signer.open(bundle.release_envelope)) == release
    assert (bundle.candidate, bundle.report, bundle.batch) == (
        shown.candidate,
        shown.report,
        shown.batch,
    )


def test_promoting_and_founding_again_changes_nothing(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(database, store, tmp_path)
    assert scene.first() == scene.first()
    shown = scene.evidence(1, valid_until=builders.MOMENT + timedelta(hours=1))
    release = scene.promote(shown)
    scene.now += timedelta(days=1)
    assert scene.promote(shown) == release
    assert len(scene.journal) == 2


def test_another_genesis_is_refused(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    scene.first()
    with pytest.raises(ConflictError, match="without a release; got r-default-0"):
        scene.first(1)
    gate = scene.seal(scene.evidence(1).decision)
    with (
        pytest.raises(IntegrityError, match="a genesis decision; got a gate decision"),
        sqlite_database.session() as session,
    ):
        scene.desk.first(session, "default", gate, by="ada")


def _with(shown: Evidence, **changed: Any) -> Evidence:
    return Evidence(**{**vars(shown), **changed})


def _rejected(shown: Evidence) -> Evidence:
    return _with(
        shown, decision=shown.decision.model_copy(update={"outcome": DecisionOutcome.REJECTED})
    )


def _expired(shown: Evidence) -> Evidence:
    expired = builders.MOMENT - timedelta(seconds=1)
    return _with(shown, decision=shown.decision.model_copy(update={"valid_until": expired}))


def _other_report(shown: Evidence) -> Evidence:
    return _with(shown, report=shown.report.model_copy(update={"errors": ("x",)}))


def _other_batch(shown: Evidence) -> Evidence:
    return _with(shown, batch=shown.batch.model_copy(update={"watermark": {}}))


def _other_weights(shown: Evidence) -> Evidence:
    other = shown.candidate.model_copy(update={"weights": builders.digest("other")})
    return _with(shown, candidate=other)


def _other_decision(shown: Evidence) -> Evidence:
    other = shown.decision.model_copy(update={"weights": builders.digest("other")})
    return _with(shown, decision=other)


def _other_line(shown: Evidence) -> Evidence:
    return _with(shown, candidate=shown.candidate.model_copy(update={"policy": "other"}))


def _genesis(shown: Evidence) -> Evidence:
    return _with(shown, decision=genesis(shown.candidate.weights))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (_rejected, IntegrityError, "outcome is approved; got rejected"),
        (_expired, ConflictError, "before the approval expired"),
        (_other_report, IntegrityError, "report with digest"),
        (_other_batch, IntegrityError, "batch with digest"),
        (_other_weights, IntegrityError, "candidate with digest"),
        (_other_decision, IntegrityError, "candidate with weights"),
        (_other_line, IntegrityError, "policy line other; got default"),
        (_genesis, IntegrityError, "a gate decision; got a genesis decision"),
    ],
)
def test_what_the_approval_does_not_cover_is_refused(
    sqlite_database: Database,
    store: CheckpointStore,
    tmp_path: Path,
    change: Callable[[Evidence], Evidence],
    error: type[TacitError],
    says: str,
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first = scene.first()
    with pytest.raises(error, match=says):
        scene.promote(change(scene.evidence(1)))
    assert scene.desk.history("default") == [first]
    assert len(scene.journal) == 1


def test_a_decision_signed_by_someone_else_is_refused(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    scene.first()
    shown = scene.evidence(1)
    forged = Signer.load_or_create(tmp_path / "mallory").seal(
        shown.decision.model_dump(mode="json")
    )
    with (
        pytest.raises(IntegrityError, match="around the decision"),
        sqlite_database.session() as session,
    ):
        scene.desk.promote(
            session, shown.candidate, shown.report, shown.batch, forged, by="mallory"
        )


def test_weights_that_are_not_in_the_store_are_refused(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first = scene.first()
    with pytest.raises(NotFoundError, match="a checkpoint in the store"):
        scene.promote(evidence(builders.digest("nowhere"), first.weights))


def test_rollback_is_a_new_release_on_the_old_approval(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(database, store, tmp_path)
    first = scene.first()
    shown = scene.evidence(1)
    bad = scene.promote(shown)
    back = scene.rollback()
    assert (back.sequence, back.rollback_of, back.previous) == (2, bad.release_id, bad.release_id)
    assert (back.weights, back.decision_digest) == (first.weights, first.decision_digest)
    assert scene.taken_back(back) == [shown.batch.digest()]
    kind, subject, body = scene.journal[-1]
    assert (kind, subject) == ("rollback", back.release_id)
    assert (body["reason"], body["back_to"]) == ("worse", first.release_id)


def test_two_rollbacks_go_two_steps_back_and_a_third_has_nowhere_to_go(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first = scene.first()
    second = scene.promote(scene.evidence(1))
    scene.promote(scene.evidence(2))
    assert scene.rollback().weights == second.weights
    assert scene.rollback().weights == first.weights
    with pytest.raises(ConflictError, match="with other weights; got none"):
        scene.rollback()


def test_rollback_to_a_named_release_takes_back_all_batches_after_it(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first = scene.first()
    one, two = scene.evidence(1), None
    scene.promote(one)
    two = scene.evidence(2)
    scene.promote(two)
    back = scene.rollback(first.release_id)
    assert back.weights == first.weights
    assert scene.taken_back(back) == [one.batch.digest(), two.batch.digest()]


def test_a_batch_is_not_taken_back_by_a_rollback_that_keeps_its_weights(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    scene.first()
    kept = scene.promote(scene.evidence(1))
    dropped = scene.evidence(2)
    scene.promote(dropped)
    back = scene.rollback()
    assert back.weights == kept.weights
    assert scene.taken_back(back) == [dropped.batch.digest()]
    assert scene.taken_back(kept) == []


@pytest.mark.parametrize("to", ["r-default-9", "r-other-0", ""])
def test_rollback_to_an_unknown_release_is_refused(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path, to: str
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    scene.first()
    with pytest.raises(NotFoundError, match="a release of policy line 'default'"):
        scene.rollback(to)


def test_rollback_to_what_serves_now_or_with_no_release_is_refused(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    with pytest.raises(ConflictError, match="newest of policy line 'default'; got none"):
        scene.rollback()
    first = scene.first()
    with pytest.raises(ConflictError, match="other weights than serve now"):
        scene.rollback(first.release_id)


def test_rollback_outlives_the_approval_it_goes_back_to(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    scene.first()
    good = scene.promote(scene.evidence(1, valid_until=builders.MOMENT + timedelta(hours=1)))
    scene.now += timedelta(days=30)
    scene.promote(scene.evidence(2))
    assert scene.rollback().weights == good.weights


def test_rollback_does_not_sign_an_altered_row(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first = scene.first()
    scene.promote(scene.evidence(1))
    bundle = scene.bundle(first)
    forged = Signer.load_or_create(tmp_path / "mallory").seal(
        genesis(checkpoint(store, 2)).model_dump(mode="json")
    )
    scene.overwrite(first, bundle.model_copy(update={"decision_envelope": forged}))
    with pytest.raises(IntegrityError, match="around the decision"):
        scene.rollback()


def test_an_approval_is_used_once(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    scene.first()
    shown = scene.evidence(1)
    scene.promote(shown)
    scene.rollback()
    with pytest.raises(ConflictError, match=r"not used yet; got d-.* r-default-1 stands on"):
        scene.promote(shown)


def test_a_candidate_trained_from_what_was_rolled_back_is_refused(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    scene.first()
    scene.promote(scene.evidence(1))
    child = scene.evidence(2)
    scene.rollback()
    with pytest.raises(ConflictError, match="trained from what serves now"):
        scene.promote(child)


def test_of_a_promotion_and_a_rollback_at_once_both_are_whole_or_one_conflicts(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(database, store, tmp_path)
    scene.first()
    scene.promote(scene.evidence(1))
    shown, barrier = scene.evidence(2), threading.Barrier(2)
    outcomes: list[Release | TacitError] = []

    def attempt(work: Callable[[], Release]) -> None:
        barrier.wait()
        try:
            outcomes.append(work())
        except TacitError as error:
            outcomes.append(error)

    works: list[Callable[[], Release]] = [lambda: scene.promote(shown), scene.rollback]
    threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [o for o in outcomes if isinstance(o, Release)]
    refused = [o for o in outcomes if not isinstance(o, Release)]
    assert made
    assert all(isinstance(o, ConflictError) for o in refused)
    history = scene.desk.history("default")
    assert [r.sequence for r in reversed(history)] == list(range(2 + len(made)))
    assert history[0] == max(made, key=lambda r: r.sequence)


def test_two_releases_never_share_a_sequence(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(database, store, tmp_path)
    first = scene.first()
    bundle = scene.bundle(first)
    with pytest.raises(ConflictError, match="made at the same time"), database.session() as session:
        insert_release(session, first, bundle)
    assert scene.desk.history("default") == [first]
