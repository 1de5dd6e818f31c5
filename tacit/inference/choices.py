"""Log-probabilities of several continuations of a prompt, all in one row.

The continuations stand behind the prompt as a tree: each token sees the prompt and the tokens of
its own continuation before it, and tokens that continuations begin with alike are there once. So
the prompt is computed once, however many continuations there are, and logits only where a token of
a continuation is predicted. (The mask is that of tree attention: Miao et al. 2024, SpecInfer,
ASPLOS, section 4.2.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.inference import kv
from tacit.inference.body import Body

MAX_TOKENS = 16_384
"""Tokens in one call of the model, padding included, unless a single prompt has more."""
MAX_LOGITS = 2**24
"""Logits computed at a time: 64 MiB of float32."""

Tokens = tuple[int, ...]


class Scored(NamedTuple):
    """One continuation."""

    logprob: float
    """Natural-log probability, summed over its tokens."""
    is_greedy: bool
    """Whether each of its tokens is the most probable one."""


class _Tree(NamedTuple):
    """Continuations with what they begin with in common there once; no last tokens."""

    tokens: list[int]
    depths: list[int]
    """Tokens of the continuation up to this one, 1 for the first."""
    visible: Tensor
    """[N, N] bool: itself and its ancestors."""
    sources: list[int]
    """Node that predicts each token of each continuation; -1 is the prompt's last token."""
    targets: list[int]
    """These tokens."""
    owners: list[int]
    """The continuation that each belongs to."""


def score(
    body: Body, prompts: Sequence[list[int]], continuations: Sequence[Sequence[Tokens]]
) -> list[list[Scored]]:
    """Scores of the continuations of each prompt; neither may be empty."""
    trees: dict[tuple[Tokens, ...], _Tree] = {}
    rows = []
    for prompt, offered in zip(prompts, continuations, strict=True):
        key = tuple(offered)
        if key not in trees:
            trees[key] = _grow(key)
        rows.append((prompt, trees[key]))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1].tokens))
    results: dict[int, list[Scored]] = {}
    for part in _parts(order, [len(prompt) + len(tree.tokens) for prompt, tree in rows]):
        found = _score_batch(body, [rows[i] for i in part])
        results.update(zip(part, found, strict=True))
    return [results[i] for i in range(len(rows))]


def _grow(continuations: Sequence[Tokens]) -> _Tree:
    nodes: dict[Tokens, int] = {(): -1}
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    for continuation in continuations:
        for end in range(1, len(continuation)):
            if continuation[:end] not in nodes:
                nodes[continuation[:end]] = len(tokens)
                tokens.append(continuation[end - 1])
                parents.append(nodes[continuation[: end - 1]])
                depths.append(end)
    visible = torch.eye(len(tokens), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            visible[node] |= visible[parent]
    places = [(i, n) for i, c in enumerate(continuations) for n in range(len(c))]
    return _Tree(
        tokens,
        depths,
        visible,
        sources=[nodes[continuations[i][:n]] for i, n in places],
        targets=[continuations[i][n] for i, n in places],
        owners=[i for i, _ in places],
    )


def _parts(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """``order``, along which ``lengths`` rise, cut so that no part has more than MAX_TOKENS."""
    parts: list[list[int]] = []
    for index in order:
        if not parts or (len(parts[-1]) + 1) * lengths[index] > MAX_TOKENS:
            parts.append([])
        parts[-1].append(index)
    return parts


@torch.inference_mode()
def _score_batch(body: Body, rows: Sequence[tuple[list[int], _Tree]]) -> list[list[Scored]]:
    shared, prefix = body.beginning([prompt for prompt, _ in rows])
    rests = [prompt[shared:] for prompt, _ in rows]
    lengths = [len(rest) + len(tree.tokens) for rest, (_, tree) in zip(rests, rows, strict=True)]
    width = max(lengths)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    visible = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    lines: list[int] = []
    columns: list[int] = []
    for line, (rest, (prompt, tree), end) in enumerate(zip(rests, rows, lengths, strict=True)):
        start = len(rest)
        ids[line, :end] = torch.tensor([*rest, *tree.tokens])
        places = [*range(shared, len(prompt)), *(len(prompt) + d - 1 for d in tree.depths)]
        positions[line, :end] = torch.tensor(places)
        visible[line, :start, :start] = causal[:start, :start]
        visible[line, start:end, :start] = True
        visible[line, start:end, start:end] = tree.visible
        lines += [line] * len(tree.sources)
        columns += [start + source if source >= 0 else start - 1 for source in tree.sources]
    cache = None
    if prefix is not None:
        cache = kv.new_cache(body.config, capacity=shared + width)
        kv.seed(cache, prefix, len(rows))
        visible = torch.nn.functional.pad(visible, (shared, 0), value=True)
    device = body.device
    hidden = body.hidden(ids.to(device), visible.to(device), positions.to(device), cache)
    targets = torch.tensor([target for _, tree in rows for target in tree.targets])
    found = _logprobs(body, hidden, torch.tensor(lines), torch.tensor(columns), targets)
    return _sums(rows, *found)


def _logprobs(
    body: Body, hidden: Tensor, lines: Tensor, columns: Tensor, targets: Tensor
) -> tuple[list[float], list[bool]]:
    """Log-probability of each target, and whether it is the most probable token.

    Targets that one position predicts share its logits.
    """
    flat = lines * hidden.shape[1] + columns
    places, which = torch.unique(flat, return_inverse=True)
    states = hidden.flatten(0, 1)[places.to(hidden.device)]
    targets, which = targets.to(hidden.device), which.to(hidden.device)
    logprobs = torch.empty(len(targets), device=hidden.device)
    greedy = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
    size = max(1, MAX_LOGITS // body.config.get_text_config().vocab_size)
    for start in range(0, len(states), size):
        logits = body.logits(states[start : start + size])
        here = ((which >= start) & (which < start + size)).nonzero().squeeze(-1)
        rows = which[here] - start
        wanted = logits[rows, targets[here]]
        logprobs[here] = wanted - logits.logsumexp(-1)[rows]
        greedy[here] = targets[here] == logits.argmax(-1)[rows]
    return logprobs.tolist(), greedy.tolist()


def _sums(
    rows: Sequence[tuple[list[int], _Tree]], logprobs: list[float], greedy: list[bool]
) -> list[list[Scored]]:
    results = []
    values = iter(zip(logprobs, greedy, strict=True))
    for _, tree in rows:
        found = [Scored(0.0, True)] * (tree.owners[-1] + 1)
        for owner in tree.owners:
            logprob, best = next(values)
            so_far = found[owner]
            found[owner] = Scored(so_far.logprob + logprob, so_far.is_greedy and best)
        results.append(found)
    return results
