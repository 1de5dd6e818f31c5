"""`tacit up` as its users have it: from feedback to rollback, with a kill -9 in between."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, load_settings
from tacit.contracts import short
from tacit.demo.base import SMALL_RECIPE, make_base
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.product import Answer, Product
from tacit.demo.world import Utterance, World, install_world
from tests.conftest import free_port

TACIT = Path(sys.executable).with_name("tacit")
NUM_OLD, NUM_NEW = 6, 2
GATE = """\
version: 1
criteria:
  - {name: evidence, type: required, kinds: [holdout, regression], min_items: 5}
  - {name: learned, type: superior, kind: holdout, baseline: champion}
"""
"""A policy of 100,000 weights forgets; what it keeps is not what this test is about."""


def _micro_world() -> World:
    """A helpdesk of six old intents and two new ones: learned in seconds."""
    world = helpdesk_world()
    old = sorted({u.answer for u in world.old_train})[:NUM_OLD]
    new = sorted({u.answer for u in world.new_test})[:NUM_NEW]

    def only(part: tuple[Utterance, ...], answers: list[str], limit: int) -> tuple[Utterance, ...]:
        return tuple(u for u in part if u.answer in answers)[:limit]

    return dataclasses.replace(
        world,
        old_train=only(world.old_train, old, 600),
        old_validation=only(world.old_validation, old, 100),
        old_test=only(world.old_test, old, 50),
        new_stream=only(world.new_stream, new, 240),
        new_test=only(world.new_test, new, 50),
        safety=(),
    )


class Service:
    """A `tacit up` process and how its users reach it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.control = f"http://127.0.0.1:{settings.collector.port}"
        self.serving = f"http://127.0.0.1:{settings.deploy.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        overrides = [
            f"collector.port={self.settings.collector.port}",
            f"deploy.port={self.settings.deploy.port}",
            f"tracking.port={self.settings.tracking.port}",
            "collector.screening.holdout_share=0.2",
            "evaluator.min_holdout_items=5",
            "loop.min_events=120",
            "trainer.replay.share=0.5",
            "trainer.num_epochs=6",
            f"gatekeeper.gate_policy_path={self.settings.home}/gate.yaml",
            f"model={self.settings.model}",
        ]
        options = [word for override in overrides for word in ("--set", override)]
        with (self.settings.home / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [TACIT, "up", "--home", self.settings.home, *options], stdout=log, stderr=log
            )
        self.wait("serving", lambda: httpx.get(f"{self.serving}/readyz").is_success)

    def wait(self, what: str, done: Callable[[], Any], *, timeout_s: float = 180) -> Any:
        """Until ``done`` returns something true, which is returned."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.logs()
            try:
                if result := done():
                    return result
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"no {what} in {timeout_s} s\n{self.logs()}")

    def cli(self, *words: str) -> str:
        """Run a client verb; its output."""
        command = [TACIT, *words, "--home", self.settings.home, "--url", self.control]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        """JSON of the control API, as admin."""
        headers = {"Authorization": f"Bearer {self.key('admin')}"}
        return httpx.get(self.control + path, headers=headers).raise_for_status().json()

    def key(self, name: str) -> str:
        """A key made at first start."""
        return (self.settings.keys_path / f"{name}.key").read_text().strip()

    def candidate(self, state: str) -> str | None:
        """The newest candidate in ``state``."""
        rows = self.get("/v1/candidates")["candidates"]
        return next((r["candidate_id"] for r in rows if r["state"] == state), None)

    def serves(self, weights: str) -> bool:
        """Whether the OpenAI API answers with ``weights``."""
        return short(weights) in httpx.get(f"{self.serving}/readyz").text

    def logs(self) -> str:
        """The end of every log."""
        folders = [self.settings.home, self.settings.home / "logs"]
        paths = [path for folder in folders for path in sorted(folder.glob("*.log"))]
        return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in paths)

    def stop(self) -> None:
        """Stop it as a person does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    world = _micro_world()
    recipe = dataclasses.replace(SMALL_RECIPE, hidden_size=64, num_layers=2, num_epochs=10)
    store = CheckpointStore(tmp_path / "made")
    base = make_base(world, store, cache=tmp_path / "cache", recipe=recipe)
    home = tmp_path / "home"
    home.mkdir()
    (home / "gate.yaml").write_text(GATE)
    settings = load_settings(
        home=home,
        model=str(store.path(base)),
        overrides=[
            f"collector.port={free_port()}",
            f"deploy.port={free_port()}",
            f"tracking.port={free_port()}",
        ],
    )
    install_world(world, settings)
    running = Service(settings)
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_feedback_to_rollback_with_a_kill_in_between(service: Service) -> None:
    settings, world = service.settings, _micro_world()
    genesis = service.get("/v1/releases")[0]["weights"]
    product = _product(service)
    tally = product.serve(world.new_stream)
    product.close()
    assert tally.num_right < tally.num_asked * 0.2  # these intents are new to it
    candidate = service.wait("candidate", lambda: service.candidate("pending"))
    assert service.serves(genesis)  # nothing changes before a person has decided
    assert candidate in service.cli("candidates")
    assert "awaiting_decision" in service.cli("status")

    assert service.process is not None
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()
    _wait_closed([settings.collector.port, settings.deploy.port, settings.tracking.port])
    service.start()
    assert service.candidate("pending") == candidate

    assert "pass" in service.cli("show", candidate)
    service.cli("approve", candidate, "--reason", "better on what is new")
    weights = service.get(f"/v1/candidates/{candidate}")["candidate"]["weights"]
    service.wait("swap", lambda: service.serves(weights))
    service.wait("promotion", lambda: service.get("/v1/status")["cycle_id"] == "default-2")
    registry = MlflowClient(settings.tracking_uri)
    champion = registry.get_model_version_by_alias("default", "champion")
    assert champion.tags["tacit.weights"] == weights

    _kill_child(service, "serving")
    service.wait("serving again", lambda: service.serves(weights))

    answer = _ask(service, world.new_test[0].text)
    about = ("--interaction", answer.interaction_id, "--subject", "u-cli")
    assert "acknowledged" in service.cli("send", *about, "--rate", "4", "--scale", "1:5")

    service.cli("rollback", "--reason", "a drill")
    service.wait("swap back", lambda: service.serves(genesis))
    assert service.get("/v1/status")["events"]["quarantined"] >= 120
    verified = service.cli("audit", "verify", "--mlflow", service.settings.tracking_uri)
    assert "heads in MLflow" in verified
    assert "all verified" in verified
    assert {"genesis", "decision", "promotion", "rollback"} <= _ledger_kinds(service)


def _product(service: Service) -> Product:
    key = service.key("product")
    return Product(f"{service.serving}/v1", service.control, key, source="product")


def _ask(service: Service, text: str) -> Answer:
    product = _product(service)
    answer = product.ask(text)
    product.close()
    return answer


def _kill_child(service: Service, role: str) -> None:
    """SIGKILL one process of the service, and see it gone."""
    assert service.process is not None
    children = psutil.Process(service.process.pid).children()
    child = next(c for c in children if c.cmdline()[-1] == role)
    child.kill()
    child.wait(timeout=10)


def _ledger_kinds(service: Service) -> set[str]:
    entries = service.get("/v1/ledger")["entries"]
    return {str(entry["kind"]) for entry in entries}


def _wait_closed(ports: list[int], *, timeout_s: float = 20) -> None:
    """Until no child of the killed service listens any more."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(_listens(port) for port in ports):
            return
        time.sleep(0.1)
    raise AssertionError(f"processes outlived their parent on {ports}")


def _listens(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError:
        return True
    return True
