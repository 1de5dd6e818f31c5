"""STaR: the policy reasons its way to answers that are known, and learns from what got there.

Zelikman et al. 2022 (arXiv 2203.14465), algorithm 1: a rationale and an answer are generated to
each prompt; where the answer is wrong, again with the right one as a hint (rationalization); those
that end in the right answer are fine-tuned on, without the hint. A cycle is one round. The paper
begins every round at the first model; here it is the parent, as for every other method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback

from tacit.config import StarSettings
from tacit.contracts import Message
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tacit.policies import Completion, Policy, completion_ids
from trainer.examples import Example, ExampleKind
from trainer.hindsight import with_note
from trainer.methods.answers import answer_of, same_answer, split_answer
from trainer.methods.inputs import MethodInputs, require
from trainer.methods.offline import sft_rows, sft_trainer
from trainer.methods.prompts import Prompt, build_prompts, tokenized


@dataclass(frozen=True)
class Rationale:
    """A completion that gives reasons and ends in the right answer."""

    prompt: Prompt
    text: str
    hinted: bool
    """Whether the policy had to be told the answer."""


def build(inputs: MethodInputs) -> Any:
    """TRL's SFT on the rationales that were kept. Raises TrainingError when there is none."""
    settings, events = inputs.settings, inputs.job.events
    prompts = [p for p in build_prompts(events) if p.known_answer is not None]
    needs = "corrections or good outcomes, which say what the right answer is"
    require(prompts, method="star", num_events=len(events), needs=needs)
    policy = Policy(inputs.reference, inputs.tokenizer, inputs.job.parent)
    kept = rationales(
        policy, prompts, star=settings.star, max_new_tokens=settings.sampling.max_new_tokens
    )
    if not kept:
        raise TrainingError(
            f"rationales that end in {settings.star.answer_after!r} and the right answer",
            got=f"none to {len(prompts)} prompts",
            mend="Look at what the policy answers to trainer.star.instruction; raise "
            "trainer.sampling.max_new_tokens, or begin with trainer.method=sft on examples.",
        )
    pairs = [(found.prompt.messages, found.text) for found in kept]
    pairs += [(example.prompt, example.completion) for example in inputs.job.replay]
    examples = [_example(inputs, prompt, text) for prompt, text in pairs]
    trainer = sft_trainer(inputs, Dataset.from_list(sft_rows(examples)))
    trainer.add_callback(_Shares(kept, num_prompts=len(prompts)))
    return trainer


def rationales(
    policy: Policy, prompts: Sequence[Prompt], *, star: StarSettings, max_new_tokens: int
) -> list[Rationale]:
    """Kept rationales, at most one a prompt: first those without a hint, then those with one."""
    asked = [with_note(prompt.messages, star.instruction) for prompt in prompts]
    answers = policy.generate(asked, max_new_tokens=max_new_tokens)
    right = [_is_right(*pair, star) for pair in zip(prompts, answers, strict=True)]
    kept = [
        Rationale(prompt, answer.text, hinted=False)
        for prompt, answer, fits in zip(prompts, answers, right, strict=True)
        if fits
    ]
    wrong = [prompt for prompt, fits in zip(prompts, right, strict=True) if not fits]
    if not star.hint or not wrong:
        return kept
    hinted = [_hinted(prompt, star) for prompt in wrong]
    answers = policy.generate(hinted, max_new_tokens=max_new_tokens)
    return kept + [
        Rationale(prompt, answer.text, hinted=True)
        for prompt, answer in zip(wrong, answers, strict=True)
        if _is_right(prompt, answer, star)
    ]


def _is_right(prompt: Prompt, said: Completion, star: StarSettings) -> bool:
    parts = split_answer(said.text, answer_after=star.answer_after)
    # What was cut off may be the beginning of another answer.
    return (
        said.finish_reason == "stop"
        and parts is not None
        and same_answer(parts[1], _known(prompt, star))
    )


def _known(prompt: Prompt, star: StarSettings) -> str:
    assert prompt.known_answer is not None
    return answer_of(prompt.known_answer, answer_after=star.answer_after)


def _hinted(prompt: Prompt, star: StarSettings) -> tuple[Message, ...]:
    hint = star.hint.replace("{answer}", _known(prompt, star))
    return with_note(prompt.messages, f"{star.instruction} {hint}".strip())


def _example(inputs: MethodInputs, prompt: Sequence[Message], text: str) -> Example:
    max_length = inputs.settings.max_length
    said = completion_ids(inputs.tokenizer, text)[: max_length - 1]
    asked = tokenized(inputs.tokenizer, prompt, room=max_length - len(said))
    return Example(ExampleKind.CHOSEN, tuple(asked), tuple(said))


class _Shares(TrainerCallback):  # type: ignore[misc]
    """Adds to each step's metrics how many rationales were kept."""

    def __init__(self, kept: Sequence[Rationale], *, num_prompts: int) -> None:
        self._shares = {
            MetricName.KEPT_SHARE.value: len(kept) / num_prompts,
            MetricName.HINTED_SHARE.value: sum(r.hinted for r in kept) / num_prompts,
        }

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs is not None:
            logs.update(self._shares)
