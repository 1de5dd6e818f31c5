"""DirectIntake: feedback from servers, past the web framework's own steps.

Of what a request costs, routing and middleware of the framework are two thirds, and intake needs
none of it. So ``POST /v1/feedback`` leaves the usual way before both. What comes from a browser,
which needs CORS headers, and every other request goes on.
"""

from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from collector.api.intake import Intake
from tacit.http import answer_error

PATH = "/v1/feedback"


class _Route(NamedTuple):
    path: str


_ROUTE = _Route(PATH)


class DirectIntake:
    """ASGI middleware, inside that which counts requests."""

    def __init__(self, app: ASGIApp, *, intake: Intake) -> None:
        self._app = app
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request here, or let the application do it."""
        if not _is_ours(scope):
            await self._app(scope, receive, send)
            return
        # As the router leaves it, for whoever counts requests by route.
        scope["route"] = _ROUTE
        request = Request(scope, receive)
        try:
            response: Response = await self._intake.take(request)
        except ClientDisconnect:
            return
        except Exception as error:
            # The edge of the application, which answers so itself.
            response = answer_error(request, error)
        await response(scope, receive, send)


def _is_ours(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["path"] == PATH
        and scope["method"] == "POST"
        and not any(name == b"origin" for name, _ in scope["headers"])
    )
