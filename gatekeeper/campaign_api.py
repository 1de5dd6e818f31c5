"""JSON API of campaigns: how much of the error budget is left, and starting another."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gatekeeper.campaign import Campaign, Campaigns
from gatekeeper.policy import CampaignPolicy, load_gate_policy
from gatekeeper.refusals import MAX_REASON_LENGTH
from tacit.config import GatekeeperSettings
from tacit.contracts.base import Name
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Scope


class CampaignStatus(BaseModel):
    """Where a policy line's campaign stands."""

    campaign: str
    alpha: float
    """Error probability of the whole campaign, by the gate policy in force."""
    spent: float
    num_judged: int
    """Candidates that spent a share."""
    num_left: int
    """Candidates that may still spend one, if each costs one share."""


class CampaignStart(BaseModel):
    """Body of ``POST /v1/campaign``."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)]
    """Why; it goes into the ledger."""


def create_router(
    campaigns: Campaigns, keys: KeyStore, settings: GatekeeperSettings, *, policy: Name
) -> APIRouter:
    """Routes under ``/v1``; ``policy`` is the line meant when a request names none."""
    router = APIRouter(prefix="/v1", tags=["gatekeeper"])
    Line = Annotated[Name, Query(alias="policy")]

    def status(campaign: Campaign) -> CampaignStatus:
        return _status(campaign, load_gate_policy(settings.gate_policy_path).campaign)

    @router.get("/campaign")
    def show_campaign(request: Request, line: Line = policy) -> CampaignStatus:
        """The campaign under way; scope ``read``."""
        caller = bearer_principal(keys, request)
        caller.require(Scope.READ)
        caller.require_target(policy=line)
        return status(campaigns.current(line))

    @router.post("/campaign")
    def start_campaign(
        request: Request, body: CampaignStart, line: Line = policy
    ) -> CampaignStatus:
        """Begin another, with a whole budget; scope ``admin``."""
        caller = bearer_principal(keys, request)
        caller.require(Scope.ADMIN)
        caller.require_target(policy=line)
        return status(campaigns.start(line, by=caller.name, reason=body.reason))

    return router


def _status(campaign: Campaign, terms: CampaignPolicy) -> CampaignStatus:
    left = max(0.0, terms.alpha - campaign.spent)
    return CampaignStatus(
        campaign=campaign.campaign_id,
        alpha=terms.alpha,
        spent=campaign.spent,
        num_judged=len(campaign.shares),
        num_left=int(left / terms.share + 1e-6),
    )
