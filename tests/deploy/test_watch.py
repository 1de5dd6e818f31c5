"""A replica follows the newest release that verifies and says what it refused."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from deploy.arms import Arms
from deploy.engines.base import GenerationRequest, Ticket
from deploy.tables import ReleaseRow, ReplicaRow, Stage
from deploy.watch import ReleaseWatcher
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.contracts import Digest
from tacit.database import Database
from tacit.errors import UnavailableError
from tests.deploy.scenes import Line, line, until


class ListEngine:
    """An engine that only notes what it is told to load."""

    on_load: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.loaded: list[Digest] = []
        """In the order of loading; taking over from beside is not loading."""
        self.serving: Digest | None = None
        self.beside: Digest | None = None
        self.broken: Exception | None = None

    @property
    def weights(self) -> Digest | None:
        return self.serving

    def start(self) -> None: ...

    def load(self, weights: Digest) -> None:
        if self.broken is not None:
            raise self.broken
        if weights != self.beside:
            self.loaded.append(weights)
            self.on_load()
        self.serving, self.beside = weights, None

    def load_beside(self, weights: Digest | None) -> None:
        if weights is not None and self.broken is not None:
            raise self.broken
        if weights is not None:
            self.loaded.append(weights)
            self.on_load()
        self.beside = weights

    def submit(
        self, requests: Sequence[GenerationRequest], *, weights: Digest | None = None
    ) -> list[Ticket]:
        raise UnavailableError("no requests in these tests")

    def close(self) -> None: ...


class Watched:
    """A line, an engine and a watcher on a clock that stands still."""

    def __init__(self, database: Database, store: CheckpointStore, folder: Path) -> None:
        self.line: Line = line(database, store, folder)
        self.engine = ListEngine()
        self.now_s = 0.0
        self._settings = Settings(home=folder)
        self.watcher = self._watcher()

    def _watcher(self) -> ReleaseWatcher:
        return ReleaseWatcher(
            self._settings,
            db=self.line.database,
            engine=self.engine,
            store=self.line.store,
            verifier=self.line.signer,
            clock=lambda: self.now_s,
        )

    @property
    def row(self) -> ReplicaRow:
        (row,) = self.line.desk.replicas("default")
        return row

    def restart(self) -> None:
        """Another process takes the place of this one, which was killed."""
        self.engine = ListEngine()
        self.watcher = self._watcher()

    def flip(self, weights: Digest) -> None:
        path = self.line.store.path(weights) / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


@pytest.fixture
def watched(database: Database, store: CheckpointStore, tmp_path: Path) -> Watched:
    return Watched(database, store, tmp_path)


def test_it_follows_promotions_and_rollbacks(watched: Watched) -> None:
    watched.watcher.check()
    assert watched.row.serving is None
    first = watched.line.first()
    watched.watcher.check()
    second = watched.line.promote(watched.line.evidence(1))
    watched.watcher.check()
    watched.watcher.check()
    back = watched.line.rollback()
    watched.watcher.check()
    assert watched.engine.loaded == [first.weights, second.weights, first.weights]
    assert (watched.row.serving, watched.row.refused) == (back.release_id, None)


def test_a_refused_release_leaves_the_old_one_and_is_tried_again_later(watched: Watched) -> None:
    first = watched.line.first()
    watched.watcher.check()
    shown = watched.line.evidence(1)
    watched.flip(shown.candidate.weights)
    bad = watched.line.promote(shown)
    watched.watcher.check()
    assert watched.engine.loaded == [first.weights]
    assert (watched.row.serving, watched.row.refused) == (first.release_id, bad.release_id)
    assert "model.safetensors" in (watched.row.refusal or "")
    watched.flip(shown.candidate.weights)
    watched.now_s = 29.9
    watched.watcher.check()
    assert watched.engine.loaded == [first.weights]
    watched.now_s = 30.0
    watched.watcher.check()
    assert watched.engine.loaded == [first.weights, bad.weights]
    assert (watched.row.serving, watched.row.refused) == (bad.release_id, None)
    assert watched.row.refusal is None


def test_a_refused_release_is_tried_again_as_soon_as_its_row_changes(watched: Watched) -> None:
    first = watched.line.first()
    good = watched.line.bundle(first)
    watched.line.overwrite(first, good.model_copy(update={"release_envelope": "{}"}))
    watched.watcher.check()
    assert watched.row.serving is None
    assert "around the release" in (watched.row.refusal or "")
    watched.line.overwrite(first, good)
    watched.watcher.check()
    assert watched.row.serving == first.release_id


def test_a_rollback_ends_a_refusal(watched: Watched) -> None:
    watched.line.first()
    watched.watcher.check()
    shown = watched.line.evidence(1)
    watched.flip(shown.candidate.weights)
    watched.line.promote(shown)
    watched.watcher.check()
    back = watched.line.rollback()
    watched.watcher.check()
    assert (watched.row.serving, watched.row.refused) == (back.release_id, None)


def test_a_model_that_cannot_be_loaded_is_a_refusal_too(watched: Watched) -> None:
    first = watched.line.first()
    watched.watcher.check()
    watched.engine.broken = MemoryError("not enough")
    watched.line.promote(watched.line.evidence(1))
    watched.watcher.check()
    assert watched.row.serving == first.release_id
    assert watched.row.refusal == "MemoryError: not enough"


def test_the_bundle_of_another_release_is_refused(watched: Watched) -> None:
    first = watched.line.first()
    second = watched.line.promote(watched.line.evidence(1))
    watched.watcher.check()
    third = watched.line.promote(watched.line.evidence(2))
    watched.line.overwrite(third, watched.line.bundle(first))
    watched.watcher.check()
    assert watched.row.serving == second.release_id
    assert "the bundle of r-default-2; got that of r-default-0" in (watched.row.refusal or "")


def test_a_line_whose_newest_release_vanished_does_not_go_back(
    watched: Watched, database: Database
) -> None:
    watched.line.first()
    second = watched.line.promote(watched.line.evidence(1))
    watched.watcher.check()
    with database.session() as session:
        session.execute(
            update(ReleaseRow)
            .where(ReleaseRow.release_id == second.release_id)
            .values(policy="hidden")
        )
    watched.watcher.check()
    assert watched.engine.loaded == [second.weights]
    assert "a release after r-default-1, which serves" in (watched.row.refusal or "")


def test_it_takes_a_canary_up_moves_its_share_and_lets_it_take_over(watched: Watched) -> None:
    first = watched.line.first()
    watched.watcher.check()
    second = watched.line.promote(watched.line.evidence(1), canary_shares=(0.1, 0.5))
    seen = []
    for share in (0.1, 0.5):
        watched.watcher.check()
        seen.append((watched.row.serving, watched.row.canary, watched.row.canary_share))
        assert (watched.engine.weights, watched.engine.beside) == (first.weights, second.weights)
        if share < 0.5:
            watched.line.move(Stage.CANARY, 0.5)
    assert seen == [(first.release_id, second.release_id, share) for share in (0.1, 0.5)]
    watched.flip(second.weights)  # it was verified when it was loaded, and is not loaded again
    watched.line.move(Stage.FULL)
    watched.watcher.check()
    assert (watched.row.serving, watched.row.canary) == (second.release_id, None)
    assert watched.engine.loaded == [first.weights, second.weights]
    assert watched.engine.beside is None


def test_a_canary_that_does_not_follow_what_serves_is_refused(
    watched: Watched, database: Database
) -> None:
    first = watched.line.first()
    second = watched.line.promote(watched.line.evidence(1))
    third = watched.line.promote(watched.line.evidence(2), canary_shares=(0.1,))
    hidden = ReleaseRow.release_id == second.release_id
    with database.session() as session:
        session.execute(update(ReleaseRow).where(hidden).values(policy="hidden"))
    watched.watcher.check()
    assert (watched.row.serving, watched.row.canary) == (first.release_id, None)
    assert watched.row.refused == third.release_id
    assert "a canary that follows r-default-0, which serves; got one that follows r-default-1" in (
        watched.row.refusal or ""
    )


def test_an_end_of_a_canary_unloads_it_before_the_rollback_is_considered(watched: Watched) -> None:
    first = watched.line.first()
    watched.watcher.check()
    watched.line.promote(watched.line.evidence(1), canary_shares=(0.1,))
    watched.watcher.check()
    back = watched.line.rollback()
    watched.engine.broken = MemoryError("nothing may be loaded for it")
    watched.watcher.check()
    assert (watched.row.serving, watched.row.canary) == (back.release_id, None)
    assert (watched.engine.weights, watched.engine.beside) == (first.weights, None)


def test_a_replica_that_starts_amid_a_rollout_answers_once_it_holds_both(watched: Watched) -> None:
    first = watched.line.first()
    second = watched.line.promote(watched.line.evidence(1), canary_shares=(0.1,))
    answers: list[object] = []
    watched.engine.on_load = lambda: answers.append(watched.watcher.arms)
    watched.watcher.check()
    assert watched.engine.loaded == [first.weights, second.weights]
    assert answers == [None, None], "someone whom the canary answers meets the champion"
    assert watched.watcher.arms == Arms(first, second, share=0.1)


def test_a_replica_that_starts_amid_the_rollout_of_an_altered_canary_answers_without_it(
    watched: Watched,
) -> None:
    first = watched.line.first()
    second = watched.line.promote(watched.line.evidence(1), canary_shares=(0.1,))
    watched.watcher.check()
    watched.flip(second.weights)
    watched.restart()
    watched.watcher.check()
    assert watched.watcher.arms == Arms(first)
    assert watched.engine.loaded == [first.weights]
    assert (watched.row.serving, watched.row.canary) == (first.release_id, None)
    assert watched.row.refused == second.release_id


def test_a_heartbeat_is_written_now_and_then_and_the_row_goes_with_the_replica(
    watched: Watched,
) -> None:
    watched.line.first()
    watched.watcher.check()
    written = watched.row.seen_at
    watched.now_s = 1.9
    watched.watcher.check()
    assert watched.row.seen_at == written
    watched.now_s = 2.0
    watched.watcher.check()
    assert watched.row.seen_at > written
    watched.watcher.close()
    assert watched.line.desk.replicas("default") == []


def test_the_thread_outlives_a_database_that_is_away(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    watched = Watched(sqlite_database, store, tmp_path)
    first = watched.line.first()
    with sqlite_database.session() as session:
        session.connection().exec_driver_sql("ALTER TABLE releases RENAME TO away")
    watched.watcher.start()
    with sqlite_database.session() as session:
        session.connection().exec_driver_sql("ALTER TABLE away RENAME TO releases")
    until(lambda: watched.engine.loaded == [first.weights])
    watched.watcher.close()
