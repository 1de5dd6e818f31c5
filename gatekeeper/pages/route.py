"""How every review page answers: strict headers, and errors as pages.

The Content-Security-Policy allows no script at all, so text that got into a page by mistake could
not run even if it were not escaped.
"""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import AfterValidator, StringConstraints

from gatekeeper.pages import changes, learned, plots, words
from tacit.contracts import short
from tacit.errors import InvalidInputError, NotAuthenticatedError, TacitError, TooLargeError

FOLDER = Path(__file__).parent.parent
MAX_FORM_BYTES = 64 * 1024

Field = Annotated[str, Form()]
"""One field of a form."""


def plain(text: str) -> str:
    """``text`` without NUL, to which PostgreSQL answers with an error of its own."""
    return text.replace("\x00", "")


Word = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=200),
    AfterValidator(plain),
    Query(),
]
"""What a search asks for; empty is anything."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


templates.filters.update(
    ago=words.span,
    long_json=words.long_json,
    moment=words.moment,
    percent=words.percent,
    points=plots.points,
    said=learned.said,
    safe_link=words.safe_link,
    short=short,
    span=words.span,
)
templates.globals.update(
    criterion_plot=plots.criterion_plot,
    entry_summary=words.entry_summary,
    headlines=words.HEADLINES,
    max_changes=changes.MAX_SHOWN,
    plot_width=plots.PLOT_WIDTH,
    quantity=words.quantity,
    status_words=words.STATUS_WORDS,
    worst_first=words.worst_first,
)


def render(name: str, *, code: int = 200, **values: Any) -> HTMLResponse:
    """A template as a response; everything in it is escaped."""
    values.setdefault("login", None)
    return HTMLResponse(templates.get_template(name).render(values), code)


def go(path: str) -> RedirectResponse:
    """On to another page after a form, so that a reload sends nothing twice."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


class PageRoute(APIRoute):
    """A route whose errors are pages too: to the login where there is none, else what is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler FastAPI would use, with headers and error pages around it."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                _require_small(request)
                response = await handle(request)
            except TacitError as error:
                response = _error_page(request, error)
            except RequestValidationError as error:
                invalid = InvalidInputError.of_fields(error.errors(), what="a form of this page")
                response = _error_page(request, invalid)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer


def _require_small(request: Request) -> None:
    if request.method == "POST":
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_FORM_BYTES:
            raise TooLargeError(
                f"a form of at most {MAX_FORM_BYTES} bytes", got=f"{length or 'unknown'} bytes"
            )


def _error_page(request: Request, error: TacitError) -> Response:
    if isinstance(error, NotAuthenticatedError) and request.url.path != "/login":
        target = _here(request) if request.method == "GET" else "/"
        return RedirectResponse(f"/login?next={quote(target)}", HTTPStatus.SEE_OTHER)
    title = HTTPStatus(error.status).phrase
    login = getattr(request.state, "login", None)
    return render("error.html", code=error.status, login=login, error=error, title=title)


def _here(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
