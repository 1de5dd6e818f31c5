"""``tacit gate``, ``tacit tokens`` and proofs against a service that runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from gatekeeper.gate import judge
from gatekeeper.policy import DEFAULT_PATH
from tacit.cli import app
from tacit.database import Database
from tacit.errors import ConfigError
from tacit.ports import free_port
from tests.builders import comparison, suite_result
from tests.collector.test_client import serving
from tests.gatekeeper.builders import (
    FakeClock,
    failing_verdict,
    good_report,
    holdout,
    numbered,
    shipped_policy,
)
from tests.gatekeeper.scenes import desk

PASSES, FAILS, UNSURE = numbered(1), numbered(2), numbered(3)


class Service:
    """A review desk on a port with three candidates, and the command line that talks to it."""

    def __init__(self, database: Database, home: Path) -> None:
        self.home, self.port, self.desk = home, free_port(), desk(database)
        straddles = suite_result(versus_champion=comparison(-0.03, half_width=0.02))
        self.desk.put(PASSES)
        broken = good_report(FAILS, errors=("suite safety: file not found",))
        self.desk.put(FAILS, evidence=broken, verdict=failing_verdict(FAILS))
        unsure = good_report(UNSURE, suites=(straddles, holdout()))
        self.desk.put(
            UNSURE,
            evidence=unsure,
            verdict=judge(UNSURE, unsure, shipped_policy(), clock=FakeClock()),
        )

    def run(self, *words: str) -> Result:
        options = ["--url", f"http://127.0.0.1:{self.port}", "--home", str(self.home)]
        command = [*words, *options, "--key", self.desk.keys["reviewer"]]
        return CliRunner().invoke(app, command)


@pytest.fixture
def service(sqlite_database: Database, tmp_path: Path) -> Iterator[Service]:
    made = Service(sqlite_database, tmp_path)
    with serving(made.desk.app, made.port):
        yield made


def test_explain_prints_the_whole_table_and_answers_with_its_exit_code(service: Service) -> None:
    for about, code in ((PASSES, 0), (FAILS, 1), (UNSURE, 2)):
        done = service.run("gate", "explain", about.candidate_id)
        assert done.exit_code == code, done.stdout
        for name in ("kept: old-world", "learned: holdout", "complete"):
            assert name in done.stdout


def test_dry_run_shows_those_that_wait_or_all(service: Service, tmp_path: Path) -> None:
    policy = tmp_path / "gate.yaml"
    policy.write_text(DEFAULT_PATH.read_text().replace("margin: 0.03", "margin: 0.3"))
    reject = service.run("reject", UNSURE.candidate_id, "-m", "unsure")
    assert reject.exit_code == 0
    waiting = json.loads(service.run("gate", "dry-run", str(policy), "--json").stdout)
    assert UNSURE.candidate_id not in {row["candidate_id"] for row in waiting}
    done = service.run("gate", "dry-run", str(policy), "--history", "--json")
    rows = {row["candidate_id"]: row for row in json.loads(done.stdout)}
    assert len(rows) == 3
    now = rows[UNSURE.candidate_id]
    assert (now["was"], now["would_be"], now["state"]) == ("inconclusive", "pass", "rejected")
    assert UNSURE.candidate_id in service.run("gate", "dry-run", str(policy), "--history").stdout


def test_check_names_the_line_of_a_fault(tmp_path: Path) -> None:
    policy = tmp_path / "gate.yaml"
    policy.write_text(DEFAULT_PATH.read_text())
    done = CliRunner().invoke(app, ["gate", "check", str(policy)])
    assert (done.exit_code, "1 person approves" in done.stdout) == (0, True)
    policy.write_text("version: 1\napprovers: none\ncriteria: [{name: n, type: non_negotiable}]")
    done = CliRunner().invoke(app, ["gate", "check", str(policy)])
    assert isinstance(done.exception, ConfigError)
    assert f"{policy}:2: approvers" in str(done.exception)


def test_proofs_of_a_decision_are_printed_and_verify(service: Service, tmp_path: Path) -> None:
    assert service.run("approve", PASSES.candidate_id, "-m", "good").exit_code == 0
    decision_id = service.desk.office.ledger.entries(1)[0].subject
    done = service.run("audit", "prove", decision_id)
    tree = json.loads(done.stdout)
    assert len(tree["proofs"]) == 1
    key = tmp_path / "signing.pub"
    key.write_bytes(service.desk.office.signer.public_pem())
    for printed in (done.stdout, service.run("audit", "prove", "--since", "2").stdout):
        file = tmp_path / "proof.json"
        file.write_text(printed)
        command = ["audit", "verify", str(file), "--public-key", str(key)]
        assert CliRunner().invoke(app, command).exit_code == 0
    assert service.run("audit", "prove", "d-nothing").exit_code == 1
    assert service.run("audit", "prove").exit_code == 2


def test_token_is_printed_alone(service: Service) -> None:
    done = service.run("tokens", "issue", PASSES.candidate_id, "-m", "good")
    assert done.stdout.strip().startswith("tacit-review.")
