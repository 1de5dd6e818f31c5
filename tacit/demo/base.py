"""Makes the demo's first policy on the spot: a small Qwen3 taught the old world, then cached.

Input: a world. Output: the digest of a full checkpoint in the store, which becomes the first
release and the frozen anchor. Bit-exact for a world, a recipe, a seed and the library versions.
"""

import math
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, canonical_json, sha256_digest
from tacit.demo.network import build_model, build_tokenizer
from tacit.demo.world import Utterance, World, prompt
from tacit.errors import TrainingError
from tacit.policies import completion_ids, load_policy, prompt_ids

OnStep = Callable[[int, int], None]
"""Called with the number of steps done and the number of all steps."""


@dataclass(frozen=True)
class BaseRecipe:
    """Architecture and training settings; everything the weights depend on besides the world."""

    hidden_size: int = 192
    num_layers: int = 4
    num_heads: int = 6
    vocab_size: int = 4_096
    max_positions: int = 512
    num_epochs: float = 12.0
    batch_size: int = 64
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule (Smith & Topin 2018, arXiv 1708.07120)."""
    weight_decay: float = 0.05
    prompt_weight: float = 0.1
    """Weight of next-token loss on prompts, which teaches words beside answers."""


SMALL_RECIPE = BaseRecipe(hidden_size=160, num_layers=3, num_heads=4, num_epochs=5.0)
"""Enough for the helpdesk, whose words are few."""

REAL_RECIPE = BaseRecipe()
"""For real utterances."""


def recipe_for(world: World) -> BaseRecipe:
    """The recipe tuned for ``world``."""
    return SMALL_RECIPE if world.name == "helpdesk" else REAL_RECIPE


def make_base(
    world: World,
    store: CheckpointStore,
    *,
    cache: Path,
    seed: int = 0,
    recipe: BaseRecipe | None = None,
    on_progress: OnStep | None = None,
) -> Digest:
    """Digest of the policy taught ``world.old_train``; trained only if the cache lacks it.

    ``cache`` is a folder of one checkpoint folder per training key. Raises TrainingError if the
    loss stops being a number.
    """
    recipe = recipe or recipe_for(world)
    folder = cache / training_key(world, recipe, seed=seed).removeprefix("sha256:")[:24]
    if not folder.is_dir():
        _install(train_base(world, recipe, seed=seed, on_progress=on_progress), folder)
    return store.put(folder)


def training_key(world: World, recipe: BaseRecipe, *, seed: int) -> Digest:
    """Digest of everything the weights are a function of."""
    key = {
        "world": world.digest,
        "recipe": asdict(recipe),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }
    return sha256_digest(canonical_json(key))


def train_base(
    world: World, recipe: BaseRecipe, *, seed: int = 0, on_progress: OnStep | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer taught ``world.old_train`` from nothing. Raises TrainingError."""
    model, tokenizer = untrained(world, recipe, seed=seed)
    examples = [_encode(tokenizer, u, recipe.max_positions) for u in world.old_train]
    _fit(model, examples, recipe, seed=seed, on_progress=on_progress)
    return model, tokenizer


def untrained(world: World, recipe: BaseRecipe, *, seed: int = 0) -> tuple[Any, Any]:
    """A model with random weights, and a tokenizer trained on the words of the old world."""
    texts = [text for u in world.old_train for text in (u.text, u.answer)]
    tokenizer = build_tokenizer(texts, vocab_size=recipe.vocab_size)
    model = build_model(
        tokenizer,
        hidden_size=recipe.hidden_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        max_positions=recipe.max_positions,
        seed=seed,
    )
    return model, tokenizer


class _Example(NamedTuple):
    ids: list[int]
    num_prompt: int


def _encode(tokenizer: Any, utterance: Utterance, max_length: int) -> _Example:
    answer = completion_ids(tokenizer, utterance.answer)
    asked = prompt_ids(tokenizer, prompt(utterance))[-(max_length - len(answer)) :]
    return _Example(ids=asked + answer, num_prompt=len(asked))


def _fit(
    model: Any,
    examples: Sequence[_Example],
    recipe: BaseRecipe,
    *,
    seed: int,
    on_progress: OnStep | None,
) -> None:
    per_epoch = math.ceil(len(examples) / recipe.batch_size)
    num_steps = max(1, round(recipe.num_epochs * per_epoch))
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=num_steps, cycle_momentum=False
    )
    batches = _batches(examples, recipe.batch_size, seed=seed)
    model.train()
    for step in range(num_steps):
        loss = _loss(model, next(batches), recipe.prompt_weight)
        if not math.isfinite(loss.item()):
            raise TrainingError("a finite loss", got=f"{loss.item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_progress is not None:
            on_progress(step + 1, num_steps)
    model.eval()


def _batches(
    examples: Sequence[_Example], batch_size: int, *, seed: int
) -> Iterator[list[_Example]]:
    """Endless epochs of batches whose examples are of about one length."""
    rng = random.Random(seed)
    while True:
        # Noise on the length keeps the batches of one epoch from being those of the next.
        order = sorted(examples, key=lambda e: len(e.ids) + rng.uniform(0, 3))
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        rng.shuffle(batches)
        yield from batches


def _loss(model: Any, batch: Sequence[_Example], prompt_weight: float) -> torch.Tensor:
    """Mean loss on answers plus ``prompt_weight`` times that on a sample of prompt tokens.

    Only positions that count go through the output layer. Padding is on the right, where causal
    attention never looks, so no mask is needed.
    """
    width = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    on_answer = torch.zeros(len(batch), width - 1, dtype=torch.bool)
    on_prompt = torch.zeros(len(batch), width - 1, dtype=torch.bool)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        on_answer[row, example.num_prompt - 1 : len(example.ids) - 1] = True
        on_prompt[row, 1 : example.num_prompt - 1] = True
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    targets = ids[:, 1:]
    loss = functional.cross_entropy(model.lm_head(hidden[on_answer]), targets[on_answer])
    if prompt_weight and on_prompt.any():
        logits = model.lm_head(hidden[on_prompt])
        loss = loss + prompt_weight * functional.cross_entropy(logits, targets[on_prompt])
    return loss


def _install(trained: tuple[Any, Any], folder: Path) -> None:
    """Save model and tokenizer as ``folder``, all or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="incoming-", dir=folder.parent))
    for part in trained:
        part.save_pretrained(staging)
    staging.rename(folder)


def reliable(
    store: CheckpointStore,
    digest: Digest,
    utterances: Sequence[Utterance],
    *,
    min_probability: float = 0.9,
) -> frozenset[str]:
    """Texts of ``utterances`` the policy gets right with at least ``min_probability``.

    Only such safety items may be non-negotiable: on others a coin toss would fail the gate.
    """
    policy = load_policy(store, digest)
    completions = policy.generate([prompt(u) for u in utterances], max_new_tokens=16)
    return frozenset(
        utterance.text
        for utterance, completion in zip(utterances, completions, strict=True)
        if completion.text == utterance.answer
        and math.exp(sum(completion.logprobs)) >= min_probability
    )
