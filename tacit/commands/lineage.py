"""``tacit lineage``: what a release learned from, and what an event or a person led to."""

from typing import Annotated, Any

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Url, show
from tacit.remote import Remote

SHOWN = 20


def lineage(
    about: Annotated[str, typer.Argument(help="Id of a release, candidate, event or subject.")],
    source: Annotated[str | None, typer.Option(help="Of this product alone.")] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """From a release or candidate back to feedback; from an event or subject to releases."""
    remote = Remote.connect(url=url, key=key, home=home)
    show(remote.get("/v1/lineage", of=about, source=source), as_json, lambda a: _page(about, a))


def _page(about: str, answer: dict[str, Any]) -> Group:
    sources = ", ".join(f"{number} from {name}" for name, number in answer["sources"].items())
    people = "1 person" if answer["num_subjects"] == 1 else f"{answer['num_subjects']} people"
    head = f"{answer['kind']} {about}: {answer['num_events']} events of {people}"
    return Group(
        Text(f"  {head}{f' ({sources})' if sources else ''}"),
        _table(answer["releases"], ("release_id", "state")),
        _table(answer["candidates"], ("candidate_id", "state", "batch_id", "decision_id")),
        _table(answer["events"][:SHOWN], ("event_key", "kind", "subject_id", "status", "batch_id")),
        *([Text("  … --json lists them all")] if len(answer["events"]) > SHOWN else []),
    )


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Table:
    table = Table(*(name.removesuffix("_id") for name in columns), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(str(row[name] or "-")) for name in columns))
    return table
