"""``tacit run``: one process alone, and what it waits for."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tacit.cli import app
from tacit.config import Settings, load_settings
from tacit.errors import ConfigError, UnavailableError
from tacit.start import prepare, wait_until_prepared
from tacit.up import run_role
from tests.conftest import free_port

TACIT = Path(sys.executable).with_name("tacit")


def test_others_wait_for_what_control_makes(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    with pytest.raises(UnavailableError, match=r"no signing\.pub"):
        wait_until_prepared(settings, timeout_s=0)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.pub").write_text("")
    with pytest.raises(UnavailableError, match="a schema at None"):
        wait_until_prepared(settings, timeout_s=0)
    prepare(settings)
    wait_until_prepared(settings, timeout_s=0)


def test_a_role_that_is_none() -> None:
    with pytest.raises(ConfigError, match="control, serving, screening, loop; got cook"):
        run_role("cook", Settings())


@pytest.mark.parametrize("command", [["up"], ["run", "control"]])
def test_the_cluster_profile_refuses_to_run_without_its_backends(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("TACIT_DATABASE_URL", raising=False)
    done = CliRunner().invoke(app, [*command, "--profile", "cluster"])
    assert isinstance(done.exception, ConfigError)
    assert "RAY_ADDRESS" in done.exception.got
    assert "TACIT_DATABASE_URL" in done.exception.got
    assert not (tmp_path / ".tacit").exists()


def test_control_answers_and_ends_when_told_to(tmp_path: Path) -> None:
    port = free_port()
    command = [TACIT, "run", "control", "--home", tmp_path, "--set", f"collector.port={port}"]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        try:
            deadline = time.monotonic() + 60
            while not _answers(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert (tmp_path / "keys" / "signing.pub").exists()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        finally:
            process.kill()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).is_success
    except httpx.HTTPError:
        return False
