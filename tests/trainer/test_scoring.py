import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from tacit.policies import load_model
from tests import builders as build
from trainer.scoring import CompletionScorer
from trainer.sequences import collate

SEQUENCES = collate([((1, 2, 3), (4, 5)), ((6,), (7, 8, 9)), ((9, 8), (7,))], pad_id=0)
SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def whole_logprobs(model, sequences):
    """Each sequence on its own, unpadded, through the model's own forward."""
    rows = []
    for row in range(len(sequences.lengths)):
        length = int(sequences.attention_mask[row].sum())
        logits = model(input_ids=sequences.input_ids[row : row + 1, :length]).logits[0]
        rows.append(logits.float().log_softmax(-1)[-1 - int(sequences.lengths[row]) : -1])
    return torch.cat(rows)


def check(model, *, splits):
    scorer = CompletionScorer(model)
    assert scorer.splits is splits
    with torch.no_grad():
        found = scorer.logprobs(scorer.hidden(SEQUENCES))
        assert torch.allclose(found, whole_logprobs(model, SEQUENCES), atol=1e-5)


def test_qwen_is_split(store):
    check(load_model(store, build.tiny_checkpoint(store)).eval(), splits=True)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_model_with_an_adapter_is_split_with_it(store):
    model = load_model(store, build.tiny_checkpoint(store)).eval()
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    ).eval()
    check(adapted, splits=True)
    with torch.no_grad(), adapted.disable_adapter():
        bare = whole_logprobs(adapted, SEQUENCES)
    with torch.no_grad():
        assert not torch.allclose(bare, whole_logprobs(adapted, SEQUENCES), atol=1e-2)


def test_other_architectures_are_split_by_what_they_expose():
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    check(gpt2.eval(), splits=True)
    check(GemmaForCausalLM(GemmaConfig(**SMALL)).eval(), splits=True)


def test_a_model_that_scales_its_logits_keeps_its_own_forward():
    torch.manual_seed(0)
    model = GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0))
    check(model.eval(), splits=False)


def test_a_frozen_head_stays_as_it_was(store):
    model = load_model(store, build.tiny_checkpoint(store)).requires_grad_(True)
    scorer = CompletionScorer(model)
    frozen = scorer.frozen()
    with torch.no_grad():
        hidden = scorer.hidden(SEQUENCES)
        before = scorer.logprobs(hidden)
        model.get_output_embeddings().weight.mul_(2.0)
        assert torch.equal(frozen.logprobs(hidden), before)
        assert not torch.allclose(scorer.logprobs(hidden), before)


SHARED = [((1, 2, 3), (4, 5), (6, 7, 8)), ((6,), (7, 8, 9), (9, 9)), ((9, 8), (7,))]
APART = collate([(prompt, said) for prompt, *all_said in SHARED for said in all_said], pad_id=0)


def test_completions_behind_one_prompt_do_not_see_each_other(store):
    model = load_model(store, build.tiny_checkpoint(store)).eval()
    scorer = CompletionScorer(model)
    assert scorer.shares_prompts
    shared = collate(SHARED, pad_id=0)
    assert shared.input_ids.shape == (3, 8)
    with torch.no_grad():
        found = scorer.logprobs(scorer.hidden(shared))
        assert torch.allclose(found, whole_logprobs(model, APART), atol=1e-5)
    assert torch.equal(shared.targets, APART.targets)
    assert torch.equal(shared.per_sequence(found[:, 0]), APART.per_sequence(found[:, 0]))


def test_a_model_that_would_mix_completions_up_gets_them_apart(store):
    model = load_model(store, build.tiny_checkpoint(store)).eval()
    model.set_attn_implementation("eager")  # adds a mask that sdpa takes as it is
    assert not CompletionScorer(model).shares_prompts
    windowed = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)).eval()
    assert not CompletionScorer(windowed).shares_prompts
