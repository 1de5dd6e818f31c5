"""Promotes an approved candidate to a release, and rolls back. Open this module first.

In: a candidate with its report and batch, and the signed decision on it. Out: a signed Release,
stored with everything serving checks before it loads the weights (``deploy/verify.py``), and a
line in the ledger, all in the caller's transaction. The highest sequence of a policy line is what
should serve; ``deploy/watch.py`` notices it and ``deploy/server.py`` answers with it.

A release is never changed. Rolling back makes a new one that points at older weights and stands on
the approval those had.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from deploy.admit import check_follows, check_in_time, end_rollout, insert_release
from deploy.history import (
    named_release,
    read_release,
    release_before,
    release_rows,
    top_release,
)
from deploy.replicas import forget_replicas, replica_rows
from deploy.signed import SignedReleases
from deploy.tables import ReplicaRow
from deploy.verify import check_bundle, check_evidence, open_decision, read_bundle
from tacit.checkpoints import CheckpointStore
from tacit.contracts import (
    Decision,
    Digest,
    EvalReport,
    PolicyCandidate,
    Release,
    ReleaseBundle,
    SealedBatch,
    utc_now,
)
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError
from tacit.signing import Signer

Journal = Callable[[Session, str, str, dict[str, object]], None]
"""Appends ``(kind, subject, body)`` to the ledger within the session's transaction."""


class ReleaseDesk:
    """Makes releases; the only writer of the ``releases`` table."""

    def __init__(
        self,
        db: Database,
        store: CheckpointStore,
        signer: Signer,
        journal: Journal,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.database = db
        self._store = store
        self._signer = signer
        self._journal = journal
        self._clock = clock
        self.signed = SignedReleases(db, signer)

    def first(self, session: Session, policy: str, decision_envelope: str, *, by: str) -> Release:
        """Release 0 of a policy line, on a genesis decision; idempotent for the same decision.

        Raises IntegrityError if the decision does not let these weights through, ConflictError if
        the line has a release already or the decision has expired.
        """
        decision = open_decision(decision_envelope, verifier=self._signer)
        if decision.kind != "genesis":
            raise IntegrityError("a genesis decision", got=f"a {decision.kind} decision")
        check_evidence(decision, policy=policy, candidate=None, report=None, batch=None)
        top = top_release(session, policy)
        if top is not None:
            if top.decision_digest == decision.digest():
                return top
            raise ConflictError(
                f"policy line {policy!r} without a release", got=f"{top.release_id} on it"
            )
        evidence = ReleaseBundle(
            release_envelope="",
            decision_envelope=decision_envelope,
            candidate=None,
            report=None,
            batch=None,
        )
        return self._release(session, "genesis", decision, evidence, top=None, by=by)

    def promote(
        self,
        session: Session,
        candidate: PolicyCandidate,
        report: EvalReport,
        batch: SealedBatch,
        decision_envelope: str,
        *,
        by: str,
    ) -> Release:
        """Release an approved candidate; the same candidate on top already gives that release.

        Raises IntegrityError if the decision does not verify or is about something else, and
        ConflictError if it has expired or was used already, if the candidate was not trained from
        what serves now, or if another release was made at the same time.
        """
        decision = open_decision(decision_envelope, verifier=self._signer)
        policy = candidate.policy
        if decision.kind != "gate":
            raise IntegrityError("a gate decision", got=f"a {decision.kind} decision")
        check_evidence(decision, policy=policy, candidate=candidate, report=report, batch=batch)
        top = top_release(session, policy)
        if top is not None and top.decision_digest == decision.digest():
            return top
        if top is not None:
            self.signed.check(session, top.release_id)
        check_follows(session, candidate, decision, top)
        evidence = ReleaseBundle(
            release_envelope="",
            decision_envelope=decision_envelope,
            candidate=candidate,
            report=report,
            batch=batch,
        )
        return self._release(session, "promotion", decision, evidence, top=top, by=by)

    def rollback(
        self,
        session: Session,
        policy: str,
        *,
        to: str | None = None,
        of: str | None = None,
        by: str,
        reason: str,
        keep_feedback: bool = False,
    ) -> Release:
        """Serve older weights again, by default those that the current ones replaced.

        ``to`` names any earlier release, ``of`` the one that must be the newest still. The new
        release stands on the approval the older one had. Raises NotFoundError on an unknown ``to``,
        ConflictError with nothing to go back to, with something newer than ``of`` or when another
        release was made at the same time, IntegrityError if the older release was altered. A
        rollout of the release that is taken back ends. The ledger notes ``keep_feedback``; what
        becomes of the feedback is the caller's to do.
        """
        top = top_release(session, policy)
        if top is None or of not in {None, top.release_id}:
            raise ConflictError(
                f"{of or 'a release'} as the newest of policy line {policy!r}",
                got="none" if top is None else top.release_id,
            )
        target = named_release(session, top, to) if to is not None else release_before(session, top)
        evidence = read_bundle(target.bundle)
        # Signing what an altered row says would make the alteration look approved.
        check_bundle(evidence, policy=policy, verifier=self._signer)
        decision = open_decision(evidence.decision_envelope, verifier=self._signer)
        end_rollout(session, top.release_id, why=f"{by}: {reason}", moment=self._clock())
        note = {"reason": reason, "back_to": target.release_id, "keep_feedback": keep_feedback}
        return self._release(session, "rollback", decision, evidence, top=top, by=by, note=note)

    def current(self, policy: str) -> Release | None:
        """What should serve now."""
        with self.database.reader() as session:
            return top_release(session, policy)

    def anchor(self, policy: str) -> Digest:
        """Weights of the first release of the line. Raises NotFoundError, IntegrityError."""
        return self.signed.anchor(policy)

    def history(self, policy: str, *, limit: int | None = None) -> list[Release]:
        """All releases of the line, or the ``limit`` newest; newest first."""
        with self.database.reader() as session:
            return [read_release(row) for row in release_rows(session, policy, limit=limit)]

    def replicas(self, policy: str) -> list[ReplicaRow]:
        """What each serving replica of the line runs, and refused; dead ones for an hour."""
        with self.database.reader() as session:
            return list(replica_rows(session, policy))

    def _release(
        self,
        session: Session,
        kind: str,
        decision: Decision,
        evidence: ReleaseBundle,
        *,
        top: Release | None,
        by: str,
        note: Mapping[str, object] | None = None,
    ) -> Release:
        """``note``: of a rollback, what the ledger says about it."""
        now = self._clock()
        if note is None:
            check_in_time(decision, now)
        # Reads the manifest only: serving hashes the files, and not while a transaction is open.
        self._store.manifest(decision.weights)
        release = Release(
            policy=decision.policy,
            sequence=0 if top is None else top.sequence + 1,
            weights=decision.weights,
            decision_digest=decision.digest(),
            previous=None if top is None else top.release_id,
            rollback_of=top.release_id if note is not None and top is not None else None,
            released_by=by,
            released_at=now,
        )
        payload = release.model_dump(mode="json")
        envelope = self._signer.seal(payload)
        forget_replicas(session)
        insert_release(session, release, evidence.model_copy(update={"release_envelope": envelope}))
        body: dict[str, object] = {"release": payload, "decision": decision.decision_id, "by": by}
        self._journal(session, kind, release.release_id, {**body, **(note or {})})
        return release
