"""``tacit consolidate``: fold the promoted adapters into the weights under them."""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Url, show
from tacit.contracts import short
from tacit.remote import Remote

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would do; do nothing.")]


def consolidate(
    dry_run: DryRun = False,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Have the running loop fold the promoted adapters into a new full checkpoint.

    It becomes a candidate like any other, and waits for a decision.
    """
    remote = Remote.connect(url=url, key=key, home=home)
    plan = remote.post("/v1/consolidation", {"dry_run": dry_run})
    show({**plan, "dry_run": dry_run}, as_json, _page)


def _page(plan: dict[str, Any]) -> Group:
    would = "would fold" if plan["dry_run"] else "folds"
    table = Table("adapter", "learned from", box=None)
    for fold in plan["folds"]:
        table.add_row(short(fold["weights"]), f"b-{short(fold['batch_digest'])}")
    number = len(plan["folds"])
    megabytes = plan["size_bytes"] / 1e6
    return Group(
        Text(f"  {plan['cycle_id']} {would} {number} update{'s' if number != 1 else ''}"),
        table,
        Text(f"  into {short(plan['base'])}: a full checkpoint of about {megabytes:,.1f} MB"),
    )
