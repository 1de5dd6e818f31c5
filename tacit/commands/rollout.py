"""``tacit rollout``: how far the newest release has come, and all of the traffic at once."""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Url, console, show
from tacit.remote import Remote


def rollout(
    full: Annotated[bool, typer.Option("--full", help="Let it answer all requests now.")] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", "-m", help="Why --full; kept in the ledger.")
    ] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The rollout under way: stage, share, feedback of both releases, what is still needed."""
    if full != (reason is not None):
        raise typer.BadParameter("--full and --reason go together")
    remote = Remote.connect(url=url, key=key, home=home)
    if full:
        done = remote.post("/v1/rollout/full", {"reason": reason})
        console.print(f"{done['release_id']} answers all requests")
        return
    show(remote.get("/v1/rollout"), as_json, _page)


def _page(status: dict[str, Any] | None) -> Text | Group:
    if status is None:
        return Text("  no rollout under way")
    part = "requests" if status["stage"] == "shadow" else "subjects"
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("release", f"{status['release_id']} beside {status['champion']}")
    table.add_row("stage", f"{status['stage']}, {100 * status['share']:.3g} % of {part}")
    table.add_row("since", f"{status['since'][:19]}: {status['why']}")
    table.add_row("then", status["following"])
    table.add_row("needs", status["needs"])
    parts: list[Any] = [table]
    if status["shadow"] is not None:
        parts.append(_shadow(status["shadow"]))
    if status["evidence"] is not None:
        parts.append(_arms(status["evidence"]))
    return Group(*parts)


def _shadow(counts: dict[str, Any]) -> Table:
    table = Table("shadow", "errors", "tokens", "seconds", box=None)
    for arm in ("champion", "canary"):
        row = (str(counts[f"{arm}_{what}"]) for what in ("errors", "tokens"))
        table.add_row(arm, *row, f"{counts[f'{arm}_s']:.2f}")
    table.caption = (
        f"{counts['num_agreed']} of {counts['num_compared']} answers agree, "
        f"{counts['num_dropped']} not compared"
    )
    return table


def _arms(evidence: dict[str, Any]) -> Table:
    table = Table("arm", "feedback", "subjects", "success", "interval", box=None)
    for arm in ("champion", "canary"):
        row = evidence[arm]
        mean = "-" if row["mean"] is None else f"{row['mean']:.3f}"
        bounds = f"{row['low']:.3f} to {row['high']:.3f}"
        table.add_row(arm, str(row["num_feedback"]), str(row["num_subjects"]), mean, bounds)
    return table
