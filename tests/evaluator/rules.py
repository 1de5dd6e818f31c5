"""A policy that answers by rules instead of weights, and suites and events to go with it."""

from collections.abc import Callable, Sequence

from evaluator.answers import Answer, Generator, Prompt
from evaluator.triggers import user_text
from tacit.contracts import Correction, Digest, ScreenedEvent, Suite, SuiteItem, SuiteKind
from tacit.inference.outputs import ChoiceScores
from tests import builders

TOPICS = {
    "order": "shipping",
    "invoice": "billing",
    "password": "login",
    "crash": "bug",
    "contract": "legal",
}
PLACES = ("berlin", "oslo", "rome", "lima", "cairo", "quito", "delhi", "perth")


class RulePolicy:
    """Answers with the first rule whose words occur in the prompt; counts what it was asked."""

    def __init__(self, rules: dict[str, str]) -> None:
        self.rules = rules
        self.num_asked = 0
        self.num_scored = 0

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int
    ) -> list[Answer]:
        """One answer a prompt."""
        self.num_asked += len(prompts)
        return [Answer(self.answer(user_text(prompt)), "stop") for prompt in prompts]

    def choose(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]], *, batch_size: int
    ) -> list[ChoiceScores]:
        """The choice that is the answer is likely, a token a word."""
        self.num_scored += len(prompts)
        return [
            ChoiceScores(
                tuple(-0.1 if c == self.answer(user_text(prompt)) else -9.0 for c in offered),
                tuple(len(c.split()) for c in offered),
                tuple(len(c) for c in offered),
            )
            for prompt, offered in zip(prompts, choices, strict=True)
        ]

    def answer(self, text: str) -> str:
        """The answer of the first rule that applies, else ``other``."""
        return next((a for words, a in self.rules.items() if words in text.lower()), "other")


def opener(policies: dict[Digest, RulePolicy]) -> Callable[[Digest], Generator]:
    """What the Evaluator loads policies with."""
    return lambda weights: policies[weights]


def old_world(num_items: int = 60, **fields: object) -> Suite:
    """A regression suite about the old topics."""
    topics = list(TOPICS.items())
    items = tuple(
        SuiteItem(
            item_id=f"q-{i}",
            prompt=builders.user(
                f"my {topics[i % 5][0]} number {i} from {PLACES[i % 8]} needs a look"
            ),
            expected=topics[i % 5][1],
        )
        for i in range(num_items)
    )
    return Suite(
        **{"name": "old-world", "kind": SuiteKind.REGRESSION, "items": items, **fields}  # type: ignore[arg-type]
    )


def corrections(prompts: Sequence[str], answer: str) -> list[ScreenedEvent]:
    """A correction to ``answer`` for each prompt."""
    return [
        builders.screened(f"{answer}-{i}", prompt=p, feedback=Correction(completion=answer))
        for i, p in enumerate(prompts)
    ]
