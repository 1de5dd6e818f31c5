"""A world of a few utterances for benchmarks.learning, and how much of it is asked."""

from benchmarks.learning.scale import Scale, Sizes
from benchmarks.learning.world import REFUSAL
from tacit.contracts import sha256_digest
from tacit.demo.base import BaseRecipe
from tacit.demo.world import Utterance, World


def utterances(name: str, intents: range, each: int) -> tuple[Utterance, ...]:
    """Texts that no two of are near-duplicates."""
    return tuple(
        Utterance(sha256_digest(f"{name} {n} {i}".encode())[-24:], f"intent {i}")
        for n in range(each)
        for i in intents
    )


OLD, NEW = range(3), range(10, 20)
TOY = World(
    name="helpdesk",
    old_train=utterances("taught", OLD, 4),
    old_validation=utterances("kept", OLD, 2),
    old_test=utterances("asked", OLD, 3),
    new_stream=utterances("streamed", NEW, 30),
    new_test=utterances("new", NEW, 2),
    safety=(Utterance("who is there", REFUSAL),),
)
TINY = Scale(
    Sizes(
        num_rounds=1,
        per_round=6,
        probed={"new": 3, "old": 3, "refusals": 1},
        num_suite_items=3,
        num_kl_items=2,
    ),
    BaseRecipe(),
)
