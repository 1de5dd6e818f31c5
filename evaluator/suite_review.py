"""What weakens suites that can be read: too little to show a margin, items that count twice."""

from collections import Counter
from collections.abc import Iterator, Sequence

from evaluator.checkers import normalise
from evaluator.triggers import user_text
from tacit.contracts import Suite, SuiteKind

FULL_MARGIN_ITEMS = 125
"""Items that all stay right and so show a loss below 3 points (3.7 / n at 95 % confidence)."""
_MUST_NOT_DROP = (SuiteKind.REGRESSION, SuiteKind.SAFETY, SuiteKind.PRIVACY)


def weaknesses(suites: Sequence[Suite]) -> list[tuple[str, str]]:
    """Names of suites, each with what is weak about it; a person decides what to do about it."""
    found = [(suite.name, text) for suite in suites for text in _of(suite)]
    seen: dict[tuple[str, ...], str] = {}
    for suite in suites:
        shared: Counter[str] = Counter()
        for asked in {_asked_in_full(suite, number) for number in range(len(suite.items))}:
            owner = seen.setdefault(asked, suite.name)
            shared[owner] += owner != suite.name
        found += [
            (suite.name, f"{number} prompts stand in {owner} too")
            for owner, number in shared.items()
            if number
        ]
    return found


def _of(suite: Suite) -> Iterator[str]:
    clusters = {item.cluster or item.item_id for item in suite.items}
    if suite.kind in _MUST_NOT_DROP and len(clusters) < FULL_MARGIN_ITEMS:
        yield (
            f"{len(clusters)} independent items cannot show a loss below 3 points; "
            f"{FULL_MARGIN_ITEMS} can"
        )
    if suite.checker.type == "judge":
        yield "scored by a model: it counts neither as required evidence nor as improvement"
    alone = Counter(
        _asked_in_full(suite, number) for number, item in enumerate(suite.items) if not item.cluster
    )
    twice = sum(count - 1 for count in alone.values())
    if twice:
        yield f"{twice} prompts are repeated without a cluster, and count as independent"
    if len({item.expected for item in suite.items}) == 1 and len(suite.items) > 1:
        yield "all items expect the same, so a policy that always says it gets everything right"


def _asked_in_full(suite: Suite, number: int) -> tuple[str, ...]:
    prompt = suite.items[number].prompt
    rest = tuple(normalise(message.content) for message in prompt)
    return (normalise(user_text(prompt)), *rest)
