"""What must hold before any weights are loaded: checked by serving at load, every time.

In: a release bundle, the policy line it should be for, the public key and the checkpoint store.
Out: the Release, or an IntegrityError that names exactly what differs. Nothing here reads a
database: with the key and the checkpoint a bundle can be checked on any machine.
"""

from typing import TypeVar

from pydantic import ValidationError

from tacit.checkpoints import CheckpointStore
from tacit.contracts import (
    Contract,
    Decision,
    DecisionOutcome,
    EvalReport,
    PolicyCandidate,
    Release,
    ReleaseBundle,
    SealedBatch,
)
from tacit.errors import IntegrityError, NotFoundError
from tacit.signing import Verifier

ContractT = TypeVar("ContractT", bound=Contract)


def verify_bundle(
    bundle: ReleaseBundle, *, policy: str, store: CheckpointStore, verifier: Verifier
) -> Release:
    """The release, with every signature, digest and checkpoint file behind it checked.

    Hashes the checkpoint's files, so it takes as long as reading them.
    Raises IntegrityError naming what differs.
    """
    release = check_bundle(bundle, policy=policy, verifier=verifier)
    try:
        store.verify(release.weights)
    except NotFoundError as error:
        raise IntegrityError(
            f"checkpoint {release.weights} of {release.release_id} in the store",
            got="no such folder",
            mend="Copy the checkpoint into the store or roll back.",
        ) from error
    return release


def check_bundle(bundle: ReleaseBundle, *, policy: str, verifier: Verifier) -> Release:
    """The release with everything but the checkpoint's files checked. Raises IntegrityError."""
    release = open_release(bundle.release_envelope, verifier=verifier)
    decision = open_decision(bundle.decision_envelope, verifier=verifier)
    _same("a release of policy line", policy, release.policy)
    _same("a release that stands on decision", decision.digest(), release.decision_digest)
    _same("a release of the approved weights", decision.weights, release.weights)
    check_evidence(
        decision,
        policy=policy,
        candidate=bundle.candidate,
        report=bundle.report,
        batch=bundle.batch,
    )
    _check_moment(release, decision)
    return release


def check_evidence(
    decision: Decision,
    *,
    policy: str,
    candidate: PolicyCandidate | None,
    report: EvalReport | None,
    batch: SealedBatch | None,
) -> None:
    """That ``decision`` approves, and was made about exactly this candidate, report and batch.

    Digests are recomputed from the contents. A genesis decision has no evidence at all.
    Raises IntegrityError naming what differs.
    """
    _same("a decision on policy line", policy, decision.policy)
    _same("a decision whose outcome is", DecisionOutcome.APPROVED, decision.outcome)
    if decision.kind == "genesis":
        _same("evidence of a genesis release:", "none", _present(candidate, report, batch))
        return
    if candidate is None or report is None or batch is None:
        raise IntegrityError(
            "candidate, report and batch of a gate decision", got=_present(candidate, report, batch)
        )
    _same("a candidate with digest", decision.candidate_digest, candidate.digest())
    _same("a report with digest", decision.report_digest, report.digest())
    _same("a batch with digest", decision.batch_digest, batch.digest())
    _same("a candidate with weights", decision.weights, candidate.weights)
    _same("a candidate trained on batch", batch.digest(), candidate.batch_digest)
    _same("a report on candidate", candidate.digest(), report.candidate_digest)
    _same("a report on weights", candidate.weights, report.weights)
    _same("a report that names batch", batch.digest(), report.batch_digest)
    for what, got in (("candidate", candidate), ("report", report), ("batch", batch)):
        _same(f"a {what} of policy line", policy, got.policy)


def read_bundle(text: str) -> ReleaseBundle:
    """A bundle from its JSON. Raises IntegrityError if it is not one."""
    try:
        return ReleaseBundle.model_validate_json(text)
    except ValidationError as error:
        raise IntegrityError("a release bundle", got=_first_problem(error)) from error


def open_decision(envelope: str, *, verifier: Verifier) -> Decision:
    """The decision in a signed envelope. Raises IntegrityError."""
    return _open(envelope, Decision, verifier=verifier)


def open_release(envelope: str, *, verifier: Verifier) -> Release:
    """The release in a signed envelope. Raises IntegrityError."""
    return _open(envelope, Release, verifier=verifier)


def _open(envelope: str, kind: type[ContractT], *, verifier: Verifier) -> ContractT:
    what = kind.__name__.lower()
    try:
        return kind.model_validate(verifier.open(envelope))
    except ValidationError as error:
        raise IntegrityError(f"a signed {what}", got=_first_problem(error)) from error
    except IntegrityError as error:
        raise IntegrityError(f"{error.expected} around the {what}", got=error.got) from error


def _check_moment(release: Release, decision: Decision) -> None:
    if release.rollback_of is not None:
        # The approval was in time when the weights were first promoted, which the desk checked.
        return
    if decision.kind == "genesis":
        _same("a genesis decision only at sequence", 0, release.sequence)
    if decision.valid_until is not None and release.released_at > decision.valid_until:
        raise IntegrityError(
            f"a release made before its approval expired at {decision.valid_until.isoformat()}",
            got=f"one made at {release.released_at.isoformat()}",
        )


def _same(what: str, expected: object, got: object) -> None:
    if got != expected:
        raise IntegrityError(f"{what} {expected}", got=str(got))


def _present(
    candidate: PolicyCandidate | None, report: EvalReport | None, batch: SealedBatch | None
) -> str:
    named = {"candidate": candidate, "report": report, "batch": batch}
    return ", ".join(name for name, value in named.items() if value is not None) or "none"


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place or 'it'}: {problem['msg']}"
