"""Each curl in docs/reference/feedback-api.md is run, and answers what the page says."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tacit.config import load_settings
from tacit.database import Database
from tacit.principal import Scope
from tests.collector.service import Disk, Service, opened, served
from tests.conftest import skip_or_fail

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "feedback-api.md"
EXAMPLE = re.compile(
    r"```sh\n(?P<command>.*?)```\n\n```json (?P<status>\d+)\n(?P<answer>.*?)```", re.S
)
# The page shows curl as people call it; the test wants the status too.
PRELUDE = (
    "set -euo pipefail\ncurl() { command curl --silent --write-out '\\n%{http_code}' \"$@\"; }\n"
)


class Example(NamedTuple):
    """A command of the page and its answer."""

    command: str
    status: int
    answer: Any


def examples() -> list[Example]:
    """All examples of the page, in order."""
    return [
        Example(found["command"], int(found["status"]), json.loads(found["answer"]))
        for found in EXAMPLE.finditer(PAGE.read_text())
    ]


@pytest.fixture
def service(tmp_path: Path, sqlite_database: Database) -> Iterator[Service]:
    """A service with nothing held out."""
    overrides = ["collector.screening.holdout_share=0"]
    with opened(load_settings(home=tmp_path, overrides=overrides), Disk()) as service:
        yield service


def run(command: str, folder: Path, environment: dict[str, str]) -> tuple[int, Any]:
    """Status and JSON of the one curl in ``command``."""
    done = subprocess.run(
        ["bash", "-c", PRELUDE + command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(answer)


def masked(answer: Any, shown: Any) -> Any:
    """``answer`` with ``…`` wherever the page shows that."""
    if shown == "…":
        return shown
    if isinstance(shown, dict) and isinstance(answer, dict):
        return {name: masked(value, shown.get(name)) for name, value in answer.items()}
    if isinstance(shown, list) and isinstance(answer, list) and len(shown) == len(answer):
        return [masked(*pair) for pair in zip(answer, shown, strict=True)]
    return answer


def test_examples_answer_what_the_page_says(service: Service, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        skip_or_fail("expected curl")
    with served(service) as url:
        environment = {
            "TACIT": url,
            "TACIT_API_KEY": service.key("shop", source="shop"),
            "REVIEW_KEY": service.key("ada", scope=Scope.REVIEW),
            "ADMIN_KEY": service.key("root", scope=Scope.ADMIN),
        }
        for example in examples():
            status, answer = run(example.command, tmp_path, environment)
            assert (status, masked(answer, example.answer)) == (example.status, example.answer)
            if "token" in answer:
                environment["TOKEN"] = answer["token"]
            service.screen()


def test_every_command_of_the_page_is_run() -> None:
    text = PAGE.read_text()
    assert len(examples()) == text.count("```sh\n") == text.count("```json ") > 10


def test_page_names_every_route_of_the_collector(service: Service) -> None:
    table = PAGE.read_text().partition("## Send one event")[0]
    ours = re.compile(r"/v1/(feedback|webhooks|quarantine|dead-letters)|/(healthz|readyz|metrics)")
    for path in service.http.get("/openapi.json").json()["paths"]:
        if ours.match(path):
            first = path.rpartition("/")[0]
            prefix = "/v1/quarantine" if path.startswith("/v1/quarantine/{") else first
            assert path in table or (prefix in table and path.removeprefix(prefix) in table), path
