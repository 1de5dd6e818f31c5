"""``tacit audit``: check and export the ledger."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tacit.commands.options import Home, Key, Url, console
from tacit.config import load_settings
from tacit.remote import Remote

app = typer.Typer(help="Check the ledger.", no_args_is_help=True)


@app.command("verify")
def audit_verify(
    export: Annotated[
        Path | None, typer.Argument(help="An export; by default the live one.")
    ] = None,
    public_key: Annotated[Path | None, typer.Option(help="signing.pub of the service.")] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Check every entry, link and signature of the ledger; exit code 1 if any is wrong."""
    from gatekeeper.ledger import verify_export
    from tacit.signing import Verifier

    if export is None:
        entries = Remote.connect(url=url, key=key, home=home).get("/v1/ledger")
    else:
        entries = json.loads(export.read_text())
    verifier = Verifier.load(public_key or load_settings(home=home).keys_path / "signing.pub")
    check = verify_export(entries, verifier)
    for problem in check.problems:
        console.print(f"[red]{problem}[/red]")
    console.print(f"{check.num_entries} entries, root {check.root[:16]}…, ", end="")
    console.print(f"{len(check.problems)} problems" if check.problems else "all verified")
    raise typer.Exit(1 if check.problems else 0)


@app.command("export")
def audit_export(path: Path, url: Url = None, key: Key = None, home: Home = None) -> None:
    """Write the ledger to a file that can be checked offline."""
    entries = Remote.connect(url=url, key=key, home=home).get("/v1/ledger")
    path.write_text(json.dumps(entries, indent=1))
    console.print(f"wrote {path}")
