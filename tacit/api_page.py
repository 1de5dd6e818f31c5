"""``/docs``: the routes of an application on a page without script.

The pages that come with FastAPI load scripts from another host. On the port of the review pages
such a script could decide in the name of whoever is logged in; offline it shows nothing.
"""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Environment, StrictUndefined

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }} API</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { overflow-wrap: anywhere }
dt { margin-top: 1rem }
dd { margin: 0 }
</style>
<h1>{{ title }} API</h1>
<p><a href="openapi.json">openapi.json</a> has every field, for people and for what makes clients.
An API key goes into the header <code>Authorization: Bearer …</code>.</p>
<dl>
{% for method, path, summary in routes %}
<dt><code>{{ method }} {{ path }}</code></dt><dd>{{ summary }}</dd>
{% endfor %}
</dl>
</html>
"""
_template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)


def add_api_page(app: FastAPI) -> None:
    """Add ``/docs`` to ``app``, which was made without ``docs_url`` and ``redoc_url``."""

    @app.get("/docs", include_in_schema=False)
    def api_page() -> HTMLResponse:
        described = app.openapi()
        routes = [
            (method.upper(), path, operation.get("description", operation.get("summary", "")))
            for path, methods in sorted(described["paths"].items())
            for method, operation in methods.items()
        ]
        page = _template.render(title=described["info"]["title"], routes=routes)
        return HTMLResponse(page, headers=_HEADERS)
