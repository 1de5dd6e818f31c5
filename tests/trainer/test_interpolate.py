"""Variants between parent and trained policy: the merged weights lie on the line between both."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tacit.errors import TrainingError
from tacit.policies import load_policy
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from trainer.interpolate import interpolate

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

ALPHAS = (0.25, 0.5, 0.75)


def weights(store, digest) -> dict[str, torch.Tensor]:
    """Weights as they serve: an adapter merged into its base."""
    return load_policy(store, digest).model.state_dict()


def update(store, parent, **fields):
    chosen = settings(learning_rate=1e-2, **fields)
    digest, _ = train(store, parent, mixed_events(), replay_examples(), settings=chosen)
    return digest


def between(store, parent, trained, alpha) -> dict[str, torch.Tensor]:
    before, after = weights(store, parent), weights(store, trained)
    return {name: (1 - alpha) * before[name] + alpha * after[name] for name in before}


def error(store, digest, wanted) -> float:
    """Frobenius norm of the difference over all weights."""
    got = weights(store, digest)
    return sum(float((got[name] - wanted[name]).pow(2).sum()) for name in wanted) ** 0.5


@pytest.mark.parametrize("fields", [{}, {"lora": {"rank": 4, "train_embeddings": True}}])
def test_a_first_adapter_is_interpolated_exactly(store, fields):
    parent = build.tiny_checkpoint(store)
    trained = update(store, parent, **fields)
    moved = error(store, trained, weights(store, parent))
    for alpha in ALPHAS:
        variant = interpolate(store, parent=parent, trained=trained, alpha=alpha)
        assert store.verify(variant).base == parent
        assert error(store, variant, between(store, parent, trained, alpha)) < 1e-6 * moved + 1e-6


def by_factors(store, parent, trained, alpha) -> dict[str, torch.Tensor]:
    """What interpolating A and B apart would give, merged: the mistake to be better than."""
    name = "adapter_model.safetensors"
    before, after = (load_file(store.path(d) / name) for d in (parent, trained))
    scale = json.loads((store.path(trained) / "adapter_config.json").read_text())
    merged = weights(store, store.manifest(trained).base)
    for key in before:
        if ".lora_A." in key:
            other = key.replace(".lora_A.", ".lora_B.")
            a, b = (torch.lerp(before[k], after[k], alpha) for k in (key, other))
            inner = key.removeprefix("base_model.model.").replace(".lora_A.", ".")
            merged[inner] = merged[inner] + scale["lora_alpha"] / scale["r"] * b @ a
    return merged


def test_the_second_adapter_keeps_its_rank_and_beats_interpolated_factors(store):
    parent = update(store, build.tiny_checkpoint(store))
    trained = update(store, parent, seed=1, num_epochs=6)
    for alpha in ALPHAS:
        variant = interpolate(store, parent=parent, trained=trained, alpha=alpha)
        wanted = between(store, parent, trained, alpha)
        shapes = [
            {k: v.shape for k, v in load_file(store.path(d) / "adapter_model.safetensors").items()}
            for d in (trained, variant)
        ]
        assert shapes[0] == shapes[1]
        factors = by_factors(store, parent, trained, alpha)
        naive = sum(float((factors[k] - wanted[k]).pow(2).sum()) for k in wanted) ** 0.5
        # Eckart and Young 1936: no other matrix of this rank is nearer.
        assert error(store, variant, wanted) < naive
        assert error(store, variant, wanted) < 0.05 * error(store, trained, weights(store, parent))


@pytest.mark.parametrize("from_adapter", [False, True])
def test_full_weights_are_interpolated_tensor_by_tensor(store, from_adapter):
    parent = build.tiny_checkpoint(store)
    if from_adapter:
        parent = update(store, parent)
    trained = update(store, parent, full_fine_tuning=True)
    variant = interpolate(store, parent=parent, trained=trained, alpha=0.25)
    assert store.verify(variant).base is None
    assert error(store, variant, between(store, parent, trained, 0.25)) < 1e-5
    names = [set(store.manifest(d).files) for d in (trained, variant)]
    assert names[0] == names[1]


def test_one_is_the_trained_policy_and_each_alpha_has_one_digest(store):
    parent = update(store, build.tiny_checkpoint(store))
    trained = update(store, parent, seed=1)
    assert interpolate(store, parent=parent, trained=trained, alpha=1.0) == trained
    threads = torch.get_num_threads()
    first = [interpolate(store, parent=parent, trained=trained, alpha=a) for a in ALPHAS]
    torch.set_num_threads(3)
    try:
        again = [interpolate(store, parent=parent, trained=trained, alpha=a) for a in ALPHAS]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert first == again
    assert len({*first, trained, parent}) == 5


@pytest.mark.parametrize("alpha", [0.0, -0.5, 1.5, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(store, alpha):
    with pytest.raises(TrainingError, match="alpha"):
        interpolate(store, parent=build.digest("a"), trained=build.digest("b"), alpha=alpha)


def test_adapters_on_different_bases_are_refused(store):
    parent = update(store, build.tiny_checkpoint(store))
    base = update(store, store.manifest(parent).base, full_fine_tuning=True)
    with pytest.raises(TrainingError, match="same base"):
        interpolate(store, parent=parent, trained=update(store, base), alpha=0.5)
