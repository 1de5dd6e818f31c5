"""``tacit import jsonl``: every line lands once or stands in the file of rejects, come what may."""

import json
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tacit.cli import app
from tacit.contracts import Correction, FeedbackEvent, Outcome, Preference
from tacit.database import Database
from tacit.errors import InvalidInputError, NotAllowedError, UnavailableError
from tacit.imports.bookmark import Tally
from tacit.imports.delivery import Rejects
from tacit.imports.jsonl import MAX_LINE_BYTES, import_jsonl, rejected_path
from tacit.imports.rows import RowRules, answers_of, event_of, id_of, parse_row, read_map
from tacit.remote import Remote, RemoteError
from tests.builders import MOMENT, event
from tests.tacit.importing import ImportService, import_service

RULES = RowRules(source="archive", policy="default", metric="resolved", moment=MOMENT)


def chat(*texts: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    roles = ["user", "assistant"] * len(texts)
    return [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]


def correction(number: int) -> dict[str, Any]:
    return {"prompt": f"prompt {number}", "completion": "a", "correction": f"right {number}"}


@pytest.fixture
def service(tmp_path: Path, sqlite_database: Database) -> Iterator[ImportService]:
    with import_service(tmp_path, sqlite_database) as running:
        yield running


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def run(service: ImportService, path: Path, rules: RowRules = RULES) -> tuple[int, int, int]:
    bookmarks = service.settings.home / "imports"
    tally = import_jsonl(path, service.remote, rules, bookmarks, advance=lambda *_: None)
    assert list(bookmarks.glob("*")) == []
    return tally.imported, tally.already_there, tally.rejected


def rejects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rejected_path(path).read_text().splitlines()]


ROWS: list[tuple[dict[str, Any], str, str, Any]] = [
    (
        {"prompt": "p", "chosen": "good", "rejected": "bad"},
        "p",
        "bad",
        Preference(chosen="good", rejected="bad"),
    ),
    (
        {"prompt": chat("p"), "chosen": chat("x", "good")[1:], "rejected": chat("x", "bad")[1:]},
        "p",
        "bad",
        Preference(chosen="good", rejected="bad"),
    ),
    (
        {"chosen": chat("p", "good"), "rejected": chat("p", "bad")},
        "p",
        "bad",
        Preference(chosen="good", rejected="bad"),
    ),
    (
        {"prompt": "p", "completion": "a", "label": True},
        "p",
        "a",
        Outcome(metric="resolved", value=True),
    ),
    (
        {"prompt": chat("p"), "completion": chat("p", "a")[1:], "label": 0},
        "p",
        "a",
        Outcome(metric="resolved", value=False),
    ),
    (
        {"prompt": "p", "completion": "a", "correction": "b"},
        "p",
        "a",
        Correction(completion="b"),
    ),
    (
        {
            "prompt": [{"from": "human", "value": "p"}],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}],
            "correction": "b",
        },
        "p",
        "a",
        Correction(completion="b"),
    ),
]


@pytest.mark.parametrize(("row", "prompt", "completion", "feedback"), ROWS)
def test_common_shapes_become_events(
    row: dict[str, Any], prompt: str, completion: str, feedback: Any
) -> None:
    made = event_of(row, RULES, row_id="import-1")
    assert made.interaction is not None
    assert [m.content for m in made.interaction.prompt] == [prompt]
    assert (made.interaction.completion, made.feedback) == (completion, feedback)
    assert (made.event_id, made.subject_id, made.source) == ("import-1", "import-1", "archive")
    assert made.occurred_at == MOMENT


def test_map_finds_fields_elsewhere() -> None:
    paths = read_map(
        ["prompt=turns.0.text", "completion=turns.1.text", "label=meta.ok", "subject_id=user.id",
         "occurred_at=at", "event_id=id", "interaction_id=meta.trace"]
    )  # fmt: skip
    row = {
        "turns": [{"text": "p"}, {"text": "a"}],
        "meta": {"ok": True, "trace": "tr-1"},
        "user.id": "u-7",
        "at": "2026-02-03T04:05:06Z",
        "id": 17,
    }
    ((_, found),) = answers_of(row, RULES._replace(paths=paths))
    made = event_of(found, RULES, row_id="import-1")
    assert (made.event_id, made.subject_id, made.interaction_id) == ("17", "u-7", "tr-1")
    assert made.occurred_at.isoformat() == "2026-02-03T04:05:06+00:00"


@pytest.mark.parametrize("option", ["prompt", "prompt=", "=x", "colour=x"])
def test_bad_map_is_refused(option: str) -> None:
    with pytest.raises(InvalidInputError):
        read_map([option])


BAD_ROWS = [
    {"prompt": "p"},
    {"prompt": "p", "completion": "a", "label": 3},
    {"prompt": "p", "completion": "a", "label": "yes"},
    {"prompt": 7, "completion": "a", "label": True},
    {"prompt": [], "completion": "a", "label": True},
    {"prompt": [{"role": "user"}], "completion": "a", "label": True},
    {"prompt": [{"role": "wizard", "content": "x"}], "completion": "a", "label": True},
    {"prompt": "p", "chosen": "x", "rejected": "x"},
    {"chosen": "x", "rejected": "y"},
    {"chosen": chat("p", "x"), "rejected": chat("q", "y")},
    {"prompt": "p", "completion": "a\x00", "correction": "b"},
    {"prompt": "p", "completion": "a" * 70_000, "correction": "b"},
    {"prompt": "p", "completion": "a", "correction": "b", "subject_id": "a b"},
    {"prompt": "p", "completion": "a", "correction": "\ud800"},
    {"event_id": "e-1", "feedback": {"type": "correction", "completion": "x"}},
]


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_row_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        event_of(row, RULES, row_id="import-1")


@pytest.mark.parametrize("line", [b"", b"[1]", b"{", b"\xff\xfe{}", b"[" * 100_000])
def test_bad_line_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_row(line)


def test_file_is_imported_once_and_rejects_are_named(
    service: ImportService, tmp_path: Path
) -> None:
    own = event("e-own", source="archive", subject_id="u-1")
    path = write(
        tmp_path / "rows.jsonl",
        correction(1),
        "",
        "not json",
        own.model_dump_json(),
        {"prompt": "p", "completion": "a", "label": True},
        correction(1),
        event("e-foreign", source="helpdesk").model_dump_json(),
        own.model_copy(update={"subject_id": "u-2"}).model_dump_json(),
    )
    assert run(service, path) == (3, 1, 3)
    assert [(row["line"], row["error"]["type"]) for row in rejects(path)] == [
        (3, "InvalidInputError"),
        (7, "NotAllowedError"),
        (8, "ConflictError"),
    ]
    assert rejects(path)[0]["original"] == "not json"
    assert run(service, path) == (0, 4, 3)
    assert len(rejects(path)) == 3
    sent = service.events()
    assert len(sent) == service.num_records() == 3
    assert own in sent


def test_lines_rejected_before_are_tried_again(service: ImportService, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"prompt": "p", "completion": "a", "label": True})
    assert run(service, path, RULES._replace(metric="vibes")) == (0, 0, 1)
    assert "vibes" in rejects(path)[0]["error"]["got"]
    assert run(service, path, RULES._replace(metric="helpful")) == (1, 0, 0)
    assert not rejected_path(path).read_text()


def test_ids_count_from_zero() -> None:
    row = {**correction(1), **dict.fromkeys(("subject_id", "interaction_id", "event_id"), 0)}
    made = event_of(row, RULES, row_id="row-1")
    assert (made.subject_id, made.interaction_id, made.event_id) == ("0", "0", "0")
    assert id_of(row) == "0"
    empty = event_of({**correction(1), "subject_id": "", "event_id": None}, RULES, row_id="row-1")
    assert (empty.subject_id, empty.event_id) == ("row-1", "row-1")


def test_rejects_shortened_by_hand_get_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "rows.rejected.jsonl"
    path.write_bytes(b"{}\n")
    kept = Rejects(path, keep_bytes=300)
    assert (path.read_bytes(), kept.num_bytes) == (b"{}\n", 3)
    Rejects(path, keep_bytes=1)
    assert path.read_bytes() == b"{"


def test_grown_and_altered_files_add_what_is_new(service: ImportService, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[correction(i) for i in range(5)])
    assert run(service, path) == (5, 0, 0)
    write(path, correction(9), *[correction(i) for i in range(7)])
    assert run(service, path) == (3, 5, 0)


def test_line_without_end_or_without_bound(service: ImportService, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    huge = b'{"prompt": "' + b"x" * (MAX_LINE_BYTES + 10) + b'"}\n'
    path.write_bytes(huge + json.dumps(correction(1)).encode())
    assert run(service, path) == (1, 0, 1)
    (row,) = rejects(path)
    assert row["line"] == 1
    assert len(row["original"]) == 64 * 1024


def test_file_is_never_in_memory_as_a_whole(service: ImportService, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    filler = "y" * 20_000
    with path.open("w") as file:
        for number in range(3_000):
            file.write(json.dumps({**correction(number), "note": filler}) + "\n")
    tracemalloc.start()
    assert run(service, path)[0] == 3_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One chunk of about 8 MiB of lines, and what is made of it; the file has 60 MB.
    assert peak < 45 * 1024 * 1024


def test_service_away_or_key_refused_rejects_no_line(
    service: ImportService, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.jsonl", *[correction(i) for i in range(3)])
    bookmarks = tmp_path / "imports"
    cases = [
        (Remote("http://127.0.0.1:9", service.key), UnavailableError),
        (Remote(service.remote.url, "tacit.no.key"), RemoteError),
    ]
    for remote, error in cases:
        with pytest.raises(error):
            import_jsonl(path, remote, RULES, bookmarks, advance=lambda *_: None)
    with pytest.raises(NotAllowedError, match="got 'other'"):
        run(service, path, RULES._replace(source="other"))
    assert not rejected_path(path).exists()
    assert run(service, path) == (3, 0, 0)


IMPORT = """
import sys
from datetime import datetime
from pathlib import Path
from tacit.imports import jsonl
from tacit.imports.rows import RowRules
from tacit.remote import Remote
jsonl.CHUNK = 20
path, url, key, bookmarks, moment = sys.argv[1:]
rules = RowRules("archive", "default", "resolved", datetime.fromisoformat(moment))
jsonl.import_jsonl(Path(path), Remote(url, key), rules, Path(bookmarks), advance=lambda *_: None)
"""


def test_killed_at_random_nothing_is_lost_or_doubled(
    service: ImportService, tmp_path: Path
) -> None:
    rows: list[Any] = [correction(number) for number in range(600)]
    for number in range(0, 600, 50):
        rows.insert(number, f"bad {number}")
    path = write(tmp_path / "rows.jsonl", *rows)
    bookmarks = tmp_path / "imports"
    words = [str(path), service.remote.url, service.key, str(bookmarks), MOMENT.isoformat()]
    draw = random.Random(11)
    kills = 0
    while kills < 5:
        child = subprocess.Popen([sys.executable, "-c", IMPORT, *words], stderr=subprocess.PIPE)
        _wait_until_it_works(child, bookmarks)
        time.sleep(draw.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        _, errors = child.communicate()
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, errors
        kills += 1
    subprocess.run([sys.executable, "-c", IMPORT, *words], check=True)
    assert kills >= 2
    wanted = {f"right {number}" for number in range(600)}
    sent = service.events()
    assert len(sent) == 600
    assert {e.feedback.completion for e in sent if isinstance(e.feedback, Correction)} == wanted
    assert [row["original"] for row in rejects(path)] == [r for r in rows if isinstance(r, str)]
    assert run(service, path) == (0, 600, 12)


def _wait_until_it_works(child: "subprocess.Popen[bytes]", bookmarks: Path) -> None:
    """Until the import has moved its bookmark, so that a kill hits work rather than a start."""

    def marks() -> dict[str, int]:
        with suppress(FileNotFoundError):  # the import has just come to its end
            return {p.name: p.stat().st_mtime_ns for p in bookmarks.glob("*.json")}
        return {}

    before = marks()
    while child.poll() is None and marks() == before:
        time.sleep(0.005)


def test_command_reports_and_shows_rejects(service: ImportService, tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        {"q": "p", "completion": "a", "correction": "b"},
        {"q": "p", "completion": "a"},
    )
    words = ["import", "jsonl", str(path), "--map", "prompt=q", "--source", "archive"]
    words += ["--url", service.remote.url, "--key", service.key, "--home", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "1 imported, 0 already there, 1 rejected" in done.stdout
    assert "rows.jsonl.rejected.jsonl" in done.stdout.replace("\n", "")
    assert "the first: expected a FeedbackEvent, or prompt with chosen" in done.stdout
    done = CliRunner().invoke(app, words)
    assert "0 imported, 1 already there, 1 rejected" in done.stdout


def test_tallies_add_up() -> None:
    both = Tally(imported=1, rejected=2) + Tally(imported=3, already_there=4)
    assert both == Tally(imported=4, already_there=4, rejected=2)


def test_event_that_names_itself_is_taken_as_it_is() -> None:
    own = event("e-1", source="anybody")
    assert event_of(json.loads(own.model_dump_json()), RULES, row_id="x") == own
    assert isinstance(own, FeedbackEvent)
