"""JSON API of outbound webhooks: which there are, a test, and the log of deliveries.

Everything needs scope ``admin``: whoever knows a signing secret can speak in Tacit's name.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from gatekeeper.courier import Courier
from gatekeeper.tables import WebhookDeliveryRow
from tacit.contracts import utc_now
from tacit.contracts.base import Name
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Scope


def create_webhook_router(courier: Courier, keys: KeyStore, *, policy: Name) -> APIRouter:
    """Routes under ``/v1/outbound-webhooks``."""

    def admin(request: Request) -> None:
        caller = bearer_principal(keys, request)
        caller.require(Scope.ADMIN)
        caller.require_target(policy=policy)

    router = APIRouter(
        prefix="/v1/outbound-webhooks", tags=["gatekeeper"], dependencies=[Depends(admin)]
    )
    outbox = courier.outbox

    @router.get("")
    def list_webhooks() -> dict[str, list[dict[str, Any]]]:
        """The endpoints of the settings with their signing secrets."""
        rows = [
            {
                "name": name,
                "to": settings.url or f"${settings.url_variable}",
                "format": settings.format,
                "events": settings.events,
                "secret": courier.secret(name),
            }
            for name, settings in outbox.endpoints.items()
        ]
        return {"webhooks": rows}

    @router.get("/deliveries")
    def deliveries(
        endpoint: str | None = None, limit: Annotated[int, Query(ge=1, le=1_000)] = 50
    ) -> dict[str, list[dict[str, Any]]]:
        """The newest deliveries, and how the last try of each ended."""
        return {"deliveries": [_row(row) for row in outbox.log(endpoint=endpoint, limit=limit)]}

    @router.post("/{name}/test")
    def test_webhook(name: str) -> dict[str, Any]:
        """Send a message that only says it is a test, and say how that went."""
        delivery_id = outbox.put_test(name, utc_now())
        courier.deliver(delivery_id)
        return next(_row(r) for r in outbox.log(endpoint=name) if r.delivery_id == delivery_id)

    return router


def _row(row: WebhookDeliveryRow) -> dict[str, Any]:
    return {
        "delivery_id": row.delivery_id,
        "endpoint": row.endpoint,
        "type": row.type,
        "state": row.state,
        "attempts": row.attempts,
        "status_code": row.status_code,
        "error": row.error,
        "next_at": row.next_at if row.state == "pending" else None,
        "created_at": row.created_at,
        "delivered_at": row.delivered_at,
    }
