"""Sealed batches and candidates in the database. What is added is never changed."""

import json
from collections.abc import Collection, Iterator

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from tacit.contracts import Digest, PolicyCandidate, ReplayExample, SealedBatch, short
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, NotFoundError
from trainer.seal import verify_replay
from trainer.tables import BatchRow, CandidateRow, FoldRow


class BatchStore:
    """Batch manifests with the replay examples they name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, session: Session, batch: SealedBatch, replay: list[ReplayExample]) -> None:
        """Keep a batch; adding the same again changes nothing.

        Raises IntegrityError if ``replay`` is not what the batch names, ConflictError if another
        batch has the same short id.
        """
        verify_replay(batch, replay)
        known = session.get(BatchRow, batch.batch_id)
        if known is not None:
            _check_same("batch", batch.batch_id, known.digest, batch.digest())
            return
        session.add(
            BatchRow(
                batch_id=batch.batch_id,
                policy=batch.policy,
                digest=batch.digest(),
                payload=batch.model_dump_json(),
                replay=json.dumps([example.model_dump(mode="json") for example in replay]),
                created_at=batch.sealed_at,
            )
        )
        session.flush()

    def get(self, batch_id: str) -> tuple[SealedBatch, list[ReplayExample]]:
        """A batch and its replay examples in order. Raises NotFoundError, IntegrityError."""
        with self._db.reader() as session:
            row = session.get(BatchRow, batch_id)
        if row is None:
            raise NotFoundError("a sealed batch", got=batch_id)
        batch = SealedBatch.model_validate_json(row.payload)
        _check_intact("batch", batch_id, row.digest, batch.digest())
        replay = [ReplayExample.model_validate(raw) for raw in json.loads(row.replay)]
        verify_replay(batch, replay)
        return batch, replay

    def num_updates_since_rebuild(
        self, policy: str, promoted: Collection[str], *, at_most: int
    ) -> int:
        """How many updates were trained after the newest rebuild that is among ``promoted``.

        ``promoted`` are batch ids. All updates if none of them is a rebuild, but ``at_most``. 0
        just after a rebuild, whatever came of it: another one is not the next update.
        """
        is_trained = exists().where(CandidateRow.batch_id == BatchRow.batch_id)
        newest_first = (
            select(BatchRow.batch_id, BatchRow.payload, is_trained)
            .where(BatchRow.policy == policy)
            .order_by(BatchRow.created_at.desc(), BatchRow.batch_id)
            .execution_options(yield_per=1)  # manifests are large, and few have to be read
        )
        number, is_newest = 0, True
        with self._db.reader() as session, session.execute(newest_first) as rows:
            for batch_id, payload, trained in rows:
                batch = SealedBatch.model_validate_json(payload)
                if batch.purpose != "update":
                    continue
                if batch.start is not None and (is_newest or batch_id in promoted):
                    break
                number, is_newest = number + trained, False
                if number >= at_most:
                    break
        return number


class CandidateStore:
    """Candidates of all policy lines."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, session: Session, candidate: PolicyCandidate) -> None:
        """Keep a candidate; adding the same again changes nothing. Raises ConflictError."""
        known = session.get(CandidateRow, candidate.candidate_id)
        if known is not None:
            _check_same("candidate", candidate.candidate_id, known.digest, candidate.digest())
            return
        session.add(
            CandidateRow(
                candidate_id=candidate.candidate_id,
                policy=candidate.policy,
                digest=candidate.digest(),
                weights=candidate.weights,
                batch_id=f"b-{short(candidate.batch_digest)}",
                payload=candidate.model_dump_json(),
                created_at=candidate.created_at,
            )
        )
        session.add_all(
            FoldRow(candidate_id=candidate.candidate_id, batch_id=batch_id)
            for batch_id in {f"b-{short(fold.batch_digest)}" for fold in candidate.folds}
        )
        session.flush()

    def get(self, candidate_id: str) -> PolicyCandidate:
        """One candidate. Raises NotFoundError, IntegrityError."""
        with self._db.reader() as session:
            row = session.get(CandidateRow, candidate_id)
        if row is None:
            raise NotFoundError("a candidate", got=candidate_id)
        candidate = PolicyCandidate.model_validate_json(row.payload)
        _check_intact("candidate", candidate_id, row.digest, candidate.digest())
        return candidate

    def all(self, policy: str) -> list[PolicyCandidate]:
        """All candidates of a policy line, newest first."""
        query = (
            select(CandidateRow)
            .where(CandidateRow.policy == policy)
            .order_by(CandidateRow.created_at.desc(), CandidateRow.candidate_id)
        )
        with self._db.reader() as session:
            rows = session.scalars(query).all()
        return [PolicyCandidate.model_validate_json(row.payload) for row in rows]

    def of_batch(self, batch_id: str) -> list[PolicyCandidate]:
        """Candidates that learned from a batch or fold one that did, oldest first."""
        folding = select(FoldRow.candidate_id).where(FoldRow.batch_id == batch_id)
        query = select(CandidateRow).where(
            (CandidateRow.batch_id == batch_id) | CandidateRow.candidate_id.in_(folding)
        )
        with self._db.reader() as session:
            rows = session.scalars(query.order_by(CandidateRow.created_at)).all()
        return [PolicyCandidate.model_validate_json(row.payload) for row in rows]

    def parent_of(self, weights: Digest) -> Digest | None:
        """What ``weights`` were trained from; None for a first release."""
        with self._db.reader() as session:
            row = _with_weights(session, weights)
        return None if row is None else PolicyCandidate.model_validate_json(row.payload).parent

    def lineage(self, weights: Digest) -> list[PolicyCandidate]:
        """The candidates that lead to ``weights``, newest first; empty for a first release."""
        with self._db.reader() as session:
            return list(_walk(session, weights))


def _walk(session: Session, weights: Digest) -> Iterator[PolicyCandidate]:
    while True:
        row = _with_weights(session, weights)
        if row is None:
            return
        candidate = PolicyCandidate.model_validate_json(row.payload)
        yield candidate
        weights = candidate.parent


def _with_weights(session: Session, weights: Digest) -> CandidateRow | None:
    return session.scalar(select(CandidateRow).where(CandidateRow.weights == weights).limit(1))


def _check_intact(what: str, short_id: str, known: str, digest: str) -> None:
    """The id is the beginning of the digest, so that row and id vouch for the payload."""
    if known != digest or not short_id.endswith(short(digest)):
        raise IntegrityError(f"{what} {short_id} as it was kept, with digest {known}", got=digest)


def _check_same(what: str, short_id: str, known: str, digest: str) -> None:
    if known != digest:
        raise ConflictError(f"{what} {short_id} with digest {known}", got=digest)
