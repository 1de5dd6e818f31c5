"""What an update costs, beside TRL's trainers on the same data, weights and steps.

    python -m benchmarks.update [--quick]

Trains a random policy of 2.5 million weights on 512 pairs (or judged completions) of about 26
tokens. Tokens are the useful ones: prompt and completion of both sides of a pair, no padding, the
same count for all arms, however few of them an arm needs to compute. cycle.py and
memory.py measure whole updates of the demo policy.
"""

import argparse
import json

from benchmarks.results import DETAILS, report
from benchmarks.update.compare import against_trl
from benchmarks.update.cycle import cycle
from benchmarks.update.memory import memory


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, kept nowhere")
    quick = parser.parse_args().quick
    figures = {
        **against_trl(quick=quick),
        **cycle(quick=quick),
        **memory(quick=quick),
    }
    if quick:
        print(json.dumps(figures))
        return
    (DETAILS / "update.json").write_text(json.dumps(figures, indent=2) + "\n")
    report("update", dict(figures))


if __name__ == "__main__":
    main()
