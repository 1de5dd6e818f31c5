"""Tacit's update beside TRL's trainers: trained tokens a second, and the losses of the steps.

Rounds of the arms are interleaved. Each round's ratio is of CPU seconds of processes with one
thread, which other load on the machine stretches little, on GPUs of wall seconds; the figure is the
median over rounds.
Tacit's seconds are those of three epochs, its default, packing and the one pass of the reference
included. TRL's are of one epoch's steps, which cost the same in every epoch, and nothing else.
"""

import statistics
from collections.abc import Callable, Collection, Mapping
from typing import Any

from benchmarks.update.arms import Arm, ArmSpec, Round
from benchmarks.update.data import Shape

Rounds = Mapping[str, list[Round]]


def interleaved(
    specs: Mapping[str, ArmSpec], *, num_rounds: int, once: Collection[str] = ()
) -> Rounds:
    """``num_rounds`` warm rounds of every arm, in turn; a single one of those named in ``once``."""
    arms = {name: Arm(spec) for name, spec in specs.items()}
    try:
        for arm in arms.values():
            arm.warm_up()
        rounds: dict[str, list[Round]] = {name: [] for name in arms}
        for number in range(num_rounds):
            for name, arm in arms.items():
                if number == 0 or name not in once:
                    rounds[name].append(arm.round())
    finally:
        for arm in arms.values():
            arm.stop()
    return rounds


def ratio(rounds: Rounds, name: str, other: str) -> float:
    """Tokens a CPU second of ``name`` over those of ``other``: median of the rounds' ratios."""
    return _median_ratio(rounds, name, other, lambda r: r.num_tokens / r.cpu_s)


def wall_ratio(rounds: Rounds, name: str, other: str) -> float:
    """The same by the clock on the wall."""
    return _median_ratio(rounds, name, other, lambda r: r.num_tokens / r.wall_s)


def _median_ratio(rounds: Rounds, name: str, other: str, speed: Callable[[Round], float]) -> float:
    pairs = zip(rounds[name], rounds[other], strict=False)
    return statistics.median(speed(a) / speed(b) for a, b in pairs)


def loss_error(rounds: Rounds, name: str, other: str, *, num_steps: int) -> float:
    """Largest relative difference of the loss over the first ``num_steps`` steps."""
    pairs = zip(rounds[name][0].losses, rounds[other][0].losses, strict=True)
    return max(abs(a - b) / abs(b) for a, b in list(pairs)[:num_steps])


def against_trl(*, quick: bool, shape: Shape, device: str) -> dict[str, float]:
    """All figures against TRL."""
    size: dict[str, Any] = {"num_examples": 128 if quick else 512, "num_epochs": 1}
    size |= {"shape": shape, "device": device}
    num_rounds = 1 if quick else 2
    num_steps = size["num_examples"] // 32
    update = {**size, "num_epochs": 3}
    fp32 = {"bf16": False, **size}
    arms = {
        "tacit": ArmSpec("tacit", **update),
        "tacit-once": ArmSpec("tacit", **size),
        "tacit-fp32": ArmSpec("tacit", **fp32),
        "shipped": ArmSpec("trl", **size),
    }
    tuned = {
        "bf16": ArmSpec("trl", checkpointing=False, keep_pages=True, **size),
        "fp32": ArmSpec("trl", checkpointing=False, keep_pages=True, **fp32),
    }
    if not quick:
        tuned["bf16-checkpointing"] = ArmSpec("trl", keep_pages=True, **size)
        tuned["fp32-checkpointing"] = ArmSpec("trl", keep_pages=True, **fp32)
    single = {*tuned, "tacit-once", "tacit-fp32"}
    full = interleaved({**arms, **tuned}, num_rounds=num_rounds, once=single)
    lora = interleaved(
        {
            "tacit": ArmSpec("tacit", lora=True, **update),
            "shipped": ArmSpec("trl", lora=True, **size),
        },
        num_rounds=num_rounds,
    )
    kto = interleaved(
        {
            "tacit": ArmSpec("tacit", term="kto", **update),
            "shipped": ArmSpec("trl", term="kto", **size),
        },
        num_rounds=num_rounds,
    )
    return {
        "tokens_vs_trl": ratio(full, "tacit", "shipped"),
        "tokens_vs_trl_lora": ratio(lora, "tacit", "shipped"),
        "tokens_vs_trl_tuned": min(ratio(full, "tacit", name) for name in tuned),
        "kto_tokens_vs_trl": ratio(kto, "tacit", "shipped"),
        "loss_error_vs_trl": loss_error(full, "tacit-fp32", "fp32", num_steps=num_steps),
        "loss_error_of_precision": loss_error(
            full, "tacit-once", "tacit-fp32", num_steps=num_steps
        ),
        "tokens_vs_trl_wall": wall_ratio(full, "tacit", "shipped"),
        "tokens_vs_trl_lora_wall": wall_ratio(lora, "tacit", "shipped"),
        "kto_tokens_vs_trl_wall": wall_ratio(kto, "tacit", "shipped"),
        "tokens_per_cpu_s": statistics.median(r.num_tokens / r.cpu_s for r in full["tacit"]),
    }
