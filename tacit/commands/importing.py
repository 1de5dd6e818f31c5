"""``tacit import``: feedback that is elsewhere already."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from tacit.commands.options import Home, Key, Url, console
from tacit.config import load_settings
from tacit.errors import TacitError
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


@app.command("mlflow")
def import_traces(
    experiment: Annotated[str, typer.Option(help="Name of the experiment with the traces.")],
    tracking_uri: Annotated[
        str | None, typer.Option(help="By default the MLflow of the service.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="NAME=METRIC of an assessment; may be repeated."),
    ] = None,
    scale: Annotated[str | None, typer.Option(help="low:high of numbers.")] = None,
    source: Source = "product",
    policy: Policy = "default",
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Import what people said about traces: feedback, expectations, rationales; again adds nothing.

    Exit code 1 if some of it was rejected; a file names each with its reason.
    """
    from tacit.imports.mlflow_store import import_mlflow, rejected_path
    from tacit.imports.traces import TraceRules, read_metrics, read_scale

    rules = TraceRules(source, policy, read_metrics(metric or []), read_scale(scale))
    remote = Remote.connect(url=url, key=key, home=home, key_name="product")
    folder = _bookmarks(home)
    tracking_uri = tracking_uri or load_settings(home=home).tracking_uri
    columns = (TextColumn("  {task.description} {task.completed} traces"), BarColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        # How many traces there are, MLflow does not say.
        bar = bars.add_task(experiment, total=None)
        tally = import_mlflow(
            experiment,
            tracking_uri,
            remote,
            rules,
            folder,
            advance=lambda done: bars.update(bar, completed=done),
        )
    _report(tally, rejected_path(folder, experiment))


def _bookmarks(home: Path | None) -> Path:
    return load_settings(home=home).home / "imports"


def _report(tally: Tally, rejects: Path) -> None:
    console.print(
        f"{tally.imported} imported, {tally.already_there} already there, {tally.rejected} rejected"
    )
    if tally.rejected:
        console.print(f"reasons: {rejects}", soft_wrap=True, highlight=False)
        console.print(
            f"the first: {_first(rejects)}", soft_wrap=True, highlight=False, markup=False
        )
        raise typer.Exit(1)


def _first(rejects: Path) -> str:
    with rejects.open(encoding="utf-8") as file:
        error = json.loads(file.readline())["error"]
    if "expected" not in error:  # not the answer of a Tacit service
        return str(error)
    return str(TacitError(error["expected"], got=error.get("got", ""), mend=error.get("mend", "")))
