"""Provenance: releases name the feedback behind them, and feedback the releases it reached."""

from pathlib import Path
from typing import Any

import pytest

from collector.tables import EventRow
from gatekeeper.ledger import Ledger
from gatekeeper.subjects import entries_about
from tacit.contracts import short
from tacit.contracts.batch import BatchEntry
from tacit.cycles import CycleState, CycleStore
from tacit.database import Database
from tacit.errors import NotFoundError
from tacit.provenance import Provenance
from tacit.signing import Signer
from tests.builders import MOMENT, batch, candidate, digest, event
from tests.tacit.test_lineage import Line
from trainer.store import BatchStore


class Story(Line):
    """A line whose batches hold events of a few people."""

    def __init__(self, database: Database, folder: Path) -> None:
        super().__init__(database, folder)
        self.provenance = Provenance("default", database, self.desk, {}.get)
        self.made: dict[str, str] = {}
        self.release(0, "first")
        for number, parent in ((1, "first"), (2, "w-1")):
            made = self.learn(
                f"w-{number}", parent=parent, batch=f"b-{number}", state=CycleState.PROMOTED
            )
            self.made[f"w-{number}"] = made
            self.release(number, f"w-{number}")
        self.put("e-1", "ada", "b-1")
        self.put("e-2", "bob", "b-1")
        self.put("e-3", "ada", "b-2")
        self.put("e-4", "eve", None)

    def put(self, event_id: str, subject: str, batch_name: str | None) -> None:
        sent = event(event_id, subject_id=subject)
        batch_id = None if batch_name is None else f"b-{short(digest(batch_name))}"
        with self.database.session() as session:
            number = session.query(EventRow).count()
            session.add(
                EventRow(
                    event_key=sent.event_key,
                    policy="default",
                    source=sent.source,
                    event_id=event_id,
                    subject_id=subject,
                    kind="correction",
                    status="accepted",
                    trust=1.0,
                    weight=1.0,
                    cluster="c",
                    body_digest=sent.digest(),
                    payload=sent.model_dump_json(),
                    occurred_at=MOMENT,
                    received_at=MOMENT,
                    sequence=number,
                    batch_id=batch_id,
                )
            )

    def about(self, name: str, **options: Any) -> dict[str, Any]:
        return self.provenance.of(name, **options)


@pytest.fixture
def story(database: Database, tmp_path: Path) -> Story:
    return Story(database, tmp_path)


def keys_of(found: dict[str, Any]) -> list[str]:
    return [row["event_key"] for row in found["events"]]


def test_release_names_the_events_behind_it(story: Story) -> None:
    found = story.about("r-default-2")
    assert [made["candidate_id"] for made in found["candidates"]] == [
        story.made["w-2"],
        story.made["w-1"],
    ]
    assert [made["num_events"] for made in found["candidates"]] == [1, 2]
    assert keys_of(found) == ["helpdesk/e-3", "helpdesk/e-2", "helpdesk/e-1"]
    assert (found["num_events"], found["num_subjects"]) == (3, 2)
    assert found["sources"] == {"helpdesk": 3}
    assert found["releases"][0]["state"] == "serving"
    first = story.about("r-default-1")
    assert keys_of(first) == ["helpdesk/e-2", "helpdesk/e-1"]
    assert first["releases"][0]["state"] == "replaced"
    assert keys_of(story.about("r-default-0")) == []


def test_candidate_looks_both_ways(story: Story) -> None:
    found = story.about(story.made["w-1"])
    assert keys_of(found) == ["helpdesk/e-2", "helpdesk/e-1"]
    assert [row["release_id"] for row in found["releases"]] == ["r-default-2", "r-default-1"]


def test_one_source_is_told_of_its_own_events_alone(story: Story) -> None:
    for about in ("r-default-2", story.made["w-1"]):
        assert story.about(about, source="shop")["events"] == []
        assert keys_of(story.about(about, source="helpdesk")) == keys_of(story.about(about))


@pytest.mark.parametrize("name", ["e-1", "helpdesk/e-1"])
def test_event_names_every_candidate_and_release_it_reached(story: Story, name: str) -> None:
    found = story.about(name)
    assert found["kind"] == "event"
    assert [made["candidate_id"] for made in found["candidates"]] == [story.made["w-1"]]
    assert [row["release_id"] for row in found["releases"]] == ["r-default-2", "r-default-1"]


def test_subject_names_what_all_its_events_reached(story: Story) -> None:
    found = story.about("ada")
    assert (found["kind"], keys_of(found)) == ("subject", ["helpdesk/e-1", "helpdesk/e-3"])
    assert {made["candidate_id"] for made in found["candidates"]} == set(story.made.values())
    untouched = story.about("eve")
    assert (untouched["num_events"], untouched["candidates"], untouched["releases"]) == (1, [], [])
    with pytest.raises(NotFoundError):
        story.about("ada", source="shop")


def test_event_of_a_failed_cycle_names_its_candidate_too(story: Story) -> None:
    entry = BatchEntry(event_key="helpdesk/e-4", event_digest=digest("e-4"), weight=1.0)
    sealed = batch(entries=(entry,))
    lost = candidate(batch_digest=sealed.digest(), weights=digest("w-lost"))
    cycles = CycleStore(story.database)
    cycle = cycles.resume_or_open("default")
    with story.database.session() as session:
        BatchStore(story.database).add(session, sealed, [])
    with story.database.session() as session:
        story.provenance._candidates.add(session, lost)
        cycles.move(session, cycle, CycleState.FAILED, batch_id=sealed.batch_id)
    assert [made["candidate_id"] for made in story.about("e-4")["candidates"]] == [
        lost.candidate_id
    ]


@pytest.mark.parametrize("name", ["r-default-9", "c-000000000000", "nobody", "\x00", "r-other-1"])
def test_what_is_unknown_is_not_found(story: Story, name: str) -> None:
    with pytest.raises(NotFoundError):
        story.about(name)


def test_ledger_speaks_about_an_event_through_what_it_reached(story: Story, tmp_path: Path) -> None:
    ledger = Ledger(story.database, Signer.load_or_create(tmp_path / "keys"))
    with story.database.session() as session:
        ledger.append(session, "verdict", story.made["w-2"], {})
        ledger.append(session, "promotion", "r-default-2", {})
        ledger.append(session, "verdict", story.made["w-1"], {})
    subjects = story.provenance.ledger_subjects
    assert entries_about(ledger, "e-3", subjects) == [0, 1]
    assert entries_about(ledger, "e-1", subjects) == [1, 2]
    assert entries_about(ledger, "nobody", subjects) == []
    assert entries_about(ledger, "2", subjects) == [2]
    assert entries_about(ledger, "3", subjects) == []
