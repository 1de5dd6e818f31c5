"""``tacit gate campaign``: the error budget that candidates share."""

from typing import Annotated, Any

import typer
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Reason, Url, show
from tacit.remote import Remote

app = typer.Typer(help="The error budget that candidates share.", no_args_is_help=True)

Line = Annotated[str | None, typer.Option("--policy", help="Policy line; by default the own.")]


@app.command("show")
def show_campaign(
    policy: Line = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """How much is spent and how many candidates it lasts for."""
    remote = Remote.connect(url=url, key=key, home=home)
    show(remote.get("/v1/campaign", policy=policy), as_json, _page)


@app.command("start")
def start_campaign(
    reason: Reason,
    policy: Line = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Begin another campaign with a whole budget; the ledger keeps who wanted it and why."""
    remote = Remote.connect(url=url, key=key, home=home)
    path = "/v1/campaign" if policy is None else f"/v1/campaign?policy={policy}"
    show(remote.post(path, {"reason": reason}), as_json, _page)


def _page(status: dict[str, Any]) -> Text:
    return Text(
        f"  campaign {status['campaign']}: {status['spent']:.4g} of {status['alpha']:g} spent on "
        f"{status['num_judged']} candidates, enough for {status['num_left']} more"
    )
