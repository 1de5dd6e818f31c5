"""``tacit doctor``: each area fails where it should, says how to mend it, and never hangs."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tacit.cli import app
from tacit.config import Settings, load_settings
from tacit.database import Database
from tacit.doctor.compute import check_ray, check_torch
from tacit.doctor.database import check_database
from tacit.doctor.engine import check_engine
from tacit.doctor.examine import AREAS
from tacit.doctor.findings import Check, Finding, Status, ask, ok
from tacit.doctor.gate import check_gate
from tacit.doctor.home import check_home
from tacit.doctor.keys import check_keys
from tacit.doctor.ports import check_ports
from tacit.doctor.reward import check_model, check_reward
from tacit.doctor.stream import check_stream
from tacit.doctor.tracking import check_tracking
from tacit.errors import ConfigError
from tacit.secrets_file import MasterSecret
from tacit.signing import Signer
from tests.conftest import free_port


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def _settings(home: Path, *overrides: str) -> Settings:
    ports = [f"{name}={free_port()}" for name in ("collector.port", "deploy.port", "tracking.port")]
    return load_settings(home=home, overrides=[*ports, *overrides])


def _found(check: Check, settings: Settings, *, timeout_s: float = 20) -> list[Finding]:
    return ask("area", check, settings, timeout_s=timeout_s)


def _worst(found: list[Finding], status: Status) -> Finding:
    """The one finding of ``status``."""
    [worst] = [finding for finding in found if finding.status is status]
    assert worst.mend
    return worst


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on and never answers at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


class _Answers(BaseHTTPRequestHandler):
    status, body = 200, b'{"status":"ok"}'

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Silence."""


def _serving(handler: type[_Answers]) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def healthy() -> Iterator[int]:
    """A server that says it is well, whatever is asked."""
    yield from _serving(_Answers)


@pytest.fixture
def refusing() -> Iterator[int]:
    """A server that wants a key."""
    yield from _serving(type("Refuses", (_Answers,), {"status": 401}))


def test_a_check_that_hangs_or_raises_is_a_failure() -> None:
    release = threading.Event()

    def hangs(_: Settings) -> Iterator[Finding]:
        release.wait()
        yield ok("area", "never")

    def raises(_: Settings) -> Iterator[Finding]:
        raise RuntimeError("broken driver")

    try:
        hung = _worst(_found(hangs, Settings(), timeout_s=0.05), Status.FAIL)
        assert "no answer within 0.05 s" in hung.found
    finally:
        release.set()
    assert "broken driver" in _worst(_found(raises, Settings()), Status.FAIL).found


def test_home_that_cannot_be_written_or_is_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert (
        "is not a folder"
        in _worst(_found(check_home, _settings(tmp_path / "file" / "home")), Status.FAIL).found
    )
    huge = _settings(tmp_path / "home", f"collector.min_free_bytes={1 << 60}")
    assert "Make room" in _worst(_found(check_home, huge), Status.FAIL).mend
    assert not (tmp_path / "home").exists()


def test_database_that_is_away_foreign_or_old(tmp_path: Path) -> None:
    away = _settings(tmp_path, f"database_url=postgresql://u:hidden@127.0.0.1:{free_port()}/x")
    finding = _worst(_found(check_database, away), Status.FAIL)
    assert "TACIT_DATABASE_URL" in finding.mend
    assert "hidden" not in finding.found

    here = _settings(tmp_path)
    assert "made at the start" in _found(check_database, here)[0].found
    assert not (tmp_path / "tacit.db").exists()
    database = Database(here.resolved_database_url)
    database.migrate()
    assert [f.status for f in _found(check_database, here)] == [Status.OK]
    for version, status in (("0001", Status.WARN), ("9999", Status.FAIL)):
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
        assert version in _worst(_found(check_database, here), status).found
    database.dispose()


def test_kafka_that_does_not_answer(tmp_path: Path) -> None:
    away = _settings(
        tmp_path,
        "collector.stream=kafka",
        f"collector.kafka.bootstrap_servers=127.0.0.1:{free_port()}",
        "collector.kafka.bootstrap_timeout_s=0.3",
    )
    assert "bootstrap_servers" in _worst(_found(check_stream, away), Status.FAIL).mend


def test_topics_that_are_there_and_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Admin:
        def describe_topics(self) -> list[dict[str, object]]:
            return [{"name": "tacit.feedback", "partitions": [{}, {}, {}]}]

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(
        "collector.streams.kafka_connection.KafkaConnection.admin", lambda _: Admin()
    )
    found = _found(check_stream, _settings(tmp_path, "collector.stream=kafka"))
    assert "tacit.feedback has 3 partitions" in found[1].found
    assert "tacit.interactions" in _worst(found, Status.WARN).found


def test_extras_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("database", "stream", "gate"):
        monkeypatch.setattr(f"tacit.doctor.{module}.find_spec", lambda _: None)
    settings = _settings(
        tmp_path, "collector.stream=kafka", "database_url=postgresql://h/x", "model=a/b"
    )
    _suite(settings.suites_path, items=300)
    task = "name: t\nkind: capability\ntype: lm_eval\ntasks: [arc_easy]\n"
    (settings.suites_path / "t.yaml").write_text(task)
    mends = [_worst(_found(c, settings), Status.FAIL).mend for c in (check_database, check_stream)]
    assert mends == ["pip install 'tacit[postgres]'", "pip install 'tacit[kafka]'"]
    assert "lm-eval" in _worst(_found(check_gate, settings), Status.FAIL).mend


def test_mlflow_that_does_not_answer(tmp_path: Path, healthy: int) -> None:
    away = _settings(tmp_path, f"tracking.uri=http://127.0.0.1:{free_port()}")
    assert "tracking.uri" in _worst(_found(check_tracking, away), Status.FAIL).mend
    there = _settings(tmp_path, f"tracking.uri=http://127.0.0.1:{healthy}")
    assert [f.status for f in _found(check_tracking, there)] == [Status.OK]


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:{port}", "nothing listens"), ("somewhere", "RAY_ADDRESS is somewhere")],
)
def test_ray_that_is_away(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address.format(port=free_port()))
    assert message in _worst(_found(check_ray, _settings(tmp_path)), Status.FAIL).found


def test_ray_without_a_node_here(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken}")
    finding = _worst(_found(check_ray, _settings(tmp_path)), Status.WARN)
    assert finding.mend == f"ray start --num-cpus=0 --address=127.0.0.1:{taken}"


def test_more_workers_than_cpus(tmp_path: Path) -> None:
    many = _settings(tmp_path, f"trainer.num_workers={(os.cpu_count() or 1) + 1}")
    assert "trainer.num_workers" in _worst(_found(check_ray, many), Status.FAIL).found


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    wants = _settings(tmp_path, "deploy.device=cuda")
    assert "deploy.device" in _worst(_found(check_torch, wants), Status.FAIL).found


def test_ports_taken_by_others_by_tacit_and_twice(tmp_path: Path, taken: int, healthy: int) -> None:
    other = _settings(tmp_path, f"collector.port={taken}")
    assert "set collector.port" in _worst(_found(check_ports, other), Status.FAIL).mend
    ours = _settings(tmp_path, f"deploy.port={healthy}")
    assert {f.status for f in _found(check_ports, ours)} == {Status.OK}
    port = free_port()
    twice = _settings(tmp_path, f"collector.port={port}", f"deploy.port={port}")
    assert [f.status for f in _found(check_ports, twice)].count(Status.FAIL) == 2


def test_keys_that_others_read_and_keys_that_are_broken(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    assert [f.status for f in _found(check_keys, settings)] == [Status.OK]
    Signer.load_or_create(settings.keys_path)
    MasterSecret.load_or_create(settings.keys_path)
    assert [f.status for f in _found(check_keys, settings)] == [Status.OK]

    signing, public = settings.keys_path / "signing.pem", settings.keys_path / "signing.pub"
    signing.chmod(0o640)
    assert "chmod 600" in _worst(_found(check_keys, settings), Status.FAIL).mend
    signing.chmod(0o600)
    public.write_text("another key")
    assert "does not belong" in _worst(_found(check_keys, settings), Status.WARN).found
    signing.write_text("half a key")
    assert "backup" in _worst(_found(check_keys, settings), Status.FAIL).mend
    signing.unlink()
    assert "alone" in _worst(_found(check_keys, settings), Status.FAIL).found


def test_a_webhook_whose_variable_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tacit.toml"
    file.write_text('[gatekeeper.webhooks.chat]\nurl_variable = "CHAT_URL"\n')
    monkeypatch.delenv("CHAT_URL", raising=False)
    settings = load_settings(file, home=tmp_path)
    assert "CHAT_URL" in _worst(_found(check_keys, settings), Status.FAIL).mend


def _suite(folder: Path, *, items: int, kind: str = "regression", cluster: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s.yaml").write_text(f"name: s\nkind: {kind}\nitems: s.jsonl\n")
    rows = (
        {"prompt": f"p{n}", "expected": "a", "cluster": cluster and f"{cluster}{n // 2}"}
        for n in range(items)
    )
    (folder / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_suites_too_small_for_the_policy(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "model=a/b")
    missing = _worst(_found(check_gate, settings), Status.FAIL)
    assert "asks for 20 items of regression; there are 0" in missing.found

    # The shipped policy: 3 points at 0.001 take 227 items, 2 points at 0.01 take 228.
    for items, needed in ((227, ["228"]), (226, ["227", "228"]), (228, [])):
        _suite(settings.suites_path, items=items)
        short = [f for f in _found(check_gate, settings) if f.status is Status.WARN]
        assert [f.found.split(" takes ")[1].split()[0] for f in short] == needed
    _suite(settings.suites_path, items=228, cluster="c")
    assert "worth 114" in _found(check_gate, settings)[-1].found


def test_a_gate_policy_and_a_suite_that_cannot_be_read(tmp_path: Path) -> None:
    policy = tmp_path / "gate.yaml"
    policy.write_text("version: 2\n")
    bad = _settings(tmp_path, f"gatekeeper.gate_policy_path={policy}")
    assert "gate.yaml:1" in _worst(_found(check_gate, bad), Status.FAIL).found

    settings = _settings(tmp_path)
    _suite(settings.suites_path, items=300)
    (settings.suites_path / "t.yaml").write_text("name: t\n")
    assert "t.yaml: kind" in _worst(_found(check_gate, settings), Status.FAIL).found


def test_a_reward_function_that_cannot_be_imported(tmp_path: Path) -> None:
    bad = _settings(tmp_path, "trainer.reward.function=no.such:thing")
    with pytest.raises(ConfigError, match=r"no\.such"):
        list(check_reward(bad))
    known = "trainer.reward.function=trainer.methods.reward:matches_known_answer"
    assert [f.status for f in _found(check_reward, _settings(tmp_path, known))] == [Status.OK]


def test_a_model_that_is_no_folder(tmp_path: Path) -> None:
    gone = _settings(tmp_path, f"model={tmp_path}/gone")
    assert "is no folder" in _worst(_found(check_model, gone), Status.FAIL).found
    empty = _settings(tmp_path, f"model={tmp_path}")
    assert "config.json" in _worst(_found(check_model, empty), Status.FAIL).found


def test_vllm_that_is_away_or_wants_a_key(tmp_path: Path, refusing: int) -> None:
    away = _settings(
        tmp_path, "deploy.engine=vllm", f"deploy.vllm_url=http://127.0.0.1:{free_port()}"
    )
    assert "deploy.vllm_url" in _worst(_found(check_engine, away), Status.FAIL).mend
    locked = _settings(
        tmp_path, "deploy.engine=vllm", f"deploy.vllm_url=http://127.0.0.1:{refusing}"
    )
    assert "TACIT_VLLM_API_KEY" in _worst(_found(check_engine, locked), Status.FAIL).mend


def test_the_command_prints_rows_and_fails_with_them(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"home": AREAS["home"], "ports": AREAS["ports"]}
    monkeypatch.setattr("tacit.doctor.examine.AREAS", wanted)
    ports = [f"--set={key}={free_port()}" for key in ("collector.port", "tracking.port")]
    command = ["doctor", "--home", str(tmp_path), "--json", *ports]
    good = CliRunner().invoke(app, [*command, f"--set=deploy.port={free_port()}"])
    bad = CliRunner().invoke(app, [*command, f"--set=deploy.port={taken}"])
    assert (good.exit_code, bad.exit_code) == (0, 1)
    [row] = [row for row in json.loads(bad.stdout) if row["status"] == "fail"]
    assert row["area"] == "ports"
    table = CliRunner().invoke(
        app, ["doctor", "--set", "loop.min_events=0"], env={"COLUMNS": "200"}
    )
    assert table.exit_code == 1
    assert "loop.min_events" in table.stdout


def test_profile_cluster_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tacit.doctor.examine.AREAS", {})
    command = ["doctor", "--profile", "cluster", "--json"]
    bad = CliRunner().invoke(app, command)
    [row] = [row for row in json.loads(bad.stdout) if row["status"] == "fail"]
    assert "TACIT_DATABASE_URL" in row["found"]
    assert "RAY_ADDRESS" in row["found"]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("TACIT_DATABASE_URL", "postgresql://db/tacit")
    assert CliRunner().invoke(app, command).exit_code == 0
