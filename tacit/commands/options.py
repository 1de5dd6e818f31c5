"""Options and output that all commands share."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console()

File = Annotated[
    Path | None, typer.Option("--config", help="Settings file; by default tacit.toml.")
]
Home = Annotated[Path | None, typer.Option(help="Where everything is kept; by default .tacit.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="a.b=c; may be repeated.")]
Url = Annotated[str | None, typer.Option(envvar="TACIT_URL", help="Control API of the service.")]
Key = Annotated[str | None, typer.Option(envvar="TACIT_API_KEY", help="API key.")]
Profile = Annotated[
    str | None,
    typer.Option(
        help="`cluster`: Kafka, PostgreSQL and the Ray at RAY_ADDRESS. "
        "`small`: for policies of a few million weights, which rehearse much."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the ledger.")]


def show(value: Any, as_json: bool, render: Any) -> None:
    """Print ``value`` as JSON or as ``render`` draws it."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    else:
        console.print(render(value))
