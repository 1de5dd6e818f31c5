"""Control routes of a rollout: how far it has come, and all of the traffic at once."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from deploy.api import allowed
from deploy.rollout import RolloutDesk
from deploy.rollout_status import rollout_status
from tacit.config import RolloutSettings
from tacit.contracts import RolloutStatus
from tacit.keys import KeyStore, Scope


class FullRequest(BaseModel):
    """Body of ``POST /v1/rollout/full``."""

    model_config = ConfigDict(extra="forbid")
    release: str | None = None
    """``release_id`` that is meant; by default whichever is under way."""
    reason: Annotated[str, Field(min_length=1, max_length=4_096, pattern=r"^[^\x00]*$")]


def create_rollout_router(
    desk: RolloutDesk, keys: KeyStore, policy: str, settings: RolloutSettings
) -> APIRouter:
    """The routes, for an app with ``tacit.http.install_error_handlers``."""
    router = APIRouter(prefix="/v1", tags=["releases"])

    @router.get("/rollout")
    def show_rollout(request: Request) -> RolloutStatus | None:
        """The rollout under way, null without one; scope ``read``."""
        allowed(keys, request, Scope.READ, policy)
        return rollout_status(desk, policy, settings)

    @router.post("/rollout/full")
    def go_full(request: Request, asked: FullRequest) -> dict[str, str]:
        """Let the release answer all requests at once; scope ``review``.

        404 with no rollout under way, 409 if it moved meanwhile.
        """
        by = allowed(keys, request, Scope.REVIEW, policy).name
        rollout = desk.finish(policy, by=by, reason=asked.reason, seen=asked.release)
        return {"release_id": rollout.release_id, "stage": "full"}

    return router
