"""``tacit keys``: make, list, rotate and revoke API keys."""

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from tacit.commands.options import AsJson, Home, console, show
from tacit.config import load_settings
from tacit.contracts import utc_now

if TYPE_CHECKING:
    from tacit.keys import KeyStore

DAY_S = 24 * 3600

app = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)


@app.command("create")
def keys_create(
    name: str,
    scope: Annotated[
        list[str] | None, typer.Option(help="send, read, review or admin; repeatable.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Bind to a source.")] = None,
    policy: Annotated[str | None, typer.Option(help="Bind to a policy line.")] = None,
    rate_limit: Annotated[float | None, typer.Option(help="Events a second it may send.")] = None,
    expires_in_days: Annotated[float | None, typer.Option(help="By default never.")] = None,
    webhook: Annotated[
        bool, typer.Option("--webhook", help="For signed deliveries of a third party.")
    ] = False,
    home: Home = None,
) -> None:
    """Make a key and print it once; of a webhook, its secret and its path."""
    from tacit.keys import Scope

    scopes = set(scope or (["send"] if webhook else []))
    if not scopes or scopes - set(Scope):
        got = ", ".join(sorted(scopes - set(Scope))) or "none"
        raise typer.BadParameter(f"expected --scope {', '.join(Scope)}; got {got}")
    store = _key_store(home)
    text = store.create(
        name,
        scopes={Scope(s) for s in scopes},
        source=source,
        policy=policy,
        kind="webhook" if webhook else "bearer",
        rate_limit_per_s=rate_limit,
        expires_at=_days_from_now(expires_in_days),
    )
    _print_secret(store, name, text)


@app.command("list")
def keys_list(home: Home = None, as_json: AsJson = False) -> None:
    """All keys in force; rotated ones as long as they work."""
    rows = [dataclasses.asdict(info) for info in _key_store(home).in_force()]
    for row in rows:
        for moment in ("created_at", "expires_at"):
            row[moment] = row[moment] and row[moment].isoformat()
    show(rows, as_json, _keys_table)


@app.command("rotate")
def keys_rotate(
    name: str,
    grace: Annotated[
        float, typer.Option(help="Seconds the old secret works on; 0 after a leak.")
    ] = DAY_S,
    home: Home = None,
) -> None:
    """Make a new secret for a key and print it once; scopes and bindings stay."""
    store = _key_store(home)
    _print_secret(store, name, store.rotate(name, grace_s=grace))


@app.command("revoke")
def keys_revoke(name: str, home: Home = None) -> None:
    """Take a key out of force at once, with its rotated secrets and the tokens it issued."""
    _key_store(home).revoke(name)
    console.print(f"revoked {name}", markup=False, highlight=False)


def _days_from_now(days: float | None) -> datetime | None:
    try:
        return None if days is None else utc_now() + timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise typer.BadParameter(f"expected a number of days; got {days}") from error


def _print_secret(store: "KeyStore", name: str, text: str) -> None:
    typer.echo(text)
    (path,) = (info.path for info in store.in_force() if info.name == name)
    if path is not None:
        typer.echo(path)


@app.command("signing")
def keys_signing(
    folder: Annotated[Path, typer.Argument(help="Where signing.pem and signing.pub go.")],
) -> None:
    """Make the key that approvals are signed with, for processes that do not share a home."""
    from tacit.signing import PRIVATE_NAME, PUBLIC_NAME, Signer

    Signer.load_or_create(folder)
    console.print(f"{folder / PRIVATE_NAME}: for control and the loop alone", soft_wrap=True)
    console.print(f"{folder / PUBLIC_NAME}: for serving and auditors", soft_wrap=True)


def _keys_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "name", "kind", "scopes", "source", "policy", "limit", "age", "expires", box=box.SIMPLE_HEAD
    )
    now = utc_now()
    for row in rows:
        limit, ends = row["rate_limit_per_s"], row["expires_at"]
        table.add_row(
            row["name"],
            row["kind"],
            " ".join(row["scopes"]),
            row["source"] or "any",
            row["policy"] or "any",
            "default" if limit is None else f"{limit:g}/s",
            _span(now - datetime.fromisoformat(row["created_at"])),
            f"in {_span(datetime.fromisoformat(ends) - now)}" if ends else "never",
        )
    return table


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, unit_s in (("d", DAY_S), ("h", 3600), ("min", 60)):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit}"
    return f"{seconds} s"


def _key_store(home: Path | None) -> "KeyStore":
    from gatekeeper.ledger import Ledger
    from tacit.database import Database
    from tacit.keys import KeyStore
    from tacit.secrets_file import MasterSecret
    from tacit.signing import Signer

    settings = load_settings(home=home)
    database = Database(settings.resolved_database_url)
    database.migrate()
    ledger = Ledger(database, Signer.load_or_create(settings.signing_path))
    master = MasterSecret.load_or_create(settings.keys_path)
    return KeyStore(database, master=master, journal=ledger.append)
