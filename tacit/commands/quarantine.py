"""``tacit quarantine``: look at events that screening set aside, release them or drop them."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Url, console, show
from tacit.errors import ConflictError, InvalidInputError
from tacit.remote import Remote, RemoteError

app = typer.Typer(help="Events that screening set aside.", no_args_is_help=True)

Events = Annotated[list[str] | None, typer.Argument(help="source/event_id, as `list` shows.")]
ForReason = Annotated[str | None, typer.Option("--reason", help="Events of this reason.")]
FromSource = Annotated[str | None, typer.Option("--source", help="Events of this source.")]
OfSubject = Annotated[str | None, typer.Option("--subject", help="Events of this subject.")]
Why = Annotated[str, typer.Option("--message", "-m", help="Why; kept in the ledger.")]
_PAGE = 1_000


@app.command("list")
def list_events(
    reason: ForReason = None,
    source: FromSource = None,
    subject: OfSubject = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE)] = 50,
    after: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Quarantined events, newest first; dropped ones only with `--reason dropped`."""
    remote = Remote.connect(url=url, key=key, home=home)
    filters = {"reason": reason, "source": source, "subject": subject}
    answer = remote.get("/v1/quarantine", **filters, limit=limit, after=after)
    show(answer, as_json, _events_table)


@app.command("show")
def show_event(
    event: str, url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False
) -> None:
    """One quarantined event, redacted, with the interaction it is about."""
    remote = Remote.connect(url=url, key=key, home=home)
    show(remote.get(f"/v1/quarantine/{event}"), as_json, _event_page)


@app.command("release")
def release_events(
    why: Why,
    events: Events = None,
    reason: ForReason = None,
    source: FromSource = None,
    subject: OfSubject = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Let events teach; those of a held-out cluster are measured instead."""
    remote = Remote.connect(url=url, key=key, home=home)
    filters = {"reason": reason, "source": source, "subject": subject}
    _decide(remote, "release", _chosen(remote, events, filters), why)


@app.command("drop")
def drop_events(
    why: Why,
    events: Events = None,
    reason: ForReason = None,
    source: FromSource = None,
    subject: OfSubject = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Keep events out of training for good."""
    remote = Remote.connect(url=url, key=key, home=home)
    filters = {"reason": reason, "source": source, "subject": subject}
    _decide(remote, "drop", _chosen(remote, events, filters), why)


def _chosen(
    remote: Remote, events: list[str] | None, filters: dict[str, str | None]
) -> Iterator[list[str]]:
    """Keys of events, at most a thousand at a time."""
    if bool(events) == any(filters.values()):
        raise InvalidInputError(
            "events, or a filter: --reason, --source, --subject", got="both" if events else "none"
        )
    if events:
        return (events[start : start + _PAGE] for start in range(0, len(events), _PAGE))
    return _filtered(remote, filters)


def _filtered(remote: Remote, filters: dict[str, str | None]) -> Iterator[list[str]]:
    after: str | None = None
    while True:
        # A page begins behind the one before, so that what was refused is not asked for again.
        page = remote.get("/v1/quarantine", **filters, limit=_PAGE, after=after)
        if page["events"]:
            yield [row["event_key"] for row in page["events"]]
        after = page["next"]
        if after is None:
            return


def _decide(remote: Remote, verb: str, pages: Iterator[list[str]], why: str) -> None:
    counts: dict[str, int] = {}
    for events in pages:
        try:
            answer = remote.post(f"/v1/quarantine/{verb}", {"events": events, "why": why})
        except RemoteError as error:
            if error.status != ConflictError.status:
                raise
            # Every event of this page is refused; there may be others on the next.
            counts["refused"] = counts.get("refused", 0) + len(events)
            console.print(Text(str(error)))
            continue
        for row in answer["results"]:
            counts[row["status"]] = counts.get(row["status"], 0) + 1
            if row["refusal"] is not None:
                console.print(Text(f"{row['event_key']}: {row['refusal']}"))
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()) or "none")
    raise typer.Exit(1 if counts.get("refused") else 0)


def _events_table(answer: dict[str, Any]) -> Group:
    table = Table("event", "kind", "reason", "subject", "received", "says", box=None)
    for row in answer["events"]:
        table.add_row(
            row["event_key"],
            row["kind"],
            row["reason"] or "",
            row["subject_id"],
            row["received_at"][:19],
            Text(repr(row["gist"])[1:-1]),
        )
    return Group(table, Text(f"  more: --after {answer['next']}" if answer["next"] else ""))


def _event_page(row: dict[str, Any]) -> Group:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name in ("event_key", "reason", "detail", "kind", "subject_id", "received_at", "cluster"):
        table.add_row(name, Text(repr(row[name]).strip("'")))
    for message in (row["interaction"] or {}).get("prompt", []):
        table.add_row(message["role"], Text(repr(message["content"])[1:-1]))
    if row["interaction"] is not None:
        table.add_row("answered", Text(repr(row["interaction"]["completion"])[1:-1]))
    table.add_row("says", Text(repr(row["event"]["feedback"])))
    return Group(table)
