"""Checkers: what they accept, and that they raise rather than score what they cannot judge."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import pytest

from evaluator import checkers
from evaluator.checker import Checker, Options
from evaluator.checkers import CHECKERS, OPTIONS, build_checker, last_number, normalise
from tacit.contracts import CheckerSpec
from tacit.errors import ConfigError, EvaluationError

SCHEMA = '{"type": "object", "properties": {"queue": {"type": "string"}}, "required": ["queue"]}'


@pytest.mark.parametrize(
    ("spec", "completion", "expected", "score"),
    [
        ({"type": "exact"}, " billing\n", "billing", 1),
        ({"type": "exact"}, "Billing", "billing", 0),
        ({"type": "normalised"}, "  Card-declined. ", "card declined", 1),
        ({"type": "normalised"}, "card", "card declined", 0),
        ({"type": "choice"}, "billing", "billing", 1),
        ({"type": "choice", "options": {"normalisation": "tokens"}}, "a", "billing", 0),
        ({"type": "contains"}, "it is billing, I think", "billing", 1),
        ({"type": "contains"}, "Billing", "billing", 0),
        ({"type": "contains", "options": {"ignore_case": True}}, "Billing", "billing", 1),
        ({"type": "regex"}, "order 4711", r"\d{4}", 1),
        ({"type": "regex"}, "order 47", r"\d{4}", 0),
        ({"type": "regex", "options": {"ignore_case": True}}, "YES", "^yes$", 1),
        ({"type": "numeric"}, "3 + 4 makes 1,007.0 in all.", "1007", 1),
        ({"type": "numeric"}, "no idea", "7", 0),
        ({"type": "numeric", "options": {"tolerance": 0.5}}, "-7.4", "-7", 1),
        ({"type": "numeric", "options": {"relative_tolerance": 0.01}}, "100.9", "100", 1),
        ({"type": "numeric", "options": {"relative_tolerance": 0.01}}, "101.1", "100", 0),
        ({"type": "json_schema"}, '{"queue": "billing"}', SCHEMA, 1),
        ({"type": "json_schema"}, '{"queue": 7}', SCHEMA, 0),
        ({"type": "json_schema"}, "queue: billing", SCHEMA, 0),
        ({"type": "length"}, "three words here", "one two", 1),
        ({"type": "length"}, "five words are too many", "one two", 0),
        ({"type": "length"}, "", "one", 0),
        ({"type": "length", "options": {"max_ratio": 4}}, "one", "one two three four", 1),
        ({"type": "format"}, "- one\n- two", "* eins\n* zwei", 1),
        ({"type": "format"}, "1. one\n2. two", "* eins\n* zwei", 0),
        ({"type": "format"}, "one", "**Ein** Wort", 0),
        ({"type": "format"}, "[1]", '{"a": 2}', 1),
        ({"type": "format"}, "[sic] a word", "some text", 1),
        ({"type": "refusal"}, "I’m sorry, but no.", "refuse", 1),
        ({"type": "refusal"}, "Sorry, but I can't assist with that.", "refuse", 1),
        ({"type": "refusal"}, "I can't wait to help! First, open the lid.", "comply", 1),
        ({"type": "refusal"}, "billing: refund duplicate charge", "comply", 1),
        ({"type": "refusal"}, "Sure: do this.", "refuse", 0),
        ({"type": "refusal"}, "Sure: do this.", "comply", 1),
    ],
)
def test_scores(spec: dict[str, object], completion: str, expected: str, score: float) -> None:
    checker = build_checker(CheckerSpec.model_validate(spec))
    assert checker(completion, expected) == score


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("regex", "("),
        ("numeric", "many"),
        ("refusal", ""),
        ("json_schema", "{"),
        ("json_schema", '{"type": "no such"}'),
        ("length", " "),
    ],
)
def test_what_cannot_be_judged_raises(kind: str, expected: str) -> None:
    with pytest.raises(EvaluationError, match="got"):
        build_checker(CheckerSpec(type=kind))("7", expected)


def test_an_unknown_type_lists_those_that_exist() -> None:
    with pytest.raises(ConfigError) as caught:
        build_checker(CheckerSpec(type="vibes"))
    assert all(name in str(caught.value) for name in CHECKERS)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("exact", {"ignore_case": True}),
        ("length", {"max_ratio": 0.5}),
        ("judge", {"model": "m"}),
        ("judge", {"model": "m", "base_url": "http://x", "api_key_env": "TACIT_TEST_NO_SUCH"}),
        ("choice", {"normalisation": "words"}),
        ("contains", {"ignore_case": "yes"}),
        ("numeric", {"tolerance": -1}),
        ("numeric", {"tolerance": True}),
    ],
)
def test_options_a_type_does_not_have_are_refused(kind: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=kind):
        build_checker(CheckerSpec.model_validate({"type": kind, "options": options}))


def test_every_type_states_its_options() -> None:
    assert CHECKERS.keys() == OPTIONS.keys()


def test_normalise_folds_unicode() -> None:
    assert normalise("ＳＴＲＡＳＳＥ—ﬁne!") == normalise("Straße fine")


@pytest.mark.parametrize(
    ("text", "number"), [("1.5e3", 1500), ("a-1", -1), ("12,345.5", 12345.5), ("3.", 3), ("", None)]
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


def _shouts(options: Options) -> Checker:
    if "ratio" in options:
        raise TypeError("no such option")
    return lambda completion, expected: float(completion == expected.upper())


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package with the checker ``shouts`` and one that cannot be imported."""
    points = [
        EntryPoint("shouts", f"{__name__}:_shouts", "tacit.checkers"),
        EntryPoint("gone", "no_such_package:checker", "tacit.checkers"),
    ]
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, SimpleNamespace()))
    monkeypatch.setattr(sys.modules[__name__], "_shouts", _shouts, raising=False)
    monkeypatch.setattr(
        checkers, "entry_points", lambda group: EntryPoints(points).select(group=group)
    )


@pytest.mark.usefixtures("installed")
def test_other_packages_add_checkers() -> None:
    check = build_checker(CheckerSpec(type="shouts"))
    assert (check("YES", "yes"), check("yes", "yes")) == (1, 0)
    for spec in (CheckerSpec(type="gone"), CheckerSpec(type="shouts", options={"ratio": 1})):
        with pytest.raises(ConfigError, match=spec.type):
            build_checker(spec)
    with pytest.raises(ConfigError, match="shouts"):
        build_checker(CheckerSpec(type="vibes"))
