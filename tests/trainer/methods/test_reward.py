"""Reward models: pinned by their bytes, checked, and asked what TRL asks them."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from tacit.contracts import Correction, VariantChoice
from tacit.errors import ConfigError, IntegrityError
from tests import builders as build
from tests.trainer.builders import seal
from tests.trainer.methods.builders import LEFT, asked, inputs, settings
from tests.trainer.test_reproduce import Here
from trainer.methods.policy_gradient import build as make
from trainer.methods.reward import load_model, matches_known_answer
from trainer.methods.streaming import stream
from trainer.pinning import pinned, pinned_models
from trainer.reproduce import reproduce
from trainer.update import PolicyTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def reward_folder(store, folder: Path) -> Path:
    """A tiny reward model with random weights."""
    source = store.path(build.tiny_checkpoint(store))
    config = Qwen3ForCausalLM.from_pretrained(source).config
    config.num_labels = 1
    torch.manual_seed(0)
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def test_known_answers_pay_and_unknown_ones_are_left_to_others():
    said = [[{"role": "assistant", "content": text}] for text in ("Billing.", "refund", "billing")]
    assert matches_known_answer(said, ["billing", "billing", None]) == [1.0, 0.0, None]


def test_a_reward_models_logits_are_the_rewards(store, tmp_path):
    folder = reward_folder(store, tmp_path / "reward")
    chosen = pinned(
        settings("rloo", batch_size=8, num_epochs=1, reward={"model": str(folder)}), store
    )
    trainer = make(inputs(store, asked(2), chosen, tmp_path / "out"))
    list(stream(trainer))
    model = Qwen3ForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logs = trainer._logs
    ((_, rewards),) = logs["rewards"].items()
    for prompt, said, reward in zip(logs["prompt"], logs["completion"], rewards, strict=True):
        text = tokenizer.apply_chat_template([*prompt, *said], tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            assert float(model(input_ids=ids).logits[0, 0]) == pytest.approx(reward, abs=1e-4)
    assert len(set(rewards)) > 1


def test_function_and_model_are_added_up(store, tmp_path):
    folder = reward_folder(store, tmp_path / "reward")
    reward = {"function": LEFT, "model": str(folder)}
    chosen = pinned(settings("grpo", batch_size=8, reward=reward), store)
    trainer = make(inputs(store, asked(2), chosen, tmp_path / "out"))
    assert len(trainer.reward_funcs) == 2
    assert trainer.reward_weights.tolist() == [1, 1]


def test_a_folder_is_pinned_by_its_bytes(store, tmp_path):
    folder = reward_folder(store, tmp_path / "reward")
    chosen = settings("grpo", reward={"model": str(folder)})
    assert pinned_models(chosen) == []
    once = pinned(chosen, store)
    (digest,) = pinned_models(once)
    store.verify(digest)
    assert pinned(chosen, store) == pinned(once, store) == once
    plain = settings("sft")
    assert pinned(plain, store) is plain


def test_what_is_no_reward_model_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"no-such.*config\.json"):
        pinned(settings("grpo", reward={"model": str(tmp_path / "no-such")}), store)
    policy = build.tiny_checkpoint(store)
    with pytest.raises(ConfigError, match=r"one output.*without score\.weight"):
        load_model(store, policy, device="cpu")
    folder = reward_folder(store, tmp_path / "reward")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="chat template"):
        load_model(store, store.put(folder), device="cpu")


def test_a_reward_model_that_was_tampered_with_is_refused(store, tmp_path):
    digest = store.put(reward_folder(store, tmp_path / "reward"))
    (store.path(digest) / "model.safetensors").write_bytes(b"other")
    chosen = settings("grpo", reward={"model": digest})
    events = asked(1, Correction(completion="shipping"))
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        make(inputs(store, events, chosen, tmp_path / "out"))


def test_an_update_with_a_reward_model_is_rebuilt_though_its_folder_is_gone(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    folder, parent = reward_folder(store, tmp_path / "reward"), build.tiny_checkpoint(store)
    events = asked(2)
    batch = seal(parent, events)
    chosen = settings(
        "grpo", batch_size=8, num_epochs=1, num_workers=1, reward={"model": str(folder)}
    )

    def open_trainer(wanted, where):
        return PolicyTrainer(wanted, where, open_group=lambda _: Here(where))

    made = open_trainer(chosen, store).update(batch, events, (), on_step=lambda step: None)
    assert made.config["reward"]["model"].startswith("sha256:")
    shutil.rmtree(folder)
    candidate = build.candidate(
        weights=made.weights,
        parent=parent,
        batch_digest=batch.digest(),
        config=made.config,
        versions=made.versions,
        choice=VariantChoice(alpha=1.0, trained=made.weights, reason="so", variants=()),
    )
    found = reproduce(
        candidate,
        batch,
        events,
        (),
        store=store,
        on_step=lambda step: None,
        open_trainer=open_trainer,
    )
    assert found.weights == made.weights != parent
    assert all(fact.same for fact in found.facts)
