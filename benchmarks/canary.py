"""How often the test of a canary errs, and how much feedback it needs: simulated on the real one.

    python -m benchmarks.canary [--quick]

Feedback of success 0.8 comes in random order and the test is looked at after every event. Where
subjects are clustered each sends five events on average, with a correlation of 0.2 within a
subject. ``benchmarks/canary_statistics.py`` has what it is set against, on the same feedback.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count, islice
from typing import NamedTuple

from benchmarks.canary_statistics import ALPHA, Events, Firsts, Mixture, Sent, Statistic, Votes
from benchmarks.results import DETAILS, report
from deploy.sequential import ArmTest
from tacit.contracts import Arm

SUCCESS = 0.8
MARGIN = 0.05
NEVER = 10**9


class World(NamedTuple):
    """What products would say."""

    loss: float = 0.0
    """Success of the champion less that of the canary."""
    share: float = 0.5
    """Of subjects, that the canary answers."""
    per_subject: float = 1.0
    alike: float = 0.0
    """Correlation within a subject."""

    def feedback(self, seed: int) -> Iterator[Sent]:
        """Feedback without end."""
        drawn = random.Random(seed)
        subjects: list[tuple[Arm, str, float]] = []
        for number in count():
            if not subjects or drawn.random() < 1 / self.per_subject:
                arm: Arm = "canary" if drawn.random() < self.share else "champion"
                mean = SUCCESS - self.loss if arm == "canary" else SUCCESS
                chosen = (arm, f"s-{number}", self._own(drawn, mean))
                subjects.append(chosen)
            else:
                chosen = drawn.choice(subjects)
            yield chosen[0], chosen[1], float(drawn.random() < chosen[2])

    def _own(self, drawn: random.Random, mean: float) -> float:
        if not self.alike:
            return mean
        scale = 1 / self.alike - 1
        return drawn.betavariate(mean * scale, (1 - mean) * scale)


def until_rollback(make: Callable[[], Statistic], world: World, horizon: int, seed: int) -> int:
    """Events until the canary is rolled back; ``NEVER`` within the horizon."""
    test = make()
    for number, sent in enumerate(islice(world.feedback(seed), horizon), start=1):
        if test.rolls_back(sent):
            return number
    return NEVER


def until_promoted(world: World, horizon: int, seed: int) -> int:
    """Events until the canary is promoted with a loss below ``MARGIN``."""
    test = ArmTest(alpha=ALPHA, margin=MARGIN)
    for number, sent in enumerate(islice(world.feedback(seed), horizon), start=1):
        if test.update(*sent) == "promote":
            return number
    return NEVER


REQUIRED = (
    "canary_false_rollback",
    "canary_false_rollback_clustered",
    "canary_feedback_to_rollback",
)
"""What ``benchmarks.serve`` reports too."""
CLUSTERED = World(per_subject=5, alike=0.2)
HORIZON = 1_000
Run = Callable[[int], int]


def runs() -> dict[str, tuple[Run, int]]:
    """What is simulated by name, and how often."""
    null, clustered = World(), CLUSTERED
    five, ten, twenty = (World(loss=loss) for loss in (0.05, 0.1, 0.2))

    def back(make: Callable[[], Statistic], world: World, horizon: int = HORIZON) -> Run:
        return partial(until_rollback, make, world, horizon)

    return {
        "canary_false_rollback": (back(Votes, null), 2_000),
        "canary_false_rollback_clustered": (back(Votes, clustered), 2_000),
        "canary_false_rollback_share10": (back(Votes, null._replace(share=0.1)), 1_000),
        "canary_feedback_to_rollback": (back(Votes, five, 8_000), 300),
        "canary_feedback_to_rollback_share10": (
            back(Votes, five._replace(share=0.1), 20_000),
            100,
        ),
        "canary_feedback_to_rollback_clustered": (
            back(Votes, clustered._replace(loss=0.05), 20_000),
            100,
        ),
        "canary_feedback_to_rollback_10": (back(Votes, ten, 4_000), 300),
        "canary_feedback_to_rollback_10_share10": (
            back(Votes, ten._replace(share=0.1), 10_000),
            100,
        ),
        "canary_feedback_to_rollback_20": (back(Votes, twenty, 4_000), 300),
        "canary_feedback_to_rollback_20_share10": (
            back(Votes, twenty._replace(share=0.1), 4_000),
            100,
        ),
        "canary_feedback_to_promote": (partial(until_promoted, null, 12_000), 100),
        "canary_feedback_to_promote_plus5": (
            partial(until_promoted, World(loss=-0.05), 12_000),
            100,
        ),
        "events_false_rollback_clustered": (back(Events, clustered), 500),
        "firsts_false_rollback_clustered": (back(Firsts, clustered), 500),
        "firsts_feedback_to_rollback_clustered": (
            back(Firsts, clustered._replace(loss=0.05), 20_000),
            40,
        ),
        "mixture_false_rollback": (back(Mixture, null), 1_000),
        "mixture_false_rollback_clustered": (back(Mixture, clustered), 500),
        "mixture_feedback_to_rollback": (back(Mixture, five, 8_000), 200),
        "mixture_feedback_to_rollback_clustered": (
            back(Mixture, clustered._replace(loss=0.05), 20_000),
            60,
        ),
    }


Figures = dict[str, float | None]


def measure(*, quick: bool, names: Collection[str] | None = None) -> Figures:
    """Simulate ``names``, or everything; ``quick`` does a tenth. No median is None."""
    figures: Figures = {}
    with ProcessPoolExecutor(max_workers=2) as pool:
        started = {
            name: pool.map(run, range(number // (10 if quick else 1)), chunksize=10)
            for name, (run, number) in runs().items()
            if names is None or name in names
        }
        for name, found in started.items():
            figures |= _figures(name, list(found))
    return figures


def _figures(name: str, found: Sequence[int]) -> Figures:
    stopped = statistics.fmean(number < NEVER for number in found)
    if "false_rollback" in name:
        return {name: stopped}
    median = statistics.median(found)
    power = name.replace("feedback_to", "power_to")
    return {name: median if median < NEVER else None, power: stopped}


def main() -> None:
    """Simulate, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulations")
    quick = parser.parse_args().quick
    started = time.perf_counter()
    figures = measure(quick=quick) | {"wall_s": time.perf_counter() - started}
    if quick:
        print(json.dumps(figures))
        return
    (DETAILS / "canary.json").write_text(json.dumps(figures, indent=2) + "\n")
    report("canary", figures)


if __name__ == "__main__":
    main()
