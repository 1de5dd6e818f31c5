"""``tacit gate``: check, try out and send gate policies; explain a verdict."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from tacit.commands import campaign
from tacit.commands.options import AsJson, Home, Key, Reason, Url, console, show
from tacit.remote import Remote
from tacit.render import OUTCOME_STYLE, STATE_STYLE, candidate_page

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 2}

app = typer.Typer(help="Gate policies and verdicts.", no_args_is_help=True)
tokens = typer.Typer(help="Tokens that decide through MLflow.", no_args_is_help=True)

app.add_typer(campaign.app, name="campaign")

PolicyFile = Annotated[Path, typer.Argument(help="A gate policy in YAML.")]


@app.command("check")
def gate_check(policy: PolicyFile) -> None:
    """Read a gate policy in full; exit code 1 and the line of each fault if it cannot be."""
    from gatekeeper.policy import load_gate_policy

    read = load_gate_policy(policy)
    people = "1 person approves" if read.approvers == 1 else f"{read.approvers} people approve"
    console.print(f"{policy} is a gate policy of {len(read.criteria)} criteria; {people}")
    console.print(f"digest {read.digest()}", highlight=False)


@app.command("explain")
def gate_explain(
    candidate: str, url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False
) -> None:
    """The whole table of a verdict; exit code 0 for pass, 1 for fail, 2 for inconclusive."""
    remote = Remote.connect(url=url, key=key, home=home)
    answer = remote.get(f"/v1/candidates/{candidate}")
    show(answer, as_json, candidate_page)
    raise typer.Exit(EXIT_CODES[answer["verdict"]["outcome"]])


@app.command("dry-run")
def gate_dry_run(
    policy: PolicyFile,
    history: Annotated[
        bool, typer.Option("--history", help="All candidates so far, not only those that wait.")
    ] = False,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What a gate policy would say about the candidates that wait, or about all so far."""
    remote = Remote.connect(url=url, key=key, home=home)
    rows = remote.post("/v1/gate/dry-run", _tree(policy))["candidates"]
    show([r for r in rows if history or r["state"] == "pending"], as_json, _history)


@app.command("send")
def gate_send(policy: PolicyFile, url: Url = None, key: Key = None, home: Home = None) -> None:
    """Answer for a gate policy with your key; then put the file in place.

    Whoever sends a policy is never the only one to approve under it. A change that nobody sent
    takes two people to approve under it.
    """
    answer = Remote.connect(url=url, key=key, home=home).post("/v1/gate/policy", _tree(policy))
    console.print(f"{answer['sent_by']} answers for {answer['digest']}", highlight=False)


@tokens.command("issue")
def tokens_issue(
    candidate: str,
    reason: Reason,
    outcome: Annotated[str, typer.Option(help="approved or rejected.")] = "approved",
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Print a one-time token; set as tag `tacit.decision` of the model version, it decides."""
    remote = Remote.connect(url=url, key=key, home=home)
    body = {"outcome": outcome, "reason": reason}
    typer.echo(remote.post(f"/v1/candidates/{candidate}/tokens", body)["token"])


def _tree(path: Path) -> dict[str, Any]:
    import yaml

    from gatekeeper.policy import load_gate_policy

    load_gate_policy(path)
    tree: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tree


def _history(rows: list[dict[str, Any]]) -> Table:
    table = Table("candidate", "made", "state", "was", "would be", "because", box=box.SIMPLE_HEAD)
    for row in rows:
        would_be = row["would_be"] or "unknown"
        table.add_row(
            row["candidate_id"],
            row["created_at"][:10],
            Text(row["state"], STATE_STYLE[row["state"]]),
            Text(row["was"], OUTCOME_STYLE[row["was"]]),
            Text(would_be, OUTCOME_STYLE.get(would_be, "dim")),
            Text("\n".join(row["because"])),
        )
    return table
