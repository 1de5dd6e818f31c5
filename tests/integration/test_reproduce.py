"""A candidate of a real cycle, rebuilt by the command in a process of its own."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import select

from collector.tables import EventRow
from tacit.cli import main
from tacit.commands.reproduce import _page as page
from tacit.config import Settings, with_overrides
from tacit.contracts import PolicyCandidate
from tacit.cycles import CycleRow, CycleState
from tacit.database import Database
from tacit.loop import LoopObserver, OnlineLoop
from tests.builders import tiny_checkpoint
from tests.integration.crashing_loop import crash_settings
from tests.integration.test_crashes import _home as home_with_events
from trainer.store import CandidateStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
        "ignore::sqlalchemy.exc.SADeprecationWarning",
    ),
]


class UntilDecision(LoopObserver):
    """Stops the loop once a candidate waits for a person."""

    loop: OnlineLoop

    def on_state(self, cycle: CycleRow) -> None:
        """Stops."""
        if cycle.state == CycleState.AWAITING_DECISION:
            self.loop.stop()


def cycle_settings(home: Path) -> Settings:
    """Half of each update is taken, so that the variant is rebuilt too."""
    return with_overrides(crash_settings(home), ["trainer.interpolation_alphas=0.5"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a service that stopped while its first candidate waited."""
    folder = home_with_events(tmp_path_factory.mktemp("reproduce") / "home")
    observer = UntilDecision()
    with (
        contextlib.chdir(folder),
        OnlineLoop(cycle_settings(folder), observer=observer) as loop,
    ):
        observer.loop = loop
        loop.begin(lambda: tiny_checkpoint(loop.checkpoints), by="test")
        assert loop.run_cycle().state == CycleState.AWAITING_DECISION
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def the_candidate(home: Path) -> PolicyCandidate:
    database = Database(cycle_settings(home).resolved_database_url)
    (candidate,) = CandidateStore(database).all("default")
    database.dispose()
    return candidate


def test_a_fresh_process_rebuilds_the_candidate_bit_for_bit(home: Path) -> None:
    candidate = the_candidate(home)
    command = ["reproduce", candidate.candidate_id, "--home", str(home), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from tacit.cli import main; main()", *command],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert answer["same"]
    assert answer["weights"] == candidate.weights != candidate.trained
    facts = {fact["name"]: fact for fact in answer["facts"]}
    assert facts["alpha"]["recorded"] == "0.5"
    assert facts["world_size"]["recorded"] == str(candidate.world_size)
    assert facts["trained"]["here"] == candidate.trained
    assert facts["version processor"]["recorded"] not in {"", "-"}
    assert [name for name, fact in facts.items() if not fact["same"]] == []


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """What the command says on standard error when it exits with 1."""
    monkeypatch.setattr(sys, "argv", ["tacit", "reproduce", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_a_tampered_event_is_refused_by_name(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(home, tmp_path / "home")
    database = Database(crash_settings(copy).resolved_database_url)
    with database.session() as session:
        row = session.scalars(select(EventRow).where(EventRow.batch_id.is_not(None))).first()
        assert row is not None
        key, row.interaction = row.event_key, (row.interaction or "").replace("trouble", "luck")
    database.dispose()
    candidate_id = the_candidate(copy).candidate_id
    said = refusal(monkeypatch, capsys, candidate_id, "--home", str(copy))
    assert f"to be {key}" in said


def test_what_is_not_there_is_said_and_not_made(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unknown = "c-000000000000"
    assert unknown in refusal(monkeypatch, capsys, unknown, "--home", str(home))
    nowhere = tmp_path / "nowhere"
    assert "--home" in refusal(monkeypatch, capsys, unknown, "--home", str(nowhere))
    assert not nowhere.exists()


def test_the_page_of_a_candidate_that_is_not_reproduced_names_what_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = [
        {"name": "version torch", "recorded": "2.13.0", "here": "2.14.0[cpu]", "same": False},
        {"name": "config seed", "recorded": "0", "here": "0", "same": True},
        {"name": "weights", "recorded": "sha256:aa", "here": "sha256:bb", "same": False},
    ]
    Console(width=120).print(page({"candidate_id": "c-1", "same": False, "facts": facts}))
    told = capsys.readouterr().out
    assert "NOT reproduced" in told
    assert "2.14.0[cpu]" in told
    assert "recorded versions" in told
    assert "config seed" not in told
    Console(width=120).print(page({"candidate_id": "c-1", "same": False, "facts": facts[2:]}))
    assert "not made by it" in capsys.readouterr().out
