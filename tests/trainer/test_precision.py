import pytest
import torch

from tacit.policies import load_model
from tests import builders as build
from tests.trainer.builders import mixed_events, seal, settings
from tests.trainer.here import Here
from trainer.precision import has_fast_bf16, resolve_precision
from trainer.scoring import CompletionScorer
from trainer.sequences import collate
from trainer.update import PolicyTrainer

SEQUENCES = collate([((1, 2, 3), (4, 5)), ((6,), (7, 8, 9))], pad_id=0)


@pytest.mark.parametrize(("flags", "fast"), [("fma amx_bf16", True), ("avx512_bf16", False)])
def test_amx_is_what_makes_bfloat16_fast(tmp_path, flags, fast):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert has_fast_bf16("cpu", cpu_info=tmp_path / "cpuinfo") is fast


def test_auto_takes_what_is_fast_and_the_rest_is_taken_at_its_word():
    assert resolve_precision("auto", fast_bf16=True) == "bf16"
    assert resolve_precision("auto", fast_bf16=False) == "fp32"
    assert resolve_precision("fp32", fast_bf16=True) == "fp32"
    assert resolve_precision("bf16", fast_bf16=False) == "bf16"


def test_bfloat16_comes_close_to_float32(store):
    model = load_model(store, build.tiny_checkpoint(store)).eval()
    with torch.no_grad():
        exact, rounded = (
            scorer.logprobs(scorer.hidden(SEQUENCES))
            for scorer in (CompletionScorer(model), CompletionScorer(model, bf16=True))
        )
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.05)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_candidate_says_what_auto_came_to(store, monkeypatch, fast, precision):
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    parent, events = build.tiny_checkpoint(store), mixed_events(4)
    group = Here(store)
    group.fast_bf16 = fast
    chosen = settings(num_workers=1, num_epochs=1, precision="auto")
    made = PolicyTrainer(chosen, store, open_group=lambda _: group).update(
        seal(parent, events), events, [], on_step=lambda step: None
    )
    assert made.config["precision"] == precision
