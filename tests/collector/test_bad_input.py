"""Bad input is answered, and becomes of it, what docs/reference/bad-input.md says, row by row.

The table gives the expectations; what to send stands in ``bad_bodies.py``, ``bad_requests.py`` and
``bad_credentials.py``. A row that is sent nowhere, or one that is not in the table, fails.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from collector.ingest import interactions_topic
from tacit.config import load_settings
from tacit.database import Database
from tests.builders import recorded
from tests.collector.bad_bodies import BODIES, NDJSON, SENT_BEFORE
from tests.collector.bad_credentials import CREDENTIALS
from tests.collector.bad_requests import REQUESTS
from tests.collector.service import Disk, Service, body, opened

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "bad-input.md"


class Row(NamedTuple):
    """A row of the table."""

    name: str
    what: str
    status: int
    error: str
    says: str
    becomes: str


def read_rows() -> dict[str, Row]:
    """All rows of all tables of the page; fails on a name that comes twice."""
    rows: dict[str, Row] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 6 and cells[2].isdigit():
            assert cells[0] not in rows, cells[0]
            rows[cells[0]] = Row(cells[0], cells[1], int(cells[2]), *cells[3:])
    return rows


ROWS = read_rows()
SENDERS = REQUESTS | CREDENTIALS
# What can be one line of NDJSON.
LINES = [
    name
    for name, (content, kind) in BODIES.items()
    if kind == "application/json" and content.strip() and b"\n" not in content
]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under all SQLite files of the test."""
    disk = Disk()
    monkeypatch.setattr(sqlite3, "connect", disk.connect)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", disk.connect)
    return disk


@pytest.fixture
def service(tmp_path: Path, sqlite_database: Database, disk: Disk) -> Iterator[Service]:
    """The whole application with nothing held out."""
    overrides = ["collector.screening.holdout_share=0"]
    with opened(load_settings(home=tmp_path, overrides=overrides), disk) as service:
        yield service


def prepare(service: Service, name: str) -> None:
    """What must have happened before the row."""
    if name in SENT_BEFORE:
        assert service.send(body()).status_code == 202
    if name == "foreign-interaction":
        said = recorded("i-foreign", source="other").model_dump_json().encode()
        service.stream.append(interactions_topic(service.settings), [("k", said)])


def check_answer(expected: Row, answer: httpx.Response) -> None:
    """Status, type and words are those of the row, and the form is that of all errors."""
    assert answer.status_code == expected.status, answer.text
    if expected.status == 202:
        return
    told = answer.json()
    error = told["error"] if expected.status != 207 else first_error(told)
    assert set(error) == {"type", "expected", "got", "mend"}
    assert error["type"] == expected.error
    assert expected.says, "a row must say what the answer says"
    assert expected.says in " ".join(error.values()), error
    assert ("Retry-After" in answer.headers) == (expected.status in (429, 503))
    assert len(answer.content) < 2_000, "an answer must not repeat what it was sent"


def first_error(told: dict[str, Any]) -> dict[str, Any]:
    (error,) = [result["error"] for result in told["results"] if result.get("error")]
    return dict(error)


def test_table_and_tests_name_the_same_rows() -> None:
    assert sorted(ROWS) == sorted([*BODIES, *REQUESTS, *CREDENTIALS])


@pytest.mark.parametrize("name", BODIES)
def test_answer_to_bad_input(service: Service, name: str) -> None:
    prepare(service, name)
    content, kind = BODIES[name]
    expected = ROWS[name]
    check_answer(expected, service.send(content, Content_Type=kind))
    service.screen()
    if expected.status == 202 and name != "cloud-event-on-the-stream":
        assert service.became() == {expected.becomes}
    elif expected.status != 202:
        assert service.num_events() == len({name} & set(SENT_BEFORE))


@pytest.mark.parametrize("name", BODIES)
def test_bad_input_on_the_stream(service: Service, name: str) -> None:
    prepare(service, name)
    service.produce(BODIES[name][0], body("e-good").encode())
    service.screen()
    became = service.became()
    assert ROWS[name].becomes in became
    # The good event behind it is screened all the same; of two alike one is set aside.
    assert became <= {ROWS[name].becomes, "accepted", "quarantined: duplicate_feedback"}
    assert service.num_events() >= 1


@pytest.mark.parametrize("name", LINES)
def test_bad_input_in_a_batch_harms_no_other(service: Service, name: str) -> None:
    prepare(service, name)
    lines = b"\n".join([body("good-1").encode(), BODIES[name][0], body("good-2").encode()])
    answer = service.send(lines, Content_Type=NDJSON)
    first, bad, last = answer.json()["results"]
    assert (first["status"], last["status"]) == ("queued", "queued")
    expected = ROWS[name]
    told = {202: "queued", 409: "conflict"}.get(expected.status, "rejected")
    assert (bad["index"], bad["status"]) == (1, told)
    assert answer.status_code == (202 if told == "queued" else 207)
    if told != "queued" and name not in ("empty-array", "broken-array"):
        assert bad["error"]["type"] == expected.error
        assert expected.says in " ".join(bad["error"].values())


@pytest.mark.parametrize("name", SENDERS)
def test_refusal(service: Service, name: str) -> None:
    check_answer(ROWS[name], SENDERS[name](service))
    if ROWS[name].becomes != "—":
        service.screen()
        assert service.became() == {ROWS[name].becomes}
