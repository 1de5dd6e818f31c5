"""Is the gate policy valid, and can the suites show what it asks?"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from evaluator.harness.suite import is_harness_file
from evaluator.sizing import independent_items, least_items
from evaluator.suites import load_suite
from gatekeeper.policy import GatePolicy, load_gate_policy
from gatekeeper.rules import Required
from tacit.config import Settings
from tacit.contracts import PlannedTest, Suite, SuiteKind
from tacit.doctor.findings import Finding, fail, failed, ok, warn
from tacit.errors import ConfigError

_GATE, _SUITES = "gate", "suites"


def check_gate(settings: Settings) -> Iterator[Finding]:
    """Policy and suites, and one against the other."""
    policy = load_gate_policy(settings.gatekeeper.gate_policy_path)
    source = settings.gatekeeper.gate_policy_path or "the gate policy that comes with Tacit"
    yield ok(_GATE, f"{source}: {len(policy.criteria)} criteria")
    folder = settings.suites_path
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not files and settings.model is None:
        yield ok(_SUITES, "those of the demo are made with its policy at the first start")
        return
    suites: list[Suite] = []
    for path in files:
        if is_harness_file(path):
            # Not loaded: the harness may fetch data sets, for minutes.
            yield _harness(path.name)
            continue
        try:
            suites.append(load_suite(path))
        except ConfigError as error:
            yield failed(_SUITES, error)
    yield from _same_names(suites)
    yield from _required(policy, suites)
    for suite in suites:
        yield from _enough(policy.tests, suite)


def _harness(name: str) -> Finding:
    if find_spec("lm_eval") is None:
        return fail(
            _SUITES, f"{name} without lm-evaluation-harness", "pip install 'tacit[lm-eval]'"
        )
    return warn(
        _SUITES,
        f"{name}: tasks of lm-evaluation-harness are not counted here",
        "`tacit suites list` loads them.",
    )


def _same_names(suites: Sequence[Suite]) -> Iterator[Finding]:
    names = [suite.name for suite in suites]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield fail(_SUITES, f"two suites are called {name}", "Rename one of the two.")


def _required(policy: GatePolicy, suites: Sequence[Suite]) -> Iterator[Finding]:
    for rule in (rule for rule in policy.criteria if isinstance(rule, Required)):
        # Hold-out suites grow from feedback; no file holds them.
        for wanted in (*(k for k in rule.kinds if k is not SuiteKind.HOLDOUT), *rule.suites):
            found = [s for s in suites if wanted in (s.kind, s.name)]
            most = max((len(suite.items) for suite in found), default=0)
            if most < rule.min_items:
                yield fail(
                    _SUITES,
                    f"criterion {rule.name} asks for {rule.min_items} items of {wanted}; "
                    f"there are {most}",
                    "Write a suite (docs/how-to/suites.md): until then every candidate fails.",
                )


def _enough(tests: Sequence[PlannedTest], suite: Suite) -> Iterator[Finding]:
    has, worth = len(suite.items), independent_items(suite)
    shown = f"{suite.name} ({suite.kind.value}): {has} items"
    if worth < has:
        shown += f", in clusters, worth {worth}"
    short = False
    for test in (test for test in tests if test.covers(suite)):
        needed = least_items(test.threshold, alpha=test.alpha)
        if needed is not None and worth < needed:
            short = True
            yield warn(
                _SUITES,
                f"{shown}; to show a loss below {-test.threshold:.1%} against the "
                f"{test.baseline} takes {needed} at least, all unchanged",
                f"Add {needed - worth} items or more, or widen the margin: until then verdicts "
                "are inconclusive.",
            )
    if not short:
        yield ok(_SUITES, shown)
