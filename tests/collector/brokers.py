"""Real Kafka brokers of the tests' own: started, killed and started again on their data."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tacit.ports import free_port
from tests.conftest import skip_or_fail

REPOSITORY = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 60.0


class Broker:
    """One broker on 127.0.0.1 with its data in ``folder``; ``properties`` are the broker's own.

    ``{port}`` in a property becomes the port, ``{controller}`` that of the controller.
    """

    def __init__(self, folder: Path, *, properties: Sequence[str] = ()) -> None:
        self._folder = folder
        self._port = free_port(number=2)  # the controller takes the second
        places = {"port": str(self._port), "controller": str(self._port + 1)}
        self._properties = [_filled(line, places) for line in properties]
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> "Broker":
        """Start it, on its data if it ran before, and wait until it listens."""
        script = broker_script()
        log_path = self._folder / "broker.log"
        command = [script, self._folder / "data", str(self._port), *self._properties]
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                skip_or_fail(f"expected a broker; got {log_path.read_text()[-800:]}")
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """SIGKILL: what the page cache has not written is the operating system's to keep."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # a busy machine takes its time to stop it

    def remove(self) -> None:
        """Kill it and forget its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def broker_script() -> Path:
    """The script that starts a broker; skips the test where there is none."""
    script = REPOSITORY.parent / "shared" / "kafka" / "broker"
    if not script.exists() or shutil.which("java") is None:
        skip_or_fail("expected a Kafka broker that tests may start and kill, and Java 17 for it")
    return script


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _filled(line: str, places: dict[str, str]) -> str:
    # Not str.format: JAAS settings and PEM have braces and percent signs of their own.
    for name, value in places.items():
        line = line.replace("{" + name + "}", value)
    return line
