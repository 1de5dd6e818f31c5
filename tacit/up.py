"""``tacit up`` and ``tacit run``: the whole service, or one process of it, in the foreground."""

import signal
import time

from rich.console import Console
from rich.table import Table

from tacit.config import Settings
from tacit.doctor.findings import Status
from tacit.doctor.ports import taken_ports
from tacit.doctor.reward import check_model
from tacit.errors import ConfigError
from tacit.service import ROLES, run
from tacit.start import prepare, wait_until_prepared
from tacit.supervisor import Supervisor

PORTS_WAIT_S = 30.0
"""How long the processes of a service that was killed may take to end."""
_LOOK_S = 0.2


def run_up(settings: Settings, console: Console) -> None:
    """Start every process, say where each is, and wait for Ctrl-C or SIGTERM.

    Killed in any way and started again, it goes on from where it was.
    Raises ConfigError if the model cannot be one or a port is taken, UnavailableError if a process
    does not come up.
    """
    if not settings.checkpoints_path.exists():
        _look_at_model(settings, console)
    _require_ports(settings, console)
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
        wait_until_prepared(settings, role)
    run(role, settings)


def _look_at_model(settings: Settings, console: Console) -> None:
    """What the policy line begins with. Raises ConfigError where it cannot."""
    if settings.model is None:
        console.print(
            "No --model: the small policy of the demo serves. Where no cache has it yet, it is "
            "taught first, in a few minutes; `tacit status` says when it serves."
        )
    for finding in check_model(settings):
        if finding.status is Status.FAIL:
            raise ConfigError("a model that can be loaded", got=finding.found, mend=finding.mend)


def _require_ports(settings: Settings, console: Console) -> None:
    """Wait for the processes of a service that was killed; one that runs on is none to start over.

    Its answers would be taken for those of this service.
    """
    deadline = time.monotonic() + PORTS_WAIT_S
    with console.status("waiting for ports that are taken"):
        while taken := taken_ports(settings):
            if time.monotonic() > deadline:
                raise ConfigError(
                    "ports that nobody listens on",
                    got=f"{', '.join(taken)} taken",
                    mend="If Tacit runs already, `tacit status` answers. Else stop what listens "
                    "there, or choose another: --set collector.port=…",
                )
            time.sleep(_LOOK_S)


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
