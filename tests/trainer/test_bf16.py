"""Updates in bfloat16 on the CPU: as good as in float32 on prompts not trained on, same bytes."""

import pytest
import torch

from tacit.contracts import Correction
from tacit.policies import completion_ids, load_policy, prompt_ids
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from tests.trainer.test_reproduce import again, differing, made_from
from trainer.precision import has_fast_bf16
from trainer.session import TrainingSession

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

ASKED = [f"where is {what} {n}" for what in ("order", "parcel", "box") for n in range(16)]
EVENTS = [
    build.screened(f"e-{n}", prompt=asked, feedback=Correction(completion="shipping"))
    for n, asked in enumerate(ASKED[::2])
]
HELD_OUT = ASKED[1::2]


def held_out_loss(store, digest) -> float:
    """Mean negative log-likelihood a prompt of the right answer, where it was never shown."""
    policy = load_policy(store, digest)
    right, total = completion_ids(policy.tokenizer, "shipping"), 0.0
    for asked in HELD_OUT:
        ids = prompt_ids(policy.tokenizer, build.user(asked))
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([ids + right])).logits[0]
        table = logits[len(ids) - 1 : -1].log_softmax(-1)
        total -= float(table.gather(-1, torch.tensor(right)[:, None]).sum())
    return total / len(HELD_OUT)


def test_what_is_held_out_is_answered_as_well_up_to_the_noise_of_seeds(store):
    parent, session = build.tiny_checkpoint(store), TrainingSession(store)

    def loss(precision: str, seed: int) -> float:
        chosen = settings(precision=precision, seed=seed, num_epochs=5, learning_rate=5e-3)
        digest, _ = train(store, parent, EVENTS, settings=chosen, session=session)
        return held_out_loss(store, digest)

    exact, rounded = ([loss(each, seed) for seed in range(3)] for each in ("fp32", "bf16"))
    gained = held_out_loss(store, parent) - max(*exact, *rounded)
    noise = max(exact) - min(exact)
    assert rounded != exact
    assert gained > 0.5
    assert max(abs(a - b) for a, b in zip(exact, rounded, strict=True)) < noise


def test_the_same_job_in_bfloat16_gives_the_same_bytes(store):
    parent, warm = build.tiny_checkpoint(store), TrainingSession(store)
    made = {
        train(
            store,
            parent,
            mixed_events(),
            replay_examples(),
            settings=settings(precision="bf16"),
            session=session,
        )[0]
        for session in (warm, warm, TrainingSession(store))
    }
    assert len(made) == 1
    exact, _ = train(store, parent, mixed_events(), replay_examples(), settings=settings())
    assert exact not in made


@pytest.mark.parametrize("full", [False, True])
def test_a_candidate_in_bfloat16_is_rebuilt_byte_for_byte(store, monkeypatch, full):
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    chosen = settings(num_workers=1, num_epochs=1, precision="bf16", full_fine_tuning=full)
    candidate = made_from(store, build.tiny_checkpoint(store), 0.5, chosen)
    found = again(store, candidate)
    assert found.same
    assert differing(found) == {}


@pytest.mark.skipif(not has_fast_bf16("cpu"), reason="needs a CPU with units for bfloat16")
def test_auto_on_this_processor_is_bfloat16_to_the_last_bit(store):
    parent = build.tiny_checkpoint(store)
    auto, rounded = (
        train(store, parent, mixed_events(), settings=settings(precision=each))[0]
        for each in ("auto", "bf16")
    )
    assert auto == rounded
