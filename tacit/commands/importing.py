"""``tacit import``: feedback that is elsewhere already."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from tacit.commands.options import Home, Key, Url, console
from tacit.config import load_settings
from tacit.imports.bookmark import Tally
from tacit.remote import Remote

app = typer.Typer(help="Import feedback from a file or from MLflow.", no_args_is_help=True)

Source = Annotated[str, typer.Option(help="The product the feedback is from.")]
Policy = Annotated[str, typer.Option(help="Policy line.")]


@app.command("jsonl")
def import_file(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A row a line.")],
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="FIELD=PATH: where a field is in a row; may be repeated."),
    ] = None,
    metric: Annotated[str, typer.Option(help="Outcome metric of `label`.")] = "resolved",
    source: Source = "product",
    policy: Policy = "default",
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Import FeedbackEvents, preferences, corrections or labels; again adds nothing.

    Exit code 1 if lines were rejected: FILE.rejected.jsonl names each with its reason.
    """
    from tacit.imports.jsonl import import_jsonl, rejected_path
    from tacit.imports.rows import RowRules, read_map

    moment = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    rules = RowRules(source, policy, metric, moment, read_map(mapping or []))
    remote = Remote.connect(url=url, key=key, home=home, key_name="product")
    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        bar = bars.add_task(file.name)
        tally = import_jsonl(
            file,
            remote,
            rules,
            _bookmarks(home),
            advance=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    _report(tally, rejected_path(file))


def _bookmarks(home: Path | None) -> Path:
    return load_settings(home=home).home / "imports"


def _report(tally: Tally, rejects: Path) -> None:
    console.print(
        f"{tally.imported} imported, {tally.already_there} already there, {tally.rejected} rejected"
    )
    if tally.rejected:
        console.print(f"reasons: {rejects}", soft_wrap=True, highlight=False)
        raise typer.Exit(1)
