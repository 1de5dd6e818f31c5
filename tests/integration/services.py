"""A service as its users have it, on a policy so small that a cycle takes seconds."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, load_settings
from tacit.contracts import short
from tacit.demo.base import SMALL_RECIPE, BaseRecipe, make_base
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.product import Product
from tacit.demo.world import Utterance, World, install_world
from tacit.ports import free_port
from tests.gatekeeper.forms import token

TACIT = Path(sys.executable).with_name("tacit")
NUM_OLD, NUM_NEW = 6, 2
GATE = """\
version: 1
criteria:
  - {name: evidence, type: required, kinds: [holdout, regression], min_items: 5}
  - {name: learned, type: superior, kind: holdout, baseline: champion}
"""
"""A policy of 100,000 weights forgets; what it keeps is not what this test is about."""


def micro_world() -> World:
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


TAUGHT = dataclasses.replace(SMALL_RECIPE, hidden_size=64, num_layers=2, num_epochs=10)
"""Knows the old intents."""
RAW = dataclasses.replace(SMALL_RECIPE, hidden_size=32, num_layers=1, num_epochs=0.1)
"""Knows nothing yet: for tests in which what is learned does not matter."""


def make_home(folder: Path, *, recipe: BaseRecipe = TAUGHT, gate: str = GATE) -> Settings:
    """A home with suites, a gate policy and a first policy to import, and ports of its own."""
    world = micro_world()
    store = CheckpointStore(folder / "made")
    base = make_base(world, store, cache=folder / "cache", recipe=recipe)
    home = folder / "home"
    home.mkdir()
    (home / "gate.yaml").write_text(gate)
    ports = [f"{name}={free_port()}" for name in ("collector.port", "deploy.port", "tracking.port")]
    settings = load_settings(home=home, model=str(store.path(base)), overrides=ports)
    install_world(world, settings)
    return settings


class Service:
    """A `tacit up` process and how its users reach it.

    ``options`` and ``environment`` are added to those it is started with.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.control = f"http://127.0.0.1:{settings.collector.port}"
        self.serving = f"http://127.0.0.1:{settings.deploy.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self.environment = {**os.environ, **(environment or {})}

    def start(self) -> None:
        """Start it and wait until it serves."""
        with (self.settings.home / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [TACIT, "up", *self.options()], env=self.environment, stdout=log, stderr=log
            )
        self.wait("serving", lambda: httpx.get(f"{self.serving}/readyz").is_success)

    def options(self) -> list[str]:
        """What every process of the service is told."""
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
        words = [word for override in overrides for word in ("--set", override)]
        return ["--home", str(self.settings.home), *words, *self._options]

    def wait(self, what: str, done: Callable[[], Any], *, timeout_s: float = 250) -> Any:
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

    def pid(self, role: str) -> int:
        """Process id of the one that plays ``role`` now."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return next(child.pid for child in children if child.cmdline()[-1] == role)

    def product(self, *, serving: str | None = None) -> Product:
        """A product with the key made for it; ``serving`` is another address of the policy."""
        key = self.key("product")
        return Product(f"{serving or self.serving}/v1", self.control, key, source="product")

    def page(self, path: str) -> str:
        """A review page, as a person who has logged in with the admin's key sees it."""
        with httpx.Client(base_url=self.control, follow_redirects=True) as browser:
            csrf = token(browser.get("/login").text)
            browser.post("/login", data={"key": self.key("admin"), "csrf": csrf, "next": path})
            return browser.get(path).raise_for_status().text

    def candidate(self, state: str) -> str | None:
        """The newest candidate in ``state``."""
        rows = self.get("/v1/candidates")["candidates"]
        return next((r["candidate_id"] for r in rows if r["state"] == state), None)

    def serves(self, weights: str, *, port: int | None = None) -> bool:
        """Whether the OpenAI API, or the replica on ``port``, answers with ``weights``."""
        address = f"http://127.0.0.1:{port or self.settings.deploy.port}"
        return short(weights) in httpx.get(f"{address}/readyz").text

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
