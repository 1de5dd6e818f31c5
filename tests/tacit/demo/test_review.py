"""What the demo's reviewer makes of a verdict."""

import pytest

from tacit.demo.story import weigh


def row(
    name: str, outcome: str, observed: float = 0.0, threshold: float = -0.03
) -> dict[str, object]:
    return {"name": name, "outcome": outcome, "observed": observed, "threshold": threshold}


@pytest.mark.parametrize(
    ("outcome", "rows", "verb"),
    [
        ("pass", [row("learned: holdout", "pass")], "approve"),
        ("inconclusive", [row("drift: old-world", "inconclusive", -0.011, -0.02)], "approve"),
        ("inconclusive", [row("drift: old-world", "inconclusive", -0.021, -0.02)], "reject"),
        ("inconclusive", [row("learned: holdout", "inconclusive", 0.1, 0.0)], "reject"),
        ("fail", [row("kept", "fail"), row("drift", "inconclusive")], "reject"),
    ],
)
def test_inconclusive_is_weighed(outcome: str, rows: list[dict[str, object]], verb: str) -> None:
    assert weigh({"outcome": outcome, "criteria": rows})[0] == verb
