"""Control routes: what was released, what each replica serves, and rolling back.

Rolling back, and whatever ``on_rollback`` does with the batches taken back, is one transaction.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from deploy.history import batches_taken_back
from deploy.release import ReleaseDesk
from deploy.tables import ReplicaRow
from tacit.contracts import Digest, Release
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Principal, Scope

OnRollback = Callable[[Session, list[Digest], bool], None]
"""Gets the digests of the batches that were taken back, and whether they may teach again."""


class RollbackRequest(BaseModel):
    """Body of ``POST /v1/releases/rollback``."""

    model_config = ConfigDict(extra="forbid")
    to: str | None = None
    """``release_id`` to go back to; by default the one before the current weights."""
    reason: Annotated[str, Field(min_length=1, max_length=4_096, pattern=r"^[^\x00]*$")]
    keep_feedback: bool = False
    """Let the next batch learn from the feedback behind what is taken back, rather than set it
    aside for review: where the training was at fault and not what it was told."""


def allowed(keys: KeyStore, request: Request, scope: Scope, policy: str) -> Principal:
    """Who asks, if a key of ``scope`` for ``policy`` does.

    Raises NotAuthenticatedError without a good key, NotAllowedError with one for other things.
    """
    principal = bearer_principal(keys, request)
    principal.require(scope)
    principal.require_target(policy=policy)
    return principal


def create_router(
    desk: ReleaseDesk, keys: KeyStore, policy: str, on_rollback: OnRollback
) -> APIRouter:
    """The routes, for an app with ``tacit.http.install_error_handlers``."""
    router = APIRouter(prefix="/v1", tags=["releases"])

    @router.get("/releases")
    def list_releases(request: Request) -> list[dict[str, Any]]:
        """All releases, newest first; the first of them is what should serve."""
        allowed(keys, request, Scope.READ, policy)
        return [release_fields(release) for release in desk.history(policy)]

    @router.get("/replicas")
    def list_replicas(request: Request) -> list[dict[str, Any]]:
        """What each serving replica runs, and what it refused."""
        allowed(keys, request, Scope.READ, policy)
        return [_replica_fields(row) for row in desk.replicas(policy)]

    @router.post("/releases/rollback")
    def roll_back(request: Request, asked: RollbackRequest) -> dict[str, Any]:
        """Serve older weights again. 404 on an unknown release, 409 with nothing to go back to."""
        by = allowed(keys, request, Scope.REVIEW, policy).name
        release, batches = roll_back_with(
            desk,
            policy,
            to=asked.to,
            by=by,
            reason=asked.reason,
            on_rollback=on_rollback,
            keep_feedback=asked.keep_feedback,
        )
        return {**release_fields(release), "batches_taken_back": batches}

    return router


def roll_back_with(
    desk: ReleaseDesk,
    policy: str,
    *,
    to: str | None,
    by: str,
    reason: str,
    on_rollback: OnRollback,
    keep_feedback: bool = False,
) -> tuple[Release, list[Digest]]:
    """Roll back and call ``on_rollback`` in one transaction; raises what ``rollback`` raises."""
    with desk.database.session() as session:
        release = desk.rollback(
            session, policy, to=to, by=by, reason=reason, keep_feedback=keep_feedback
        )
        batches = batches_taken_back(session, policy, release)
        on_rollback(session, batches, keep_feedback)
    return release, batches


def release_fields(release: Release) -> dict[str, Any]:
    """A release as the API shows it: the contract and its id."""
    return {"release_id": release.release_id, **release.model_dump(mode="json")}


def _replica_fields(row: ReplicaRow) -> dict[str, Any]:
    return {
        "replica_id": row.replica_id,
        "serving": row.serving,
        "refused": row.refused,
        "refusal": row.refusal,
        "seen_at": row.seen_at.isoformat(),
    }
