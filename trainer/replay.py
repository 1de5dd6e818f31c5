"""Replay: what an update rehearses so that it does not forget (Rolnick et al. 2018, CLEAR).

Two sources: the user's anchor prompts from a JSONL file, and completions that earlier feedback
showed to be good. ``sample_replay`` draws from a pool; the same seed always draws the same sample.
Part of the sample is on-policy: the prompt with what the policy itself answers, where a checker
accepts that. Such tokens are the policy's own, so training on them moves it less (Chen et al. 2025,
"Retaining by Doing", arXiv 2510.18874).
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tacit.contracts import (
    Correction,
    Digest,
    Outcome,
    Preference,
    Rating,
    ReplayExample,
    ScreenedEvent,
)
from tacit.errors import ConfigError, InvalidInputError
from trainer.examples import MIN_WEIGHT
from trainer.rewards import signal

Accepts = Callable[[str, str], bool]
"""Whether an answer, the first text, says what the second does, which is known to be good."""
Rollouts = Mapping[Digest, ReplayExample]
"""On-policy examples by the digest of the example whose prompt was answered."""


def load_anchor(path: Path) -> list[ReplayExample]:
    """Anchor prompts: one ``{"prompt": str | messages, "completion": str}`` a line.

    Raises InvalidInputError naming file and line, ConfigError if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "a readable UTF-8 JSONL file of anchor prompts",
            got=f"{path}: {error}",
            mend="Set trainer.replay.anchor_path to such a file, or leave it out.",
        ) from error
    return [
        _anchor_example(line, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _anchor_example(line: str, place: str) -> ReplayExample:
    expected = '{"prompt": str | messages, "completion": str} at ' + place
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidInputError(expected, got=f"no JSON: {error}") from error
    if not isinstance(row, dict) or set(row) != {"prompt", "completion"}:
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise InvalidInputError(expected, got=str(got))
    prompt = row["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        return ReplayExample.model_validate(
            {"prompt": messages, "completion": row["completion"], "origin": "anchor"}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(expected, got=f"{where}: {first['msg']}") from error


def num_replay(num_events: int, share: float) -> int:
    """How many replay examples make ``share`` of all examples beside ``num_events`` events.

    r / (r + n) = share gives r = share / (1 - share) * n. Raises ConfigError for a share of 1.
    """
    if share >= 1:
        raise ConfigError(
            "trainer.replay.share below 1",
            got=str(share),
            mend="A share of 1 would leave no room for feedback; 0.1 is the default.",
        )
    return round(share / (1 - share) * num_events)


def sample_replay(
    pool: Sequence[ReplayExample], *, num_events: int, share: float, seed: int
) -> list[ReplayExample]:
    """A sample of ``pool`` that makes ``share`` of all examples; empty for an empty pool.

    Without replacement while the pool is large enough; a smaller pool is used up whole, then again.
    The sample depends only on the pool's content, ``num_events``, ``share`` and ``seed``.
    """
    return draw(pool, num_replay(num_events, share), seed=seed)


def draw(pool: Sequence[ReplayExample], number: int, *, seed: int) -> list[ReplayExample]:
    """``number`` examples of ``pool`` in random order; empty for an empty pool.

    Anchor prompts and what feedback taught since have half each, as long as there is of both: the
    lessons of deployment are few beside the anchor, and nothing else would keep them. Without
    replacement while the pool is large enough; a smaller pool is used up whole, then again. A
    smaller draw with the same seed is the beginning of a larger one.
    """
    generator = random.Random(seed)
    # Sorting first makes the sample independent of the order the pool was read in.
    ordered = sorted(pool, key=lambda example: example.digest())
    drawn = generator.sample(ordered, len(ordered))
    taught = [example for example in drawn if example.is_lesson]
    anchor = [example for example in drawn if not example.is_lesson]
    both = min(len(taught), len(anchor))
    drawn = [example for pair in zip(taught, anchor, strict=False) for example in pair]
    drawn += taught[both:] + anchor[both:]
    if ordered and number > len(ordered):
        drawn += generator.choices(ordered, k=number - len(ordered))
    return drawn[:number]


def on_policy_prompts(sample: Sequence[ReplayExample], share: float) -> list[ReplayExample]:
    """The examples of ``sample`` whose prompts the policy is to answer itself, each once."""
    chosen = sample[: round(share * len(sample))]
    return list({example.digest(): example for example in chosen}.values())


def accepted_rollouts(
    asked: Sequence[ReplayExample], answers: Sequence[str | None], accepts: Accepts
) -> Rollouts:
    """What the policy answered to ``asked``, where it is right.

    ``answers`` are in the same order, None where there was no whole answer. An answer is right if
    ``accepts(answer, text known to be good)``. What feedback taught stays so in
    the policy's words.
    """
    return {
        example.digest(): ReplayExample(
            prompt=example.prompt,
            completion=answer,
            origin=example.origin if example.is_lesson else "on_policy",
            weight=example.weight,
        )
        for example, answer in zip(asked, answers, strict=True)
        if answer is not None and accepts(answer, example.completion)
    }


def with_rollouts(
    sample: Sequence[ReplayExample], rollouts: Rollouts, share: float
) -> list[ReplayExample]:
    """``sample`` with ``rollouts`` in their places; where there is none the good text stays."""
    number = round(share * len(sample))
    replaced = [rollouts.get(example.digest(), example) for example in sample[:number]]
    return [*replaced, *sample[number:]]


def accepted_examples(events: Sequence[ScreenedEvent]) -> list[ReplayExample]:
    """Completions that feedback of earlier batches showed to be good, in the order of ``events``.

    Corrected texts, chosen texts, and answers with a positive outcome or rating; each with its
    weight, or what nobody trusts would be rehearsed as if it were proven.
    """
    examples = []
    for event in events:
        completion, weight = good_completion(event)
        if weight >= MIN_WEIGHT:
            examples.append(
                ReplayExample(
                    prompt=event.interaction.prompt,
                    completion=completion,
                    origin="accepted",
                    weight=weight,
                )
            )
    return examples


def good_completion(event: ScreenedEvent) -> tuple[str, float]:
    """What was shown to be good, and how much that counts; 0 where nothing was."""
    match event.event.feedback:
        case Correction(completion=completion):
            return completion, event.weight
        case Preference(chosen=chosen):
            return chosen, event.weight
        case Outcome() | Rating() as judged:
            reward = signal(judged) if event.reward is None else event.reward
            return event.interaction.completion, max(reward, 0) * event.weight
        case _:
            return "", 0.0
