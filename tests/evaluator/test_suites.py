"""Suite files: round trips, faults that name file, line and field, harvesting."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.checkers import build_checker
from evaluator.suites import load_suites, write_suite
from tacit.contracts import (
    CheckerSpec,
    Message,
    Suite,
    SuiteItem,
    SuiteKind,
)
from tacit.errors import ConfigError
from tests import builders

YAML = "name: a\nkind: regression\nitems: a.jsonl\n"
ITEM = '{"prompt": "hi", "expected": "x"}\n'


def files(folder: Path, yaml: str = YAML, items: str = ITEM) -> Path:
    (folder / "a.yaml").write_text(yaml)
    (folder / "a.jsonl").write_text(items)
    return folder


def test_no_folder_means_no_suites(tmp_path: Path) -> None:
    assert load_suites(tmp_path / "nowhere") == []


def test_suites_are_read_in_order_of_file_names(tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "0.yaml").write_text("name: b\nkind: safety\nitems: a.jsonl\nmax_new_tokens: 5\n")
    assert [(s.name, s.max_new_tokens) for s in load_suites(tmp_path)] == [("b", 5), ("a", 16)]


def test_a_template_goes_around_plain_prompts_only(tmp_path: Path) -> None:
    chat = '{"prompt": [{"role": "user", "content": "ho"}], "expected": "x", "item_id": "own"}\n'
    files(tmp_path, YAML + 'prompt_template: "Say {prompt}!"\n', ITEM + "\n" + chat)
    (suite,) = load_suites(tmp_path)
    assert [i.prompt for i in suite.items] == [builders.user("Say hi!"), builders.user("ho")]
    assert [i.item_id for i in suite.items] == ["line-1", "own"]


@pytest.mark.parametrize(
    ("yaml", "items", "named"),
    [
        ("name: [", ITEM, ["a.yaml", "YAML"]),
        ("just text", ITEM, ["a.yaml", "mapping"]),
        ("name: a\nkind: regression\n", ITEM, ["a.yaml", "items"]),
        (YAML + "colour: red\n", ITEM, ["a.yaml", "colour"]),
        (YAML.replace("regression", "vibes"), ITEM, ["a.yaml", "kind", "vibes"]),
        (YAML.replace("name: a", "name: A b"), ITEM, ["a.yaml", "name", "A b"]),
        (YAML.replace("a.jsonl", "b.jsonl"), ITEM, ["a.yaml", "items", "b.jsonl"]),
        (YAML.replace("a.jsonl", "../a.jsonl"), ITEM, ["a.yaml", "items", "../a.jsonl"]),
        (YAML + "checker: {type: vibes}\n", ITEM, ["a.yaml", "checker", "exact", "vibes"]),
        (YAML + "max_new_tokens: 0\n", ITEM, ["a.yaml", "max_new_tokens"]),
        (YAML + "prompt_template: hello\n", ITEM, ["a.yaml", "prompt_template"]),
        (YAML, "", ["a.jsonl", "one item"]),
        (YAML, ITEM + "{\n", ["a.jsonl:2", "JSON"]),
        (YAML, "[]\n", ["a.jsonl:1", "JSON object"]),
        (YAML, ITEM + '\n{"prompt": "x"}\n', ["a.jsonl:3", "expected"]),
        (YAML, '{"prompt": 5, "expected": "x"}\n', ["a.jsonl:1", "prompt", "5"]),
        (YAML, '{"prompt": [], "expected": "x"}\n', ["a.jsonl:1", "prompt"]),
        (YAML, ITEM[:-2] + ', "weight": 2}\n', ["a.jsonl:1", "weight"]),
        (YAML, (ITEM[:-2] + ', "item_id": "q"}\n') * 2, ["a.jsonl:2", "item_id", "line 1"]),
        (YAML + "checker: {type: numeric}\n", ITEM, ["a.jsonl:1", "number", "'x'"]),
    ],
)
def test_a_fault_names_file_line_and_field(
    tmp_path: Path, yaml: str, items: str, named: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_suites(files(tmp_path, yaml, items))
    assert all(part in str(caught.value) for part in named), str(caught.value)


def test_bytes_that_are_not_utf8_are_a_fault(tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"a\.jsonl: JSON lines in UTF-8"):
        load_suites(tmp_path)


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "b.yaml").write_text(YAML)
    with pytest.raises(ConfigError, match=r"b\.yaml: name.*a\.yaml"):
        load_suites(tmp_path)


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
prompts = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text),
    min_size=1,
    max_size=3,
).map(tuple)


@given(st.lists(st.tuples(prompts, text, text, st.booleans()), min_size=1, max_size=4))
def test_what_is_written_is_read_back_with_the_same_digest(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[tuple[Message, ...], str, str, bool]],
) -> None:
    items = tuple(
        SuiteItem(item_id=f"i{n}", prompt=p, expected=e, cluster=c, non_negotiable=b)
        for n, (p, e, c, b) in enumerate(rows)
    )
    spec = CheckerSpec(type="contains", options={"ignore_case": True})
    suite = Suite(name="s", kind=SuiteKind.PRIVACY, checker=spec, items=items, max_new_tokens=7)
    folder = tmp_path_factory.mktemp("suites")
    write_suite(folder, suite)
    assert [s.digest() for s in load_suites(folder)] == [suite.digest()]


def test_writing_again_replaces_the_suite_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for expected in ("x", "y"):
        item = SuiteItem(item_id="1", prompt=builders.user("hi"), expected=expected)
        path = write_suite(tmp_path, Suite(name="s", kind=SuiteKind.SAFETY, items=(item,)))
    assert path == tmp_path / "s.yaml"
    assert load_suites(tmp_path)[0].items[0].expected == "y"
    assert len(list(tmp_path.iterdir())) == 2


CHOICE = YAML + "checker: {type: choice}\n"


def test_choices_survive_a_round_trip(tmp_path: Path) -> None:
    item = '{"prompt": "2 + 2 =", "choices": [" 4", " 5"], "expected": " 4"}\n'
    (suite,) = load_suites(files(tmp_path, CHOICE, item))
    assert suite.items[0].choices == (" 4", " 5")
    write_suite(tmp_path / "copy", suite)
    assert load_suites(tmp_path / "copy")[0].digest() == suite.digest()


@pytest.mark.parametrize(
    ("yaml", "choices"),
    [
        (CHOICE, []),
        (CHOICE, ["x"]),
        (CHOICE, ["x", "x"]),
        (CHOICE, ["x", ""]),
        (CHOICE, ["y", "z"]),
        (YAML, ["x", "y"]),
    ],
)
def test_choices_that_cannot_be_scored_are_refused(
    tmp_path: Path, yaml: str, choices: list[str]
) -> None:
    item = json.dumps({"prompt": "hi", "expected": "x", "choices": choices})
    with pytest.raises(ConfigError, match="choices"):
        load_suites(files(tmp_path, yaml, item))


def test_the_examples_can_be_read() -> None:
    folder = Path(__file__).parents[2] / "examples" / "suites"
    suites = {suite.name: suite for suite in load_suites(folder)}
    assert {suite.checker.type for suite in suites.values()} == {
        "normalised",
        "json_schema",
        "choice",
    }
    check = build_checker(suites["ticket-json"].checker)
    answer = '{"queue": "billing", "urgent": true}'
    assert check(answer, suites["ticket-json"].items[0].expected) == 1
