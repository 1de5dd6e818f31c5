"""``tacit dead-letter``: look at records that could not be taken, replay them, drop them."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Url, console, show
from tacit.errors import InvalidInputError
from tacit.remote import Remote

app = typer.Typer(help="Records that could not be taken.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(help="topic:partition:offset, as `list` shows.")]
ForReason = Annotated[str | None, typer.Option("--reason", help="All letters of this reason.")]
Everything = Annotated[bool, typer.Option("--all", help="All letters.")]
_MAX_IDS = 1_000
_PAYLOAD_WIDTH = 60


@app.command("list")
def list_letters(
    reason: Annotated[str | None, typer.Option(help="Only letters of this reason.")] = None,
    replayed: Annotated[bool, typer.Option(help="Those replayed before, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=_MAX_IDS)] = 50,
    after: Annotated[str | None, typer.Option(help="Id of the last letter seen.")] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Dead letters, newest first, with the beginning of each payload."""
    answer = Remote.connect(url=url, key=key, home=home).get(
        "/v1/dead-letters", reason=reason, replayed=replayed, limit=limit, after=after
    )
    show(answer, as_json, _letters_table)


@app.command("show")
def show_letter(
    letter: str, url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False
) -> None:
    """One dead letter with its whole payload, which is not redacted."""
    remote = Remote.connect(url=url, key=key, home=home)
    show(remote.get(f"/v1/dead-letters/{letter}"), as_json, _letter_page)


@app.command("replay")
def replay_letters(
    ids: Ids = None,
    reason: ForReason = None,
    everything: Everything = False,
    payload: Annotated[
        Path | None, typer.Option(help="File with the mended payload of the one letter named.")
    ] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Put letters back into the stream, where they are judged anew."""
    remote = Remote.connect(url=url, key=key, home=home)
    chosen = _chosen(ids, reason, everything)
    if payload is not None:
        chosen |= _payload(payload)
    for answer in _answers(remote, "/v1/dead-letters/replay", chosen):
        for row in answer["results"]:
            if row["status"] != "replayed" or ids:
                console.print(f"{row['id']}  {row['status']}", highlight=False)
        console.print(f"replayed {answer['num_replayed']}")


@app.command("drop")
def drop_letters(
    ids: Ids = None,
    reason: ForReason = None,
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Delete letters for good."""
    remote = Remote.connect(url=url, key=key, home=home)
    chosen = _chosen(ids, reason, everything)
    if not ids and not yes:
        typer.confirm("Delete all of them?", abort=True)
    for answer in _answers(remote, "/v1/dead-letters/drop", chosen):
        console.print(f"dropped {answer['num_dropped']}")


def _chosen(ids: list[str] | None, reason: str | None, everything: bool) -> dict[str, Any]:
    if [bool(ids), reason is not None, everything].count(True) != 1:
        raise InvalidInputError("ids, --reason or --all, and one of them only")
    if ids:
        return {"ids": ids}
    return {"reason": reason} if reason is not None else {"all": True}


def _payload(path: Path) -> dict[str, str]:
    import base64

    content = path.read_bytes()
    try:
        return {"payload": content.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(content).decode()}


def _answers(remote: Remote, path: str, chosen: dict[str, Any]) -> Any:
    """Ask until nothing is left of what there was when it began."""
    ids = chosen.get("ids")
    if ids:
        for start in range(0, len(ids), _MAX_IDS):
            yield remote.post(path, {**chosen, "ids": ids[start : start + _MAX_IDS]})
        return
    answer = remote.post(path, chosen)
    yield answer
    while answer["more"]:
        answer = remote.post(path, {**chosen, "until": answer["until"]})
        yield answer


def _letters_table(answer: dict[str, Any]) -> Table:
    table = Table("letter", "reason", "when", "bytes", "payload", box=None)
    for row in answer["letters"]:
        shown = row["payload"] if row["payload"] is not None else row["payload_base64"]
        table.add_row(
            row["id"],
            row["reason"] + (" (replayed)" if row["replayed_at"] else ""),
            row["occurred_at"][:19],
            str(row["num_bytes"]),
            # Text, since a payload may look like markup; repr, since it may steer a terminal.
            Text(repr(shown[:_PAYLOAD_WIDTH])[1:-1]),
        )
    return table


def _letter_page(row: dict[str, Any]) -> Group:
    head = Table(show_header=False, box=None, padding=(0, 2))
    for name in ("id", "reason", "detail", "occurred_at", "replayed_at", "num_bytes"):
        head.add_row(name, Text(repr(row[name]).strip("'")))
    if row["payload"] is None:
        return Group(head, Text(f"  base64  {row['payload_base64']}"))
    lines = [repr(line)[1:-1] for line in row["payload"].splitlines()]
    return Group(head, Text("\n".join(lines)))
