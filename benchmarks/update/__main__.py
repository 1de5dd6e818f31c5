"""What an update costs, beside TRL's trainers on the same data, weights and steps.

    python -m benchmarks.update [--quick] [--device cuda] [--shape qwen3-0.6b]

Trains a random policy of 2.5 million weights, or one shaped as Qwen3-0.6B, on 512 pairs (or judged
completions) of about 26 tokens. Tokens are the useful ones: prompt and completion of both sides of
a pair, no padding, the same count for all arms, however few of them an arm needs to compute.
cycle.py, memory.py and scaling.py measure updates of the demo policy, on the CPU in any case.
mfu.py counts what a GPU could have done meanwhile; without one its figure is null.
"""

import argparse
import json

from benchmarks.results import DETAILS, report
from benchmarks.update.compare import against_trl
from benchmarks.update.cycle import cycle
from benchmarks.update.data import SHAPES
from benchmarks.update.memory import memory
from benchmarks.update.mfu import measure_mfu
from benchmarks.update.scaling import scaling


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, kept nowhere")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    given = parser.parse_args()
    quick: bool = given.quick
    figures = {
        **against_trl(quick=quick, shape=given.shape, device=given.device),
        **cycle(quick=quick),
        **memory(quick=quick),
        **scaling(quick=quick),
        **(measure_mfu(given.shape) if given.device == "cuda" else {"mfu": None}),
    }
    if quick:
        print(json.dumps(figures))
        return
    (DETAILS / "update.json").write_text(json.dumps(figures, indent=2) + "\n")
    report("update", dict(figures))


if __name__ == "__main__":
    main()
