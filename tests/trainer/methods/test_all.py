"""What every method keeps: the same bits again, silence, and settings that suit it."""

import pytest

from tacit.config import load_settings
from tacit.contracts import Correction, Critique
from tacit.errors import ConfigError
from tests import builders as build
from tests.trainer.builders import replay_examples, train
from tests.trainer.methods.builders import LEFT, settings
from tests.trainer.methods.reader import HINT, INSTRUCTION, question, reading_checkpoint

METHODS = ["sft", "dpo", "kto", "grpo", "rloo", "sdft", "sdpo", "star"]
EMBEDDINGS = {"rank": 4, "alpha": 8, "train_embeddings": True}
FIELDS = {
    "grpo": {"reward": {"function": LEFT}},
    "rloo": {"reward": {"function": LEFT}},
    "star": {
        "star": {"instruction": INSTRUCTION, "hint": HINT},
        "sampling": {"max_new_tokens": 12},
    },
}


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("full", [False, True])
def test_a_method_repeats_bit_by_bit_without_a_word(store, method, full, monkeypatch, capfd):
    def tell(*_, **__):
        raise AssertionError("TRL told its makers' servers")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", tell)
    feedback = Critique(text="say it") if method == "sdpo" else Correction(completion="shipping")
    events = [build.screened(f"e-{i}", prompt=question(i), feedback=feedback) for i in range(4)]
    parent, replay = reading_checkpoint(store), replay_examples(1)
    capfd.readouterr()
    chosen = settings(
        method, full_fine_tuning=full, lora=EMBEDDINGS, num_epochs=2, **FIELDS.get(method, {})
    )
    runs = [train(store, parent, events, replay, settings=chosen)[0] for _ in range(2)]
    assert runs[0] == runs[1] != parent
    other = chosen.model_copy(update={"learning_rate": 2e-3})
    assert train(store, parent, events, replay, settings=other)[0] != runs[0]
    assert store.verify(runs[0]).base == (None if full else parent)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=grpo"], r"trainer\.reward\.function or trainer\.reward\.model; got neither"),
        (["method=rloo"], "got neither with trainer.method=rloo"),
        (["method=sft", "num_workers=2"], r"num_workers=1 or unset; got 2"),
        (["method=grpo", f"reward.function={LEFT}", "num_workers=3"], "got 3"),
        (["method=grpo", f"reward.function={LEFT}", "batch_size=12"], "=8 divides; got 12"),
        (["method=sdpo", "batch_size=4"], "=8 divides; got 4"),
        (["method=star", "sampling.max_new_tokens=512"], "max_length=512; got 512"),
        (["reward.function=left"], r"trainer\.reward\.function"),
        (["sampling.num_generations=1"], r"num_generations"),
        (["method=ppo"], r"trainer\.method"),
    ],
)
def test_settings_that_do_not_suit_the_method_are_refused(
    tmp_path, monkeypatch, overrides, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_settings(overrides=[f"trainer.{override}" for override in overrides])


def test_settings_that_suit_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = load_settings(
        overrides=[
            "trainer.method=grpo",
            f"trainer.reward.function={LEFT}",
            "trainer.num_workers=1",
        ]
    )
    assert chosen.trainer.method == "grpo"
    assert load_settings(overrides=["trainer.method=sdft", "trainer.batch_size=3"])
