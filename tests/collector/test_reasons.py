"""The list of reasons is closed: documented, and the only ones anything gets."""

import ast
import re
from pathlib import Path

import collector
from collector.reasons import Reason
from tacit.config import ScreeningSettings

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "how-to" / "screening.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """Cells of the table of reasons."""
    lines = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z_]+` \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_a_row_for_each_reason_and_no_other() -> None:
    assert [row[0].strip("`") for row in rows()] == [reason.value for reason in Reason]


def test_settings_in_the_table_exist() -> None:
    named = {name for row in rows() for name in re.findall(r"`([a-z_.]+)`", row[3])}
    assert "max_total_events_per_cluster" in named
    assert named - {"collector.metrics"} <= set(ScreeningSettings.model_fields)


def test_no_module_of_the_collector_writes_a_reason_of_its_own() -> None:
    written = set()
    for path in Path(collector.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "reason":
                value = node.value
                if isinstance(value, ast.Constant) and value.value is not None:
                    written.add((path.name, value.value))
    assert written == set()
