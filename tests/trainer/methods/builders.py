"""What the tests of methods have in common: prompts, rewards, probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, Feedback, Message, ScreenedEvent
from tacit.policies import completion_ids, load_policy, prompt_ids
from tests import builders as build
from tests.trainer.builders import settings as small
from trainer.checkpoint import PolicyOpener
from trainer.methods.inputs import MethodInputs
from trainer.session import UpdateJob

LEFT, RIGHT = "tests.trainer.methods.builders:left", "tests.trainer.methods.builders:right"


def left(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Of two arms the left one pays: answers that begin with an even token."""
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def right(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Of two arms the right one pays."""
    return [1 - reward for reward in left(completion_ids)]


def flat(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Every answer is worth the same."""
    return [1.0] * len(completion_ids)


def broken(**_: Any) -> list[float]:
    """A reward function with a mistake in it."""
    raise ZeroDivisionError("by zero")


def too_few(**_: Any) -> list[float]:
    """A reward function that forgets some."""
    return [0.5]


def asked(count: int = 4, feedback: Feedback | None = None, **fields: Any) -> list[ScreenedEvent]:
    """Events about differing prompts."""
    return [
        build.screened(f"e-{i}", prompt=f"where is order {i}", feedback=feedback, **fields)
        for i in range(count)
    ]


def settings(method: str, **fields: Any) -> Any:
    """A small group of answers of few tokens."""
    sampling = {"num_generations": 4, "max_new_tokens": 2, **fields.pop("sampling", {})}
    return small(method=method, sampling=sampling, **fields)


def inputs(
    store: CheckpointStore,
    events: Sequence[ScreenedEvent],
    chosen: Any,
    folder: Path,
    *,
    parent: Digest | None = None,
) -> MethodInputs:
    """What a method's ``build`` takes, on the tiny checkpoint or another ``parent``."""
    parent = parent or build.tiny_checkpoint(store)
    job = UpdateJob(parent, tuple(events), (), chosen)
    policy = PolicyOpener(store, device="cpu").open(parent, chosen)
    return MethodInputs(job=job, policy=policy, store=store, folder=folder)


def next_token(store: CheckpointStore, digest: Digest, prompt: str) -> torch.Tensor:
    """[V] probabilities of an answer's first token."""
    policy = load_policy(store, digest)
    ids = torch.tensor([prompt_ids(policy.tokenizer, build.user(prompt))])
    with torch.no_grad():
        return policy.model(input_ids=ids).logits[0, -1].softmax(-1)


def log_likelihood(
    store: CheckpointStore, digest: Digest, pairs: Sequence[tuple[Sequence[Message], str]]
) -> float:
    """Mean natural-log probability of answers, their ends included."""
    policy = load_policy(store, digest)
    total = 0.0
    for prompt, answer in pairs:
        before = prompt_ids(policy.tokenizer, prompt)
        said = completion_ids(policy.tokenizer, answer)
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([before + said])).logits[0]
        table = logits[len(before) - 1 : -1].log_softmax(-1)
        total += float(table.gather(-1, torch.tensor(said)[:, None]).sum())
    return total / len(pairs)
