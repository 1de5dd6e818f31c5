"""Folding a promoted adapter into its base: the policy stays, and what rounding did is mended."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tacit.checkpoints import MANIFEST_NAME, CheckpointStore
from tacit.contracts import Digest, ReplayExample
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tacit.policies import load_model, load_policy, load_tokenizer, prompt_ids
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from trainer.collective import Collective
from trainer.consolidate import folded
from trainer.losses import kl_divergence
from trainer.progress import StepMetrics
from trainer.session import TrainingSession, UpdateJob

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
REPLAY = replay_examples(12)
KL = MetricName.KL_CONSOLIDATION.value


def half_precision(store: CheckpointStore, folder: Path) -> Digest:
    """The tiny policy as it would come from the hub: in bfloat16, and sure of what it says."""
    source = store.path(build.tiny_checkpoint(store))
    files = shutil.copytree(source, folder / "half")
    (files / MANIFEST_NAME).unlink()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(16 if "proj" in name else 4)
    model.save_pretrained(files)
    return store.put(files)


def consolidate(
    store: CheckpointStore,
    parent: Digest,
    replay: list[ReplayExample] = REPLAY,
    **fields: Any,
) -> tuple[Digest, list[float]]:
    """The digest of what ``parent`` becomes, and the divergences on the way."""
    job = UpdateJob(parent, (), tuple(replay), settings(**fields), consolidates=True)
    *steps, digest = TrainingSession(store).run(job)
    assert isinstance(digest, str)
    return digest, [step.metrics[KL] for step in steps if isinstance(step, StepMetrics)]


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    """What a model predicts after some prompts."""
    ids = tokenizer("where is my order old question 3 billing", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found: torch.Tensor = model.eval()(ids).logits.float()
    return found


def distance(store: CheckpointStore, adapter: Digest, whole: Digest, prompts: list[str]) -> float:
    """KL(adapter policy || ``whole``) of the next token after ``prompts``, measured anew."""
    base = store.manifest(adapter).base
    assert base is not None
    teacher, student = folded(store, adapter, base), load_model(store, whole).float()
    tokenizer = load_tokenizer(store, base)
    total = 0.0
    for prompt in prompts:
        ids = torch.tensor([prompt_ids(tokenizer, build.user(prompt))])
        with torch.no_grad():
            wanted, got = (m.eval()(ids).logits[0, -1:].log_softmax(-1) for m in (teacher, student))
        total += float(kl_divergence(wanted, got))
    return total / len(prompts)


@pytest.mark.parametrize("train_embeddings", [False, True])
def test_the_policy_is_the_same_before_and_after(
    store: CheckpointStore, train_embeddings: bool
) -> None:
    base = build.tiny_checkpoint(store)
    options = settings(lora={"rank": 4, "alpha": 8, "train_embeddings": train_embeddings})
    adapter, _ = train(store, base, mixed_events(), REPLAY, settings=options)
    whole, divergences = consolidate(store, adapter)

    manifest = store.verify(whole)
    assert (manifest.kind, manifest.base) == ("full", None)
    assert divergences == []  # nothing was rounded, nothing is to mend
    before, after, bare = (load_policy(store, digest) for digest in (adapter, whole, base))
    expected = logits(before.model, before.tokenizer)
    torch.testing.assert_close(logits(after.model, after.tokenizer), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(bare.model, bare.tokenizer), expected, atol=1e-3)
    prompts = [example.prompt for example in REPLAY]
    answers = [
        [found.text for found in policy.generate(prompts, max_new_tokens=8)]
        for policy in (before, after)
    ]
    assert answers[0] == answers[1]


def test_what_rounding_did_is_mended(store: CheckpointStore, tmp_path: Path) -> None:
    base = half_precision(store, tmp_path)
    adapter, _ = train(store, base, mixed_events(), REPLAY, settings=settings())
    whole, divergences = consolidate(store, adapter)
    assert load_model(store, whole).dtype == torch.bfloat16
    assert divergences[0] > 1e-5
    assert divergences[-1] < 0.7 * divergences[0]
    assert divergences[-1] == min(divergences)
    bare, _ = consolidate(store, adapter, [])
    unseen = [f"old question {number} again" for number in range(20)]
    assert distance(store, adapter, whole, unseen) < 0.7 * distance(store, adapter, bare, unseen)


def test_a_step_that_makes_it_worse_is_not_kept(store: CheckpointStore, tmp_path: Path) -> None:
    base = half_precision(store, tmp_path)
    adapter, _ = train(store, base, mixed_events(), REPLAY, settings=settings())
    wild = {"num_epochs": 2, "learning_rate": 1.0}
    _, divergences = consolidate(store, adapter, consolidation=wild)
    assert max(divergences) > divergences[0] == divergences[-1]


def test_same_inputs_same_weights(store: CheckpointStore, tmp_path: Path) -> None:
    base = half_precision(store, tmp_path)
    adapter, _ = train(store, base, mixed_events(), REPLAY, settings=settings(num_epochs=1))
    once = {"num_epochs": 1}
    first, _ = consolidate(store, adapter, consolidation=once)
    assert consolidate(store, adapter, consolidation=once)[0] == first
    assert consolidate(store, adapter, REPLAY[:6], consolidation=once)[0] != first


def test_memory_is_bounded_by_pieces(store: CheckpointStore, tmp_path: Path) -> None:
    adapter, _ = train(
        store, half_precision(store, tmp_path), mixed_events(), settings=settings(num_epochs=1)
    )
    once = {"num_epochs": 1}
    whole = consolidate(store, adapter, consolidation=once)[1]
    pieces = consolidate(store, adapter, consolidation=once, micro_batch_tokens=32)[1]
    assert pieces == pytest.approx(whole, rel=0.05)


def test_without_replay_it_is_a_bare_merge(store: CheckpointStore, tmp_path: Path) -> None:
    base = half_precision(store, tmp_path)
    adapter, _ = train(store, base, mixed_events(), settings=settings(num_epochs=1))
    whole, divergences = consolidate(store, adapter, [])
    assert divergences == []
    written, exact = load_model(store, whole), folded(store, adapter, base)
    for name, parameter in exact.named_parameters():
        assert torch.equal(written.get_parameter(name), parameter.bfloat16()), name


def test_the_next_adapter_starts_fresh_on_the_new_base(store: CheckpointStore) -> None:
    adapter, _ = train(store, build.tiny_checkpoint(store), mixed_events(), settings=settings())
    whole, _ = consolidate(store, adapter)
    following, _ = train(store, whole, mixed_events(), REPLAY, settings=settings())
    assert store.manifest(following).base == whole
    assert store.verify(following).kind == "adapter"


def test_a_full_checkpoint_has_nothing_to_fold(store: CheckpointStore) -> None:
    with pytest.raises(TrainingError, match="an adapter to fold"):
        consolidate(store, build.tiny_checkpoint(store))


def test_all_workers_but_the_first_have_nothing_to_do(store: CheckpointStore) -> None:
    adapter, _ = train(store, build.tiny_checkpoint(store), mixed_events(), settings=settings())
    session = TrainingSession(store)
    session._group = Collective(rank=1)
    before = set(store.root.iterdir())
    job = UpdateJob(adapter, (), (), settings(), consolidates=True)
    assert list(session.run(job)) == []
    assert set(store.root.iterdir()) == before
