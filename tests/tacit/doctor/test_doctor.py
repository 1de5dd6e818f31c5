"""``tacit doctor``: never hangs, prints what it found, and fails when something does."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tacit.cli import app
from tacit.config import Settings
from tacit.doctor.examine import AREAS
from tacit.doctor.findings import Finding, Status, ok
from tacit.ports import free_port
from tests.tacit.doctor.patients import findings, only


def test_a_check_that_hangs_or_raises_is_a_failure() -> None:
    release = threading.Event()

    def hangs(_: Settings) -> Iterator[Finding]:
        release.wait()
        yield ok("area", "never")

    def raises(_: Settings) -> Iterator[Finding]:
        raise RuntimeError("broken driver")

    try:
        hung = only(findings(hangs, Settings(), timeout_s=0.05), Status.FAIL)
        assert "no answer within 0.05 s" in hung.found
    finally:
        release.set()
    assert "broken driver" in only(findings(raises, Settings()), Status.FAIL).found


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
    table = CliRunner().invoke(app, ["doctor", "--set", "loop.min_events=0"])
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


def test_an_install_without_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tacit.doctor.examine", None)
    bad = CliRunner().invoke(app, ["doctor", "--json"])
    [row] = [row for row in json.loads(bad.stdout) if row["status"] == "fail"]
    assert row["mend"] == "pip install 'tacit[service]'"
