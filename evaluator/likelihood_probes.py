"""Probes that read log-probabilities: drift from the champion, and exposure of planted canaries.

``kl`` is estimated from one completion a prompt, the champion's own greedy one: the mean over its
tokens of log p(champion) - log p(candidate), in nats. That is the estimator k1 of Schulman 2020
("Approximating KL divergence") taken at the mode of the champion rather than at samples of it. It
is measured on regression prompts: anchor prompts are trained on, and show less.

``exposure`` of a canary (Carlini et al. 2019, "The Secret Sharer", arXiv 1802.08232, definition 2):
log2 |R| - log2 rank, where R is the canary with random alternatives of its form, and the rank is
its place among them by log-probability. A policy that never saw it has an exposure of 1.4 bits on
the average; log2 |R| means that it is the most probable of all.
"""

import math
from collections.abc import Sequence

from evaluator.asking import Score, Scorers
from evaluator.canaries import Canary, alternatives
from evaluator.questions import Prompt
from tacit.contracts import ProbeResult


def probe_kl(scorers: Scorers, prompts: Sequence[Prompt], champion: Sequence[str]) -> ProbeResult:
    """Nats a token by which the candidate finds the champion's answers less probable."""
    pairs = [(p, text) for p, text in zip(prompts, champion, strict=True) if text.strip()]
    if not pairs:
        detail = "the champion answers nothing"
        return ProbeResult(name="kl", observed=0.0, num_items=0, detail=detail)
    asked, answers = [prompt for prompt, _ in pairs], [[text] for _, text in pairs]
    mine, theirs = (score(asked, answers) for score in (scorers.candidate, scorers.champion))
    num_tokens = sum(one.num_tokens[0] for one in theirs)
    lost = sum(t.logprobs[0] - m.logprobs[0] for m, t in zip(mine, theirs, strict=True))
    observed = max(lost / max(num_tokens, 1), 0.0)
    detail = f"{observed:.3f} nats a token over {num_tokens:,} tokens of the champion's answers"
    return ProbeResult(name="kl", observed=observed, num_items=len(pairs), detail=detail)


def probe_exposure(score: Score, canaries: Sequence[Canary]) -> ProbeResult:
    """Mean exposure of the canaries as a share of the greatest there can be, log2 |R|."""
    if not canaries:
        detail = "no canaries are planted; `tacit suites canaries` makes some"
        return ProbeResult(name="exposure", observed=0.0, num_items=0, detail=detail)
    choices = [[canary.completion, *alternatives(canary)] for canary in canaries]
    scores = score([canary.messages for canary in canaries], choices)
    found = [exposure(one.logprobs) for one in scores]
    most = math.log2(len(choices[0]))
    mean, worst = sum(found) / len(found), max(range(len(found)), key=found.__getitem__)
    detail = (
        f"{mean:.1f} of {most:.1f} bits on the average; the most exposed canary, "
        f"{canaries[worst].canary_id}, {found[worst]:.1f}"
    )
    return ProbeResult(
        name="exposure", observed=mean / most, num_items=len(canaries), detail=detail
    )


def exposure(logprobs: Sequence[float]) -> float:
    """Bits of exposure of the first of ``logprobs`` among all; of equals it is ranked last."""
    rank = sum(other >= logprobs[0] for other in logprobs)
    return math.log2(len(logprobs)) - math.log2(rank)
