"""`tacit up` as its users have it: from feedback to rollback, with a kill -9 in between."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from tacit.demo.product import Answer
from tests.integration.services import Service, make_home, micro_world


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service on what one machine has, started."""
    running = Service(make_home(tmp_path))
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_feedback_to_rollback_with_a_kill_in_between(service: Service) -> None:
    settings, world = service.settings, micro_world()
    genesis = service.get("/v1/releases")[0]["weights"]
    product = service.product()
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


def _ask(service: Service, text: str) -> Answer:
    product = service.product()
    answer = product.ask(text)
    product.close()
    return answer


def _kill_child(service: Service, role: str) -> None:
    """SIGKILL one process of the service, and see it gone."""
    child = psutil.Process(service.pid(role))
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
