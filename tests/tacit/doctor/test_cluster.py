"""``tacit doctor --profile cluster`` with every part of the cluster away or wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tacit.cli import app
from tacit.ports import free_port

MENDS = {
    "stream": "bootstrap_servers",
    "database": "TACIT_DATABASE_URL",
    "ray": "ray start --head",
    "mlflow": "tracking.uri",
    "keys": "Put the key back",
}


def test_it_names_each_part_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "signing"
    keys.mkdir()
    (keys / "signing.pem").write_text("half a key")
    (keys / "signing.pem").chmod(0o600)
    monkeypatch.setenv("TACIT_DATABASE_URL", f"postgresql://u:hidden@127.0.0.1:{free_port()}/x")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("TACIT_GATEKEEPER__SIGNING_PATH", str(keys))
    overrides = [
        f"collector.kafka.bootstrap_servers=127.0.0.1:{free_port()}",
        "collector.kafka.bootstrap_timeout_s=0.3",
        f"tracking.uri=http://127.0.0.1:{free_port()}",
        f"collector.port={free_port()}",
        f"deploy.port={free_port()}",
    ]
    words = [word for override in overrides for word in ("--set", override)]
    command = ["doctor", "--profile", "cluster", "--json", "--home", str(tmp_path), *words]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    rows = [row for row in json.loads(done.stdout) if row["status"] == "fail"]
    assert {row["area"] for row in rows} == set(MENDS)
    assert [row["mend"] for row in rows if MENDS[row["area"]] not in row["mend"]] == []
    assert "hidden" not in done.stdout
