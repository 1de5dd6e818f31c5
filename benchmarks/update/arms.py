"""The arms that are compared: the same examples, taken through Tacit's update or through TRL.

    python -m benchmarks.update.arms '{"trainer": "trl", ...}'

Each arm is a process with one thread that waits for a line on standard input, trains an epoch or
more, and answers with a line of JSON. So only one works at a time, and none shares an allocator.
"""

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.update.data import Shape, Term

WARM_UP = 64
"""Examples of the round that is thrown away."""
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""glibc keeps what is freed, as Tacit's workers have it."""


@dataclass(frozen=True)
class ArmSpec:
    """One arm."""

    trainer: Literal["tacit", "trl"]
    term: Term = "dpo"
    lora: bool = False
    bf16: bool = True
    """TRL: its default. Tacit: ``trainer.precision`` auto, else fp32."""
    checkpointing: bool = True
    """TRL alone: its default."""
    keep_pages: bool = False
    """TRL alone; Tacit's workers always do."""
    num_examples: int = 512
    num_epochs: int = 1
    shape: Shape = "tiny"
    device: str = "cpu"


@dataclass(frozen=True)
class Round:
    """What one round took."""

    num_tokens: int
    """Useful ones, see ``data.num_useful_tokens``, over all epochs."""
    cpu_s: float
    wall_s: float
    losses: list[float]
    """Of each step."""


class Arm:
    """A warm process that trains a round when it is asked to."""

    def __init__(self, spec: ArmSpec) -> None:
        self.spec = spec
        single = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.update.arms", json.dumps(asdict(spec))],
            env={**os.environ, **single, **(KEEP_PAGES if spec.keep_pages else {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def warm_up(self) -> None:
        """Train on the first few examples."""
        self._ask("warm up")

    def round(self) -> Round:
        """Train once more from the start. Raises RuntimeError when the arm has died."""
        return self._ask("round")

    def _ask(self, what: str) -> Round:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return Round(**json.loads(line))
        raise RuntimeError(f"expected a round of {self.spec}; the process ended")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Stopwatch:
    """CPU seconds of this process, which other load does not stretch, and wall seconds.

    On a GPU both are wall seconds, for the CPU does not do the work.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._started = self._now()

    def read(self) -> tuple[float, float]:
        """Seconds so far."""
        (cpu, wall), (first_cpu, first_wall) = self._now(), self._started
        return cpu - first_cpu, wall - first_wall

    def _now(self) -> tuple[float, float]:
        if self._device == "cpu":
            return time.process_time(), time.perf_counter()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter(), time.perf_counter()


def main() -> None:
    """Serve rounds until standard input ends."""
    import torch

    spec = ArmSpec(**json.loads(sys.argv[1]))
    torch.set_num_threads(1)
    trainer: Any
    if spec.trainer == "tacit":
        from benchmarks.update.tacit_arm import TacitArm

        trainer = TacitArm(spec)
    else:
        from benchmarks.update.trl_arm import TrlArm

        trainer = TrlArm(spec)
    for line in sys.stdin:
        num_examples = min(WARM_UP, spec.num_examples) if "warm" in line else spec.num_examples
        print(json.dumps(asdict(trainer.round(num_examples))), flush=True)
        if spec.device != "cpu":
            # The other arms are on the same GPU, and need the room.
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
