"""The whole loop beyond one machine: real Kafka, real PostgreSQL, a Ray cluster of two nodes.

A service of processes of its own goes from feedback to rollback, and loses one of the nodes while
it trains; then PostgreSQL and Kafka in the next cycle.
"""

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from tacit.cli import app
from tacit.contracts import short
from tacit.ports import free_port
from tacit.signing import PUBLIC_NAME
from tests.collector.brokers import Broker
from tests.integration.backends import Backends, column, num_records, postgres_away
from tests.integration.balancer import balanced
from tests.integration.services import RAW, TACIT, Service, make_home, micro_world
from tests.nodes import started_nodes, workers_on

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]
NUM_ASKED = 80
SETTINGS = (
    "loop.min_events=40",
    "trainer.num_epochs=80",  # so that a node can be lost in the middle
    "trainer.interpolation_alphas=1",
    "trainer.placement_timeout_s=5",
)
GATE = """\
version: 1
criteria:
  - {name: evidence, type: required, kinds: [holdout, regression], min_items: 5}
"""
"""What is learned in seconds is not what this test is about."""


@pytest.fixture(scope="module")
def backends(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """A Kafka broker, an empty PostgreSQL database, and two Ray nodes beside a head."""
    broker = Broker(tmp_path_factory.mktemp("kafka")).start()
    name = f"cluster_{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    with started_nodes() as nodes:
        yield Backends(broker, f"{postgres_server}/{name}", nodes)
    broker.remove()


@pytest.fixture(scope="module")
def service(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`tacit up --profile cluster` on all of that."""
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    home = make_home(tmp_path_factory.mktemp("service"), recipe=RAW, gate=GATE)
    options = ("--profile", "cluster", *words)
    running = Service(home, options=options, environment=backends.environment)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def second(service: Service, tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A serving replica that `tacit run` starts with the public key alone: port, process."""
    public = tmp_path / "public"
    public.mkdir()
    shutil.copy(service.settings.keys_path / PUBLIC_NAME, public)
    port = free_port()
    places = [f"deploy.port={port}", f"gatekeeper.signing_path={public}"]
    words = [word for place in places for word in ("--set", place)]
    with (service.settings.home / "second.log").open("ab") as log:
        process = subprocess.Popen(
            [TACIT, "run", "serving", *service.options(), *words],
            env=service.environment,
            stdout=log,
            stderr=log,
        )
    yield port, process
    process.kill()
    process.wait()


def test_doctor_finds_all_well_and_a_database_that_is_not_there(
    backends: Backends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in backends.environment.items():
        monkeypatch.setenv(name, value)
    names = ("collector.port", "deploy.port", "tracking.port")
    ports = [word for name in names for word in ("--set", f"{name}={free_port()}")]
    command = ["doctor", "--profile", "cluster", "--json", *ports]
    well = json.loads(CliRunner().invoke(app, command).stdout)
    assert [row for row in well if row["status"] == "fail"] == []
    found = {row["found"] for row in well if row["status"] == "ok"}
    assert f"Kafka answers at {backends.broker.address}" in found
    assert f"this machine is a node of {backends.nodes.address}" in found

    monkeypatch.setenv("TACIT_DATABASE_URL", f"{backends.state_url}_of_another")
    ill = json.loads(CliRunner().invoke(app, command).stdout)
    [row] = [row for row in ill if row["status"] == "fail"]
    assert row["area"] == "database"
    assert "does not exist" in row["found"]


def test_from_feedback_to_rollback_with_a_node_lost_in_training(
    service: Service, backends: Backends, second: tuple[int, subprocess.Popen[bytes]]
) -> None:
    broker, state_url, nodes = backends
    genesis = service.get("/v1/releases")[0]["weights"]
    port, replica = second
    ports = [service.settings.deploy.port, port]
    _, *trainers = nodes.list_all_nodes()
    service.wait("workers", lambda: all(_policy_workers(node) for node in trainers))
    service.wait("a second replica", lambda: service.serves(genesis, port=port))
    with balanced(ports) as balancer:
        product = service.product(serving=balancer.url)
        tally = product.serve(micro_world().new_stream[:NUM_ASKED])
        product.close()
        assert set(balancer.taken) == set(ports)  # both answered
    service.wait("a step of training", lambda: _runs(service))
    nodes.remove_node(trainers[0], allow_graceful=False)

    candidate = service.wait("candidate", lambda: service.candidate("pending"))
    assert _policy_workers(trainers[1])
    made = service.get(f"/v1/candidates/{candidate}")["candidate"]
    assert made["world_size"] == 1  # of two, one is left

    service.cli("approve", candidate, "--reason", "better on what is new")
    service.wait("promotion", lambda: _states(state_url)[:1] == ["promoted"])
    assert all(service.serves(made["weights"], port=each) for each in ports)
    assert "2 of 2 replicas serve it" in service.page("/releases")

    replica.kill()
    replica.wait()
    service.cli("rollback", "--reason", "a drill")
    service.wait("swap back", lambda: service.serves(genesis))
    service.wait("silence", lambda: "1 of 1 replica serves it" in service.page("/releases"))
    with balanced(ports) as balancer:
        product = service.product(serving=balancer.url)
        assert short(genesis) in product.ask("where is my order").policy_version
        product.close()

    events = column(state_url, "SELECT event_id FROM events")
    assert len(set(events)) == len(events) == tally.num_sent
    assert num_records(broker, "tacit.feedback") == tally.num_sent
    assert num_records(broker, "tacit.interactions") == tally.num_asked + 1
    assert len(column(state_url, "SELECT release_id FROM releases")) == 3
    assert list(service.settings.home.glob("*.db")) == []


def test_a_cycle_outlives_restarts_of_postgresql_and_kafka(
    service: Service, backends: Backends
) -> None:
    before = column(backends.state_url, "SELECT event_id FROM events")
    num_before = num_records(backends.broker, "tacit.feedback")
    num_runs = len(_runs(service))
    loop, log = service.pid("loop"), service.settings.home / "logs" / "loop.log"
    product = service.product()
    tally = product.serve(micro_world().new_stream[NUM_ASKED : 2 * NUM_ASKED])
    service.wait("another training", lambda: len(_runs(service)) > num_runs)
    with postgres_away(backends.state_url):
        backends.broker.kill()
        backends.broker.start()
        # The training goes on; what came of it has nowhere to go.
        service.wait("the loop to wait", lambda: "the loop waits" in log.read_text())

    candidate = service.wait("candidate", lambda: service.candidate("pending"))
    service.cli("approve", candidate, "--reason", "seen it")
    service.wait("promotion", lambda: "promoted" in _states(backends.state_url)[1:])
    answer = service.wait("an answer", lambda: product.ask("where is my order"))
    product.close()
    about = ("--interaction", answer.interaction_id, "--subject", "u-cli")
    assert "acknowledged" in service.cli("send", *about, "--rate", "4", "--scale", "1:5")

    num_sent = tally.num_sent + 1
    assert num_records(backends.broker, "tacit.feedback") == num_before + num_sent
    count = "SELECT event_id FROM events"
    service.wait(
        "screening", lambda: len(column(backends.state_url, count)) == len(before) + num_sent
    )
    assert len(set(column(backends.state_url, count))) == len(before) + num_sent
    assert service.pid("loop") == loop  # it waited, with its workers warm


def _policy_workers(node: Any) -> list[str]:
    return [name for name in workers_on(node) if "PolicyWorker" in name]


def _runs(service: Service) -> list[int]:
    """The last step that MLflow has of each training."""
    client = MlflowClient(service.settings.tracking_uri)
    experiment = client.get_experiment_by_name("tacit/default")
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id])
    histories = [client.get_metric_history(run.info.run_id, "train/loss") for run in found]
    return [history[-1].step for history in histories if history]


def _states(url: str) -> list[str]:
    return column(url, "SELECT state FROM cycles ORDER BY number")
