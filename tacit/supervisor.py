"""Starts the processes of a service, waits until they answer, and starts again what dies.

Nothing is lost when one is killed: what matters stands in the database and the stream, and each
process goes on from there. When the supervisor itself is killed its children notice and end.
"""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType

import httpx

from tacit.config import Settings, settings_to_json
from tacit.errors import UnavailableError
from tacit.screening import is_screening

logger = logging.getLogger(__name__)

STABLE_AFTER_S = 30.0


@dataclass
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    started_at: float
    restarts: int = 0
    stopping: bool = False


@dataclass
class Supervisor:
    """The processes of one service. Use as a context manager."""

    settings: Settings
    roles: Sequence[str] = ("mlflow", "control", "serving", "screening", "loop")
    ready_timeout_s: float = 120.0
    _children: dict[str, _Child] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Supervisor":
        try:
            for role in self.roles:
                self._children[role] = self._spawn(role)
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log_folder(self) -> Path:
        """Where each process writes ``<role>.log``."""
        return self.settings.home / "logs"

    def wait_ready(self, *, on_ready: Callable[[str], None] | None = None) -> None:
        """Return once MLflow, control and serving answer and screening screens.

        Raises UnavailableError naming the process that does not, with the end of its log.
        """
        for role in ("mlflow", "control", "serving", "screening"):
            if role in self._children:
                self._wait_for(role)
                if on_ready is not None:
                    on_ready(role)

    def is_ready(self, role: str) -> bool:
        """Whether the process of ``role`` does its work now; the loop says nothing of itself."""
        if role == "screening":
            return is_screening(self.settings, self._children[role].process.pid)
        try:
            return httpx.get(self._health_urls()[role], timeout=2).status_code == HTTPStatus.OK
        except httpx.HTTPError:
            return False

    def wait(self) -> None:
        """Block until :meth:`stop`."""
        self._stop.wait()

    def request_stop(self) -> None:
        """Let :meth:`wait` return; for signal handlers."""
        self._stop.set()

    def pid(self, role: str) -> int:
        """Process id of the one that plays ``role`` now."""
        return self._children[role].process.pid

    def kill(self, role: str) -> None:
        """Kill one process with SIGKILL; it is started again. For drills and tests."""
        self._children[role].process.kill()

    def stop(self) -> None:
        """Ask all processes to end, then make them."""
        self._stop.set()
        with self._lock:
            children = list(self._children.values())
        for child in children:
            child.stopping = True
            child.process.terminate()
        deadline = time.monotonic() + 15
        for child in children:
            try:
                child.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            if child.process.stdin is not None:
                child.process.stdin.close()

    def _health_urls(self) -> dict[str, str]:
        settings = self.settings
        return {
            "mlflow": f"{settings.tracking_uri}/health",
            "control": f"http://{settings.collector.host}:{settings.collector.port}/healthz",
            "serving": f"http://{settings.deploy.host}:{settings.deploy.port}/healthz",
        }

    def _spawn(self, role: str, *, restarts: int = 0) -> _Child:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        with (self.log_folder / f"{role}.log").open("ab") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tacit.service", role],
                stdin=subprocess.PIPE,
                stdout=log_file,
                stderr=log_file,
            )
        assert process.stdin is not None
        process.stdin.write(settings_to_json(self.settings).encode() + b"\n")
        process.stdin.flush()
        return _Child(role, process, time.monotonic(), restarts)

    def _wait_for(self, role: str) -> None:
        deadline = time.monotonic() + self.ready_timeout_s
        while time.monotonic() < deadline and self._children[role].restarts < 3:
            if self.is_ready(role):
                return
            if self._stop.wait(0.1):
                break
        url = self._health_urls().get(role)
        raise UnavailableError(
            f"{role} to {f'answer at {url}' if url else 'be ready'} "
            f"within {self.ready_timeout_s:.0f} s",
            got=f"no answer. The end of its log: {self._log_tail(role)}",
            mend=f"See {self.log_folder / role}.log; "
            + ("is the port taken by another program?" if url else "does the stream answer?"),
        )

    def _log_tail(self, role: str, *, num_lines: int = 5) -> str:
        path = self.log_folder / f"{role}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return " | ".join(lines[-num_lines:]) or "its log is empty"

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            with self._lock:
                for role, child in list(self._children.items()):
                    if child.process.poll() is not None and not child.stopping:
                        self._children[role] = self._restart(child)

    def _restart(self, child: _Child) -> _Child:
        ran_s = time.monotonic() - child.started_at
        restarts = 0 if ran_s > STABLE_AFTER_S else child.restarts + 1
        last = self._log_tail(child.role, num_lines=1)
        code = child.process.returncode
        logger.warning("%s ended with %s (%s); starting it again", child.role, code, last)
        if child.process.stdin is not None:
            child.process.stdin.close()
        self._stop.wait(min(0.2 * 2**restarts, 30.0))
        return self._spawn(child.role, restarts=restarts)
