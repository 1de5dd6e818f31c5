"""Questions to a policy and its answers, as they are cached and scored."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from evaluator.checker import Options
from tacit.contracts import Message, Suite, SuiteItem, canonical_json, sha256_digest
from tacit.errors import EvaluationError
from tacit.inference.outputs import ChoiceScores

Prompt = Sequence[Message]


class Generated(Protocol):
    """What the evaluator needs of a completion."""

    @property
    def text(self) -> str:
        """The completion, stripped."""

    @property
    def finish_reason(self) -> str:
        """``stop`` or ``length``."""


class Scored(Protocol):
    """What the evaluator needs of a scored continuation."""

    @property
    def logprob(self) -> float:
        """Natural-log probability."""

    @property
    def is_greedy(self) -> bool:
        """Whether greedy decoding gives it."""


class TextModel(Protocol):
    """A policy over plain texts; ``tacit.inference.texts.Texts`` is one."""

    def complete(
        self, prompts: Sequence[str], *, until: Sequence[str], max_new_tokens: int, batch_size: int
    ) -> list[str]:
        """What follows each prompt greedily."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, batch_size: int) -> Sequence[Scored]:
        """Scores of (context, continuation) pairs."""

    def score_texts(self, texts: Sequence[str], *, batch_size: int) -> list[float]:
        """Natural-log probability of each text."""

    def chat_text(self, messages: Sequence[dict[str, str]], *, ask: bool) -> str:
        """A conversation as text."""


class Generator(Protocol):
    """What the evaluator needs of a policy; ``tacit.policies.Policy`` has it.

    One that bears to be asked from several threads says from how many in ``num_at_once``.
    """

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int
    ) -> Sequence[Generated]:
        """Greedy completions, in the order of ``prompts``."""

    def choose(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]], *, batch_size: int
    ) -> Sequence[ChoiceScores]:
        """How probable each of a prompt's choices is, in the order of ``prompts``."""

    @property
    def texts(self) -> TextModel:
        """The policy over plain texts, for suites of lm-evaluation-harness."""


class Answer(NamedTuple):
    """What a policy answered to one question."""

    text: str
    """The completion, or of a question with choices the one chosen."""
    finish_reason: str
    choices: ChoiceScores | None = None
    score: float | None = None
    """Of a suite that scores its own answers; else a checker does."""

    @property
    def is_malformed(self) -> bool:
        """Empty, or cut off by the length limit."""
        return not self.text.strip() or self.finish_reason == "length"


class Question(NamedTuple):
    """Everything that a policy's answer depends on; it answers greedily or by log-probability."""

    prompt: Prompt
    choices: tuple[str, ...]
    max_new_tokens: int

    def digest(self) -> str:
        """Digest of prompt, choices and decoding configuration."""
        decoding: dict[str, object] = {"method": "greedy", "max_new_tokens": self.max_new_tokens}
        if self.choices:
            decoding = {"method": "logprob", "choices": list(self.choices)}
        messages = [[message.role, message.content] for message in self.prompt]
        return sha256_digest(canonical_json({"prompt": messages, "decoding": decoding}))


def question_of(suite: Suite, item: SuiteItem) -> Question:
    """What ``item`` asks."""
    return Question(item.prompt, item.choices, suite.max_new_tokens)


def chosen(choices: Sequence[str], scores: ChoiceScores, options: Options) -> str:
    """The choice of the highest log-probability, the first of equals.

    ``normalisation`` in ``options``, those of checker ``choice``, says what it is divided by.
    Raises EvaluationError when there is not one score a choice.
    """
    divisors = {
        "none": (1,) * len(choices),
        "tokens": scores.num_tokens,
        "chars": scores.num_chars,
    }[str(options.get("normalisation", "chars"))]
    if not len(choices) == len(scores.logprobs) == len(divisors):
        raise EvaluationError(f"{len(choices)} scores of choices", got=str(len(scores.logprobs)))
    shares = [logprob / max(by, 1) for logprob, by in zip(scores.logprobs, divisors, strict=True)]
    return choices[shares.index(max(shares))]
