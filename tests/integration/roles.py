"""Processes of a service that a test kills and starts again within a moment.

    python -m tests.integration.roles

Takes settings as a line of JSON, then ``start ROLE`` or ``kill ROLE`` a line each, and answers each
line when it is done. All are forked from this process, which has imported what takes seconds. Their
loop never trains: its workers are not started. When standard input closes, all are killed.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tacit.config import Settings, settings_from_json
from tacit.service import run
from trainer.update import PolicyTrainer


class Roles:
    """Told by a test what to start and what to kill."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(self, *roles: str) -> None:
        """Start them; they take a moment until they answer."""
        for role in roles:
            self.tell(f"start {role}")

    def kill(self, *roles: str) -> None:
        """SIGKILL them; they are gone on return."""
        for role in roles:
            self.tell(f"kill {role}")

    def tell(self, line: str) -> None:
        """Send a line and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", f"{line} failed: see the log"


@contextmanager
def roles(settings: Settings, *, log: Path) -> Iterator[Roles]:
    """What starts and kills processes with ``settings`` while the block runs."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.roles"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    with process:
        told = Roles(process)
        told.tell(settings.model_dump_json())
        yield told


def main() -> None:
    """Do as told until nobody tells any more."""
    import tacit.control
    import tacit.loop
    import tacit.screening
    import tacit.serving  # noqa: F401  # children have them at once

    settings = settings_from_json(sys.stdin.readline())
    _say_done()
    alive: dict[str, int] = {}
    try:
        while line := sys.stdin.readline():
            verb, role = line.split()
            if verb == "start":
                alive[role] = _fork(role, settings)
            else:
                _kill(alive.pop(role))
            _say_done()
    finally:
        for pid in alive.values():
            _kill(pid)


def _fork(role: str, settings: Settings) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        if role == "loop":
            PolicyTrainer.start = lambda self: None  # type: ignore[method-assign]  # Ray takes seconds
        run(role, settings)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _say_done() -> None:
    sys.stdout.write("done\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
