"""The processes of a running Tacit.

    mlflow    the MLflow server, where runs are watched
    control   feedback API, decision API and review pages, on one port
    serving   the OpenAI-compatible API
    screening the consumer between the stream and the database
    loop      cycles

Each imports only what its role needs. ``tacit up`` starts all as ``python -m tacit.service ROLE``.
Settings come as one line of JSON on standard input, which then stays open: when it closes, the
parent is gone, however it died, and the process ends too. ``tacit run ROLE`` is one of them alone.
"""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import uvicorn
from starlette.types import ASGIApp

from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, settings_from_json, suited
from tacit.log import configure_logging

logger = logging.getLogger(__name__)

_NICE = {"screening": 5, "loop": 5}
"""Nobody waits for these; where CPUs are scarce, those who are answered come first. The workers of
a Ray that the loop starts are as nice as it is."""
DRAIN_S = 10
"""For answers that are under way when a server is told to end."""
_SWITCH_S = 0.0001
_GC_THRESHOLD = 50_000


def run_control(settings: Settings) -> None:
    """Serve the control application until terminated."""
    from tacit.control import create_control

    collector = settings.collector
    app = create_control(settings)
    _answer_quickly()
    _serve(app, collector.host, collector.port)


def run_serving(settings: Settings) -> None:
    """Serve the policy until terminated."""
    from tacit.serving import create_serving_app

    app = create_serving_app(settings)
    _answer_quickly()
    _serve(app, settings.deploy.host, settings.deploy.port)


def run_screening(settings: Settings) -> None:
    """Screen what comes until terminated."""
    from tacit.screening import screen

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    screen(settings, stop, pid=os.getpid())


def run_loop(settings: Settings) -> None:
    """Run cycles until terminated; screening is a process of its own."""
    from tacit.loop import OnlineLoop
    from tacit.start import line_begins_with

    store = CheckpointStore(settings.checkpoints_path)
    first = line_begins_with(settings, store)
    num_weights = store.num_weights(first)
    suitable = suited(settings, num_weights)
    if suitable != settings:
        logger.info("a policy of %s weights is trained with profile small", num_weights)
    with OnlineLoop(suitable, screens=False) as loop:
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        loop.begin(lambda: first, by="tacit up")
        loop.run_forever()


def run_mlflow(settings: Settings) -> None:
    """Run MLflow's own server on a SQLite file and a folder in ``home``."""
    home = settings.home.resolve() / "mlflow"
    home.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", settings.tracking.host, "--port", str(settings.tracking.port)),
        *("--backend-store-uri", f"sqlite:///{home}/mlflow.db"),
        *("--artifacts-destination", str(home / "artifacts"), "--workers", "1"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    _kill_group_on_exit(server)
    sys.exit(server.wait())


ROLES: dict[str, Callable[[Settings], None]] = {
    "mlflow": run_mlflow,
    "control": run_control,
    "serving": run_serving,
    "screening": run_screening,
    "loop": run_loop,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the role named on the command line."""
    role = (arguments or sys.argv[1:])[0]
    settings = settings_from_json(sys.stdin.buffer.readline().decode())
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    run(role, settings)


def run(role: str, settings: Settings) -> None:
    """Be ``role`` until terminated."""
    configure_logging(as_json=settings.log_json)
    os.nice(_NICE.get(role, 0))
    ROLES[role](settings)


_on_orphaned: list[Callable[[], None]] = []


def _end_with_parent() -> None:
    # A raw read: the main thread may exit while this one waits, and a buffered reader's lock
    # would then abort the interpreter.
    while os.read(0, 4096):
        pass
    logger.warning("The parent process is gone; ending")
    for action in _on_orphaned:
        action()
    os._exit(1)


def _kill_group_on_exit(child: subprocess.Popen[bytes]) -> None:
    def kill() -> None:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)

    def terminate(*_: object) -> None:
        kill()
        sys.exit(0)

    _on_orphaned.append(kill)
    signal.signal(signal.SIGTERM, terminate)


def _answer_quickly() -> None:
    # An answer goes from thread to thread and back; by default each may wait 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    # What is loaded by now stays. To look through it again and again would make requests wait.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


def _serve(app: ASGIApp, host: str, port: int) -> None:
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=DRAIN_S,
    )


if __name__ == "__main__":
    main()
