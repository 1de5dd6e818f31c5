"""``tacit up`` and ``tacit run``: the service, or one process of it."""

from pathlib import Path
from typing import Annotated

import typer

from tacit.commands.options import File, Home, Overrides, Profile, console
from tacit.config import Settings, load_settings, require_backends

Model = Annotated[str | None, typer.Option(help="Folder or hub id of the first policy.")]


def up(
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    model: Model = None,
    profile: Profile = None,
) -> None:
    """Run the service until stopped: collector, loop, serving, review pages, MLflow."""
    from tacit.up import run_up

    run_up(_settings(config_file, home, overrides, model, profile), console)


def run(
    role: Annotated[str, typer.Argument(help="control, serving, screening, loop or mlflow.")],
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    model: Model = None,
    profile: Profile = None,
) -> None:
    """Run one process of the service in the foreground, as a container of its own does."""
    from tacit.up import run_role

    run_role(role, _settings(config_file, home, overrides, model, profile))


def _settings(
    config_file: Path | None,
    home: Path | None,
    overrides: list[str] | None,
    model: str | None,
    profile: str | None,
) -> Settings:
    settings = load_settings(
        config_file, overrides=overrides, home=home, model=model, profile=profile
    )
    url, stream = settings.database_url, settings.collector.stream
    require_backends(profile, database_url=url, stream=stream)
    return settings
