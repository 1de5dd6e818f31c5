"""``tacit doctor``: check a configuration, and say what is missing and how to mend it."""

import json

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, File, Home, Overrides, Profile, console
from tacit.config import load_settings, require_backends
from tacit.errors import ConfigError

_STYLE = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Check a configuration: what is missing and how to mend it; exit code 1 if anything fails.

    Nothing is started, made or changed.
    """
    from tacit.doctor.findings import Finding, fail, failed, ok

    findings: list[Finding] = []
    try:
        settings = load_settings(config_file, overrides=overrides, home=home, profile=profile)
    except ConfigError as error:
        findings.append(failed("settings", error))
    else:
        findings.append(ok("settings", "can be read"))
        try:
            require_backends(
                profile, database_url=settings.database_url, stream=settings.collector.stream
            )
        except ConfigError as error:
            findings.append(failed("profile", error))
        try:
            from tacit.doctor.examine import examine
        except ModuleNotFoundError as error:
            findings.append(
                fail("install", f"the service is not: {error}", "pip install 'tacit[service]'")
            )
        else:
            findings += examine(settings)
    if as_json:
        typer.echo(json.dumps([finding.as_row() for finding in findings], indent=2))
    else:
        console.print(_table([finding.as_row() for finding in findings]))
    raise typer.Exit(int(any(finding.status == "fail" for finding in findings)))


def _table(rows: list[dict[str, str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "area", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for row in rows:
        status = Text(row["status"], style=_STYLE[row["status"]])
        table.add_row(status, row["area"], Text(row["found"]), Text(row["mend"]))
    return table
