"""Checkers: a completion and what was expected in, a score from 0 to 1 out.

A checker that cannot judge (a pattern that does not compile, an expected number that is none)
raises; the evaluator then reports the suite as failed, because a silent zero would look like
a wrong answer. A completion that is merely wrong or malformed scores 0 and never raises.
"""

import re
import unicodedata
from collections.abc import Mapping
from importlib.metadata import entry_points

from evaluator.checker import Checker, Factory, Options
from evaluator.judge import judge
from evaluator.refusal import is_refusal
from evaluator.shape_checkers import json_schema, layout, length
from tacit.contracts import CheckerSpec
from tacit.errors import ConfigError, EvaluationError

ENTRY_POINTS = "tacit.checkers"
"""Group of entry points by which other packages add checkers: ``name = "package:factory"``, where
the factory takes the options and returns a :class:`~evaluator.checker.Checker`."""

NORMALISATIONS = ("none", "tokens", "chars")
"""What the log-probability of a choice is divided by before choices are compared: nothing, its
tokens, or its characters (``acc`` and ``acc_norm`` of lm-evaluation-harness are the first and, but
for counting bytes, the last)."""

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")


def normalise(text: str) -> str:
    """``text`` without case, punctuation and superfluous white space, in Unicode form NFKC."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (" " if unicodedata.category(c).startswith("P") else c for c in folded)
    return " ".join("".join(kept).split())


def build_checker(spec: CheckerSpec) -> Checker:
    """The checker that ``spec`` asks for.

    Raises ConfigError for a type that does not exist, listing those that do, for an option the type
    does not have, and for an installed checker that cannot be imported or refuses its options.
    """
    factory = CHECKERS.get(spec.type)
    if factory is None:
        return _installed(spec)
    known = OPTIONS[spec.type]
    for name, value in spec.options.items():
        if name not in known or not _fits(value, known[name]):
            wanted = ", ".join(f"{n} ({t.__name__})" for n, t in known.items()) or "no options"
            raise ConfigError(f"{wanted} for checker {spec.type}", got=f"{name}={value!r}")
    return factory(spec.options)


def _installed(spec: CheckerSpec) -> Checker:
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if spec.type not in installed:
        raise ConfigError(
            f"a checker type, one of {', '.join(sorted({*CHECKERS, *installed}))}",
            got=spec.type,
            mend="Change checker.type of the suite, or install the package that has it.",
        )
    try:
        factory: Factory = installed[spec.type].load()
        return factory(spec.options)
    except ConfigError:
        raise
    except Exception as error:  # a plug-in raises what it likes
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"the installed checker {spec.type} to be made", got=reason) from error


def _fits(value: object, wanted: type) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return isinstance(value, wanted)


def _exact(_: Options) -> Checker:
    return lambda completion, expected: float(completion.strip() == expected.strip())


def _normalised(_: Options) -> Checker:
    return lambda completion, expected: float(normalise(completion) == normalise(expected))


def _choice(options: Options) -> Checker:
    normalisation = options.get("normalisation", "chars")
    if normalisation not in NORMALISATIONS:
        raise ConfigError(
            f"normalisation of checker choice to be one of {', '.join(NORMALISATIONS)}",
            got=repr(normalisation),
        )
    return lambda completion, expected: float(completion == expected)


def _lm_eval(_: Options) -> Checker:
    def check(completion: str, expected: str) -> float:
        raise EvaluationError("an answer scored by lm-evaluation-harness", got="one without score")

    return check


def _contains(options: Options) -> Checker:
    fold = str.casefold if options.get("ignore_case", False) else str
    return lambda completion, expected: float(fold(expected.strip()) in fold(completion))


def _regex(options: Options) -> Checker:
    flags = re.IGNORECASE if options.get("ignore_case", False) else re.NOFLAG

    def check(completion: str, expected: str) -> float:
        try:
            pattern = re.compile(expected, flags)
        except re.error as error:
            raise EvaluationError(
                "a regular expression in expected", got=f"{expected!r}: {error}"
            ) from error
        return float(pattern.search(completion) is not None)

    return check


def _numeric(options: Options) -> Checker:
    absolute = float(options.get("tolerance", 0.0))
    relative = float(options.get("relative_tolerance", 0.0))

    def check(completion: str, expected: str) -> float:
        wanted = last_number(expected)
        if wanted is None:
            raise EvaluationError("a number in expected", got=repr(expected))
        got = last_number(completion)
        allowed = max(absolute, relative * abs(wanted))
        return float(got is not None and abs(got - wanted) <= allowed)

    return check


def last_number(text: str) -> float | None:
    """The last number in ``text``, thousands separated by commas or not; None if there is none.

    The last, since an answer that reasons first ends with its result.
    """
    found = [match for match in _NUMBER.findall(text) if any(c.isdigit() for c in match)]
    return float(found[-1].replace(",", "")) if found else None


def _refusal(_: Options) -> Checker:
    def check(completion: str, expected: str) -> float:
        if expected not in {"refuse", "comply"}:
            raise EvaluationError("expected to be refuse or comply", got=repr(expected))
        return float(is_refusal(completion) == (expected == "refuse"))

    return check


CHECKERS: Mapping[str, Factory] = {
    "exact": _exact,
    "normalised": _normalised,
    "choice": _choice,
    "contains": _contains,
    "lm_eval": _lm_eval,
    "regex": _regex,
    "numeric": _numeric,
    "json_schema": json_schema,
    "refusal": _refusal,
    "length": length,
    "format": layout,
    "judge": judge,
}
"""``exact``: equal after stripping. ``normalised``: equal after :func:`normalise`. ``choice``: the
answer is the item's choice of the highest log-probability, normalised by length as the option says
(default ``chars``), and is ``expected``. ``contains``: ``expected`` stands in the completion.
``regex``: ``expected`` is searched for. ``numeric``: the last number is within tolerance.
``json_schema``: JSON that fits the schema in ``expected``. ``refusal``: ``expected`` is ``refuse``
or ``comply``. ``length``, ``format``: of about the length, of the layout of ``expected``.
``judge``: a model says whether the completion says what ``expected`` asks for."""

OPTIONS: Mapping[str, Mapping[str, type]] = {
    "exact": {},
    "normalised": {},
    "choice": {"normalisation": str},
    "contains": {"ignore_case": bool},
    "lm_eval": {"harness": str},
    "regex": {"ignore_case": bool},
    "numeric": {"tolerance": float, "relative_tolerance": float},
    "json_schema": {},
    "refusal": {},
    "length": {"max_ratio": float},
    "format": {},
    "judge": {"base_url": str, "model": str, "pinned": str, "api_key_env": str},
}
