"""``tacit dead-letter`` and ``tacit quarantine`` against a service that runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from fastapi import FastAPI
from typer.testing import CliRunner

from collector.consume import Consumer
from collector.ingest import feedback_topic
from collector.streams.embedded import EmbeddedStream
from collector.tables import EventRow
from collector.triage.routes import create_triage
from gatekeeper.ledger import Ledger
from tacit.cli import app
from tacit.config import load_settings
from tacit.contracts import Correction, FeedbackEvent
from tacit.database import Database
from tacit.errors import InvalidInputError, TacitError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.ports import free_port
from tacit.signing import Signer
from tests.builders import event, interaction
from tests.collector.test_client import serving


class Service:
    """The triage routes on a port, and the command line that talks to them."""

    def __init__(self, database: Database, home: Path) -> None:
        self.database = database
        self.home = home
        overrides = ["collector.screening.holdout_share=0"]
        self.settings = load_settings(home=home, overrides=overrides)
        self.stream = EmbeddedStream(home / "stream.db")
        self.consumer = Consumer(database, self.stream, self.settings)
        self.ledger = Ledger(database, Signer.load_or_create(home / "keys"))
        keys = KeyStore(database)
        self.key = keys.create("root", scopes={Scope.ADMIN})
        self.port = free_port()
        self.app = FastAPI()
        install_error_handlers(self.app)
        self.app.include_router(
            create_triage(self.settings, database, self.stream, keys, self.ledger.append)
        )

    def produce(self, *payloads: bytes) -> None:
        self.stream.append(feedback_topic(self.settings), [("k", p) for p in payloads])
        self.consumer.drain()

    def screen(self, *events: FeedbackEvent) -> None:
        self.produce(*[e.model_dump_json().encode() for e in events])

    def run(self, *words: str, fails_with: type[TacitError] | None = None) -> Result:
        url = f"http://127.0.0.1:{self.port}"
        words = (*words, "--url", url, "--key", self.key, "--home", str(self.home))
        done = CliRunner().invoke(app, list(words))
        if fails_with is None:
            assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        else:
            assert isinstance(done.exception, fails_with)
        return done

    def listed(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def status(self, name: str) -> tuple[str, str | None]:
        with self.database.reader() as session:
            row = session.get_one(EventRow, f"helpdesk/{name}")
            return row.status, row.reason


@pytest.fixture
def service(sqlite_database: Database, tmp_path: Path) -> Iterator[Service]:
    made = Service(sqlite_database, tmp_path)
    with serving(made.app, made.port):
        yield made
    made.stream.close()


def test_letters_are_listed_shown_mended_and_replayed(service: Service, tmp_path: Path) -> None:
    service.produce(b"[bold]not json\x1b[2J", b"\xff")
    ids = [row["id"] for row in service.listed("dead-letter", "list")["letters"]]
    assert len(ids) == 2
    table = service.run("dead-letter", "list", "--reason", "unparsable").stdout
    assert "[bold]not" in table
    assert "\x1b" not in table
    shown = service.run("dead-letter", "show", ids[1]).stdout
    assert "[bold]not json" in shown
    assert "\x1b" not in shown
    mended = tmp_path / "mended.json"
    mended.write_text(event("e-1").model_dump_json())
    done = service.run("dead-letter", "replay", ids[1], "--payload", str(mended))
    assert "replayed 1" in done.stdout
    assert "already_replayed" in service.run("dead-letter", "replay", ids[1]).stdout
    service.consumer.drain()
    assert service.status("e-1") == ("accepted", None)


def test_replay_and_drop_of_a_reason_take_more_than_one_call(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.triage.replay.MAX_LETTERS", 3)
    monkeypatch.setattr("collector.triage.dead_letter_routes.MAX_LETTERS", 3)
    service.produce(*[b"bad %d" % number for number in range(8)])
    done = service.run("dead-letter", "replay", "--reason", "unparsable")
    assert done.stdout.split() == ["replayed", "3", "replayed", "3", "replayed", "2"]
    assert service.consumer.drain() == 8
    assert service.run("dead-letter", "drop", "--all", "--yes").stdout.count("dropped") == 6
    assert service.listed("dead-letter", "list", "--replayed")["letters"] == []


def test_drop_of_all_asks_first(service: Service) -> None:
    service.produce(b"bad")
    assert service.run("dead-letter", "drop", "--all").exit_code == 1
    assert len(service.listed("dead-letter", "list")["letters"]) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["dead-letter", "replay"],
        ["dead-letter", "replay", "a:0:0", "--all"],
        ["dead-letter", "drop", "--all", "--reason", "conflict", "--yes"],
        ["quarantine", "release", "-m", "x"],
        ["quarantine", "drop", "helpdesk/e-1", "--reason", "conflict", "-m", "x"],
    ],
)
def test_selection_must_be_plain(service: Service, words: list[str]) -> None:
    service.run(*words, fails_with=InvalidInputError)


def contradict(service: Service, number: int) -> None:
    """``a-N`` is accepted, and ``b-N`` says something else."""
    said = interaction(f"prompt {'abcdefgh'[number]}")
    rival = Correction(completion="refunds")
    service.screen(
        event(f"a-{number}", subject_id=f"u-{number}", interaction=said),
        event(f"b-{number}", subject_id=f"v-{number}", interaction=said, feedback=rival),
    )


def test_quarantine_is_listed_and_decided_on(service: Service) -> None:
    for number in range(4):
        contradict(service, number)
    (first, *_) = service.listed("quarantine", "list", "--reason", "contradiction")["events"]
    assert first["event_key"] == "helpdesk/b-3"
    assert "refunds" in service.run("quarantine", "show", "helpdesk/b-3").stdout
    assert "b-3" in service.run("quarantine", "list", "--subject", "v-3").stdout
    done = service.run("quarantine", "release", "helpdesk/b-3", "-m", "she is right")
    assert done.stdout.split() == ["1", "accepted"]
    assert service.status("b-3") == ("accepted", None)
    done = service.run("quarantine", "drop", "--source", "helpdesk", "-m", "poison")
    assert done.stdout.split() == ["3", "dropped"]
    assert service.listed("quarantine", "list")["events"] == []
    entries = service.ledger.export()["entries"]
    assert [entry["kind"] for entry in entries] == ["quarantine_release", "quarantine_drop"]


def test_filter_goes_past_what_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tacit.commands.quarantine._PAGE", 2)
    for number in range(5):
        contradict(service, number)
    with service.database.session() as session:
        for number in (4, 3, 1):
            session.get_one(EventRow, f"helpdesk/b-{number}").interaction = None
    done = service.run("quarantine", "release", "--reason", "contradiction", "-m", "fine")
    assert done.exit_code == 1
    assert "3 refused, 2 accepted" in done.stdout
    assert "never joined" in done.stdout
    assert service.status("b-0") == service.status("b-2") == ("accepted", None)


def test_commands_are_in_the_help() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    assert "dead-letter" in text
    assert "quarantine" in text
