"""``tacit keys``: make, list and revoke API keys."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tacit.commands.options import Home, console
from tacit.config import load_settings

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@app.command("create")
def keys_create(
    name: str,
    scope: Annotated[list[str], typer.Option(help="send, read, review or admin; repeatable.")],
    source: Annotated[str | None, typer.Option(help="Bind to a source.")] = None,
    policy: Annotated[str | None, typer.Option(help="Bind to a policy line.")] = None,
    home: Home = None,
) -> None:
    """Make a key and print it once."""
    from tacit.keys import Scope

    unknown = set(scope) - set(Scope)
    if unknown:
        raise typer.BadParameter(f"expected {', '.join(Scope)}; got {', '.join(sorted(unknown))}")
    store = _key_store(home)
    typer.echo(store.create(name, scopes={Scope(s) for s in scope}, source=source, policy=policy))


@app.command("list")
def keys_list(home: Home = None) -> None:
    """All keys in force."""
    for principal in _key_store(home).principals():
        scopes = " ".join(sorted(principal.scopes))
        console.print(f"{principal.name}  {scopes}  source={principal.source or 'any'}")


@app.command("revoke")
def keys_revoke(name: str, home: Home = None) -> None:
    """Take a key out of force at once."""
    _key_store(home).revoke(name)
    console.print(f"revoked {name}")


def _key_store(home: Path | None) -> Any:
    from tacit.database import Database
    from tacit.keys import KeyStore

    database = Database(load_settings(home=home).resolved_database_url)
    database.migrate()
    return KeyStore(database)
