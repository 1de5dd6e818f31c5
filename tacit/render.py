"""Answers of the control API as tables for the terminal."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

OUTCOME_STYLE = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
STATE_STYLE = {
    "pending": "yellow",
    "approved": "green",
    "rejected": "red",
    "expired": "dim",
    "superseded": "dim",
}


def status_page(status: dict[str, Any]) -> Table:
    """``GET /v1/status``."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("policy line", status["policy"])
    kind = " consolidation" if status["cycle_purpose"] == "consolidation" else ""
    table.add_row("cycle", f"{status['cycle_id'] or '-'}  {status['cycle_state'] or ''}{kind}")
    if status["last_state"] is not None:
        ended = f"{status['last_state']}  {status['last_reason'] or ''}"
        table.add_row("the cycle before", ended)
    table.add_row("serves", f"{status['release_id'] or '-'}  {(status['weights'] or '')[7:19]}")
    if status["rollout"] is not None:
        table.add_row("rolling out", status["rollout"])
    events = ", ".join(f"{count} {name}" for name, count in status["events"].items() if count)
    table.add_row("feedback", events or "none yet")
    table.add_row("MLflow", status["mlflow_url"] or "-")
    return table


def candidates_table(answer: dict[str, Any]) -> Table:
    """``GET /v1/candidates``."""
    table = Table("candidate", "state", "verdict", "made", box=None)
    for row in answer["candidates"]:
        table.add_row(
            row["candidate_id"],
            Text(row["state"], STATE_STYLE[row["state"]]),
            Text(row["verdict"], OUTCOME_STYLE[row["verdict"]]),
            row["created_at"][:19],
        )
    return table


def candidate_page(answer: dict[str, Any]) -> Group:
    """``GET /v1/candidates/{id}``: the verdict with every criterion, then what was decided."""
    verdict = answer["verdict"]
    head = Text.assemble(
        f"  candidate {answer['candidate_id']} is {answer['state']}, the verdict: ",
        (verdict["outcome"], OUTCOME_STYLE[verdict["outcome"]]),
    )
    parts: list[Any] = [head, _criteria(verdict["criteria"])]
    if answer["decision"] is not None:
        decision = answer["decision"]
        said = f"  {decision['outcome']} by {decision['decided_by']}: {decision['reason']}"
        parts.append(Text(said))
    if answer["mlflow_url"]:
        parts.append(Text(f"  {answer['mlflow_url']}"))
    return Group(*parts)


def _criteria(rows: list[dict[str, Any]]) -> Table:
    table = Table("", "criterion", "n", "why", box=None)
    for row in rows:
        style = OUTCOME_STYLE[row["outcome"]]
        table.add_row(Text(row["outcome"], style), row["name"], str(row["num_items"]), row["why"])
    return table


def releases_table(rows: list[dict[str, Any]]) -> Table:
    """``GET /v1/releases``."""
    table = Table("release", "weights", "by", "when", "takes back", box=None)
    for row in rows:
        table.add_row(
            row["release_id"],
            row["weights"][7:19],
            row["released_by"],
            row["released_at"][:19],
            row["rollback_of"] or "",
        )
    return table
