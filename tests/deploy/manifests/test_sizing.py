"""The sizing table of the how-to page holds what was measured."""

import json
import re

import pytest

from tests.deploy.manifests.reading import REPOSITORY

PAGE = REPOSITORY / "docs" / "how-to" / "from-laptop-to-cluster.md"
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<value>[\d.,]+) \| `(?P<file>\S+)` `(?P<key>\S+)` \|")
ROWS = [found for line in PAGE.read_text().splitlines() if (found := ROW.match(line))]


def test_there_is_a_table() -> None:
    assert len(ROWS) == sum(".json`" in line for line in PAGE.read_text().splitlines())
    assert len(ROWS) >= 9


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["key"])
def test_each_figure_was_measured(row: re.Match[str]) -> None:
    results = json.loads((REPOSITORY / "docs" / "results" / row["file"]).read_text())
    # Measured again, on a machine that is noisy, a figure may move; a slip of the pen is larger.
    assert float(row["value"].replace(",", "")) == pytest.approx(results[row["key"]], rel=0.5)
