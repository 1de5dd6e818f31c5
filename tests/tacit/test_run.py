"""``tacit run``: one process alone, and what it waits for."""

import shutil
import signal
import stat
import subprocess
import sys
import time
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from tacit.cli import app
from tacit.config import Settings, load_settings
from tacit.control import create_control
from tacit.errors import ConfigError, IntegrityError, UnavailableError
from tacit.ports import free_port
from tacit.serving import create_serving_app
from tacit.stages import Stages
from tacit.start import prepare, wait_until_prepared
from tacit.up import run_role

TACIT = Path(sys.executable).with_name("tacit")


def test_others_wait_for_what_control_makes(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    for role, missing in (("serving", r"no signing\.pub"), ("loop", r"no signing\.pem")):
        with pytest.raises(UnavailableError, match=missing):
            wait_until_prepared(settings, role, timeout_s=0)
    with pytest.raises(UnavailableError, match="a schema at None"):
        wait_until_prepared(settings, "screening", timeout_s=0)
    prepare(settings)
    for role in ("serving", "loop", "screening"):
        wait_until_prepared(settings, role, timeout_s=0)


def test_serving_needs_the_public_half_alone_and_who_signs_says_that_it_needs_more(
    tmp_path: Path,
) -> None:
    made = CliRunner().invoke(app, ["keys", "signing", str(tmp_path / "made")])
    assert made.exit_code == 0
    public = tmp_path / "public"
    public.mkdir()
    shutil.copy(tmp_path / "made" / "signing.pub", public)
    settings = load_settings(
        home=tmp_path / "home", overrides=[f"gatekeeper.signing_path={tmp_path}/made"]
    )
    prepare(settings)
    assert not (settings.keys_path / "signing.pem").exists()

    elsewhere = load_settings(
        home=tmp_path / "home", overrides=[f"gatekeeper.signing_path={public}"]
    )
    wait_until_prepared(elsewhere, "serving", timeout_s=0)
    with TestClient(create_serving_app(elsewhere)) as client:
        assert client.get("/readyz").status_code == HTTPStatus.SERVICE_UNAVAILABLE  # no release yet
    wait_until_prepared(elsewhere, "loop", timeout_s=0)
    for start in (Stages, create_control, prepare):
        with pytest.raises(IntegrityError, match="with which this process signs"):
            start(elsewhere)
    assert [path.name for path in public.iterdir()] == ["signing.pub"]


def test_a_database_that_is_away_at_the_start_is_named(tmp_path: Path) -> None:
    url = f"postgresql://tacit@127.0.0.1:{free_port()}/tacit"
    settings = load_settings(home=tmp_path, overrides=[f"database_url={url}"])
    with pytest.raises(UnavailableError, match="a database that answers"):
        prepare(settings)
    with pytest.raises(UnavailableError, match="what `tacit run control` makes"):
        wait_until_prepared(settings, "screening", timeout_s=0)


def test_home_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare(load_settings(home=home))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


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
