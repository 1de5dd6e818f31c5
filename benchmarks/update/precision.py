"""What bfloat16 costs in quality: new tickets answered after updates in either precision.

    python -m benchmarks.update.precision

Updates of the demo policy on corrections with the adapter of the demo, three seeds. Accuracy is the
share of tickets, none of them trained on, that are answered right; ``noise`` its spread over seeds
in float32.
"""

import json
import statistics

from benchmarks.update.demo import demo_store, sealed
from benchmarks.update.feedback import screened_corrections
from tacit.checkpoints import CheckpointStore
from tacit.config import LoraSettings, TrainerSettings
from tacit.contracts import Digest
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import prompt
from tacit.policies import load_policy
from trainer.session import TrainingSession, UpdateJob, configure_process

NUM_EVENTS = 256
NUM_TICKETS = 200
SEEDS = (0, 1, 2)


def main() -> None:
    """Measure and print."""
    configure_process(num_threads=1, device="cpu")
    with demo_store() as (store, parent):
        given = sealed(parent, screened_corrections(NUM_EVENTS))
        session = TrainingSession(store)
        accuracy: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for seed in SEEDS:
            for precision, found in accuracy.items():
                settings = TrainerSettings(
                    seed=seed, precision=precision, lora=LoraSettings(train_embeddings=True)
                )
                job = UpdateJob(parent, tuple(given.events), tuple(given.replay), settings)
                *_, digest = session.run(job)
                assert isinstance(digest, str)
                found.append(_accuracy(store, digest))
        before = _accuracy(store, parent)
    exact, rounded = accuracy["fp32"], accuracy["bf16"]
    figures = {
        "accuracy_before": before,
        "accuracy_fp32": statistics.mean(exact),
        "accuracy_bf16": statistics.mean(rounded),
        "largest_difference": max(abs(a - b) for a, b in zip(exact, rounded, strict=True)),
        "noise": max(exact) - min(exact),
    }
    print(json.dumps(figures))


def _accuracy(store: CheckpointStore, digest: Digest) -> float:
    tickets = helpdesk_world().new_test[:NUM_TICKETS]
    said = load_policy(store, digest).generate([prompt(t) for t in tickets], max_new_tokens=16)
    right = [answer.text == t.answer for answer, t in zip(said, tickets, strict=True)]
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
