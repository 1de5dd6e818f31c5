"""``tacit webhooks``: outbound webhooks of the settings, a test, and the log of deliveries."""

from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Url, console, show
from tacit.remote import Remote

_STYLE = {"delivered": "green", "pending": "yellow", "given_up": "red"}

app = typer.Typer(help="Outbound webhooks.", no_args_is_help=True)


@app.command("list")
def webhooks_list(
    url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Endpoints of the settings, with the secrets that receivers check signatures with."""
    remote = Remote.connect(url=url, key=key, home=home)
    show(remote.get("/v1/outbound-webhooks")["webhooks"], as_json, _endpoints)


@app.command("test")
def webhooks_test(name: str, url: Url = None, key: Key = None, home: Home = None) -> None:
    """Send a test; exit code 1 if it was not delivered."""
    remote = Remote.connect(url=url, key=key, home=home)
    row = remote.post(f"/v1/outbound-webhooks/{name}/test", {})
    said = f"{row['delivery_id']} {row['state']}: {row['error'] or row['status_code']}"
    console.print(said, markup=False, highlight=False)
    raise typer.Exit(0 if row["state"] == "delivered" else 1)


@app.command("deliveries")
def webhooks_deliveries(
    endpoint: Annotated[str | None, typer.Option(help="Of this endpoint alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 50,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The newest deliveries, and how the last try of each ended."""
    remote = Remote.connect(url=url, key=key, home=home)
    answer = remote.get("/v1/outbound-webhooks/deliveries", endpoint=endpoint, limit=limit)
    show(answer["deliveries"], as_json, _deliveries)


def _endpoints(rows: list[dict[str, Any]]) -> Table:
    table = Table("name", "to", "format", "events", "secret", box=box.SIMPLE_HEAD)
    for row in rows:
        events = "\n".join(row["events"])
        table.add_row(row["name"], Text(row["to"]), row["format"], events, row["secret"])
    return table


def _deliveries(rows: list[dict[str, Any]]) -> Table:
    table = Table("made", "delivery", "type", "state", "tries", "last try", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(
            row["created_at"][:19],
            row["delivery_id"],
            row["type"],
            Text(row["state"], _STYLE[row["state"]]),
            str(row["attempts"]),
            Text(row["error"] or str(row["status_code"] or "")),
        )
    return table
