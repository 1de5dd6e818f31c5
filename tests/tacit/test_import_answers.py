"""``tacit import jsonl`` of rows that hold several answers: an event each, with whose it is."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from collector.tables import EventRow
from tacit.cli import app
from tacit.contracts import EventStatus, FeedbackEvent, Outcome
from tacit.database import Database
from tacit.errors import InvalidInputError
from tacit.imports.jsonl import import_jsonl, rejected_path
from tacit.imports.rows import RowRules, answers_of, event_of, read_map
from tests.builders import MOMENT
from tests.tacit.importing import ImportService, import_service

REAL = Path(__file__).parents[3] / "shared/data/gsm8k_outcomes/example_model_solutions.jsonl"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
MAP = (
    "prompt=question",
    "completion=*.solution",
    "label=*.is_correct",
    "policy_version=*",
)
RULES = RowRules("archive", "default", "resolved", MOMENT, read_map(list(MAP)))


def question(number: int, draw: random.Random) -> dict[str, Any]:
    """A row of the shape of grade-school-math's example_model_solutions.jsonl."""
    apples, price = draw.randint(2, 99), draw.randint(2, 99)
    right = apples * price
    row: dict[str, Any] = {
        "question": f"{number}: Ann buys {apples} crates at ${price} each. What does she pay?",
        "ground_truth": f"{apples}*{price}=<<{apples}*{price}={right}>>{right}\nA: {right}",
    }
    for model in MODELS:
        is_correct = draw.random() < 0.5
        said = right if is_correct else right + 1
        row[model] = {"is_correct": is_correct, "solution": f"She pays {said}\nA: {said}"}
    return row


@pytest.fixture
def service(tmp_path: Path, sqlite_database: Database) -> Iterator[ImportService]:
    with import_service(tmp_path, sqlite_database) as running:
        yield running


def imported(service: ImportService, path: Path, rules: RowRules = RULES) -> tuple[int, int, int]:
    tally = import_jsonl(path, service.remote, rules, path.parent, advance=lambda *_: None)
    return tally.imported, tally.already_there, tally.rejected


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def outcomes_in(events: list[FeedbackEvent]) -> set[tuple[str, str | None, str, bool | float]]:
    found = set()
    for event in events:
        assert isinstance(event.feedback, Outcome)
        assert event.interaction is not None
        said = event.interaction
        found.add(
            (said.prompt[0].content, said.policy_version, said.completion, event.feedback.value)
        )
    return found


def outcomes_of(rows: list[dict[str, Any]]) -> set[tuple[str, str | None, str, bool | float]]:
    return {
        (row["question"], model, row[model]["solution"], row[model]["is_correct"])
        for row in rows
        for model in MODELS
    }


def test_each_answer_of_a_row_becomes_an_event(service: ImportService, tmp_path: Path) -> None:
    draw = random.Random(5)
    rows = [question(number, draw) for number in range(300)]
    path = write(tmp_path / "solutions.jsonl", rows)
    assert imported(service, path) == (1_200, 0, 0)
    events = service.events()
    assert len(events) == 1_200
    assert outcomes_in(events) == outcomes_of(rows)
    assert imported(service, path) == (0, 1_200, 0)


@pytest.mark.skipif(not REAL.exists(), reason=f"no {REAL}")
def test_real_log_of_outcomes_is_taken_in_as_the_page_says(
    service: ImportService, tmp_path: Path
) -> None:
    words = ["import", "jsonl", str(tmp_path / "log.jsonl"), "--metric", "resolved"]
    words += [word for option in MAP for word in ("--map", option)]
    words += ["--source", "archive", "--url", service.remote.url, "--key", service.key]
    (tmp_path / "log.jsonl").symlink_to(REAL)
    done = CliRunner().invoke(app, [*words, "--home", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "5276 imported, 0 already there, 0 rejected" in done.stdout
    events = service.events()
    rows = [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]
    assert len(events) == 4 * len(rows) == 5_276
    rate = {
        model: sum(
            event.feedback.value
            for event in events
            if isinstance(event.feedback, Outcome)
            and event.interaction is not None
            and event.interaction.policy_version == model
        )
        for model in MODELS
    }
    assert rate == {m: sum(row[m]["is_correct"] for row in rows) for m in MODELS}
    with service.database.reader() as session:
        counted = session.execute(select(EventRow.status, func.count()).group_by(EventRow.status))
        assert {row[0] for row in counted} == {EventStatus.ACCEPTED}


def test_answers_in_a_list_and_a_key_with_dots() -> None:
    paths = read_map(
        ["prompt=q", "completion=tries.*.text", "label=tries.*.ok", "policy_version=tries.*.by.id"]
    )
    row = {
        "q": "p",
        "event_id": 7,
        "interaction_id": "tr",
        "episode_id": "talk",
        "tries": [
            {"text": "a", "ok": True, "by": {"id": "gpt-3.5"}},
            {"note": "cut off"},
            {"text": "b", "ok": False, "by": {"id": "gpt-4"}},
        ],
    }
    answers = answers_of(row, RULES._replace(paths=paths))
    assert [name for name, _ in answers] == ["0", "2"]
    first, second = [event_of(found, RULES, row_id="x") for _, found in answers]
    assert (first.event_id, second.event_id) == ("7-0", "7-2")
    assert (first.interaction_id, second.interaction_id) == ("tr-0", "tr-2")
    assert first.episode_id == second.episode_id == "talk"
    assert first.interaction is not None
    assert first.interaction.policy_version == "gpt-3.5"
    dotted = {"question": "p", "v1.5": {"solution": "a", "is_correct": True}}
    ((name, found),) = answers_of(dotted, RULES)
    assert (name, found["policy_version"], found["completion"]) == ("v1.5", "v1.5", "a")


def test_ids_that_the_answers_name_stay_as_they_are() -> None:
    paths = read_map(["prompt=q", "completion=*.text", "label=*.ok", "event_id=*.id"])
    row = {"q": "p", "b": {"text": "a", "ok": 1, "id": "own-1"}}
    ((_, found),) = answers_of(row, RULES._replace(paths=paths))
    assert event_of(found, RULES, row_id="x").event_id == "own-1"


def test_one_bad_answer_is_rejected_alone_and_named(service: ImportService, tmp_path: Path) -> None:
    rows = [question(number, random.Random(number)) for number in range(2)]
    rows[1]["6b_verification"]["is_correct"] = "perhaps"
    path = write(tmp_path / "solutions.jsonl", [*rows, {"question": "no answers"}])
    assert imported(service, path) == (7, 0, 2)
    refused = [json.loads(line) for line in rejected_path(path).read_text().splitlines()]
    assert [(row["line"], row.get("part")) for row in refused] == [
        (2, "6b_verification"),
        (3, None),
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["policy_version=*"],
        ["completion=*.text", "label=answers.*.ok"],
        ["completion=*.tries.*.text"],
    ],
)
def test_stars_that_name_no_answers_are_refused(options: list[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"one \* a path"):
        read_map(options)
