"""The servers that are compared, each a process of its own that can be stopped while others run."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, load_settings
from tacit.contracts import Digest, Release, utc_now
from tacit.database import Database
from tacit.keys import KeyStore
from tacit.ports import free_port
from tacit.principal import Scope
from tacit.signing import Signer
from tacit.start import prepare
from tacit.supervisor import Supervisor
from tests.deploy.scenes import Line, evidence, genesis

START_TIMEOUT_S = 180.0
CB_FLAGS = (
    "--continuous-batching",
    *("--cb-num-blocks", "64"),
    *("--cb-block-size", "32"),
    *("--cb-max-batch-tokens", "512"),
)


class Server(NamedTuple):
    """A server under load."""

    name: str
    address: tuple[str, int]
    pid: int
    model: str
    key: str

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run; at all other times it takes no CPU."""
        os.kill(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGSTOP)


class Served(NamedTuple):
    """Tacit's serving process and the releases that it may be told to serve."""

    server: Server
    settings: Settings
    line: Line
    versions: tuple[Digest, Digest]

    def swap(self, to: Release) -> Release:
        """Release the weights of ``to`` again."""
        with self.line.database.session() as session:
            return self.line.desk.rollback(
                session, self.settings.policy, to=to.release_id, by="bench", reason="bench"
            )


@contextmanager
def tacit_server(home: Path, folders: tuple[Path, Path]) -> Iterator[Served]:
    """The serving process as ``tacit up`` starts it, on the first of two released policies."""
    settings = load_settings(home=home, deploy={"port": free_port(), "device": "cpu"})
    prepare(settings)
    database = Database(settings.resolved_database_url)
    key = KeyStore(database).create("bench", scopes={Scope.SEND}, source="bench")
    line = _line(settings, database)
    versions = (line.store.put(folders[0]), line.store.put(folders[1]))
    _release(line, versions)
    with Supervisor(settings, roles=["serving"]) as supervisor:
        supervisor.wait_ready()
        address = (settings.deploy.host, settings.deploy.port)
        _wait_for(f"http://{address[0]}:{address[1]}/readyz")
        server = Server("tacit", address, supervisor.pid("serving"), settings.policy, key)
        yield Served(server, settings, line, versions)
        os.kill(server.pid, signal.SIGCONT)
    database.dispose()


@contextmanager
def transformers_server(
    python: str, model: Path, log: Path, *, continuous_batching: bool
) -> Iterator[Server]:
    """``transformers serve`` of the environment that ``python`` belongs to."""
    port = free_port()
    flags = CB_FLAGS if continuous_batching else ()
    command = [python, "-c", "from transformers.cli.transformers import main; main()", "serve"]
    command += [str(model), "--device", "cpu", "--port", str(port), *flags]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        _wait_for(f"http://localhost:{port}/health")
        name = "transformers_cb" if continuous_batching else "transformers_serve"
        yield Server(name, ("localhost", port), process.pid, str(model), "none")
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _line(settings: Settings, database: Database) -> Line:
    store = CheckpointStore(settings.checkpoints_path)
    return Line(database, store, Signer.load_or_create(settings.keys_path), now=utc_now())


def _release(line: Line, versions: tuple[Digest, Digest]) -> None:
    with line.database.session() as session:
        line.desk.first(session, "default", line.seal(genesis(versions[0])), by="bench")
    line.promote(evidence(versions[1], versions[0]))
    line.rollback()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"expected {url} to answer within {START_TIMEOUT_S:.0f} s; it did not")
