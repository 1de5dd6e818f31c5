"""``tacit up`` and ``tacit run``: the whole service, or one process of it, in the foreground."""

import signal

from rich.console import Console
from rich.table import Table

from tacit.config import Settings
from tacit.errors import ConfigError
from tacit.service import ROLES, run
from tacit.start import prepare, wait_until_prepared
from tacit.supervisor import Supervisor


def run_up(settings: Settings, console: Console) -> None:
    """Start every process, say where each is, and wait for Ctrl-C or SIGTERM.

    Killed in any way and started again, it goes on from where it was.
    Raises UnavailableError if a process does not come up.
    """
    prepare(settings)
    roles = ["control", "serving", "screening", "loop"]
    if settings.tracking.uri is None:
        roles.insert(0, "mlflow")
    with Supervisor(settings, roles=roles) as supervisor:
        for stop_signal in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop_signal, lambda *_: supervisor.request_stop())
        with console.status("starting"):
            supervisor.wait_ready(on_ready=lambda role: console.print(f"[green]✓[/green] {role}"))
        console.print(where_to_look(settings))
        if settings.model is not None and not any(settings.suites_path.glob("*.yaml")):
            console.print(
                f"[yellow]No suite in {settings.suites_path}:[/yellow] the gate will reject "
                "every candidate until there is a regression suite. See docs/how-to."
            )
        console.print("Ctrl-C stops it; what is durable goes on at the next start.")
        supervisor.wait()


def run_role(role: str, settings: Settings) -> None:
    """Be one process of a service whose others run elsewhere.

    ``control`` makes what has to exist; the others wait until it does, but for ``mlflow``, which
    needs none of it. Raises ConfigError for a role that is none, UnavailableError when nothing was
    made in time.
    """
    if role not in ROLES:
        raise ConfigError(f"a process: {', '.join(ROLES)}", got=role)
    if role == "control":
        prepare(settings)
    elif role != "mlflow":
        wait_until_prepared(settings)
    run(role, settings)


def where_to_look(settings: Settings) -> Table:
    """Addresses and keys of a running service."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    collector, deploy = settings.collector, settings.deploy
    table.add_row("review pages", f"http://{collector.host}:{collector.port}")
    table.add_row("feedback API", f"http://{collector.host}:{collector.port}/v1/feedback")
    table.add_row("policy (OpenAI API)", f"http://{deploy.host}:{deploy.port}/v1")
    table.add_row("MLflow", settings.tracking_uri)
    table.add_row("key of a reviewer", str(settings.keys_path / "admin.key"))
    table.add_row("key of a product", str(settings.keys_path / "product.key"))
    table.add_row("logs", str(settings.home / "logs"))
    return table
