"""How often the gate lets good and bad candidates through, and what the sequential test saves.

    python -m benchmarks.gate_power [--quick]

Simulated candidates go through what judges real ones: the looks and stops of
``evaluator.sequential``, the criteria of ``gatekeeper.gate.judge`` and the error budget of
``gatekeeper.campaign``, with the criteria on regression suites and the campaign of the gate policy
that Tacit ships with, the same for every row. Policies answer right with a probability of 0.8, and
the correctness of two of them on an item correlates 0.4 (``gate_world.py``).

The last line is a JSON object. Shares are of simulated candidates, or of campaigns where the name
says ``any_of_50``; in those the anchor is six points below the champion, so that the drift budget
is no help. ``drift_after_40`` is the loss, in points, that 95 % of campaigns stay at or below.
``items_saved`` is the less of what is saved on candidates 10 points better and 10 points worse.
"""

import argparse
import json
import time
from collections import Counter

import numpy as np

from benchmarks.gate_world import World
from benchmarks.results import DETAILS
from benchmarks.results import report as keep
from benchmarks.simulated_gate import Gate
from gatekeeper.campaign import Campaign
from tacit.contracts import VerdictOutcome

BASE, POINT = 0.8, 0.01
PASS, FAIL = VerdictOutcome.PASS, VerdictOutcome.FAIL


def outcomes(
    num_items: int, change: float, *, number: int, seed: int
) -> tuple[Counter[str], float]:
    """Outcomes of ``number`` candidates and the share of items that was asked.

    Each is the first of a campaign; champion and anchor are two policies of the base rate.
    """
    gate, world = Gate(num_items), World(num_items, base=BASE, seed=seed)
    fresh = Campaign("default-1", {})
    found: Counter[str] = Counter()
    num_asked = 0
    for _ in range(number):
        world.redraw()
        champion, anchor = world.answers(BASE), world.answers(BASE)
        judged = gate.judge(world.answers(BASE + change), champion, anchor, fresh)
        found[judged.verdict.outcome] += 1
        num_asked += judged.num_asked
    return found, num_asked / number / num_items


def any_of_50(
    num_items: int, *, number: int, seed: int, cluster_size: int = 1, within_cluster: float = 0.0
) -> float:
    """Share of campaigns in which one of 50 candidates, each 3 points worse, passes."""
    gate = Gate(num_items, cluster_size=cluster_size)
    world = World(
        num_items,
        base=BASE,
        cluster_size=cluster_size,
        within_cluster=within_cluster,
        seed=seed,
    )
    num_fooled = 0
    for _ in range(number):
        world.redraw()
        champion, anchor = world.answers(BASE), world.answers(BASE - 6 * POINT)
        campaign = Campaign("default-1", {})
        for _ in range(gate.policy.campaign.candidates):
            verdict, _ = gate.judge(world.answers(BASE - 3 * POINT), champion, anchor, campaign)
            assert verdict.campaign is not None
            campaign = campaign.after(verdict.campaign)
            if verdict.outcome is PASS:
                num_fooled += 1
                break
    return num_fooled / number


def drift(num_items: int, *, number: int, seed: int) -> list[float]:
    """True loss against the anchor, in points, after 40 candidates of half a point less each."""
    gate, world = Gate(num_items), World(num_items, base=BASE, seed=seed)
    losses = []
    for _ in range(number):
        world.redraw()
        anchor = champion = world.answers(BASE)
        accuracy, campaign = BASE, Campaign("default-1", {})
        for _ in range(40):
            offered = accuracy - 0.5 * POINT
            candidate = world.answers(offered)
            verdict, _ = gate.judge(candidate, champion, anchor, campaign)
            assert verdict.campaign is not None
            campaign = campaign.after(verdict.campaign)
            if verdict.outcome is PASS:
                champion, accuracy = candidate, offered
        losses.append(round((BASE - accuracy) / POINT, 6))
    return losses


def main() -> None:
    """Simulate, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulations")
    scale = 1 if not parser.parse_args().quick else 10
    started = time.perf_counter()
    unchanged_8000, _ = outcomes(8_000, 0, number=1_000 // scale, seed=1)
    unchanged_2000, _ = outcomes(2_000, 0, number=1_000 // scale, seed=2)
    better, _ = outcomes(2_000, 3 * POINT, number=1_000 // scale, seed=3)
    worse, _ = outcomes(500, -5 * POINT, number=10_000 // scale, seed=4)
    _, asked_better = outcomes(2_000, 10 * POINT, number=500 // scale, seed=5)
    _, asked_worse = outcomes(2_000, -10 * POINT, number=500 // scale, seed=6)
    print(f"single candidates: {time.perf_counter() - started:.0f} s", flush=True)
    losses = drift(8_000, number=200 // scale, seed=7)
    print(f"drift: {time.perf_counter() - started:.0f} s", flush=True)
    alone = any_of_50(2_000, number=1_000 // scale, seed=8)
    print(f"fifty retries: {time.perf_counter() - started:.0f} s", flush=True)
    clustered = any_of_50(2_000, number=1_000 // scale, seed=9, cluster_size=5, within_cluster=0.3)
    figures: dict[str, float | bool | str] = {
        "unchanged_pass_n8000": _share(unchanged_8000, PASS),
        "unchanged_pass_n2000": _share(unchanged_2000, PASS),
        "unchanged_fail_n2000": _share(unchanged_2000, FAIL),
        "plus3_pass_n2000": _share(better, PASS),
        "minus5_pass_n500": _share(worse, PASS),
        "minus3_pass_any_of_50": alone,
        "minus3_pass_any_of_50_clustered": clustered,
        "drift_after_40": float(np.quantile(losses, 0.95, method="inverted_cdf")),
        "drift_after_40_mean": float(np.mean(losses)),
        "drift_after_40_share_over_2": float(np.mean(np.array(losses) > 2)),
        "items_saved": 1 - max(asked_better, asked_worse),
        "items_saved_plus10": 1 - asked_better,
        "items_saved_minus10": 1 - asked_worse,
        "wall_s": time.perf_counter() - started,
    }
    if scale > 1:
        print(json.dumps(figures))
        return
    (DETAILS / "gate_power.json").write_text(json.dumps(figures, indent=2) + "\n")
    keep("gate_power", figures)


def _share(found: Counter[str], outcome: VerdictOutcome) -> float:
    return found[outcome] / found.total()


if __name__ == "__main__":
    main()
