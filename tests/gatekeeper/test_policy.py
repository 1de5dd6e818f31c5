"""A gate policy is read in full or refused with file, line and field."""

from pathlib import Path

import pytest

from gatekeeper.policy import load_gate_policy
from tacit.errors import ConfigError

GOOD = """\
version: 1
criteria:
  - name: kept
    type: non_inferior
    kind: regression
    baseline: champion
    margin: 0.03
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "gate.yaml"
    path.write_text(text)
    return path


def test_shipped_policy_loads_and_asks_for_what_the_readme_says() -> None:
    policy = load_gate_policy(None)
    assert policy.auto_promote == "never"
    assert {rule.type for rule in policy.criteria} == {
        "required",
        "superior",
        "non_inferior",
        "drift",
        "non_negotiable",
        "probe",
    }


def test_digest_changes_with_a_margin_and_not_with_a_comment(tmp_path: Path) -> None:
    first = load_gate_policy(write(tmp_path, GOOD)).digest()
    commented = load_gate_policy(write(tmp_path, "# why\n" + GOOD)).digest()
    loosened = load_gate_policy(write(tmp_path, GOOD.replace("0.03", "0.3"))).digest()
    assert first == commented != loosened


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("margin: 0.03", "margin: 3", 7, "criteria[0].margin"),
        ("margin: 0.03", "margin: .nan", 7, "criteria[0].margin"),
        ("margin: 0.03", "margn: 0.03", 7, "criteria[0].margn"),
        ("    margin: 0.03\n", "", 3, "criteria[0].margin"),
        ("type: non_inferior", "type: better", 3, "criteria[0]"),
        ("baseline: champion", "baseline: yesterday", 6, "criteria[0].baseline"),
        ("kind: regression", "kind: vibes", 5, "criteria[0].kind"),
        ("    kind: regression\n", "", 3, "exactly one of kind and suite"),
        ("version: 1", "version: 2", 1, "version"),
        (
            "version: 1",
            "version: 1\nauto_promote: always",
            2,
            "auto_promote: Input should be 'never' or 'pass'",
        ),
        ("version: 1", "version: 1\napprovers: 0", 2, "approvers"),
        ("version: 1", "version: 1\napproval_valid_for: soon", 2, "minutes, hours or days"),
        ("version: 1", "version: 1\noverrides: anybody", 2, "overrides"),
        ("name: kept", "name: complete", 1, "the gate's own rows"),
        ("margin: 0.03", "margin: 0.03\n    margin: 0.9", 8, "margin again"),
    ],
)
def test_fault_names_file_line_and_field(
    tmp_path: Path, old: str, new: str, line: int, field: str
) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_gate_policy(path)
    assert f"{path}:{line}:" in str(caught.value)
    assert field in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "version: [", "- 1", "just words", "version: 1\ncriteria: []"]
)
def test_file_that_is_no_policy_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"gate\.yaml"):
        load_gate_policy(write(tmp_path, text))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_gate_policy(tmp_path / "nowhere.yaml")


def test_two_criteria_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = GOOD + GOOD.split("criteria:\n")[1]
    with pytest.raises(ConfigError, match="name of its own"):
        load_gate_policy(write(tmp_path, twice))
