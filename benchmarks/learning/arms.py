"""What is compared: ways to learn from the same feedback, as settings of the trainer.

Every arm gets events that went through the collector's screening, with their weights. A naive arm
is Tacit's objective without anything that protects what is known; the others add one protection
each, or are TRL's trainers.
"""

from dataclasses import dataclass

AS_SAID = "trainer.replay.inferred=false"
UNPROTECTED = (
    "trainer.replay.share=0",
    "trainer.replay.on_policy_share=0",
    AS_SAID,
    "trainer.kl_weight=0",
    "trainer.doubted_weight=1",
    "trainer.interpolation_alphas=1",
)
WHOLE = "trainer.full_fine_tuning=true"
FULL_RATE = "trainer.learning_rate=5e-4"
"""An adapter's rate is several times that of all weights, which would diverge at it."""
MATCHES = "trainer.reward.function=trainer.methods.reward:matches_known_answer"


@dataclass(frozen=True)
class Arm:
    """One way to learn."""

    title: str
    overrides: tuple[str, ...] = ()
    learns: bool = True
    """Else the base is measured as it is."""
    suits: bool = False
    """Whether it gets what the service sets for the size of its policy, under ``overrides``."""
    joint: bool = False
    """All right answers at once, old and new, as they are at the end: no feedback, no rounds."""


DEFAULT = "tacit"
ADAPTER = "adapter"
CEILING = "joint"
ARMS: dict[str, Arm] = {
    "frozen": Arm("frozen", learns=False),
    DEFAULT: Arm("Tacit, its defaults", suits=True),
    ADAPTER: Arm("Tacit, defaults of large policies, nothing inferred", (AS_SAID,)),
    "rehearsed": Arm(
        "adapter with embeddings, much rehearsal",
        (
            AS_SAID,
            "trainer.replay.share=0.7",
            "trainer.kl_weight=4",
            "trainer.lora.train_embeddings=true",
        ),
    ),
    CEILING: Arm(
        "joint training",
        (
            *UNPROTECTED,
            WHOLE,
            "trainer.learning_rate=1e-3",
            "trainer.num_epochs=4",
            "trainer.batch_size=64",
        ),
        joint=True,
    ),
    "full": Arm("full fine-tuning", (*UNPROTECTED, WHOLE, FULL_RATE)),
    "lora": Arm("LoRA", UNPROTECTED),
    "replay": Arm("vanilla replay", (*UNPROTECTED, "trainer.replay.share=0.5")),
    "ewc": Arm("EWC", (*UNPROTECTED, "trainer.replay.share=0.1", "trainer.ewc.weight=1000")),
    "distillation": Arm("frozen teacher", (*UNPROTECTED, "trainer.distillation.weight=1")),
    "interpolation": Arm(
        "interpolation", (*UNPROTECTED[:-1], "trainer.interpolation_alphas=0.25,0.5,0.75,1")
    ),
    "sparse": Arm(
        "sparse updates", (*UNPROTECTED, WHOLE, FULL_RATE, "trainer.sparse.fraction=0.1")
    ),
    "sdft": Arm(
        "SDFT", (*UNPROTECTED, "trainer.method=sdft", "trainer.sampling.max_new_tokens=12")
    ),
    "sdpo": Arm(
        "SDPO",
        (
            *UNPROTECTED,
            "trainer.method=sdpo",
            MATCHES,
            "trainer.sampling.max_new_tokens=12",
            "trainer.sampling.num_generations=4",
        ),
    ),
    "dpo": Arm("DPO alone", (*UNPROTECTED, "trainer.method=dpo", "trainer.nll_weight=0")),
    "kto": Arm("KTO alone", (*UNPROTECTED, "trainer.method=kto")),
}
