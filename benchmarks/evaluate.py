"""What an evaluation costs, beside lm-evaluation-harness' own ``hf`` backend.

    python -m benchmarks.evaluate [--quick]

Both answer the same requests with the same random policy of 2.5 million weights, in batches of the
same size, on one thread. Requests are made of CLINC150's utterances where ../shared/data has them,
else of the demo's tickets. Rounds are interleaved; the figures are medians of the rounds' ratios of
CPU seconds, which other load on the machine stretches little.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import set_verbosity_error

from benchmarks.results import DETAILS, report
from benchmarks.update.data import SHAPES
from evaluator.evaluate import Evaluator
from evaluator.harness.model import HarnessModel
from evaluator.tables import EvaluationCacheRow
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import Digest, Message, PolicyCandidate, Suite, SuiteItem, SuiteKind, utc_now
from tacit.database import Database
from tacit.demo.clinc import clinc_world
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.network import build_tokenizer
from tacit.demo.world import Utterance
from tacit.policies import Policy

CLINC = Path(__file__).parents[1].parent / "shared" / "data" / "clinc150" / "data_full.json"
BATCH_SIZE = 64
NEW_TOKENS = 16
NUM_CHOICES = 4
PROMPTS = {
    "": "Name the intent of what a customer writes to the assistant.\nText: {text}\nIntent:",
    "_bare": "{text}\nIntent:",
}
"""The template of the suite, and one that begins with the item itself, so that nothing is shared.
The keys end the names of the figures."""


class Cost(NamedTuple):
    """Seconds of one run."""

    cpu_s: float
    wall_s: float


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, kept nowhere")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    set_verbosity_error()
    utterances, data = read_utterances()
    tokenizer = build_tokenizer(
        [text for u in utterances for text in (u.text, u.answer)],
        vocab_size=SHAPES["tiny"]["vocab_size"],
    )
    model = build_model(tokenizer, seed=0)
    num_items, num_rounds = (64, 1) if quick else (128, 5)
    figures: dict[str, float | bool | str] = {
        **against_lm_eval(model, tokenizer, utterances[:num_items], num_rounds=num_rounds),
        "cycle_cost_vs_single": cycle_cost(
            tokenizer, utterances[: 2 * num_items], num_rounds=num_rounds
        ),
        "data": data,
    }
    if quick:
        print(json.dumps(figures))
        return
    (DETAILS / "evaluate.json").write_text(json.dumps(figures, indent=2) + "\n")
    report("evaluate", figures)


def read_utterances() -> tuple[list[Utterance], str]:
    """Texts with their intents, shuffled, and where they are from."""
    world = clinc_world(CLINC) if CLINC.is_file() else helpdesk_world()
    utterances = list(world.old_train)
    random.Random(0).shuffle(utterances)
    return utterances, world.name


def build_model(tokenizer: Any, *, seed: int) -> Any:
    """A random policy, the same weights for the same seed."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        **SHAPES["tiny"],
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def against_lm_eval(
    model: Any, tokenizer: Any, utterances: list[Utterance], *, num_rounds: int
) -> dict[str, float | bool | str]:
    """Items a second over those of lm-eval's ``hf`` backend, and whether the answers agree."""
    policy = Policy(model=model, tokenizer=tokenizer, digest="sha256:" + "0" * 64)
    ours = HarnessModel(policy.texts, batch_size=BATCH_SIZE)
    theirs = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=BATCH_SIZE,
        device="cpu",
        max_length=policy.model.config.max_position_embeddings,
    )
    figures: dict[str, float | bool | str] = {}
    for suffix, prompt in PROMPTS.items():
        generation = [_generation(u, i, prompt) for i, u in enumerate(utterances)]
        choices = _choices(utterances, prompt)
        texts, costs = _rounds(
            partial(ours.generate_until, generation),
            partial(theirs.generate_until, generation, disable_tqdm=True),
            num_rounds,
        )
        scores, choice_costs = _rounds(
            partial(ours.loglikelihood, choices),
            partial(theirs.loglikelihood, choices, disable_tqdm=True),
            num_rounds,
        )
        errors = [abs(mine[0] - other[0]) for mine, other in zip(*scores, strict=True)]
        same = [mine == other for mine, other in zip(*texts, strict=True)]
        figures |= {
            f"generation_vs_lm_eval{suffix}": median_ratio(costs, "cpu_s"),
            f"choice_vs_lm_eval{suffix}": median_ratio(choice_costs, "cpu_s"),
            f"generation_vs_lm_eval{suffix}_wall": median_ratio(costs, "wall_s"),
            f"choice_vs_lm_eval{suffix}_wall": median_ratio(choice_costs, "wall_s"),
            f"same_texts{suffix}": statistics.mean(same),
            f"choice_logprob_error{suffix}": max(errors),
        }
    return figures


def median_ratio(rounds: list[tuple[Cost, Cost]], unit: str) -> float:
    """How many times longer the other side took: median over rounds."""
    return statistics.median(getattr(b, unit) / getattr(a, unit) for a, b in rounds)


def _rounds(
    one: Callable[[], list[Any]], other: Callable[[], list[Any]], num_rounds: int
) -> tuple[tuple[list[Any], list[Any]], list[tuple[Cost, Cost]]]:
    """Results of both sides, and what each of the interleaved rounds cost; the first is warm-up."""
    results = one(), other()
    return results, [(_cost(one), _cost(other)) for _ in range(num_rounds)]


def _cost(run: Callable[[], object]) -> Cost:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def _generation(utterance: Utterance, index: int, prompt: str) -> Instance:
    options = {"until": ["\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
    arguments = (prompt.format(text=utterance.text), options)
    return Instance("generate_until", {}, arguments, index)


def _choices(utterances: list[Utterance], prompt: str) -> list[Instance]:
    """For each utterance its intent and three others."""
    generator = random.Random(0)
    answers = sorted({u.answer for u in utterances})
    requests = []
    for utterance in utterances:
        others = [a for a in answers if a != utterance.answer]
        offered = [utterance.answer, *generator.sample(others, NUM_CHOICES - 1)]
        context = prompt.format(text=utterance.text)
        requests += [
            Instance("loglikelihood", {}, (context, f" {answer}"), index)
            for index, answer in enumerate(offered)
        ]
    return requests


def cycle_cost(tokenizer: Any, utterances: list[Utterance], *, num_rounds: int) -> float:
    """An evaluation with champion and anchor cached, over one of the candidate alone."""
    items = tuple(
        SuiteItem(item_id=str(i), prompt=(Message(role="user", content=u.text),), expected=u.answer)
        for i, u in enumerate(utterances)
    )
    suite = Suite(
        name="old-world", kind=SuiteKind.REGRESSION, items=items, max_new_tokens=NEW_TOKENS
    )
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder) / "checkpoints")
        db = Database(f"sqlite:///{folder}/tacit.db")
        db.migrate()
        anchor, champion, candidate = (
            _store_policy(store, tokenizer, Path(folder) / str(seed), seed) for seed in range(3)
        )
        evaluator = Evaluator(EvaluatorSettings(batch_size=BATCH_SIZE), store, db)

        def evaluate(champion: Digest, anchor: Digest) -> Cost:
            with db.session() as session:
                session.query(EvaluationCacheRow).filter_by(policy_digest=candidate).delete()
            return _cost(lambda: _evaluate(evaluator, candidate, champion, anchor, suite))

        evaluate(champion, anchor)  # warms their caches
        rounds = [
            (evaluate(candidate, candidate), evaluate(champion, anchor)) for _ in range(num_rounds)
        ]
        db.dispose()
    return median_ratio(rounds, "cpu_s")


def _store_policy(store: CheckpointStore, tokenizer: Any, folder: Path, seed: int) -> Digest:
    build_model(tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return store.put(folder)


def _evaluate(
    evaluator: Evaluator, weights: Digest, champion: Digest, anchor: Digest, suite: Suite
) -> None:
    candidate = PolicyCandidate(
        policy="default",
        weights=weights,
        parent=champion,
        batch_digest=weights,
        config={},
        seed=0,
        world_size=1,
        versions={},
        metrics={},
        created_at=utc_now(),
    )
    found = evaluator.evaluate(
        candidate, champion=champion, anchor=anchor, suites=[suite], learned=[]
    )
    if found.errors:
        raise RuntimeError(f"expected an evaluation without errors; got {found.errors}")


if __name__ == "__main__":
    main()
