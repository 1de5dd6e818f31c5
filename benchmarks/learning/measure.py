"""What a policy knows: new intents, old intents, refusals, and how far it is from the base."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tacit.demo.world import Utterance, World, prompt
from tacit.policies import Policy, completion_ids
from trainer.losses import kl_divergence

MAX_TOKENS = 16
"""Of an answer; the longest right one has fewer."""
Parts = Mapping[str, Sequence[Utterance]]
Answers = dict[str, list[str]]
Right = Callable[[Utterance], str]
"""The answer that is right now."""


def parts(world: World) -> dict[str, tuple[Utterance, ...]]:
    """What is measured: ``new``, ``old`` and, where the world has them, ``refusals``."""
    found = {"new": world.new_test, "old": world.old_test, "refusals": world.safety}
    return {name: part for name, part in found.items() if part}


def sample(whole: Parts, sizes: Mapping[str, int]) -> dict[str, tuple[Utterance, ...]]:
    """A fixed sample of each part, as large as ``sizes`` say, in the order of the part."""
    found = {}
    for name, part in whole.items():
        size = min(sizes[name], len(part))
        kept = sorted(random.Random(name).sample(range(len(part)), size))
        found[name] = tuple(part[i] for i in kept)
    return found


def answer(policy: Policy, asked: Parts) -> Answers:
    """The policy's greedy answers to every part."""
    prompts = [prompt(u) for part in asked.values() for u in part]
    said = iter(policy.generate(prompts, max_new_tokens=MAX_TOKENS, batch_size=128))
    return {name: [next(said).text for _ in part] for name, part in asked.items()}


def accuracy(asked: Sequence[Utterance], said: Sequence[str], right: Right) -> float:
    """Share of exact matches; NaN without questions."""
    hits = [text == right(u) for u, text in zip(asked, said, strict=True)]
    return sum(hits) / len(hits) if hits else float("nan")


def flips(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Share of all items that were right and are wrong now."""
    lost = [was and not now for was, now in zip(before, after, strict=True)]
    return sum(lost) / len(lost) if lost else 0.0


def backward_transfer(history: Sequence[Mapping[int, float]]) -> float | None:
    """Mean over earlier groups of what they gained since they arrived; None in the first round.

    ``history[t - 1][g]`` is the accuracy after round t on what arrived in round g <= t:
    1 / (T - 1) * sum_{g < T} (R[T, g] - R[g, g]), Lopez-Paz & Ranzato 2017, arXiv 1706.08840,
    equation 3. Below 0 is forgetting.
    """
    now = history[-1]
    earlier = [g for g in now if g < len(history) and g in history[g - 1]]
    if not earlier:
        return None
    return sum(now[g] - history[g - 1][g] for g in earlier) / len(earlier)


@dataclass(frozen=True)
class BaseView:
    """What the base said of some right answers, to tell how far a policy is from it."""

    asked: Sequence[Utterance]
    logprobs: Tensor
    """[T, V] at the tokens of the right answers, in order."""

    @classmethod
    def of(cls, base: Policy, asked: Sequence[Utterance]) -> "BaseView":
        """The view of ``base``."""
        return cls(asked, _logprobs(base, asked))

    def kl(self, policy: Policy) -> float:
        """Mean over tokens of KL(policy || base), in nats."""
        return float(kl_divergence(_logprobs(policy, self.asked), self.logprobs).mean())


@torch.inference_mode()
def _logprobs(policy: Policy, asked: Sequence[Utterance]) -> Tensor:
    """[T, V] at the tokens of the right answers, one question after another."""
    found = []
    for utterance in asked:
        before = policy.prompt_ids(prompt(utterance))
        right = completion_ids(policy.tokenizer, utterance.answer)
        ids = torch.tensor([[*before, *right]], device=policy.device)
        logits = policy.model(ids).logits[0, len(before) - 1 : -1]
        found.append(logits.float().log_softmax(-1))
    return torch.cat(found)
